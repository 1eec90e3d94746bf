// How the tests of moe_route call it, on logits of any dtype at odd addresses and strides; and the
// same rules written a second time, from the contract, with library sorts.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "base/float_env.h"
#include "ops/moe_route/moe_route.h"
#include "ops/test_data.h"
#include "simd/scalar.h"

namespace sluice::test {

// Half precision of a value that it represents exactly (or is zero, infinite or NaN).
inline uint16_t exact_f16(float f) {
  const uint32_t b = f32_to_bits(f), sign = (b >> 16) & 0x8000u, magnitude = b & 0x7fffffffu;
  if (magnitude == 0) return static_cast<uint16_t>(sign);
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude == 0x7f800000u) return static_cast<uint16_t>(sign | 0x7c00u);
  const auto half = static_cast<uint16_t>(sign | ((magnitude - 0x38000000u) >> 13));
  EXPECT_EQ(f32_to_bits(f16_to_f32(half)), b) << f << " is no half";
  return half;
}

// rows x cols logits of a dtype; reading anything around them gives NaN.
class Logits {
 public:
  Logits(DType dtype, int64_t rows, int64_t cols, int64_t pad = 0, int64_t offset = 0)
      : dtype_(dtype), rows_(rows), cols_(cols), stride_(cols + pad), offset_(offset) {
    const auto n = static_cast<size_t>(offset + rows * stride_ + 64);
    values_.assign(n, NAN);
    halves_.assign(dtype == DType::kF32 ? 0 : n, 0x7fff);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) set(r, c, 0.0f);
  }
  // Stores the value, rounded for bf16; for f16 it must be one.
  void set(int64_t r, int64_t c, float v) {
    const auto at = static_cast<size_t>(offset_ + r * stride_ + c);
    if (dtype_ == DType::kBF16) {
      halves_[at] = bf16(v).bits;
      v = static_cast<float>(bf16(v));
    }
    if (dtype_ == DType::kF16) halves_[at] = exact_f16(v);
    values_[at] = v;
  }
  float at(int64_t r, int64_t c) const { return row(r)[c]; }
  const float* row(int64_t r) const { return values_.data() + offset_ + r * stride_; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  LogitsView view(int64_t begin = 0, int64_t rows = -1) const {
    if (rows < 0) rows = rows_ - begin;
    const int64_t at = offset_ + begin * stride_;
    if (dtype_ == DType::kF32) return {values_.data() + at, dtype_, rows, cols_, stride_};
    return {halves_.data() + at, dtype_, rows, cols_, stride_};
  }

 private:
  DType dtype_;
  int64_t rows_, cols_, stride_, offset_;
  std::vector<float> values_;  // what each logit widens to
  std::vector<uint16_t> halves_;
};

struct RouteProblem {
  RouteRule rule;
  int64_t k = 1;
  std::vector<float> bias, scale;
  int64_t out_pad = 0;
  int32_t live = -1;
  int64_t wide() const { return k + rule.shared; }
  int64_t shared_columns() const {
    return rule.shared_weight == SharedWeight::kSigmoid ? rule.shared : 0;
  }
};

struct Routed {
  std::vector<int32_t> ids;
  std::vector<float> weights;
  RouteStats stats;
  Status status;
  bool operator==(const Routed& o) const {
    return ids == o.ids && stats.non_finite_rows == o.stats.non_finite_rows &&
           stats.zero_rows == o.stats.zero_rows &&
           std::equal(weights.begin(), weights.end(), o.weights.begin(), o.weights.end(),
                      [](float a, float b) { return f32_to_bits(a) == f32_to_bits(b); });
  }
};

inline constexpr int32_t kUntouchedId = -7;
inline constexpr float kUntouchedWeight = -7.5f;
inline Routed untouched(int64_t rows, const RouteProblem& p) {
  Routed r;
  const int64_t stride = p.wide() + p.out_pad;
  const int64_t n = rows == 0 ? 0 : (rows - 1) * stride + p.wide();
  r.ids.assign(static_cast<size_t>(n), kUntouchedId);
  r.weights.assign(static_cast<size_t>(n), kUntouchedWeight);
  return r;
}

