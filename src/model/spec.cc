#include "model/spec.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace sluice {

RopeSpec plain_rope(int64_t head_size, double theta) {
  return proportional_rope(head_size, theta, 1.0, 1.0);
}

RopeSpec proportional_rope(int64_t head_size, double theta, double rotary_factor, double divisor) {
  RopeSpec rope;
  const int64_t pairs = head_size / 2;
  const auto rotated = static_cast<int64_t>(rotary_factor * static_cast<double>(head_size) / 2.0);
  rope.inv_freq.assign(static_cast<size_t>(pairs), 0.0);
  for (int64_t i = 0; i < std::min(rotated, pairs); ++i)
    rope.inv_freq[static_cast<size_t>(i)] =
        std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_size)) / divisor;
  return rope;
}

namespace {

double concentration(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

double yarn_attention_factor(const YarnParameters& yarn) {
  if (yarn.attention_factor) return *yarn.attention_factor;
  if (yarn.mscale.value_or(0) != 0 && yarn.mscale_all_dim.value_or(0) != 0)
    return concentration(yarn.factor, *yarn.mscale) /
           concentration(yarn.factor, *yarn.mscale_all_dim);
  return concentration(yarn.factor, 1.0);
}

}  // namespace

RopeSpec yarn_rope(int64_t head_size, double theta, const YarnParameters& yarn) {
  const auto d = static_cast<double>(head_size);
  // The pair that makes `turns` turns over the original context.
  const auto bound = [&](double turns) {
    return d / 2 * std::log(yarn.original_context / (turns * 2 * std::numbers::pi)) /
           std::log(theta);
  };
  double low = bound(yarn.beta_fast), high = bound(yarn.beta_slow);
  if (yarn.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, d - 1);  // d - 1, not d / 2 - 1: as published
  if (low == high) high += 0.001;
  RopeSpec rope = plain_rope(head_size, theta);
  for (size_t i = 0; i < rope.inv_freq.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    const double f = rope.inv_freq[i];
    rope.inv_freq[i] = f / yarn.factor * ramp + f * (1.0 - ramp);
  }
  rope.factor = yarn_attention_factor(yarn);
  return rope;
}

void assign_kv_groups(ModelSpec& spec) {
  spec.kv_groups.clear();
  for (size_t l = 0; l < spec.layers.size(); ++l) {
    AttentionSpec& a = spec.layers[l].attention;
    const auto same = [&](const KvGroupSpec& g) {
      return g.kv_heads == a.kv_heads && g.head_size == a.head_size && g.window == a.window &&
             g.k_is_v == a.k_is_v;
    };
    auto group = std::find_if(spec.kv_groups.begin(), spec.kv_groups.end(), same);
    if (group == spec.kv_groups.end()) {
      spec.kv_groups.push_back({a.kv_heads, a.head_size, a.window, a.k_is_v, {}});
      group = spec.kv_groups.end() - 1;
    }
    a.kv_group = static_cast<int>(group - spec.kv_groups.begin());
    a.kv_layer = static_cast<int>(group->layers.size());
    group->layers.push_back(static_cast<int>(l));
  }
}

namespace {

Status expect(bool holds, std::string_view what, std::string_view expected, double got) {
  if (holds) return ok_status();
  return invalid_argument("{}: expected {}, got {}", what, expected, got);
}

bool positive_finite(float f) {
  return std::isfinite(f) && f > 0;
}

Status validate_attention(const AttentionSpec& a, const ModelSpec& spec) {
  const auto num = [](int64_t v) { return static_cast<double>(v); };
  SLUICE_RETURN_IF_ERROR(
      expect(a.heads > 0, "attention heads (H)", "a positive number", num(a.heads)));
  SLUICE_RETURN_IF_ERROR(expect(a.kv_heads > 0 && a.heads % a.kv_heads == 0, "kv heads (G)",
                                fmt::format("a divisor of H = {}", a.heads), num(a.kv_heads)));
  SLUICE_RETURN_IF_ERROR(expect(a.head_size > 0 && a.head_size % 2 == 0 && a.head_size <= 1024,
                                "head size (C)", "an even number up to 1024", num(a.head_size)));
  SLUICE_RETURN_IF_ERROR(expect(a.window >= 0, "window", "0 or more", num(a.window)));
  SLUICE_RETURN_IF_ERROR(expect(positive_finite(a.scale), "attention scale", "a positive number",
                                static_cast<double>(a.scale)));
  const bool rope_known = a.rope >= 0 && a.rope < static_cast<int>(spec.ropes.size());
  SLUICE_RETURN_IF_ERROR(
      expect(rope_known, "rope", fmt::format("an index below {}", spec.ropes.size()), a.rope));
  const RopeSpec& rope = spec.ropes[static_cast<size_t>(a.rope)];
  SLUICE_RETURN_IF_ERROR(expect(static_cast<int64_t>(rope.inv_freq.size()) * 2 == a.head_size,
                                "rope pairs", fmt::format("{} (C / 2)", a.head_size / 2),
                                static_cast<double>(rope.inv_freq.size())));
  const bool group_known = a.kv_group >= 0 && a.kv_group < static_cast<int>(spec.kv_groups.size());
  return expect(group_known, "kv group", fmt::format("an index below {}", spec.kv_groups.size()),
                a.kv_group);
}

Status validate_moe(const MoeSpec& m) {
  SLUICE_RETURN_IF_ERROR(expect(m.experts > 0 && m.experts <= 4096, "experts (E)", "1 to 4096",
                                static_cast<double>(m.experts)));
  const int64_t max_k = std::min<int64_t>(m.experts, 64);
  SLUICE_RETURN_IF_ERROR(expect(m.k > 0 && m.k <= max_k, "experts per token (K)",
                                fmt::format("1 to {} (E = {})", max_k, m.experts),
                                static_cast<double>(m.k)));
  return expect(m.width > 0, "expert width (I)", "a positive number", static_cast<double>(m.width));
}

Status validate_layer(const LayerSpec& layer, const ModelSpec& spec) {
  SLUICE_RETURN_IF_ERROR(validate_attention(layer.attention, spec));
  if (!layer.dense && !layer.moe) return invalid_argument("expected a feed-forward, got none");
  if (layer.dense && layer.moe && layer.norms != NormPlacement::kSandwich)
    return invalid_argument("dense and experts side by side: expected norms around each branch");
  if (layer.dense)
    SLUICE_RETURN_IF_ERROR(expect(layer.dense->width > 0, "feed-forward width (I)",
                                  "a positive number", static_cast<double>(layer.dense->width)));
  return layer.moe ? validate_moe(*layer.moe) : ok_status();
}

}  // namespace

Status validate_spec(const ModelSpec& spec) {
  const auto num = [](int64_t v) { return static_cast<double>(v); };
  SLUICE_RETURN_IF_ERROR(expect(spec.d > 0, "model width (D)", "a positive number", num(spec.d)));
  SLUICE_RETURN_IF_ERROR(expect(spec.vocabulary > 0 && spec.vocabulary <= (1 << 20),
                                "vocabulary (V)", "1 to 2^20", num(spec.vocabulary)));
  SLUICE_RETURN_IF_ERROR(expect(spec.context > 0 && spec.context <= INT32_MAX, "context",
                                "1 to 2^31 - 1", num(spec.context)));
  SLUICE_RETURN_IF_ERROR(
      expect(positive_finite(spec.eps), "eps", "a positive number", static_cast<double>(spec.eps)));
  SLUICE_RETURN_IF_ERROR(expect(positive_finite(spec.embed_scale), "embedding scale",
                                "a positive number", static_cast<double>(spec.embed_scale)));
  SLUICE_RETURN_IF_ERROR(expect(std::isfinite(spec.final_softcap) && spec.final_softcap >= 0,
                                "final soft cap", "0 or a positive number",
                                static_cast<double>(spec.final_softcap)));
  if (spec.layers.empty()) return invalid_argument("layers (L): expected at least 1, got 0");
  for (size_t l = 0; l < spec.layers.size(); ++l)
    if (Status s = validate_layer(spec.layers[l], spec); !s.ok())
      return s.annotate(fmt::format("layer {}", l));
  for (size_t r = 0; r < spec.ropes.size(); ++r) {
    const RopeSpec& rope = spec.ropes[r];
    const bool finite =
        std::isfinite(rope.factor) && std::all_of(rope.inv_freq.begin(), rope.inv_freq.end(),
                                                  [](double f) { return std::isfinite(f); });
    if (!finite) return invalid_argument("rope {}: expected finite frequencies and factor", r);
  }
  return ok_status();
}

}  // namespace sluice
