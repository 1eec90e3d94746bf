// One checkpoint in every storage that the wild has: the loaded weights are the same.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "model/checkpoint_files.h"
#include "model/model.h"
#include "ops/matmul/pack.h"

namespace sluice {
namespace {

// Values may differ by `slack`.
void expect_equal(const PackedMatrix& a, const PackedMatrix& b, float slack, const char* what) {
  ASSERT_EQ(a.empty(), b.empty()) << what;
  if (a.empty()) return;
  ASSERT_EQ(a.n, b.n) << what;
  ASSERT_EQ(a.k, b.k) << what;
  for (int64_t n = 0; n < a.n; ++n)
    for (int64_t k = 0; k < a.k; ++k)
      ASSERT_NEAR(packed_element(a, n, k), packed_element(b, n, k), slack)
          << what << " " << n << " " << k;
}
void expect_equal(const F32Vector& a, const F32Vector& b, float slack, const char* what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], slack) << what << " " << i;
}
template <class T>
void expect_equal(const std::vector<T>& a, const std::vector<T>& b, float slack, const char* what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (size_t i = 0; i < a.size(); ++i) expect_equal(a[i], b[i], slack, what);
}

void expect_equal(const LayerWeights& a, const LayerWeights& b, float slack) {
#define SAME(field) expect_equal(a.field, b.field, slack, #field)
  SAME(input_norm);
  SAME(post_attention_norm);
  SAME(pre_feedforward_norm);
  SAME(post_feedforward_norm);
  SAME(post_feedforward_norm_1);
  SAME(pre_feedforward_norm_2);
  SAME(post_feedforward_norm_2);
  SAME(attention.q);
  SAME(attention.k);
  SAME(attention.v);
  SAME(attention.o);
  SAME(attention.q_bias);
  SAME(attention.q_norm);
  SAME(attention.k_norm);
  SAME(attention.sinks);
  SAME(dense.gate_up);
  SAME(dense.down);
  SAME(moe.router);
  SAME(moe.router_bias);
  SAME(moe.router_norm);
  SAME(moe.per_expert_scale);
  SAME(moe.gate_up);
  SAME(moe.down);
  SAME(moe.gate_up_bias);
  SAME(moe.down_bias);
#undef SAME
  EXPECT_NEAR(a.layer_scalar, b.layer_scalar, slack);
}
void expect_equal(const Loaded& a, const Loaded& b, float slack = 0) {
  ASSERT_NE(a.model, nullptr);
  ASSERT_NE(b.model, nullptr);
  expect_equal(a.model->embedding, b.model->embedding, slack, "embedding");
  expect_equal(a.model->head, b.model->head, slack, "head");
  expect_equal(a.model->final_norm, b.model->final_norm, slack, "final_norm");
  EXPECT_EQ(a.model->spec.embed_scale, b.model->spec.embed_scale);
  ASSERT_EQ(a.model->layers.size(), b.model->layers.size());
  for (size_t l = 0; l < a.model->layers.size(); ++l) {
    SCOPED_TRACE(fmt::format("layer {}", l));
    expect_equal(a.model->layers[l], b.model->layers[l], slack);
  }
}

uint16_t to_f16(float f) {
  uint16_t best = 0;  // slow and plain: the nearest of all halves by bisection
  const uint16_t sign = std::signbit(f) ? 0x8000 : 0;
  uint16_t low = 0, high = 0x7bff;
  const float magnitude = std::fabs(f);
  while (high - low > 1) {
    const auto middle = static_cast<uint16_t>((low + high) / 2);
    (f16_to_f32(middle) <= magnitude ? low : high) = middle;
  }
  best = magnitude - f16_to_f32(low) <= f16_to_f32(high) - magnitude ? low : high;
  return static_cast<uint16_t>(sign | best);
}

Checkpoint stored_as(Checkpoint c, DType dtype) {
  for (auto& [name, t] : c.tensors) {
    if (t.dtype != DType::kBF16) continue;
    CheckpointTensor out{dtype, t.shape, ""};
    for (int64_t i = 0; i < t.elements(); ++i) {
      if (dtype == DType::kF32)
        out.append(t.value(i));
      else
        out.append(to_f16(t.value(i)));
    }
    t = std::move(out);
  }
  return c;
}

