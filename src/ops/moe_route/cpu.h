// moe_route over the vector vocabulary V: reference.cc, sixteen experts at a time. Rows are padded
// to whole vectors; the padding is never chosen before an expert because its value is -infinity
// and its id is larger. Include only from *_avx2.cc and *_avx512.cc.
#pragma once

#include "ops/moe_route/kernels.h"
#include "ops/moe_route/row.h"
#include "simd/math.h"

namespace sluice::simd {

// How logits are stored; each load gives the 16 values at i, of which n >= 1 exist.
template <class V>
struct RouteF32 {
  using T = float;
  static typename V::F load(const T* p, int64_t n) {
    return n >= 16 ? V::load(p) : V::load_n(p, n);
  }
};
template <class V>
struct RouteBf16 {
  using T = uint16_t;
  static typename V::F load(const T* p, int64_t n) {
    if (n >= 16) return V::load_bf16(p);
    T tail[16] = {};
    for (int64_t i = 0; i < n; ++i) tail[i] = p[i];
    return V::load_bf16(tail);
  }
};
template <class V>
struct RouteF16 {
  using T = uint16_t;
  static typename V::F load(const T* p, int64_t n) {
    if (n >= 16) return V::load_f16(p);
    T tail[16] = {};
    for (int64_t i = 0; i < n; ++i) tail[i] = p[i];
    return V::load_f16(tail);
  }
};

// A row of values from which the largest are taken: tops[c] is the largest of x[16c, 16c + 16).
template <class V>
struct RouteValues {
  alignas(64) float x[kMaxExperts];
  alignas(64) float tops[kMaxExperts / 16];
};
template <class V>
struct RouteRow {
  alignas(64) float logits[kMaxExperts];
  alignas(64) float score[kMaxExperts];  // p, or the logit for kSoftmaxSelected
  RouteValues<V> select, groups;
};

template <class V>
SLUICE_SIMD_INLINE typename V::F infinity(int sign) {
  return V::from_bits(V::seti(static_cast<int32_t>(sign < 0 ? 0xff800000u : 0x7f800000u)));
}
// Lanes that are neither infinite nor NaN.
template <class V>
SLUICE_SIMD_INLINE typename V::M finite(typename V::F x) {
  const auto magnitude = V::from_bits(V::andi(V::bits_of(x), V::seti(0x7fffffff)));
  return V::less(magnitude, infinity<V>(1));
}
// route::rounded.
template <class V>
SLUICE_SIMD_INLINE typename V::F rounded(typename V::F x, bool round) {
  return round ? round_bf16<V>(x) : x;
}
// The one lane of a vector.
template <class V>
SLUICE_SIMD_INLINE typename V::M only(int lane) {
  alignas(64) static constexpr float kLanes[16] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                   8, 9, 10, 11, 12, 13, 14, 15};
  return V::equal(V::load(kLanes), V::set1(static_cast<float>(lane)));
}

// route::softmax_finite. l and p are padded to 16; padding in l is not finite. False: nothing is
// finite, p is not written.
template <class V>
bool softmax_finite(const float* l, int64_t n, float* p) {
  auto m = infinity<V>(-1);
  for (int64_t i = 0; i < n; i += 16) {
    const auto v = V::load(l + i);
    m = V::select(finite<V>(v), V::max(m, v), m);
  }
  const auto top = V::set1(V::reduce_max(m));
  if ((V::bits(finite<V>(top)) & 1u) == 0) return false;
  Sum32<V> sum;
  for (int64_t i = 0; i < n; i += 16) {
    const auto v = V::load(l + i);
    const auto e = V::select(finite<V>(v), exp<V>(V::sub(v, top)), V::zero());
    V::store(p + i, e);
    sum.add(i, e);
  }
  const auto total = V::set1(sum.total());
  for (int64_t i = 0; i < n; i += 16) V::store(p + i, V::div(V::load(p + i), total));
  return true;
}

// Widens and rounds a row of logits, padded with -infinity; returns whether all, some or none are
// finite.
struct Finite {
  bool all, any;
};
template <class V, class In>
Finite load_row(const typename In::T* from, int64_t experts, bool round, float* to) {
  Finite f{true, false};
  for (int64_t i = 0; i < experts; i += 16) {
    const int64_t n = experts - i;
    const auto v =
        V::select(V::first(n), rounded<V>(In::load(from + i, n), round), infinity<V>(-1));
    const uint32_t wanted = n >= 16 ? 0xffffu : (1u << static_cast<unsigned>(n)) - 1u;
    const uint32_t got = V::bits(finite<V>(v));
    f.all = f.all && got == wanted;
    f.any = f.any || got != 0;
    V::store(to + i, v);
  }
  return f;
}

