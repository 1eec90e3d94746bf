// Checkpoints that do not load: one sentence each, naming file, tensor, expected and got.
#include <gtest/gtest.h>
#include <unistd.h>

#include "model/checkpoint_files.h"
#include "model/model.h"
#include "ops/matmul/pack.h"

namespace sluice {
namespace {

void expect_refused(const Checkpoint& c, const std::string& why, size_t shards = 1) {
  const ScratchDir dir;
  c.write(dir.path(), shards);
  const auto rt = runtime_with(1);
  const auto model = load_model(*rt, dir.path(), {});
  ASSERT_FALSE(model.ok()) << why;
  EXPECT_NE(model.status().message().find(dir.path()), std::string::npos)
      << model.status().message();
  EXPECT_NE(model.status().message().find(why), std::string::npos) << model.status().message();
}

// Long because it is a table: a change and the sentence that answers it.
TEST(Refused, TensorsThatDoNotFit) {
  const Checkpoint q = Checkpoint::golden("qwen3moe-a");
  const auto with = [&](auto change) {
    Checkpoint c = q;
    change(c);
    return c;
  };
  const std::string expert = "model.layers.2.mlp.experts.5.";
  expect_refused(
      with([&](Checkpoint& c) { c.take(expert + "up_proj.weight"); }),
      "tensor model.layers.2.mlp.experts.5.up_proj.weight is missing (expected [32, 64])");
  expect_refused(with([&](Checkpoint& c) { c.take("model.norm.weight"); }),
                 "tensor model.norm.weight is missing");
  expect_refused(with([&](Checkpoint& c) { c.take("lm_head.weight"); }),
                 "tensor lm_head.weight is missing");
  expect_refused(with([&](Checkpoint& c) { c.take("model.embed_tokens.weight"); }),
                 "tensor model.embed_tokens.weight is missing");
  expect_refused(with([&](Checkpoint& c) {
                   c.tensors["model.layers.2.mlp.experts.8.up_proj.weight"] =
                       c.tensors[expert + "up_proj.weight"];
                 }),
                 "got unknown model.layers.2.mlp.experts.8.up_proj.weight");
  expect_refused(with([&](Checkpoint& c) {
                   for (const char* n : {"a", "b", "c", "d"})
                     c.tensors[n] = c.tensors["lm_head.weight"];
                 }),
                 "got unknown a, b, c and 1 more");
  expect_refused(with([&](Checkpoint& c) {
                   c.tensors["lm_head.weight"].shape = {64, 320};
                 }),
                 "tensor lm_head.weight: shape ([V, D]): expected [320, 64], got [64, 320]");
  expect_refused(with([&](Checkpoint& c) {
                   c.tensors[expert + "down_proj.weight"].shape = {32, 64};
                 }),
                 "expected [64, 32], got [32, 64]");
  expect_refused(with([&](Checkpoint& c) {
                   c.tensors["model.layers.0.self_attn.q_proj.weight"].dtype = DType::kI16;
                 }),
                 "dtype: expected F32, F16, BF16 or F8_E4M3, got I16");
  expect_refused(with([&](Checkpoint& c) {
                   CheckpointTensor& t = c.tensors["model.layers.0.mlp.gate.weight"];
                   t.dtype = DType::kF8E4M3;
                   t.bytes.resize(t.bytes.size() / 2);
                 }),
                 "dtype: expected F32, F16 or BF16, got F8_E4M3");
  expect_refused(with([&](Checkpoint& c) {
                   CheckpointTensor& t = c.tensors[expert + "down_proj.weight"];
                   t.dtype = DType::kF8E4M3;
                   t.bytes.resize(t.bytes.size() / 2);
                 }),
                 "is F8_E4M3 without a _scale_inv or _scale beside it");
  expect_refused(with([&](Checkpoint& c) {
                   c.take("model.norm.weight");
                   c.take(expert + "up_proj.weight");
                 }),
                 "and 1 more problem");
  expect_refused(with([&](Checkpoint& c) { c.config["num_experts"] = 9; }), "expected [9, 64]");
  expect_refused(with([&](Checkpoint& c) { c.config["vocab_size"] = 321; }),
                 "expected [321, 64], got [320, 64]");
  expect_refused(with([&](Checkpoint& c) { c.config["num_hidden_layers"] = 4; }),
                 "tensor model.layers.3.input_layernorm.weight is missing");
  expect_refused(with([&](Checkpoint& c) { c.config["num_hidden_layers"] = 2; }), "got unknown");
  expect_refused(with([&](Checkpoint& c) { c.take(expert + "up_proj.weight"); }), "is missing", 3);
}

TEST(Refused, QuantisationThatContradictsTheTensors) {
  Checkpoint q = Checkpoint::golden("qwen3moe-a");
  q.config["quantization_config"] = {{"quant_method", "fp8"}};
  expect_refused(q, "config.json says quant_method fp8, but no tensor is F8_E4M3");
  Checkpoint a = Checkpoint::golden("gptoss-a");
  a.config["quantization_config"] = {{"quant_method", "mxfp4"}};
  expect_refused(a, "config.json says quant_method mxfp4, but there are expert tensors without");
  Checkpoint b = Checkpoint::golden("gptoss-b");
  b.config["quantization_config"] = {{"quant_method", "fp8"}};
  expect_refused(b, "config.json says quant_method fp8, but the experts are MXFP4 blocks");
}

TEST(Refused, Mxfp4) {
  const Checkpoint b = Checkpoint::golden("gptoss-b");
  const std::string name = "model.layers.1.mlp.experts.down_proj";
  Checkpoint nan = b;
  nan.tensors[name + "_scales"].bytes[3 * 96 * 3 + 7] = '\xff';
  expect_refused(nan, "tensor " + name + "_blocks, expert 3");
  expect_refused(nan, "is NaN (255)");
  Checkpoint bare = b;
  bare.take(name + "_scales");
  expect_refused(bare, "tensor " + name + "_scales is missing (expected [6, 96, 3])");
  Checkpoint both = b;
  both.tensors[name] = {DType::kBF16, {6, 96, 96}, std::string(6 * 96 * 96 * 2, '\0')};
  expect_refused(both, "got unknown " + name);
}

TEST(Refused, AFileTruncatedWhileItLoads) {
  const ScratchDir dir;
  Checkpoint::golden("gemma4-a").write(dir.path());
  const auto rt = runtime_with(2);
  const auto model = load_model(*rt, dir.path(), {.progress = [&](size_t done, size_t) {
    if (done == 0) {
      EXPECT_EQ(::truncate((dir / "model.safetensors").c_str(), 30'000), 0);
    }
    return true;
  }});
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(model.status().code(), StatusCode::kDataLoss);
  EXPECT_NE(model.status().message().find("truncated"), std::string::npos)
      << model.status().message();
  EXPECT_NE(model.status().message().find("model.safetensors"), std::string::npos)
      << model.status().message();
}

TEST(Refused, AMappedEmbeddingThatShrinksIsToldByHealth) {
  const ScratchDir dir;
  Checkpoint::golden("qwen3moe-a").write(dir.path());
  const Loaded l = load_dir(dir.path());
  ASSERT_NE(l.model, nullptr);
  ASSERT_NE(l.model->source, nullptr);
  EXPECT_TRUE(l.model->source->health().ok());
  ASSERT_EQ(::truncate((dir / "model.safetensors").c_str(), 4096), 0);
  float total = 0;
  for (int64_t i = 0; i < 320; ++i) total += packed_element(l.model->embedding, i, 0);
  EXPECT_EQ(total, total);
  EXPECT_FALSE(l.model->source->health().ok());
}

}  // namespace
}  // namespace sluice
