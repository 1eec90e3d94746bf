// Packed stores through the engine and the command line: a store stands wherever a model does.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "model/pack_store.h"
#include "model_runs.h"
#include "weights/test_files.h"

namespace sluice::test {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<Runtime> runtime(int threads = 2) {
  return std::move(Runtime::create({.threads = threads})).value();
}

RunReport run_model(const std::string& path, Compute compute, std::optional<Isa> isa = {},
                    Mode mode = Mode::kDefault, bool bf16_dot = false) {
  const auto rt = runtime();
  const auto model =
      load_model(*rt, path, {.compute = compute, .mode = mode, .bf16_dot = bf16_dot});
  EXPECT_TRUE(model.ok()) << model.status().message();
  if (!model.ok()) return {};
  return run_lists(*rt, **model,
                   {.lists = {{1, 5, 9, 2, 40, 3, 17, 8}, {4, 4, 11}}, .greedy = 4, .isa = isa});
}

class StoreRuns : public ::testing::TestWithParam<std::string> {};

TEST_P(StoreRuns, Bf16StoreGivesTheDirectorysBits) {
  const ScratchDir dir;
  const std::string model = golden_dir(GetParam());
  const auto report = pack_store(*runtime(), model, dir / "store", {});
  ASSERT_TRUE(report.ok()) << report.status().message();
  for (const Compute compute : {Compute::kBf16, Compute::kF32}) {
    if (!report->header.fits(compute)) continue;
    const RunReport want = run_model(model, compute);
    ASSERT_FALSE(want.tensors.empty());
    EXPECT_TRUE(run_model(dir / "store", compute).tensors == want.tensors);
  }
}

// The formats of integers have one arith each: every ISA computes the same tokens and logits from
// one store.
TEST_P(StoreRuns, IntegerStoresGiveTheSameBitsOnEveryIsa) {
  const ScratchDir dir;
  const std::string model = golden_dir(GetParam());
  for (const WeightFormat format :
       {WeightFormat::kInt4, WeightFormat::kInt8, WeightFormat::kQ8_0, WeightFormat::kQ4_0}) {
    const std::string store = dir / std::string(weight_format_name(format));
    ASSERT_TRUE(pack_store(*runtime(), model, store, {.weights = format}).ok());
    const RunReport want = run_model(store, Compute::kBf16, Isa::kReference);
    ASSERT_FALSE(want.tensors.empty());
    for (const Isa isa : isa_paths())
      EXPECT_TRUE(run_model(store, Compute::kBf16, isa).tensors == want.tensors) << isa_name(isa);
    const RunReport a16 = run_model(store, Compute::kBf16, Isa::kReference, Mode::kA16);
    EXPECT_FALSE(a16.tensors == want.tensors) << "the mode changed nothing";
    for (const Isa isa : isa_paths())
      EXPECT_TRUE(run_model(store, Compute::kBf16, isa, Mode::kA16).tensors == a16.tensors)
          << "a16 on " << isa_name(isa);
  }
}

// The two orders of bf16 products: each is the same on every ISA, whatever the machine is quick at.
TEST_P(StoreRuns, Bf16DotGivesTheSameBitsOnEveryIsa) {
  const std::string model = golden_dir(GetParam());
  const auto run = [&](Isa isa, bool dot) {
    return run_model(model, Compute::kBf16, isa, Mode::kDefault, dot);
  };
  const RunReport want = run(Isa::kReference, true);
  ASSERT_FALSE(want.tensors.empty());
  EXPECT_FALSE(run(Isa::kReference, false).tensors == want.tensors) << "the order changed nothing";
  for (const Isa isa : isa_paths())
    EXPECT_TRUE(run(isa, true).tensors == want.tensors) << isa_name(isa);
}

TEST_P(StoreRuns, Bf16DotIsRefusedWhereNoRowIsRounded) {
  const std::string model = golden_dir(GetParam());
  const auto loaded = load_model(*runtime(), model, {.compute = Compute::kF32, .bf16_dot = true});
  ASSERT_FALSE(loaded.ok());
  EXPECT_NE(loaded.status().message().find("arith bf16_dot is for weights in bf16, mxfp4"),
            std::string::npos)
      << loaded.status().message();
}

TEST_P(StoreRuns, RowsInFp8GiveTheSameBitsOnEveryIsa) {
  const ScratchDir dir;
  const std::string model = golden_dir(GetParam());
  ASSERT_TRUE(pack_store(*runtime(), model, dir / "fp8", {.weights = WeightFormat::kFP8}).ok());
  const RunReport want = run_model(dir / "fp8", Compute::kBf16, Isa::kReference, Mode::kFp8);
  ASSERT_FALSE(want.tensors.empty());
  for (const Isa isa : isa_paths())
    EXPECT_TRUE(run_model(dir / "fp8", Compute::kBf16, isa, Mode::kFp8).tensors == want.tensors)
        << isa_name(isa);
  EXPECT_FALSE(run_model(dir / "fp8", Compute::kBf16).tensors == want.tensors)
      << "the mode changed nothing";
}

INSTANTIATE_TEST_SUITE_P(Cases, StoreRuns, ::testing::ValuesIn(golden_cases()), [](const auto& p) {
  std::string name = p.param;
  std::erase(name, '-');
  return name;
});

TEST(Store, TruncatedInUseFailsTheStepCleanly) {
  const ScratchDir dir;
  ASSERT_TRUE(pack_store(*runtime(), golden_dir("qwen3moe-a"), dir / "store", {}).ok());
  const auto rt = runtime();
  const auto model = load_model(*rt, dir / "store", {});
  ASSERT_TRUE(model.ok()) << model.status().message();
  const auto engine = Engine::create(*rt, **model, {.kv_tokens = 256});
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  ASSERT_EQ(::truncate((dir / "store/weights.sluice").c_str(), 8192), 0);
  ASSERT_TRUE((*engine)->submit({.prompt = {1, 2, 3}, .max_new_tokens = 2}).ok());
  const auto step = (*engine)->step();
  ASSERT_FALSE(step.ok());
  EXPECT_EQ(step.status().code(), StatusCode::kDataLoss);
  EXPECT_NE(step.status().message().find("truncated"), std::string::npos)
      << step.status().message();
}

// On a device that is not the host, the store's matrices are copied there and the file is let go.
TEST(Store, MovesToADevice) {
  const ScratchDir dir;
  const std::string model = golden_dir("qwen3moe-a");
  ASSERT_TRUE(pack_store(*runtime(), model, dir / "store", {}).ok());
  auto device = Runtime::create({.threads = 2, .device = "cuda_host"});
  if (!device.ok()) GTEST_SKIP() << device.status().message();
  const auto store = load_model(**device, dir / "store", {});
  const auto whole = load_model(**device, model, {});
  ASSERT_TRUE(store.ok() && whole.ok());
  EXPECT_EQ((*store)->source, nullptr);
  const PackedMatrix &a = (*store)->layers[0].attention.q, &b = (*whole)->layers[0].attention.q;
  EXPECT_EQ(a.storage, StorageKind::kDevice);
  ASSERT_EQ(a.bytes, b.bytes);
  std::string x(a.bytes, 'x'), y(a.bytes, 'y');
  ASSERT_TRUE((*device)->device().download(x.data(), a.data, a.bytes, nullptr).ok());
  ASSERT_TRUE((*device)->device().download(y.data(), b.data, b.bytes, nullptr).ok());
  EXPECT_TRUE(x == y);

  // What it has no kernels for, it refuses before the first step.
  ASSERT_TRUE(pack_store(*runtime(), model, dir / "q4_0", {.weights = WeightFormat::kQ4_0}).ok());
  const auto q4_0 = load_model(**device, dir / "q4_0", {});
  ASSERT_FALSE(q4_0.ok());
  EXPECT_EQ(q4_0.status().code(), StatusCode::kUnimplemented);
  EXPECT_NE(q4_0.status().message().find("cuda_host has no kernel of arith a8g32 for q4_0 weights"),
            std::string::npos)
      << q4_0.status().message();
}

struct Ran {
  int code = -1;
  std::string out;
};
// The program, with both streams in `out`.
Ran sluice(const std::string& arguments) {
  Ran ran;
  FILE* pipe = ::popen((std::string(SLUICE_BINARY) + " " + arguments + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return ran;
  char buffer[4096];
  while (const size_t n = std::fread(buffer, 1, sizeof(buffer), pipe)) ran.out.append(buffer, n);
  const int status = ::pclose(pipe);
  ran.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  return ran;
}

// --mode and --arith on a store of q4_0 experts with int8 around them: what runs, and what cannot.
TEST(StoreCommands, ModesChooseTheArithOfEveryFormatThatHasThem) {
  const ScratchDir dir;
  const std::string model = SLUICE_SOURCE_DIR "/models/three-voices", store = dir / "store";
  write_file(dir / "ids.json", "[11, 7, 300, 45, 9]");
  ASSERT_EQ(sluice("pack " + model + " -o " + store + " --weights q4_0").code, 0);
  const auto ariths = [&](const std::string& options) {
    const Ran ran = sluice("inspect " + store + " --json " + options);
    EXPECT_EQ(ran.code, 0) << ran.out;
    const auto roles = nlohmann::json::parse(ran.out)["store"]["roles"];
    return roles["experts"]["ariths"].get<std::string>() + " " +
           roles["head"]["ariths"].get<std::string>();
  };
  EXPECT_EQ(ariths(""), "a8g32 int16");
  EXPECT_EQ(ariths("--mode a8g32"), "a8g32 int16");
  EXPECT_EQ(ariths("--arith int16"), "a8g32 int16");
  EXPECT_EQ(ariths("--mode a16"), "bf16_tile|f32_fma bf16_tile|f32_fma");
  const auto kernel = [&](const std::string& options) {
    const Ran ran = sluice("score " + store + " --ids " + dir / "ids.json" + " --out " +
                           dir / "o.safetensors" + " --json " + options);
    EXPECT_EQ(ran.code, 0) << ran.out;
    return nlohmann::json::parse(ran.out)["arith"].get<std::string>();
  };
  EXPECT_EQ(kernel(""), "a8g32");
  EXPECT_EQ(kernel("--mode a16"), "bf16_tile");
  EXPECT_EQ(kernel("--arith bf16_tile"), "bf16_tile");
  const auto refused = [&](const std::string& command, const std::string& words) {
    const Ran ran = sluice(command);
    EXPECT_EQ(ran.code, 1) << ran.out;
    EXPECT_NE(ran.out.find(words), std::string::npos) << ran.out;
  };
  refused("run " + model + " -p a --mode int", "mode int is for weights in int4, int8; this model");
  refused("run " + store + " -p a --arith int --mode a16", "give one of them");
  refused("bench experts --shape 64,32,4,2 --weights q4_0 --mode int",
          "q4_0 weights have a8g32, a16, got int");
  refused("bench experts --shape 64,32,4,2 --weights int4 --arith a8g32",
          "int4 weights have f32_fma, bf16_tile, int, got a8g32");
}

TEST(StoreCommands, PackInspectRunScoreVerify) {
  const ScratchDir dir;
  const std::string model = SLUICE_SOURCE_DIR "/models/three-voices", store = dir / "store";
  write_file(dir / "ids.json", "[11, 7, 300, 45, 9]");
  const Ran packed = sluice("pack " + model + " -o " + store + " --weights int4 --json --verify");
  ASSERT_EQ(packed.code, 0) << packed.out;
  const auto report = nlohmann::json::parse(packed.out);
  const auto& experts = report["roles"]["experts"];
  EXPECT_EQ(experts["formats"], "int4/512");
  EXPECT_GT(experts["snr_db"], 15);
  EXPECT_LT(experts["bits_per_weight"], 5);
  EXPECT_EQ(experts["beside"], "q4_0");
  EXPECT_GT(experts["snr_db"], experts["beside_snr_db"]);
  EXPECT_EQ(report["roles"]["head"]["beside"], "q8_0");
  EXPECT_FALSE(report["roles"]["router"].contains("beside"));
  EXPECT_TRUE(report["roles"]["router"]["snr_db"].is_null());
  EXPECT_EQ(report["tensors"].size(), report["verified"]["tensors"]);
  const Ran inspected = sluice("inspect " + store);
  EXPECT_EQ(inspected.code, 0) << inspected.out;
  EXPECT_NE(inspected.out.find("int4/512"), std::string::npos) << inspected.out;
  EXPECT_NE(inspected.out.find("It will load."), std::string::npos);
  EXPECT_EQ(sluice("run " + store + " -p 'In the beginning' -n 4 --temp 0").code, 0);
  EXPECT_EQ(sluice("tokenize " + store + " --help").code, 0);
  const Ran scored =
      sluice("score " + store + " --ids " + dir / "ids.json" + " --out " + dir / "o.safetensors");
  EXPECT_EQ(scored.code, 0) << scored.out;
  const Ran refused = sluice("pack " + model + " -o " + dir / "x" + " --weights fp4");
  EXPECT_EQ(refused.code, 1);
  EXPECT_NE(refused.out.find("fp4"), std::string::npos) << refused.out;
  std::string bytes = read_file(store + "/weights.sluice");
  bytes[bytes.size() - 70] = static_cast<char>(bytes[bytes.size() - 70] ^ 1);
  write_file(store + "/weights.sluice", bytes);
  const Ran damaged = sluice("pack --verify " + store);
  EXPECT_EQ(damaged.code, 1);
  EXPECT_NE(damaged.out.find("sluice pack " + model), std::string::npos) << damaged.out;
  bytes[100] = 'x';
  write_file(store + "/weights.sluice", bytes);
  for (const std::string command : {"inspect ", "run -p x ", "score --text /dev/null "}) {
    const Ran r = sluice(command + store);
    EXPECT_EQ(r.code, 1) << command;
    EXPECT_NE(r.out.find("make it again: sluice pack"), std::string::npos) << r.out;
  }
}

TEST(StoreCommands, AFullDiskIsASentence) {
  const ScratchDir dir;
  const Ran r = sluice("pack " SLUICE_SOURCE_DIR "/models/three-voices -o " + dir / "store");
  ASSERT_EQ(r.code, 0) << r.out;
  FILE* pipe = ::popen(
      ("ulimit -f 1000; " SLUICE_BINARY " pack " SLUICE_SOURCE_DIR "/models/three-voices -o " +
       dir / "full" + " 2>&1")
          .c_str(),
      "r");
  ASSERT_NE(pipe, nullptr);
  char buffer[2000] = {};
  const size_t n = std::fread(buffer, 1, sizeof(buffer) - 1, pipe);
  const int status = ::pclose(pipe);
  ASSERT_TRUE(WIFEXITED(status)) << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_NE(std::string(buffer, n).find("goes on from there"), std::string::npos) << buffer;
  EXPECT_FALSE(fs::exists(dir / "full"));
}

}  // namespace
}  // namespace sluice::test