template <class V>
void score_row(const MoeRouteTask& task, RouteRow<V>& row) {
  const int64_t e = task.experts;
  const RouteScore score = task.rule.score;
  const bool selected = score == RouteScore::kSoftmaxSelected;
  const bool by_logit = selected || task.rule.select == RouteSelect::kLogit;
  const bool round = task.rule.rounding.scores && !selected;
  if (score == RouteScore::kSoftmaxAll) softmax_finite<V>(row.logits, e, row.score);
  for (int64_t i = 0; i < e; i += 16) {
    const auto l = V::load(row.logits + i);
    const auto usable = finite<V>(l);
    auto s = l;
    if (score == RouteScore::kSoftmaxAll) s = V::load(row.score + i);
    if (score == RouteScore::kSigmoid) s = V::select(usable, sigmoid<V>(l), V::zero());
    if (score == RouteScore::kSqrtSoftplus) s = V::select(usable, sqrt_softplus<V>(l), V::zero());
    s = rounded<V>(s, round);
    V::store(row.score + i, s);
    if (by_logit) s = l;
    if (task.selection_bias != nullptr) s = V::add(s, V::load_n(task.selection_bias + i, e - i));
    s = V::select(finite<V>(s), s, infinity<V>(-1));
    V::store(row.select.x + i, V::select(usable, s, infinity<V>(-1)));
  }
}

// The largest of every 16, padded to whole vectors.
template <class V>
void find_tops(RouteValues<V>& values, int64_t n) {
  for (int64_t c = 0; c < n; c += 256) {
    auto tops = infinity<V>(-1);
    for (int64_t i = c; i < n && i < c + 256; i += 16) {
      const auto top = V::set1(V::reduce_max(V::load(values.x + i)));
      tops = V::select(only<V>(static_cast<int>((i - c) / 16)), top, tops);
    }
    V::store(values.tops + c / 16, tops);
  }
}

// Takes the lowest index among the largest values left; -1 when only -infinity is. Vector stores
// only: a scalar one would stall the vector load that follows.
template <class V>
int64_t take_best(RouteValues<V>& values, int64_t n) {
  auto m = infinity<V>(-1);
  for (int64_t c = 0; c < n; c += 256) m = V::max(m, V::load(values.tops + c / 16));
  const auto best = V::set1(V::reduce_max(m));
  if ((V::bits(V::greater(best, infinity<V>(-1))) & 1u) == 0) return -1;
  for (int64_t c = 0; c < n; c += 256) {
    const auto tops = V::load(values.tops + c / 16);
    const uint32_t holds = V::bits(V::equal(tops, best));
    if (holds == 0) continue;
    const int at = __builtin_ctz(holds);
    float* x = values.x + c + 16 * at;
    auto v = V::load(x);
    const int lane = __builtin_ctz(V::bits(V::equal(v, best)));
    v = V::select(only<V>(lane), infinity<V>(-1), v);
    V::store(x, v);
    V::store(values.tops + c / 16, V::select(only<V>(at), V::set1(V::reduce_max(v)), tops));
    return c + 16 * at + lane;
  }
  return -1;
}

template <class V>
int64_t take_largest(RouteValues<V>& values, int64_t n, int64_t k, int32_t* ids) {
  find_tops<V>(values, n);
  int64_t chosen = 0;
  for (; chosen < k; ++chosen) {
    const int64_t id = take_best<V>(values, n);
    if (id < 0) break;
    ids[chosen] = static_cast<int32_t>(id);
  }
  return chosen;
}

// route::group_score: per lane the two largest, then across lanes.
template <class V>
float group_score(GroupScore rule, const float* x, int64_t n) {
  auto first = infinity<V>(-1), second = first;
  for (int64_t i = 0; i < n; i += 16) {
    auto v = n - i >= 16 ? V::load(x + i) : V::load_n(x + i, n - i);
    v = V::select(V::first(n - i), v, infinity<V>(-1));
    second = V::max(second, V::min(first, v));
    first = V::max(first, v);
  }
  const float top = V::reduce_max(first);
  if (rule == GroupScore::kMax) return top;
  const int lane = __builtin_ctz(V::bits(V::equal(first, V::set1(top))));
  return top + V::reduce_max(V::select(only<V>(lane), second, first));
}

// Experts outside the best groups come last.
template <class V>
void drop_groups(const MoeRouteTask& task, RouteRow<V>& row) {
  const RouteGroups& groups = task.rule.groups;
  if (groups.kept == groups.count) return;
  const int64_t each = task.experts / groups.count;
  const int64_t padded = (groups.count + 15) / 16 * 16;
  for (int64_t g = 0; g < padded; ++g)
    row.groups.x[g] = g < groups.count ? group_score<V>(groups.score, row.select.x + g * each, each)
                                       : route::minus_infinity<V>();
  int32_t best[kMaxExperts];
  const int64_t chosen = take_largest<V>(row.groups, groups.count, groups.kept, best);
  route::fill_places<V>(chosen, groups.kept, best);
  bool kept[kMaxExperts];
  for (int64_t g = 0; g < groups.count; ++g) kept[g] = false;
  for (int64_t g = 0; g < groups.kept; ++g) kept[best[g]] = true;
  for (int64_t g = 0; g < groups.count; ++g)
    for (int64_t i = 0; !kept[g] && i < each; i += 16)
      V::store_n(row.select.x + g * each + i, infinity<V>(-1), each - i);
}