inline Routed run_route(const Context& context, LogitsView logits, const RouteProblem& p) {
  // On the heap, which a device can read.
  const auto routed = std::make_unique<Routed>(untouched(logits.rows, p));
  const auto live = std::make_unique<int32_t>(p.live);
  Routed& r = *routed;
  MoeRouteArgs args;
  args.logits = logits;
  args.rule = p.rule;
  args.k = p.k;
  args.selection_bias = p.bias.empty() ? nullptr : p.bias.data();
  args.per_expert_scale = p.scale.empty() ? nullptr : p.scale.data();
  args.ids = r.ids;
  args.weights = r.weights;
  args.out_stride = p.out_pad > 0 ? p.wide() + p.out_pad : 0;
  args.live_tokens = p.live < 0 ? nullptr : live.get();
  args.stats = &r.stats;
  r.status = context.finish(moe_route(context.exec, args));
  return std::move(r);
}

// ---- the rules a second time --------------------------------------------------------------------

inline float to_bf16_if(float v, bool round) {
  return round ? round_to_bf16(v) : v;
}

// Softmax of the values that exist, indexed as given: 32 interleaved partials, then halves.
inline std::vector<float> naive_softmax(const std::vector<std::optional<float>>& l) {
  std::vector<float> p(l.size(), 0.0f), partial(32, 0.0f);
  float m = -INFINITY;
  for (const auto& v : l)
    if (v) m = std::max(m, *v);
  for (size_t i = 0; i < l.size(); ++i) {
    if (l[i]) p[i] = scalar::exp(*l[i] - m);
    partial[i % 32] += p[i];
  }
  while (partial.size() > 1) {
    const size_t half = partial.size() / 2;
    for (size_t i = 0; i < half; ++i) partial[i] += partial[i + half];
    partial.resize(half);
  }
  if (m > -INFINITY)
    for (float& v : p) v /= partial[0];
  return p;
}

// Scores of every expert; nothing where the logit is not finite.
inline std::vector<float> naive_scores(const RouteRule& rule,
                                       const std::vector<std::optional<float>>& l) {
  std::vector<float> p(l.size(), 0.0f);
  if (rule.score == RouteScore::kSoftmaxAll) p = naive_softmax(l);
  for (size_t i = 0; i < l.size(); ++i) {
    if (l[i] && rule.score == RouteScore::kSigmoid) p[i] = scalar::sigmoid(*l[i]);
    if (l[i] && rule.score == RouteScore::kSqrtSoftplus) p[i] = scalar::sqrt_softplus(*l[i]);
    p[i] = to_bf16_if(p[i], rule.rounding.scores);
  }
  return p;
}

// Leaves values only in the kept groups.
inline void naive_groups(const RouteGroups& groups, std::vector<std::optional<float>>& v) {
  const size_t each = v.size() / static_cast<size_t>(groups.count);
  std::vector<std::pair<float, size_t>> order;
  for (size_t g = 0; g < static_cast<size_t>(groups.count); ++g) {
    std::vector<float> x;
    for (size_t i = g * each; i < (g + 1) * each; ++i) x.push_back(v[i].value_or(-INFINITY));
    std::sort(x.begin(), x.end(), std::greater<>());
    order.emplace_back(groups.score == GroupScore::kMax ? x[0] : x[0] + x[1], g);
  }
  std::stable_sort(order.begin(), order.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  for (size_t place = static_cast<size_t>(groups.kept); place < order.size(); ++place)
    for (size_t i = 0; i < each; ++i) v[order[place].second * each + i].reset();
}

inline std::vector<int32_t> naive_order(const std::vector<std::optional<float>>& v, int64_t k,
                                        size_t* chosen) {
  std::vector<int32_t> ids, rest;
  for (size_t i = 0; i < v.size(); ++i) (v[i] ? ids : rest).push_back(static_cast<int32_t>(i));
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) {
    return *v[static_cast<size_t>(a)] > *v[static_cast<size_t>(b)];
  });
  *chosen = std::min(ids.size(), static_cast<size_t>(k));
  rest.insert(rest.end(), ids.begin() + static_cast<int64_t>(*chosen), ids.end());
  std::sort(rest.begin(), rest.end());
  ids.resize(*chosen);
  ids.insert(ids.end(), rest.begin(), rest.end());
  ids.resize(static_cast<size_t>(k));
  return ids;
}

