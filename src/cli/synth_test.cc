// Synthetic checkpoints load, are the same for the same seed, and inspect foretells their cost.
#include "cli/synth.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/inspect.h"
#include "model/forward.h"
#include "model/model.h"
#include "weights/test_files.h"

namespace sluice {
namespace {

struct Output {
  std::ostringstream out, err;
  Console console{out, err};
};

nlohmann::json inspect(const std::string& model, const std::string& compute, Status* status) {
  Output o;
  *status =
      run_inspect({.model = model, .compute = compute, .tokens = 100, .json = true}, o.console);
  return nlohmann::json::parse(o.out.str());
}

Status synth(const std::string& family, const std::string& out, uint64_t seed, int threads) {
  Output o;
  return run_synth(
      {.family = family, .layers = 3, .out = out, .seed = seed, .threads = threads, .tiny = true},
      o.console);
}

// Experts stored as MXFP4 have a mode; those of floats do not.
TEST(Inspect, SaysByWhichArithADirectoryWouldBeMultiplied) {
  const ScratchDir dir;
  ASSERT_TRUE(synth("gpt-oss-20b", dir / "model", 1, 2).ok());
  Output o;
  ASSERT_TRUE(run_inspect({.model = dir / "model", .mode = "a8g32", .json = true}, o.console).ok());
  const auto roles = nlohmann::json::parse(o.out.str())["loaded_roles"];
  EXPECT_EQ(roles["experts"]["ariths"], "a8g32");
  EXPECT_NEAR(roles["experts"]["bits_per_weight"].get<double>(), 4.25, 0.6);  // tiny: padded panels
  EXPECT_EQ(roles["attention"]["ariths"], "bf16_tile");
  Output text;
  ASSERT_TRUE(run_inspect({.model = dir / "model"}, text.console).ok());
  EXPECT_NE(text.out.str().find("as it would be loaded for compute bf16:"), std::string::npos);
}

class Synth : public testing::TestWithParam<const char*> {};

TEST_P(Synth, LoadsAndCostsWhatInspectSays) {
  const ScratchDir dir;
  const std::string model = dir / "model";
  ASSERT_TRUE(synth(GetParam(), model, 1, 2).ok());
  for (const char* compute : {"bf16", "f32"}) {
    Status status;
    const nlohmann::json report = inspect(model, compute, &status);
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_TRUE(report["loads"].get<bool>());
    EXPECT_TRUE(report["problems"].empty());
    EXPECT_EQ(report["spec"]["L"], 3);
    auto rt = Runtime::create({});
    ASSERT_TRUE(rt.ok());
    auto loaded =
        load_model(**rt, model, {.compute = compute[0] == 'f' ? Compute::kF32 : Compute::kBf16});
    ASSERT_TRUE(loaded.ok()) << loaded.status().message();
    EXPECT_EQ(report["memory"]["weights_bytes"], (*loaded)->weight_bytes);
    auto state = ForwardState::create(**rt, **loaded, 100, 16);
    ASSERT_TRUE(state.ok());
    EXPECT_EQ(report["memory"]["state_bytes"], (*state)->bytes());
    size_t roles = 0;
    for (const auto& role : report["roles"]) roles += role["bytes"].get<size_t>();
    EXPECT_EQ(roles, (*loaded)->weight_bytes);
    const std::string floats = compute[0] == 'f' ? "f32_fma" : "bf16_tile";
    EXPECT_EQ(report["loaded_roles"]["router"]["ariths"], "f32_fma");
    for (const char* role : {"experts", "head"}) {
      if (!report["loaded_roles"].contains(role)) continue;  // tied to the embedding
      const nlohmann::json& found = report["loaded_roles"][role];
      EXPECT_EQ(found["ariths"], floats) << role;
      EXPECT_EQ(found["bytes"], report["roles"][role]["bytes"]) << role;
      EXPECT_FALSE(found.contains("snr_db"));
    }
  }
}

TEST_P(Synth, TheSameSeedGivesTheSameBytes) {
  const ScratchDir dir;
  for (const auto& [name, seed, threads] :
       {std::tuple{"a", 7, 1}, std::tuple{"b", 7, 2}, std::tuple{"c", 8, 1}})
    ASSERT_TRUE(synth(GetParam(), dir / name, static_cast<uint64_t>(seed), threads).ok());
  const std::string a = read_file(dir / "a/model.safetensors");
  EXPECT_GT(a.size(), 100'000u);
  EXPECT_EQ(a, read_file(dir / "b/model.safetensors"));
  EXPECT_NE(a, read_file(dir / "c/model.safetensors"));
}

INSTANTIATE_TEST_SUITE_P(Families, Synth,
                         testing::Values("qwen3-30b-a3b", "gemma4-26b-a4b", "gpt-oss-20b"),
                         [](const auto& family) {
                           std::string name = family.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(SynthErrors, AreSentences) {
  const ScratchDir dir;
  EXPECT_NE(synth("llama", dir / "x", 1, 1).message().find("expected one of gemma4-26b-a4b"),
            std::string::npos);
  EXPECT_NE(synth("gpt-oss-20b", dir / "no/where", 1, 1).message().find("No such file"),
            std::string::npos);
  write_file(dir / "file", "x");
  EXPECT_FALSE(synth("gpt-oss-20b", dir / "file", 1, 1).ok());
}

TEST(Inspect, KeepsGoingOverProblems) {
  const ScratchDir dir;
  const std::string model = dir / "m";
  ASSERT_TRUE(synth("qwen3-30b-a3b", model, 1, 1).ok());
  Status status;
  // A config that asks for more than the files have.
  std::string config = read_file(model + "/config.json");
  const std::string was = "\"num_experts\": 8";
  ASSERT_NE(config.find(was), std::string::npos);
  config.replace(config.find(was), was.size(), "\"num_experts\": 9");
  write_file(model + "/config.json", config);
  nlohmann::json report = inspect(model, "bf16", &status);
  EXPECT_FALSE(status.ok());
  EXPECT_FALSE(report["loads"].get<bool>());
  EXPECT_EQ(report["problems"].size(), 3u * 4);  // router, gate, up and down of every layer
  EXPECT_EQ(report["problems"][0], status.message());
  EXPECT_TRUE(report.contains("parameters"));
  // No config at all, no weights at all, nothing at all.
  std::filesystem::remove(model + "/config.json");
  report = inspect(model, "bf16", &status);
  EXPECT_NE(status.message().find("config.json"), std::string::npos);
  EXPECT_GT(report["files"]["tensors"].get<int>(), 70);
  write_file(model + "/config.json", config);
  std::filesystem::remove(model + "/model.safetensors");
  report = inspect(model, "bf16", &status);
  EXPECT_NE(status.message().find("model.safetensors"), std::string::npos);
  EXPECT_EQ(report["spec"]["model_type"], "qwen3_moe");
  report = inspect(dir / "absent", "bf16", &status);
  EXPECT_EQ(report["problems"].size(), 2u);
  Output o;
  EXPECT_FALSE(run_inspect({.model = model}, o.console).ok());
  EXPECT_NE(o.out.str().find("It will not load (1 reason)"), std::string::npos) << o.out.str();
  EXPECT_FALSE(run_inspect({.model = model, .compute = "f64"}, o.console).ok());
}

TEST(Inspect, GoldensForPeople) {
  for (const char* name : {"qwen3moe-b", "gemma4-a", "gptoss-b"}) {
    Output o;
    const std::string dir = std::string(SLUICE_SOURCE_DIR) + "/tests/goldens/models/" + name;
    ASSERT_TRUE(run_inspect({.model = dir}, o.console).ok());
    const std::string text = o.out.str();
    for (const char* word : {"layers", "experts", "KV cache of layers", "It will load.", "norms"})
      EXPECT_NE(text.find(word), std::string::npos) << word << "\n" << text;
  }
}

}  // namespace
}  // namespace sluice
