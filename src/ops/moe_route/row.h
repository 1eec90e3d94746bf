// The rules of one routed row, scalar, over plain pointers: the definition. reference.cc is made of
// them; the vector forms in cpu.h repeat the first half sixteen experts at a time and call the
// second half (what follows once K experts are chosen) as it is.
//
// Tag: whose translation unit asks, so that no two ISAs share a function.
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "ops/moe_route/rule.h"
#include "simd/scalar.h"

namespace sluice::route {

inline constexpr uint32_t kInfinityBits = 0x7f800000u;

template <class Tag>
SLUICE_HD bool is_finite(float x) {
  return (__builtin_bit_cast(uint32_t, x) & 0x7fffffffu) < kInfinityBits;
}
template <class Tag>
SLUICE_HD float minus_infinity() {
  return __builtin_bit_cast(float, 0xff800000u);
}
// Nearest bf16, as an f32; x unless round; a NaN stays.
template <class Tag>
SLUICE_HD float rounded(float x, bool round) {
  const uint32_t b = __builtin_bit_cast(uint32_t, x);
  if (!round || (b & 0x7fffffffu) > kInfinityBits) return x;
  return __builtin_bit_cast(float, (b + 0x7fffu + ((b >> 16) & 1u)) & 0xffff0000u);
}

// ---- before selection ---------------------------------------------------------------------------

// p = exp(l - max) of the finite ones of l, others 0, divided by their sum32. False: none is
// finite, and p is zeros.
template <class Tag>
SLUICE_HD bool softmax_finite(const float* l, int64_t n, float* p) {
  float m = minus_infinity<Tag>();
  for (int64_t i = 0; i < n; ++i)
    if (is_finite<Tag>(l[i])) m = scalar::max(m, l[i]);
  for (int64_t i = 0; i < n; ++i) p[i] = 0.0f;
  if (!is_finite<Tag>(m)) return false;
  scalar::Sum32 sum;
  for (int64_t i = 0; i < n; ++i) {
    if (is_finite<Tag>(l[i])) p[i] = scalar::exp(l[i] - m);
    sum.add(i, p[i]);
  }
  const float total = sum.total();
  for (int64_t i = 0; i < n; ++i) p[i] = p[i] / total;
  return true;
}

// The score of one finite logit for the rules that look at one logit alone.
template <class Tag>
SLUICE_HD float score_of(RouteScore score, float l) {
  if (score == RouteScore::kSigmoid) return scalar::sigmoid(l);
  if (score == RouteScore::kSqrtSoftplus) return scalar::sqrt_softplus(l);
  return l;
}

// What competes for an expert; -infinity: comes last, by id.
template <class Tag>
SLUICE_HD float select_value(const RouteRule& rule, float logit, float score, const float* bias,
                             int64_t e) {
  const bool by_logit =
      rule.select == RouteSelect::kLogit || rule.score == RouteScore::kSoftmaxSelected;
  float s = by_logit ? logit : score;
  if (bias != nullptr) s = s + bias[e];
  return is_finite<Tag>(logit) && is_finite<Tag>(s) ? s : minus_infinity<Tag>();
}

// The score of the group x[0, n).
template <class Tag>
SLUICE_HD float group_score(GroupScore rule, const float* x, int64_t n) {
  float first = minus_infinity<Tag>(), second = first;
  for (int64_t i = 0; i < n; ++i) {
    const float v = x[i];
    if (v > first) {
      second = first;
      first = v;
    } else if (v > second) {
      second = v;
    }
  }
  return rule == GroupScore::kMax ? first : first + second;
}

// The `k` largest of x[0, n), which are overwritten with -infinity as they are taken; the lowest
// index among equals. Returns how many were above -infinity; the places behind them are filled with
// the lowest indices that are not yet there.
template <class Tag>
SLUICE_HD int64_t take_largest(float* x, int64_t n, int64_t k, int32_t* ids) {
  int64_t chosen = 0;
  for (; chosen < k; ++chosen) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; ++i)
      if (x[i] > x[best]) best = i;
    if (!(x[best] > minus_infinity<Tag>())) break;
    x[best] = minus_infinity<Tag>();
    ids[chosen] = static_cast<int32_t>(best);
  }
  return chosen;
}

// ---- once K experts are chosen ------------------------------------------------------------------

template <class Tag>
SLUICE_HD void fill_places(int64_t chosen, int64_t k, int32_t* ids) {
  int64_t at = chosen;
  for (int32_t id = 0; at < k; ++id) {
    bool used = false;
    for (int64_t i = 0; i < chosen; ++i) used = used || ids[i] == id;
    if (!used) ids[at++] = id;
  }
}

// What a row was, as bits.
inline constexpr uint32_t kNonFiniteRow = 1;  // a logit, or a weight after its scales
inline constexpr uint32_t kZeroRow = 2;       // weights that sum to 0 had to be renormalised

// From the K scores of the chosen experts (0 for places that were only filled) to their weights.
template <class Tag>
SLUICE_HD uint32_t weigh(const RouteRule& rule, const float* per_expert_scale, const int32_t* ids,
                         int64_t k, float* w) {
  const bool round = rule.rounding.weights;
  uint32_t flags = 0;
  if (rule.renormalise) {
    float sum = 0.0f;
    for (int64_t i = 0; i < k; ++i) sum = sum + w[i];
    if (!(sum > 0.0f)) flags |= kZeroRow;
    const float divisor = rounded<Tag>(rounded<Tag>(sum, round) + rule.epsilon, round);
    for (int64_t i = 0; i < k; ++i)
      w[i] = divisor > 0.0f ? rounded<Tag>(w[i] / divisor, round) : 0.0f;
  }
  for (int64_t i = 0; i < k; ++i) {
    float v = rounded<Tag>(w[i] * rule.routed_scale, round);
    if (per_expert_scale != nullptr) v = rounded<Tag>(v * per_expert_scale[ids[i]], round);
    v = rounded<Tag>(v, rule.rounding.out);
    if (!is_finite<Tag>(v)) {
      flags |= kNonFiniteRow;
      v = 0.0f;
    }
    w[i] = v;
  }
  return flags;
}

}  // namespace sluice::route
