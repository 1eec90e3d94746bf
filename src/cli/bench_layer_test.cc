// `sluice bench layer`: every shape's ops run in the order of a step, shares add up, bad input is a
// sentence. Times are not looked at.
#include "cli/bench_layer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/synthetic_layer.h"

namespace sluice {
namespace {

BenchLayerOptions small() {
  BenchLayerOptions o;
  o.shape = "64,32,6,2";
  o.tokens = {1, 5};
  o.context = 20;
  o.rotate_gb = 0.0001;
  o.seconds = 0;
  o.threads = 2;
  o.json = true;
  return o;
}

TEST(BenchLayer, SharesAddUpForEveryFormat) {
  for (const SyntheticFormat& format : synthetic_formats()) {
    SCOPED_TRACE(format.name);
    BenchLayerOptions o = small();
    o.weights = std::string(format.name);
    std::ostringstream out, err;
    Console console{out, err};
    const Status status = run_bench_layer(o, console);
    ASSERT_TRUE(status.ok()) << status.message();
    const nlohmann::json facts = nlohmann::json::parse(out.str(), nullptr, false);
    ASSERT_TRUE(facts.is_object());
    ASSERT_EQ(facts["rows"].size(), 2u);
    for (const nlohmann::json& row : facts["rows"]) {
      EXPECT_GE(row["steps"], 7);
      EXPECT_LE(row["best_us"], row["us"]);
      EXPECT_GE(row["experts"], 2);
      double share = 0;
      std::vector<std::string> names;
      for (const nlohmann::json& op : row["ops"]) {
        share += op["share"].get<double>();
        names.push_back(op["op"]);
      }
      EXPECT_NEAR(share, 1.0, 1e-9);
      EXPECT_EQ(names,
                (std::vector<std::string>{"input_norm", "q_proj", "k_proj", "v_proj", "qk_norm",
                                          "rope", "kv_write", "attention", "o_proj",
                                          "residual_norm", "router", "route_sort", "experts"}));
    }
  }
}

// Gemma 4's layer cut in every size: both branches, norms on both sides, K = V.
TEST(BenchLayer, ASandwichLayerRunsBothBranches) {
  LayerShape shape = layer_shapes()[1];
  ASSERT_EQ(shape.name, "gemma4-26b-a4b-full");
  shape.heads = 4, shape.kv_heads = 2, shape.head_size = 64, shape.dense = 48;
  const ExpertShape experts = parse_expert_shape("64,32,6,2").value();
  const std::unique_ptr<Runtime> runtime = Runtime::create({.threads = 2}).value();
  const SyntheticFormat& bf16 = synthetic_formats()[1];
  const std::unique_ptr<SyntheticExperts> weights =
      SyntheticExperts::create(runtime->device(), runtime->pool(), experts, bf16, 1e5, 1).value();
  const std::unique_ptr<SyntheticLayer> layer =
      SyntheticLayer::create(*runtime, shape, experts, *weights, bf16, bf16, kF32Profile, 7, 3, 1)
          .value();
  layer->begin_step(0);
  std::string names;
  for (const LayerOp& op : layer->ops()) {
    const Status status = op.run();
    ASSERT_TRUE(status.ok()) << op.name << ": " << status.message();
    names += std::string(op.name) + " ";
  }
  EXPECT_EQ(names,
            "input_norm q_proj k_proj v_norm qk_norm rope kv_write attention o_proj "
            "attention_norm_residual dense_norm dense_gate_up dense_down router_norm router "
            "route_sort experts_norm experts ");
  EXPECT_GE(layer->experts_used(), 2);
}

// One step of a shape, cut in every size.
std::vector<float> one_step(LayerShape shape, const std::string& profile) {
  shape.heads = 4, shape.kv_heads = 2, shape.head_size = 64, shape.window = 0;
  shape.dense = shape.dense > 0 ? 48 : 0;
  const ExpertShape experts = parse_expert_shape("64,32,6,2").value();
  const std::unique_ptr<Runtime> runtime = Runtime::create({.threads = 2}).value();
  const SyntheticFormat& bf16 = synthetic_formats()[1];
  const std::unique_ptr<SyntheticExperts> weights =
      SyntheticExperts::create(runtime->device(), runtime->pool(), experts, bf16, 1e5, 1).value();
  const std::unique_ptr<SyntheticLayer> layer =
      SyntheticLayer::create(*runtime, shape, experts, *weights, bf16, bf16,
                             parse_rounding_profile(profile).value(), 7, 3, 1)
          .value();
  layer->begin_step(0);
  for (const LayerOp& op : layer->ops()) {
    const Status status = op.run();
    EXPECT_TRUE(status.ok()) << op.name << ": " << status.message();
  }
  return {layer->output().begin(), layer->output().end()};
}

TEST(BenchLayer, BiasesSinksAndProfilesAreInTheResult) {
  for (const LayerShape& shape : layer_shapes()) {
    SCOPED_TRACE(shape.name);
    const std::vector<float> with = one_step(shape, "f32");
    EXPECT_TRUE(std::all_of(with.begin(), with.end(), [](float v) { return std::isfinite(v); }));
    EXPECT_NE(with, one_step(shape, "hf"));
    const bool gpt_oss = shape.name.starts_with("gpt-oss");
    EXPECT_EQ(shape.bias, gpt_oss);
    EXPECT_EQ(shape.sinks, gpt_oss);
    if (!gpt_oss) continue;
    LayerShape less = shape;
    less.bias = false;
    EXPECT_NE(with, one_step(less, "f32"));
    less = shape;
    less.sinks = false;
    EXPECT_NE(with, one_step(less, "f32"));
  }
}

TEST(BenchLayer, TakesAMode) {
  BenchLayerOptions o = small();
  o.weights = "fp8";
  o.mode = "fp8";
  std::ostringstream out, err;
  Console console{out, err};
  const Status status = run_bench_layer(o, console);
  ASSERT_TRUE(status.ok()) << status.message();
  const nlohmann::json facts = nlohmann::json::parse(out.str(), nullptr, false);
  EXPECT_EQ(facts["mode"], "fp8");
  EXPECT_NE(facts["command"].get<std::string>().find(" --mode fp8"), std::string::npos);
}

TEST(BenchLayer, RefusesWhatItCannotDo) {
  const auto refused = [](const BenchLayerOptions& o, std::string_view word) {
    std::ostringstream out, err;
    Console console{out, err};
    const std::string said = run_bench_layer(o, console).message();
    EXPECT_NE(said.find(word), std::string::npos) << said;
  };
  BenchLayerOptions o = small();
  o.weights = "fp7";
  refused(o, "weights: expected one of f32, bf16");
  o = small();
  o.dense = "fp7";
  refused(o, "dense: expected one of f32, bf16");
  o = small();
  o.mode = "fp8";
  refused(o, "mode fp8 is for weights in fp8; this model's are in bf16");
  o = small();
  o.profile = "vllm";
  refused(o, "rounding profile: expected one of f32, hf");
  o = small();
  o.shape = "gemma5";
  refused(o, "expected a known name or D,I,E,K");
}

}  // namespace
}  // namespace sluice