inline std::vector<float> naive_weights(const RouteProblem& p, const std::vector<int32_t>& ids,
                                        std::vector<float> w, RouteStats* stats, bool* broken) {
  const RouteRounding& round = p.rule.rounding;
  if (p.rule.renormalise) {
    float sum = 0;
    for (const float v : w) sum += v;
    stats->zero_rows += sum == 0 ? 1 : 0;
    sum = to_bf16_if(to_bf16_if(sum, round.weights) + p.rule.epsilon, round.weights);
    for (float& v : w) v = sum == 0 ? 0.0f : to_bf16_if(v / sum, round.weights);
  }
  for (size_t i = 0; i < w.size(); ++i) {
    w[i] = to_bf16_if(w[i] * p.rule.routed_scale, round.weights);
    if (!p.scale.empty())
      w[i] = to_bf16_if(w[i] * p.scale[static_cast<size_t>(ids[i])], round.weights);
    w[i] = to_bf16_if(w[i], round.out);
    *broken = *broken || !std::isfinite(w[i]);
    if (!std::isfinite(w[i])) w[i] = 0;
  }
  return w;
}

// One row of E + shared columns of logits.
inline void naive_row(const RouteProblem& p, const float* row, int64_t experts, int32_t* out_ids,
                      float* out_weights, RouteStats* stats) {
  const RouteRule& rule = p.rule;
  bool broken = false;
  const auto read = [&](int64_t i) -> std::optional<float> {
    const float v = to_bf16_if(row[i], rule.rounding.logits);
    broken = broken || !std::isfinite(v);
    return std::isfinite(v) ? std::optional<float>(v) : std::nullopt;
  };
  std::vector<std::optional<float>> l, v;
  for (int64_t i = 0; i < experts; ++i) l.push_back(read(i));
  const std::vector<float> score = naive_scores(rule, l);
  const bool by_logit =
      rule.select == RouteSelect::kLogit || rule.score == RouteScore::kSoftmaxSelected;
  for (size_t i = 0; i < l.size(); ++i) {
    v.push_back(l[i]);
    if (l[i] && !by_logit) v[i] = score[i];
    if (l[i] && !p.bias.empty()) v[i] = *v[i] + p.bias[i];
    if (v[i] && !std::isfinite(*v[i])) v[i].reset();
  }
  if (rule.groups.kept < rule.groups.count) naive_groups(rule.groups, v);
  size_t chosen = 0;
  const std::vector<int32_t> ids = naive_order(v, p.k, &chosen);
  std::vector<float> w;
  for (size_t i = 0; i < chosen; ++i) w.push_back(score[static_cast<size_t>(ids[i])]);
  if (rule.score == RouteScore::kSoftmaxSelected) {
    std::vector<std::optional<float>> selected;
    for (size_t i = 0; i < chosen; ++i) selected.push_back(l[static_cast<size_t>(ids[i])]);
    w = naive_softmax(selected);
    for (float& x : w) x = to_bf16_if(x, rule.rounding.scores);
  }
  w.resize(ids.size(), 0.0f);
  w = naive_weights(p, ids, std::move(w), stats, &broken);
  std::copy(ids.begin(), ids.end(), out_ids);
  std::copy(w.begin(), w.end(), out_weights);
  for (int64_t s = 0; s < rule.shared; ++s) {
    float x = 1.0f;
    if (p.shared_columns() > 0) {
      const auto logit = read(experts + s);
      x = logit ? scalar::sigmoid(*logit) : 0.0f;
      x = to_bf16_if(x, rule.rounding.scores || rule.rounding.out);
    }
    out_ids[p.k + s] = static_cast<int32_t>(experts + s);
    out_weights[p.k + s] = x;
  }
  stats->non_finite_rows += broken ? 1 : 0;
}

inline Routed naive_route(const Logits& logits, const RouteProblem& p) {
  const ScopedFloatEnv env;
  Routed r = untouched(logits.rows(), p);
  const int64_t rows = p.live < 0 ? logits.rows() : std::min<int64_t>(p.live, logits.rows());
  for (int64_t t = 0; t < rows; ++t) {
    const int64_t at = t * (p.wide() + p.out_pad);
    naive_row(p, logits.row(t), logits.cols() - p.shared_columns(), r.ids.data() + at,
              r.weights.data() + at, &r.stats);
  }
  return r;
}

}  // namespace sluice::test
