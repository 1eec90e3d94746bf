// Loading the six golden checkpoints: every packed element equals the stored one.
#include "model/config.h"
#include "model/footprint.h"
#include "model/model.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/fp.h"
#include "model/checkpoint_files.h"
#include "ops/matmul/pack.h"

namespace sluice {
namespace {

const char* const kCases[] = {"qwen3moe-a", "qwen3moe-b", "gemma4-a",
                              "gemma4-b",   "gptoss-a",   "gptoss-b"};

std::unique_ptr<Runtime> runtime() {
  auto r = Runtime::create({.threads = 2});
  EXPECT_TRUE(r.ok()) << r.status().message();
  return std::move(r).value();
}

// The stored value at a flat index, by the definition of its dtype.
float stored(const TensorView& t, int64_t index) {
  uint16_t bits = 0;
  EXPECT_EQ(t.dtype, DType::kBF16);
  std::memcpy(&bits, t.data + index * 2, 2);
  return static_cast<float>(bf16::from_bits(bits));
}
float mxfp4(const TensorView& blocks, const TensorView& scales, int64_t row, int64_t k) {
  const int64_t groups = blocks.shape[2];
  const auto byte =
      std::to_integer<uint8_t>(blocks.data[(row * groups + k / 32) * 16 + k % 32 / 2]);
  const auto scale = std::to_integer<int>(scales.data[row * groups + k / 32]);
  return e2m1_to_f32(k % 2 == 0 ? byte & 15 : byte >> 4) * std::ldexp(1.0f, scale - 127);
}

struct Loaded {
  std::unique_ptr<Runtime> rt = runtime();
  std::unique_ptr<Model> model;
  std::unique_ptr<TensorSource> source;
  const TensorView& tensor(const std::string& name) const {
    const TensorView* t = source->find(name);
    EXPECT_NE(t, nullptr) << name;
    return *t;
  }
};
Loaded load(const std::string& name, Compute compute) {
  Loaded out;
  auto model = load_model(*out.rt, golden_dir(name), {.compute = compute});
  EXPECT_TRUE(model.ok()) << model.status().message();
  if (!model.ok()) return out;
  out.model = std::move(model).value();
  auto source = open_tensor_source(golden_dir(name));
  EXPECT_TRUE(source.ok());
  out.source = std::move(source).value();
  return out;
}

class LoadGolden : public testing::TestWithParam<const char*> {};

TEST_P(LoadGolden, LoadsInBothComputesWithTheBytesThatTheFootprintSays) {
  for (Compute compute : {Compute::kF32, Compute::kBf16}) {
    const Loaded l = load(GetParam(), compute);
    ASSERT_NE(l.model, nullptr);
    // Vectors live outside the device; matrices in it, to the byte.
    size_t vectors = 0;
    for (const LayerWeights& w : l.model->layers) {
      for (const F32Vector* v :
           {&w.input_norm, &w.post_attention_norm, &w.pre_feedforward_norm,
            &w.post_feedforward_norm, &w.post_feedforward_norm_1, &w.pre_feedforward_norm_2,
            &w.post_feedforward_norm_2, &w.attention.q_bias, &w.attention.k_bias,
            &w.attention.v_bias, &w.attention.o_bias, &w.attention.q_norm, &w.attention.k_norm,
            &w.attention.sinks, &w.moe.router_bias, &w.moe.router_norm, &w.moe.per_expert_scale})
        vectors += v->size() * 4;
      for (const auto* rows : {&w.moe.gate_up_bias, &w.moe.down_bias})
        for (const F32Vector& v : *rows) vectors += v.size() * 4;
    }
    vectors += l.model->final_norm.size() * 4;
    if (l.model->spec.model_type == "gemma4") vectors += l.model->layers.size() * 4;  // scalars
    EXPECT_EQ(l.model->weight_bytes, l.rt->device().allocated_bytes() + vectors);
    EXPECT_FALSE(l.model->head.empty());
    EXPECT_FALSE(l.model->embedding.empty());
    EXPECT_EQ(l.model->head.format, WeightFormat::kBF16);
    EXPECT_EQ(l.model->layers.size(), l.model->spec.layers.size());
  }
}

TEST_P(LoadGolden, MatricesThatAllFamiliesNameAlike) {
  const Loaded l = load(GetParam(), Compute::kBf16);
  ASSERT_NE(l.model, nullptr);
  const std::string prefix =
      std::string(GetParam()) == "gemma4-a" ? "model.language_model." : "model.";
  const auto check = [&](const PackedMatrix& m, const std::string& name) {
    const TensorView& t = l.tensor(prefix + name);
    ASSERT_EQ(t.shape, (std::vector<int64_t>{m.n, m.k})) << name;
    for (int64_t i = 0; i < m.n * m.k; i += 7)
      ASSERT_EQ(packed_element(m, i / m.k, i % m.k), stored(t, i)) << name << " " << i;
  };
  check(l.model->embedding, "embed_tokens.weight");
  for (size_t i = 0; i < l.model->layers.size(); ++i) {
    const LayerWeights& w = l.model->layers[i];
    const std::string layer = fmt::format("layers.{}.", i);
    check(w.attention.q, layer + "self_attn.q_proj.weight");
    check(w.attention.k, layer + "self_attn.k_proj.weight");
    if (!l.model->spec.layers[i].attention.k_is_v)
      check(w.attention.v, layer + "self_attn.v_proj.weight");
    else
      EXPECT_TRUE(w.attention.v.empty());
    check(w.attention.o, layer + "self_attn.o_proj.weight");
    const TensorView& norm = l.tensor(prefix + layer + "input_layernorm.weight");
    for (size_t d = 0; d < w.input_norm.size(); ++d)
      ASSERT_EQ(w.input_norm[d], stored(norm, static_cast<int64_t>(d)));
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, LoadGolden, testing::ValuesIn(kCases), [](const auto& c) {
  std::string name = c.param;
  name[name.find('-')] = '_';
  return name;
});

TEST(LoadExperts, QwenPerExpert) {
  const Loaded l = load("qwen3moe-b", Compute::kF32);
  ASSERT_NE(l.model, nullptr);
  EXPECT_TRUE(l.model->layers[1].moe.gate_up.empty());  // mlp_only_layers: [1]
  EXPECT_FALSE(l.model->layers[1].dense.gate_up.empty());
  for (int64_t e = 0; e < 10; ++e) {
    const MoeWeights& moe = l.model->layers[2].moe;
    const std::string name = fmt::format("model.layers.2.mlp.experts.{}.", e);
    const TensorView &gate = l.tensor(name + "gate_proj.weight"),
                     &up = l.tensor(name + "up_proj.weight"),
                     &down = l.tensor(name + "down_proj.weight");
    const PackedMatrix& m = *moe.gate_up_experts.matrices()[static_cast<size_t>(e)];
    ASSERT_EQ(m.layout, WeightLayout::kGluPanel16);
    ASSERT_EQ(m.n, 96);
    for (int64_t i = 0; i < 48; ++i) {
      for (int64_t k = 0; k < 96; ++k) {
        ASSERT_EQ(packed_element(m, i, k), stored(gate, i * 96 + k));
        ASSERT_EQ(packed_element(m, 48 + i, k), stored(up, i * 96 + k));
        ASSERT_EQ(packed_element(*moe.down_experts.matrices()[static_cast<size_t>(e)], k, i),
                  stored(down, k * 48 + i));
      }
    }
  }
}

TEST(LoadExperts, GemmaPackedAndRouter) {
  const Loaded l = load("gemma4-a", Compute::kBf16);
  ASSERT_NE(l.model, nullptr);
  const std::string layer = "model.language_model.layers.3.";
  const TensorView &gate_up = l.tensor(layer + "experts.gate_up_proj"),
                   &down = l.tensor(layer + "experts.down_proj"),
                   &router = l.tensor(layer + "router.proj.weight"),
                   &scale = l.tensor(layer + "router.scale"),
                   &per_expert = l.tensor(layer + "router.per_expert_scale");
  const MoeWeights& moe = l.model->layers[3].moe;
  EXPECT_EQ(moe.router.format, WeightFormat::kF32);
  for (int64_t e = 0; e < 8; ++e) {
    for (int64_t n = 0; n < 64; ++n) {
      EXPECT_EQ(packed_element(moe.router, e, n), stored(router, e * 64 + n));
      for (int64_t k = 0; k < 64; ++k)
        ASSERT_EQ(packed_element(moe.gate_up[static_cast<size_t>(e)], n, k),
                  stored(gate_up, (e * 64 + n) * 64 + k));
      for (int64_t k = 0; k < 32; ++k)
        ASSERT_EQ(packed_element(moe.down[static_cast<size_t>(e)], n, k),
                  stored(down, (e * 64 + n) * 32 + k));
    }
    EXPECT_EQ(moe.per_expert_scale[static_cast<size_t>(e)], stored(per_expert, e));
  }
  for (int64_t d = 0; d < 64; ++d)
    EXPECT_EQ(moe.router_norm[static_cast<size_t>(d)], stored(scale, d) * 0.125f);  // 64^-0.5
  EXPECT_EQ(l.model->layers[3].layer_scalar, stored(l.tensor(layer + "layer_scalar"), 0));
  EXPECT_EQ(l.model->spec.embed_scale, 8.0f);
  EXPECT_EQ(l.model->head.data, l.model->embedding.data);  // tied: one matrix
}

TEST(LoadExperts, GemmaEmbeddingScaleIsRoundedToTheStoredDtype) {
  const Loaded l = load("gemma4-b", Compute::kF32);
  ASSERT_NE(l.model, nullptr);
  EXPECT_EQ(l.model->spec.embed_scale, 9.8125f);  // sqrt(96) = 9.798 in bf16
}

TEST(LoadExperts, GptOssTransposedAndInterleaved) {
  const Loaded l = load("gptoss-a", Compute::kBf16);
  ASSERT_NE(l.model, nullptr);
  const std::string layer = "model.layers.1.mlp.experts.";
  const TensorView &gate_up = l.tensor(layer + "gate_up_proj"),
                   &down = l.tensor(layer + "down_proj"),
                   &gate_up_bias = l.tensor(layer + "gate_up_proj_bias"),
                   &down_bias = l.tensor(layer + "down_proj_bias");
  const MoeWeights& moe = l.model->layers[1].moe;
  for (int64_t e = 0; e < 8; ++e) {
    const auto i = static_cast<size_t>(e);
    for (int64_t u = 0; u < 64; ++u) {
      for (int64_t k = 0; k < 64; ++k) {
        ASSERT_EQ(packed_element(moe.gate_up[i], u, k),
                  stored(gate_up, (e * 64 + k) * 128 + 2 * u));
        ASSERT_EQ(packed_element(moe.gate_up[i], 64 + u, k),
                  stored(gate_up, (e * 64 + k) * 128 + 2 * u + 1));
        ASSERT_EQ(packed_element(moe.down[i], u, k), stored(down, (e * 64 + k) * 64 + u));
      }
      EXPECT_EQ(moe.gate_up_experts.biases()[i][u], stored(gate_up_bias, e * 128 + 2 * u));
      EXPECT_EQ(moe.gate_up_experts.biases()[i][64 + u], stored(gate_up_bias, e * 128 + 2 * u + 1));
      EXPECT_EQ(moe.down_experts.biases()[i][u], stored(down_bias, e * 64 + u));
    }
  }
  EXPECT_EQ(l.model->embedding.storage, StorageKind::kMapped);
  EXPECT_NE(l.model->source, nullptr);
}

TEST(LoadExperts, GptOssMxfp4StaysAsItIs) {
  for (Compute compute : {Compute::kF32, Compute::kBf16}) {
    const Loaded l = load("gptoss-b", compute);
    ASSERT_NE(l.model, nullptr);
    const std::string layer = "model.layers.2.mlp.experts.";
    const TensorView &gu = l.tensor(layer + "gate_up_proj_blocks"),
                     &gs = l.tensor(layer + "gate_up_proj_scales"),
                     &db = l.tensor(layer + "down_proj_blocks"),
                     &ds = l.tensor(layer + "down_proj_scales");
    const MoeWeights& moe = l.model->layers[2].moe;
    for (int64_t e = 0; e < 6; ++e) {
      const auto i = static_cast<size_t>(e);
      ASSERT_EQ(moe.gate_up[i].format, WeightFormat::kMXFP4);
      for (int64_t u = 0; u < 96; ++u) {
        for (int64_t k = 0; k < 96; ++k) {
          ASSERT_EQ(packed_element(moe.gate_up[i], u, k), mxfp4(gu, gs, e * 192 + 2 * u, k));
          ASSERT_EQ(packed_element(moe.gate_up[i], 96 + u, k),
                    mxfp4(gu, gs, e * 192 + 2 * u + 1, k));
          ASSERT_EQ(packed_element(moe.down[i], u, k), mxfp4(db, ds, e * 96 + u, k));
        }
      }
    }
  }
}

TEST(LoadProgress, CountsToTheEndAndCancels) {
  const auto rt = runtime();
  size_t last = 0, all = 0;
  auto model =
      load_model(*rt, golden_dir("qwen3moe-a"), {.progress = [&](size_t done, size_t total) {
        EXPECT_GE(done, last);
        last = done;
        all = total;
        return true;
      }});
  ASSERT_TRUE(model.ok()) << model.status().message();
  EXPECT_GT(all, 50u);
  EXPECT_EQ(last, all);
  auto cancelled =
      load_model(*rt, golden_dir("qwen3moe-a"), {.progress = [](size_t, size_t) { return false; }});
  ASSERT_FALSE(cancelled.ok());
  EXPECT_EQ(cancelled.status().code(), StatusCode::kCancelled);
}

}  // namespace
}  // namespace sluice