// [a, b] of bf16 -> [b, a].
CheckpointTensor transposed(const CheckpointTensor& t) {
  CheckpointTensor out{t.dtype, {t.shape[1], t.shape[0]}, ""};
  for (int64_t b = 0; b < t.shape[1]; ++b)
    for (int64_t a = 0; a < t.shape[0]; ++a)
      out.bytes += t.bytes.substr(static_cast<size_t>(a * t.shape[1] + b) * 2, 2);
  return out;
}

// Qwen's experts one by one -> packed, as [E, out, in] or [E, in, out].
Checkpoint qwen_packed(Checkpoint c, bool transpose) {
  for (int l = 0; l < 3; ++l) {
    const std::string layer = fmt::format("model.layers.{}.mlp.", l);
    CheckpointTensor gate_up{DType::kBF16, {8, 64, 64}, ""}, down{DType::kBF16, {8, 64, 32}, ""};
    for (int e = 0; e < 8; ++e) {
      const std::string expert = fmt::format("{}experts.{}.", layer, e);
      CheckpointTensor both{DType::kBF16, {64, 64}, ""};
      both.bytes = c.take(expert + "gate_proj.weight").bytes;
      both.bytes += c.take(expert + "up_proj.weight").bytes;
      CheckpointTensor d = c.take(expert + "down_proj.weight");
      if (transpose) {
        both = transposed(both);
        d = transposed(d);
      }
      gate_up.bytes += both.bytes;
      down.bytes += d.bytes;
    }
    if (transpose) down.shape = {8, 32, 64};
    c.tensors[layer + "experts.gate_up_proj"] = gate_up;
    c.tensors[layer + "experts.down_proj"] = down;
    c.rename(layer + "gate.weight", layer + "router.weight");
  }
  return c;
}

TEST(Variants, FloatsOfEverySize) {
  for (const char* name : {"qwen3moe-a", "qwen3moe-b", "gemma4-a", "gptoss-a"}) {
    SCOPED_TRACE(name);
    const Checkpoint c = Checkpoint::golden(name);
    const Loaded base = load_golden(name);
    const Loaded f32 = load(stored_as(c, DType::kF32));
    expect_equal(f32, base);
    EXPECT_EQ(f32.model->layers[0].attention.q.format, WeightFormat::kF32);
    // Halves of 2^-24 at least: smaller bf16 values are rounded to them.
    expect_equal(load(stored_as(c, DType::kF16)), base, 0x1p-25f);
    const Loaded bf16 = load(stored_as(c, DType::kF32), 1, Compute::kBf16);
    expect_equal(bf16, load_golden(name, Compute::kBf16));
    EXPECT_EQ(bf16.model->layers[0].attention.q.format, WeightFormat::kBF16);
  }
}

TEST(Variants, EmbeddingScaleFollowsTheStoredDtype) {
  const Checkpoint c = Checkpoint::golden("gemma4-b");
  EXPECT_EQ(load(stored_as(c, DType::kF32), 1, Compute::kBf16).model->spec.embed_scale,
            std::sqrt(96.0f));
  EXPECT_EQ(load(stored_as(c, DType::kF16)).model->spec.embed_scale, 9.796875f);
}

TEST(Variants, Shards) {
  for (const char* name : {"qwen3moe-a", "gemma4-b", "gptoss-b"}) {
    SCOPED_TRACE(name);
    const Checkpoint c = Checkpoint::golden(name);
    expect_equal(load(c, 3), load_golden(name));
    expect_equal(load(c, 1), load_golden(name));
  }
}

TEST(Variants, QwenPackedExperts) {
  const Checkpoint c = Checkpoint::golden("qwen3moe-a");
  const Loaded base = load_golden("qwen3moe-a");
  expect_equal(load(qwen_packed(c, false)), base);
  // Width 32: [E, 32, 64] of down can only be transposed; gate_up [E, 64, 64] reads as published.
  Checkpoint t = qwen_packed(c, true);
  for (int l = 0; l < 3; ++l) {
    const std::string name = fmt::format("model.layers.{}.mlp.experts.gate_up_proj", l);
    t.tensors[name] = qwen_packed(c, false).tensors[name];
  }
  expect_equal(load(t), base);
}

