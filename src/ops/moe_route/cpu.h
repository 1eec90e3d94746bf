// moe_route over the vector vocabulary V: reference.cc, sixteen experts at a time. Rows are padded
// to whole vectors; the padding is never chosen before an expert because its value is -infinity
// and its id is larger. Include only from *_avx2.cc and *_avx512.cc.
#pragma once

#include "ops/moe_route/kernels.h"
#include "simd/math.h"

namespace sluice::simd {

template <class V>
struct RouteRow {
  alignas(64) float logits[kMaxExperts];
  alignas(64) float score[kMaxExperts];   // p, or the logit for kSoftmaxSelected
  alignas(64) float select[kMaxExperts];  // score + bias; -infinity: fills up a row, or is taken
};

template <class V>
typename V::F infinity(int sign) {
  return V::from_bits(V::seti(static_cast<int32_t>(sign < 0 ? 0xff800000u : 0x7f800000u)));
}
// Lanes that are neither infinite nor NaN.
template <class V>
typename V::M finite(typename V::F x) {
  const auto magnitude = V::from_bits(V::andi(V::bits_of(x), V::seti(0x7fffffff)));
  return V::less(magnitude, infinity<V>(1));
}

// exp(l - max) of the finite ones of l[0, n), others 0, divided by their sum32. l and p are padded
// to 16; padding in l is not finite. False: nothing is finite, p is not written.
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

// Copies a row of logits, padded with -infinity; returns whether all, some or none are finite.
struct Finite {
  bool all, any;
};
template <class V>
Finite load_row(const float* from, int64_t experts, float* to) {
  Finite f{true, false};
  for (int64_t i = 0; i < experts; i += 16) {
    const int64_t n = experts - i;
    const auto inside = V::first(n);
    const auto v =
        V::select(inside, n >= 16 ? V::load(from + i) : V::load_n(from + i, n), infinity<V>(-1));
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
  if (task.rule.score == RouteScore::kSoftmaxAll) softmax_finite<V>(row.logits, e, row.score);
  for (int64_t i = 0; i < e; i += 16) {
    const auto l = V::load(row.logits + i);
    const auto usable = finite<V>(l);
    auto s = l;
    if (task.rule.score == RouteScore::kSoftmaxAll) s = V::load(row.score + i);
    if (task.rule.score == RouteScore::kSigmoid) s = V::select(usable, sigmoid<V>(l), V::zero());
    V::store(row.score + i, s);
    if (task.selection_bias != nullptr) s = V::add(s, V::load_n(task.selection_bias + i, e - i));
    s = V::select(finite<V>(s), s, infinity<V>(-1));
    V::store(row.select + i, V::select(usable, s, infinity<V>(-1)));
  }
}

// The lowest id among the largest values left; -1 when nothing finite is left.
template <class V>
int64_t take_best(RouteRow<V>& row, int64_t experts) {
  auto m = infinity<V>(-1);
  for (int64_t i = 0; i < experts; i += 16) m = V::max(m, V::load(row.select + i));
  const auto best = V::set1(V::reduce_max(m));
  if ((V::bits(finite<V>(best)) & 1u) == 0) return -1;
  for (int64_t i = 0; i < experts; i += 16) {
    const uint32_t equal = V::bits(V::equal(V::load(row.select + i), best));
    if (equal == 0) continue;
    const int64_t id = i + __builtin_ctz(equal);
    V::store_n(row.select + id, infinity<V>(-1), 1);
    return id;
  }
  return -1;
}

template <class V>
void select_experts(const MoeRouteTask& task, RouteRow<V>& row, int32_t* ids) {
  int64_t k = 0;
  for (; k < task.k; ++k) {
    const int64_t id = take_best<V>(row, task.experts);
    if (id < 0) break;
    ids[k] = static_cast<int32_t>(id);
  }
  // What is left has no finite value: lowest ids that are not yet in the row.
  const int64_t finite_count = k;
  for (int32_t id = 0; k < task.k; ++id) {
    bool used = false;
    for (int64_t i = 0; i < finite_count; ++i) used = used || ids[i] == id;
    if (!used) ids[k++] = id;
  }
}

template <class V>
void weigh(const MoeRouteTask& task, const RouteRow<V>& row, const int32_t* ids, float* w) {
  const int64_t k = task.k;
  if (task.rule.score == RouteScore::kSoftmaxSelected) {
    alignas(64) float selected[kMaxExpertsPerToken], p[kMaxExpertsPerToken];
    for (int64_t i = 0; i < kMaxExpertsPerToken; i += 16) V::store(selected + i, infinity<V>(-1));
    for (int64_t i = 0; i < k; ++i) selected[i] = row.score[ids[i]];
    const bool any = softmax_finite<V>(selected, k, p);
    for (int64_t i = 0; i < k; ++i) w[i] = any ? p[i] : 1.0f / float(k);
  } else {
    for (int64_t i = 0; i < k; ++i) w[i] = row.score[ids[i]];
  }
  if (task.rule.renormalise) {
    float sum = 0;
    for (int64_t i = 0; i < k; ++i) sum = sum + w[i];
    const float divisor = sum + task.rule.epsilon;
    for (int64_t i = 0; i < k; ++i) w[i] = divisor != 0 ? w[i] / divisor : 1.0f / float(k);
  }
  for (int64_t i = 0; i < k; ++i) {
    w[i] = w[i] * task.rule.routed_scale;
    if (task.per_expert_scale != nullptr) w[i] = w[i] * task.per_expert_scale[ids[i]];
  }
}

template <class V>
int64_t moe_route(const MoeRouteTask& task) {
  int64_t non_finite_rows = 0;
  RouteRow<V> row;
  for (int64_t t = task.begin; t < task.end; ++t) {
    int32_t* ids = task.ids + t * task.k;
    float* weights = task.weights + t * task.k;
    const Finite f = load_row<V>(task.logits + t * task.stride, task.experts, row.logits);
    non_finite_rows += f.all ? 0 : 1;
    if (!f.any) {
      for (int64_t k = 0; k < task.k; ++k) {
        ids[k] = static_cast<int32_t>(k);
        weights[k] = 1.0f / float(task.k);
      }
      continue;
    }
    score_row<V>(task, row);
    select_experts<V>(task, row, ids);
    weigh<V>(task, row, ids, weights);
  }
  return non_finite_rows;
}

}  // namespace sluice::simd