// Scores of the chosen experts; places that were only filled weigh nothing.
template <class V>
void pick_scores(const MoeRouteTask& task, const RouteRow<V>& row, const int32_t* ids,
                 int64_t chosen, float* w) {
  for (int64_t i = chosen; i < task.k; ++i) w[i] = 0.0f;
  if (task.rule.score != RouteScore::kSoftmaxSelected) {
    for (int64_t i = 0; i < chosen; ++i) w[i] = row.score[ids[i]];
    return;
  }
  alignas(64) float selected[kMaxExpertsPerToken], p[kMaxExpertsPerToken];
  for (int64_t i = 0; i < kMaxExpertsPerToken; i += 16) V::store(selected + i, infinity<V>(-1));
  for (int64_t i = 0; i < chosen; ++i) selected[i] = row.score[ids[i]];
  if (!softmax_finite<V>(selected, chosen, p)) return;  // nothing was chosen
  for (int64_t i = 0; i < chosen; ++i) w[i] = route::rounded<V>(p[i], task.rule.rounding.scores);
}

template <class V, class In>
uint32_t append_shared(const MoeRouteTask& task, const typename In::T* from, int32_t* ids,
                       float* w) {
  const RouteRule& rule = task.rule;
  const bool sigmoids = rule.shared_weight == SharedWeight::kSigmoid;
  uint32_t flags = 0;
  for (int64_t s = 0; s < rule.shared; s += 16) {
    const int64_t n = rule.shared - s < 16 ? rule.shared - s : 16;
    auto v = V::set1(1.0f);
    if (sigmoids) {
      const auto l = rounded<V>(In::load(from + task.experts + s, n), rule.rounding.logits);
      const auto usable = finite<V>(l);
      const uint32_t wanted = (1u << static_cast<unsigned>(n)) - 1u;
      if ((V::bits(usable) & wanted) != wanted) flags = route::kNonFiniteRow;
      v = V::select(usable, sigmoid<V>(l), V::zero());
      v = rounded<V>(v, rule.rounding.scores || rule.rounding.out);
    }
    V::store_n(w + task.k + s, v, n);
    for (int64_t i = 0; i < n; ++i)
      ids[task.k + s + i] = static_cast<int32_t>(task.experts + s + i);
  }
  return flags;
}

// Rows that choose their experts in turns: each choice waits for the one before it, which leaves
// room for those of three other rows (AVX-512 at 2.6 GHz, 256 rows of 128 experts, K = 8: 54 us;
// one row after the other 93).
inline constexpr int64_t kRouteRows = 4;

template <class V>
void select_in_turns(const MoeRouteTask& task, RouteRow<V>* rows, int64_t n, const bool* any,
                     int32_t* ids, int64_t* chosen) {
  for (int64_t r = 0; r < n; ++r) {
    chosen[r] = 0;
    if (any[r]) find_tops<V>(rows[r].select, task.experts);
  }
  for (int64_t k = 0; k < task.k; ++k)
    for (int64_t r = 0; r < n; ++r) {
      if (!any[r] || chosen[r] < k) continue;  // nothing finite is left
      const int64_t id = take_best<V>(rows[r].select, task.experts);
      if (id < 0) continue;
      ids[r * task.out_stride + k] = static_cast<int32_t>(id);
      chosen[r] = k + 1;
    }
}

template <class V, class In>
RouteCounts moe_route(const MoeRouteTask& task) {
  RouteCounts counts;
  RouteRow<V> rows[kRouteRows];
  for (int64_t t = task.begin; t < task.end; t += kRouteRows) {
    const int64_t n = task.end - t < kRouteRows ? task.end - t : kRouteRows;
    const auto* logits = static_cast<const typename In::T*>(task.logits) + t * task.stride;
    int32_t* ids = task.ids + t * task.out_stride;
    float* weights = task.weights + t * task.out_stride;
    bool any[kRouteRows], all[kRouteRows];
    for (int64_t r = 0; r < n; ++r) {
      const Finite f = load_row<V, In>(logits + r * task.stride, task.experts,
                                       task.rule.rounding.logits, rows[r].logits);
      any[r] = f.any, all[r] = f.all;
      if (!f.any) continue;
      score_row<V>(task, rows[r]);
      drop_groups<V>(task, rows[r]);
    }
    int64_t chosen[kRouteRows];
    select_in_turns<V>(task, rows, n, any, ids, chosen);
    for (int64_t r = 0; r < n; ++r) {
      int32_t* row_ids = ids + r * task.out_stride;
      float* w = weights + r * task.out_stride;
      route::fill_places<V>(chosen[r], task.k, row_ids);
      pick_scores<V>(task, rows[r], row_ids, chosen[r], w);
      uint32_t flags = route::weigh<V>(task.rule, task.per_expert_scale, row_ids, task.k, w);
      flags |= append_shared<V, In>(task, logits + r * task.stride, row_ids, w);
      counts.non_finite_rows += !all[r] || (flags & route::kNonFiniteRow) != 0 ? 1 : 0;
      counts.zero_rows += (flags & route::kZeroRow) != 0 ? 1 : 0;
    }
  }
  return counts;
}

}  // namespace sluice::simd