TEST(Variants, QwenPackedAndTransposedIsDecidedByShape) {
  Checkpoint c = Checkpoint::golden("qwen3moe-a");
  c.config["num_hidden_layers"] = 1;
  c.config["moe_intermediate_size"] = 16;
  std::erase_if(c.tensors, [](const auto& t) {
    return t.first.find("layers.1.") != std::string::npos ||
           t.first.find("layers.2.") != std::string::npos;
  });
  // Half of every expert, so that 2I = 32 differs from D = 64.
  Checkpoint packed = c, across = c;
  CheckpointTensor gate_up{DType::kBF16, {8, 32, 64}, ""}, gate_up_t{DType::kBF16, {8, 64, 32}, ""};
  CheckpointTensor down{DType::kBF16, {8, 64, 16}, ""}, down_t{DType::kBF16, {8, 16, 64}, ""};
  for (int e = 0; e < 8; ++e) {
    const std::string name = fmt::format("model.layers.0.mlp.experts.{}.", e);
    CheckpointTensor both{DType::kBF16, {32, 64}, ""}, half{DType::kBF16, {16, 64}, ""};
    for (const char* part : {"gate_proj.weight", "up_proj.weight"}) {
      CheckpointTensor& t = c.tensors[name + part];
      t.shape = {16, 64};
      t.bytes.resize(16 * 64 * 2);
      both.bytes += t.bytes;
    }
    CheckpointTensor d_t = transposed(c.tensors[name + "down_proj.weight"]);
    d_t.shape = {16, 64};
    d_t.bytes.resize(16 * 64 * 2);
    c.tensors[name + "down_proj.weight"] = transposed(d_t);
    gate_up.bytes += both.bytes;
    gate_up_t.bytes += transposed(both).bytes;
    down.bytes += transposed(d_t).bytes;
    down_t.bytes += d_t.bytes;
    for (Checkpoint* other : {&packed, &across})
      for (const char* part : {"gate_proj.weight", "up_proj.weight", "down_proj.weight"})
        other->take(name + part);
  }
  packed.tensors["model.layers.0.mlp.experts.gate_up_proj"] = gate_up;
  packed.tensors["model.layers.0.mlp.experts.down_proj"] = down;
  across.tensors["model.layers.0.mlp.experts.gate_up_proj"] = gate_up_t;
  across.tensors["model.layers.0.mlp.experts.down_proj"] = down_t;
  const Loaded base = load(c);
  expect_equal(load(packed), base);
  expect_equal(load(across), base);
}

TEST(Variants, Prefixes) {
  Checkpoint q = Checkpoint::golden("qwen3moe-a"), moved = q;
  moved.tensors.clear();
  for (const auto& [name, t] : q.tensors)
    moved.tensors[name.starts_with("model.") ? "model.language_model." + name.substr(6) : name] = t;
  expect_equal(load(moved), load_golden("qwen3moe-a"));

  Checkpoint g = Checkpoint::golden("gemma4-a");
  for (const char* prefix : {"model.", "language_model.model."}) {
    Checkpoint h = g;
    h.tensors.clear();
    for (const auto& [name, t] : g.tensors)
      h.tensors[name.starts_with("model.language_model.") ? prefix + name.substr(21) : name] = t;
    expect_equal(load(h), load_golden("gemma4-a"));
  }
}

TEST(Variants, GemmaExpertNames) {
  const Checkpoint g = Checkpoint::golden("gemma4-b");
  const Loaded base = load_golden("gemma4-b");
  Checkpoint alias = g, single = g, parts = g;
  for (int l = 0; l < 7; ++l) {
    const std::string layer = fmt::format("model.layers.{}.", l);
    alias.rename(layer + "experts.gate_up_proj", layer + "moe.gate_up_proj");
    alias.rename(layer + "experts.down_proj", layer + "experts.down_proj.weight");
    alias.rename(layer + "router.per_expert_scale", layer + "moe.per_expert_scale");
    alias.rename(layer + "router.scale", layer + "router_scale");
    const CheckpointTensor gate_up = single.take(layer + "experts.gate_up_proj");
    const CheckpointTensor down = single.take(layer + "experts.down_proj");
    CheckpointTensor gate{DType::kBF16, {12, 16, 96}, ""}, up = gate;
    const size_t half = 16 * 96 * 2;
    for (size_t e = 0; e < 12; ++e) {
      const std::string name = fmt::format("{}experts.{}.", layer, e);
      single.tensors[name + "gate_proj.weight"] = {
          DType::kBF16, {16, 96}, gate_up.bytes.substr(2 * e * half, half)};
      single.tensors[name + "up_proj.weight"] = {
          DType::kBF16, {16, 96}, gate_up.bytes.substr((2 * e + 1) * half, half)};
      single.tensors[name + "down_proj.weight"] = {
          DType::kBF16, {96, 16}, down.bytes.substr(e * half, half)};
      gate.bytes += gate_up.bytes.substr(2 * e * half, half);
      up.bytes += gate_up.bytes.substr((2 * e + 1) * half, half);
    }
    parts.take(layer + "experts.gate_up_proj");
    parts.tensors[layer + "moe.gate_proj"] = gate;
    parts.tensors[layer + "moe.up_proj"] = up;
  }
  expect_equal(load(alias), base);
  expect_equal(load(single), base);
  expect_equal(load(parts), base);
}

