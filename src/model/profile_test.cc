// Rounding profiles of a loaded model: what loading prepares, and that a layer's router and experts
// follow the profile. How each op rounds is that op's test.
#include "model/profile.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/fp.h"
#include "model/branches.h"
#include "model/checkpoint_files.h"
#include "ops/matmul/matmul.h"
#include "ops/router_norm/router_norm.h"
#include "ops/test_data.h"

namespace sluice {
namespace {

using test::Matrix;
using test::Random;

const RoundingProfile& named(std::string_view name) {
  for (const RoundingProfile& p : kRoundingProfiles)
    if (p.name == name) return p;
  return kF32Profile;
}

struct Loaded {
  std::unique_ptr<Runtime> runtime;
  std::unique_ptr<Model> model;
};
Loaded load(const std::string& name, std::string_view profile, const std::string& device = "cpu") {
  Loaded l;
  l.runtime = Runtime::create({.threads = 2, .device = device}).value();
  auto model = load_model(*l.runtime, golden_dir(name), {.profile = named(profile)});
  EXPECT_TRUE(model.ok()) << model.status().message();
  if (model.ok()) l.model = std::move(model).value();
  return l;
}

// The scale as the checkpoint has it: unfolding gives its bits back, whatever D^-0.5 rounds to.
TEST(Profile, RoutersThatItRoundsHaveTheirScaleBack) {
  const Checkpoint checkpoint = Checkpoint::golden("gemma4-a");
  for (const char* device : {"cpu", "cuda_host"})
    for (const char* profile : {"f32", "hf", "max", "sglang"}) {
      const Loaded l = load("gemma4-a", profile, device);
      ASSERT_NE(l.model, nullptr);
      EXPECT_EQ(l.model->profile.name, profile);
      for (size_t i = 0; i < l.model->layers.size(); ++i) {
        const F32Vector& scale = l.model->layers[i].moe.router_scale;
        if (!named(profile).router.norm) {
          EXPECT_TRUE(scale.empty());
          continue;
        }
        const CheckpointTensor& stored =
            checkpoint.tensors.at(fmt::format("model.language_model.layers.{}.router.scale", i));
        ASSERT_EQ(static_cast<int64_t>(scale.size()), stored.elements());
        for (int64_t d = 0; d < stored.elements(); ++d)
          ASSERT_EQ(scale.data()[d], stored.value(d)) << d;
      }
    }
  const auto runtime = Runtime::create({.threads = 1}).value();
  Random random(2);
  for (const int64_t d : {2816, 2880, 2048, 3}) {
    std::vector<float> scale, folded;
    for (int64_t i = 0; i < d; ++i) {
      scale.push_back(round_to_bf16(std::ldexp(random.normal(), static_cast<int>(i % 41) - 20)));
      folded.push_back(scale.back() * (1.0f / std::sqrt(static_cast<float>(d))));
    }
    Model model;
    model.spec.layers.resize(1);
    model.spec.layers[0].moe.emplace();
    model.layers.resize(1);
    model.layers[0].moe.router_norm = folded;
    ASSERT_TRUE(apply_profile(runtime->device(), named("hf"), model, "m").ok());
    for (size_t i = 0; i < scale.size(); ++i)
      ASSERT_EQ(model.layers[0].moe.router_scale[i], scale[i]) << d << ", " << i;
  }
}

// One layer's router, from the residual stream to its weights, against the chain of ops.
struct Routed {
  std::vector<int32_t> ids;
  std::vector<float> weights;
};
Routed route_layer(const Loaded& l, ConstMatrixF32 hidden) {
  const int64_t t = hidden.rows;
  const Model& m = *l.model;
  auto state = ForwardState::create(*l.runtime, m, t, 1).value();
  std::vector<int32_t> tokens(static_cast<size_t>(t));
  Batch batch;
  batch.ids = tokens;
  const ExecContext context = l.runtime->context();
  const Branches on(context, m, batch, state->impl());
  const MatrixF32 normed = on.stream(state->impl().normed);
  EXPECT_TRUE(on.norm_for_router(hidden, m.layers[0].moe, normed).ok());
  const MoeSpec& moe = *m.spec.layers[0].moe;
  EXPECT_TRUE(on.route(moe, m.layers[0].moe, normed, 0, nullptr).ok());
  const auto pairs = static_cast<size_t>(t * moe.k);
  return {{state->impl().expert_ids, state->impl().expert_ids + pairs},
          {state->impl().expert_weights, state->impl().expert_weights + pairs}};
}
Routed chain(const Loaded& l, ConstMatrixF32 hidden, bool rounded_weights) {
  const int64_t t = hidden.rows;
  const Model& m = *l.model;
  const MoeWeights& w = m.layers[0].moe;
  const MoeSpec& moe = *m.spec.layers[0].moe;
  const ExecContext context = l.runtime->context();
  Matrix read(t, m.spec.d), logits(t, moe.experts);
  EXPECT_TRUE(
      router_norm(context, {hidden, w.router_scale.data(), m.spec.eps, true, read.view()}).ok());
  std::vector<std::byte> scratch(matmul_workspace_bytes(t, m.spec.d));
  EXPECT_TRUE(matmul(context, {.x = read.view(), .w = &w.router, .out = logits.view()},
                     {scratch.data(), scratch.size()})
                  .ok());
  for (int64_t r = 0; r < t; ++r)
    for (int64_t e = 0; e < moe.experts; ++e) logits.at(r, e) = round_to_bf16(logits.at(r, e));
  Routed out;
  out.ids.resize(static_cast<size_t>(t * moe.k)), out.weights.resize(out.ids.size());
  EXPECT_TRUE(moe_route(context, {.logits = logits.view(),
                                  .rule = moe.rule,
                                  .k = moe.k,
                                  .per_expert_scale = w.per_expert_scale.data(),
                                  .ids = out.ids,
                                  .weights = out.weights})
                  .ok());
  if (rounded_weights)
    for (float& v : out.weights) v = round_to_bf16(v);
  return out;
}

TEST(Profile, ALayersRouterFollowsIt) {
  const Loaded plain = load("gemma4-a", "f32");
  ASSERT_NE(plain.model, nullptr);
  Matrix hidden(33, plain.model->spec.d);
  Random random(5);
  hidden.fill(random);
  const Routed f32 = route_layer(plain, hidden.view());
  for (const char* profile : {"hf", "max"}) {
    const Loaded l = load("gemma4-a", profile);
    ASSERT_NE(l.model, nullptr);
    const Routed got = route_layer(l, hidden.view());
    const Routed want = chain(l, hidden.view(), std::string_view(profile) == "max");
    EXPECT_EQ(got.ids, want.ids);
    EXPECT_EQ(got.weights, want.weights);
    EXPECT_NE(got.weights, f32.weights);
  }
  // A profile that says nothing of routers leaves them.
  const Routed other = route_layer(load("gemma4-a", "tpu"), hidden.view());
  EXPECT_EQ(other.ids, f32.ids);
  EXPECT_EQ(other.weights, f32.weights);
}

// transformers' Gemma 4 hands f32 weights to its sum, Qwen3 and gpt-oss bf16 ones.
TEST(Profile, ALayersExpertsFollowIt) {
  for (const char* name : {"gemma4-a", "qwen3moe-a", "gptoss-a"}) {
    for (const char* profile : {"f32", "hf", "max"}) {
      const Loaded l = load(name, profile);
      ASSERT_NE(l.model, nullptr);
      auto state = ForwardState::create(*l.runtime, *l.model, 1, 1).value();
      const std::vector<int32_t> tokens(1);
      Batch batch;
      batch.ids = tokens;
      const ExecContext context = l.runtime->context();
      const Branches on(context, *l.model, batch, state->impl());
      const RoundingProfile got =
          on.experts(*l.model->spec.layers[0].moe, l.model->layers[0].moe).profile;
      const bool own_norm = std::string_view(name) == "gemma4-a";
      EXPECT_EQ(got.name, profile);
      EXPECT_EQ(got.combine.rows, named(profile).combine.rows);
      EXPECT_EQ(got.combine.weights,
                named(profile).combine.weights && !(own_norm && got.name == "hf"));
    }
  }
}

TEST(Profile, AModelWithoutExpertsRefusesIt) {
  const auto runtime = Runtime::create({.threads = 1}).value();
  Model model;
  model.spec.layers.resize(1);
  EXPECT_TRUE(apply_profile(runtime->device(), kF32Profile, model, "m").ok());
  EXPECT_EQ(apply_profile(runtime->device(), named("hf"), model, "m").message(),
            "m: rounding profile hf is for expert layers; this model has none");
}

}  // namespace
}  // namespace sluice