TEST(Variants, ATiedHeadMayBeStoredAndIsNotRead) {
  Checkpoint c = Checkpoint::golden("qwen3moe-b");
  CheckpointTensor head = c.tensors["model.embed_tokens.weight"];
  std::fill(head.bytes.begin(), head.bytes.end(), '\0');
  c.tensors["lm_head.weight"] = head;
  expect_equal(load(c), load_golden("qwen3moe-b"));
  c.config["tie_word_embeddings"] = false;  // now it is a head of its own
  const Loaded l = load(c);
  ASSERT_NE(l.model, nullptr);
  EXPECT_EQ(packed_element(l.model->head, 5, 5), 0.0f);
  EXPECT_EQ(l.model->embedding.storage, StorageKind::kMapped);
}

TEST(Variants, LargeMatricesArePackedInSlices) {
  constexpr int64_t kV = 200'003, kD = 96;  // 38 MB in bf16, a ragged last panel
  std::mt19937 random(11);
  for (const bool tied : {true, false}) {
    Checkpoint c = Checkpoint::golden("qwen3moe-b");
    c.config["vocab_size"] = kV;
    c.config["tie_word_embeddings"] = tied;
    CheckpointTensor t{DType::kBF16, {kV, kD}, std::string(kV * kD * 2, '\0')};
    for (size_t i = 0; i < t.bytes.size(); i += 2) {
      t.bytes[i] = static_cast<char>(random());
      t.bytes[i + 1] = static_cast<char>(0x3f - random() % 2 * 0x80);
    }
    c.tensors[tied ? "model.embed_tokens.weight" : "lm_head.weight"] = t;
    if (!tied) c.tensors["model.embed_tokens.weight"] = t;
    const Loaded l = load(c, 1, Compute::kBf16);
    ASSERT_NE(l.model, nullptr);
    ASSERT_EQ(l.model->head.n, kV);
    EXPECT_EQ(l.model->head.layout, WeightLayout::kPanel16);
    EXPECT_EQ(l.model->head.bytes,
              packed_bytes(WeightFormat::kBF16, WeightLayout::kPanel16, kV, kD));
    for (int64_t i = 0; i < kV * kD; i += i < 100'000 || i > kV * kD - 5000 ? 1 : 37)
      ASSERT_EQ(packed_element(l.model->head, i / kD, i % kD), t.value(i)) << i;
  }
}

// MXFP4 written out as floats, transposed as unquantised gpt-oss checkpoints are.
TEST(Variants, GptOssBlocksAsFloats) {
  Checkpoint c = Checkpoint::golden("gptoss-b");
  c.config.erase("quantization_config");
  for (int l = 0; l < 4; ++l) {
    for (const char* what : {"gate_up_proj", "down_proj"}) {
      const std::string name = fmt::format("model.layers.{}.mlp.experts.{}", l, what);
      const CheckpointTensor blocks = c.take(name + "_blocks"), scales = c.take(name + "_scales");
      const int64_t experts = blocks.shape[0], out = blocks.shape[1], in = blocks.shape[2] * 32;
      CheckpointTensor t{DType::kBF16, {experts, in, out}, ""};
      for (int64_t e = 0; e < experts; ++e)
        for (int64_t k = 0; k < in; ++k)
          for (int64_t n = 0; n < out; ++n) {
            const int64_t block = (e * out + n) * (in / 32) + k / 32;
            const auto byte =
                static_cast<uint8_t>(blocks.bytes[static_cast<size_t>(block * 16 + k % 32 / 2)]);
            const int scale = static_cast<uint8_t>(scales.bytes[static_cast<size_t>(block)]);
            const float code = e2m1_to_f32(k % 2 == 0 ? byte & 15 : byte >> 4);
            t.append(bf16(std::ldexp(code, scale - 127)).bits);
          }
      c.tensors[name] = t;
    }
  }
  expect_equal(load(c), load_golden("gptoss-b"));
}

// fp8 with scales: one number, per row, or ragged blocks; gate and up cut inside a block.
// Long because one checkpoint holds every kind of scale beside the others.
TEST(Variants, Fp8WithEveryKindOfScale) {
  std::mt19937 random(3);
  const auto fp8 = [&](std::vector<int64_t> shape) {
    CheckpointTensor t{DType::kF8E4M3, shape, ""};
    for (int64_t i = 0; i < t.elements(); ++i)
      t.append(static_cast<uint8_t>(random() % 2 * 128 + random() % 120));
    return t;
  };
  const auto scales = [&](std::vector<int64_t> shape, bool f32) {
    CheckpointTensor t{f32 ? DType::kF32 : DType::kBF16, shape, ""};
    for (int64_t i = 0; i < t.elements(); ++i) {
      const float v = static_cast<float>(1 + random() % 255) / 256.0f;
      if (f32)
        t.append(v);
      else
        t.append(bf16(v).bits);
    }
    return t;
  };
  const auto scale_at = [](const CheckpointTensor& t, int64_t i) {
    if (t.dtype == DType::kBF16) return t.value(i);
    float v = 0;
    std::memcpy(&v, t.bytes.data() + 4 * i, 4);
    return v;
  };
  const auto code = [](const CheckpointTensor& t, int64_t i) {
    return e4m3_to_f32(static_cast<uint8_t>(t.bytes[static_cast<size_t>(i)]));
  };
  Checkpoint c = qwen_packed(Checkpoint::golden("qwen3moe-a"), false);
  c.config["quantization_config"] = {{"quant_method", "fp8"},
                                     {"fmt", "e4m3"},
                                     {"activation_scheme", "dynamic"},
                                     {"weight_block_size", {24, 40}}};
  const std::string q = "model.layers.0.self_attn.q_proj.weight",
                    k = "model.layers.0.self_attn.k_proj.weight",
                    v = "model.layers.0.self_attn.v_proj.weight",
                    experts = "model.layers.0.mlp.experts.gate_up_proj";
  c.tensors[q] = fp8({128, 64});
  c.tensors[q + "_scale_inv"] = scales({6, 2}, false);
  c.tensors[k] = fp8({64, 64});
  c.tensors[k + "_scale"] = scales({}, true);
  c.tensors[v] = fp8({64, 64});
  c.tensors[v + "_scale"] = scales({64, 1}, true);
  c.tensors[experts] = fp8({8, 64, 64});
  c.tensors[experts + "_scale_inv"] = scales({8, 3, 2}, true);
  const Loaded l = load(c);
  ASSERT_NE(l.model, nullptr);
  const LayerWeights& w = l.model->layers[0];
  for (int64_t n = 0; n < 128; ++n) {
    for (int64_t i = 0; i < 64; ++i) {
      ASSERT_EQ(packed_element(w.attention.q, n, i),
                code(c.tensors[q], n * 64 + i) *
                    scale_at(c.tensors[q + "_scale_inv"], n / 24 * 2 + i / 40));
      if (n >= 64) continue;
      ASSERT_EQ(packed_element(w.attention.k, n, i),
                code(c.tensors[k], n * 64 + i) * scale_at(c.tensors[k + "_scale"], 0));
      ASSERT_EQ(packed_element(w.attention.v, n, i),
                code(c.tensors[v], n * 64 + i) * scale_at(c.tensors[v + "_scale"], n));
      for (int64_t e = 0; e < 8; ++e)
        ASSERT_EQ(packed_element(w.moe.gate_up[static_cast<size_t>(e)], n, i),
                  code(c.tensors[experts], (e * 64 + n) * 64 + i) *
                      scale_at(c.tensors[experts + "_scale_inv"], (e * 3 + n / 24) * 2 + i / 40));
    }
  }
}

TEST(Variants, MixedDtypesAmongExperts) {
  Checkpoint c = Checkpoint::golden("qwen3moe-a");
  const Checkpoint wide = stored_as(c, DType::kF32), half = stored_as(c, DType::kF16);
  c.tensors["model.layers.0.mlp.experts.3.up_proj.weight"] =
      wide.tensors.at("model.layers.0.mlp.experts.3.up_proj.weight");
  c.tensors["model.layers.1.mlp.experts.7.down_proj.weight"] =
      half.tensors.at("model.layers.1.mlp.experts.7.down_proj.weight");
  expect_equal(load(c), load_golden("qwen3moe-a"), 0x1p-25f);
}

}  // namespace
}  // namespace sluice
