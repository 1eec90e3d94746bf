// moe_combine over the vector vocabulary V. Include only from *_avx2.cc and *_avx512.cc.
#pragma once

#include "ops/moe_combine/kernels.h"
#include "ops/rms_norm/cpu.h"

namespace sluice::simd {

// The expert rows of one token that were not dropped, in ascending k.
struct TokenRows {
  int64_t count = 0;
  const float* row[kMaxRowsPerToken];
  float weight[kMaxRowsPerToken];
};
template <class V>
void collect_rows(const MoeCombineTask& task, int64_t t, TokenRows& rows) {
  rows.count = 0;
  for (int64_t f = t * task.k; f < (t + 1) * task.k; ++f) {
    if (task.inverse[f] < 0) continue;
    rows.row[rows.count] = task.y + task.inverse[f] * task.y_stride;
    rows.weight[rows.count++] = task.weights != nullptr ? task.weights[f] : 1.0f;
  }
}

// The same in ascending slot (insertion: K is small).
template <class V>
void sort_by_slot(TokenRows& rows) {
  for (int64_t i = 1; i < rows.count; ++i)
    for (int64_t j = i; j > 0 && rows.row[j] < rows.row[j - 1]; --j) {
      const float* row = rows.row[j];
      const float weight = rows.weight[j];
      rows.row[j] = rows.row[j - 1], rows.weight[j] = rows.weight[j - 1];
      rows.row[j - 1] = row, rows.weight[j - 1] = weight;
    }
}

// sum.h:combined, 16 lanes at a time.
template <class V>
typename V::F rounded_sum(const CombineRounding& r, const TokenRows& rows, int64_t d, int64_t n) {
  const auto rounded = [](bool yes, typename V::F v) __attribute__((always_inline)) {
    return yes ? round_bf16<V>(v) : v;
  };
  auto acc = V::zero();
  for (int64_t k = 0; k < rows.count; ++k) {
    const auto y = rounded(r.rows, V::load_n(rows.row[k] + d, n));
    const auto w = rounded(r.weights, V::set1(rows.weight[k]));
    if (r.fused && !r.products)
      acc = V::fma(w, y, acc);
    else
      acc = V::add(acc, rounded(r.products, V::mul(w, y)));
    acc = rounded(r.sums, acc);
  }
  return rounded(r.result, acc);
}
template <class V>
void combine_row_rounded(const CombineRounding& r, const TokenRows& rows, int64_t width,
                         bool residual, float* out) {
  for (int64_t d = 0; d < width; d += 16) {
    const int64_t n = width - d < 16 ? width - d : 16;
    const auto sum = rounded_sum<V>(r, rows, d, n);
    V::store_n(out + d, residual ? V::add(V::load_n(out + d, n), sum) : sum, n);
  }
}

// c of B vectors from d on, row after row: each row gives neighbouring lines at a time, which the
// hardware prefetcher follows better than one line of every row in turn.
template <class V, int B>
void combine_block(const TokenRows& rows, int64_t d, bool residual, float* out) {
  typename V::F acc[B];
#pragma GCC unroll 16
  for (int b = 0; b < B; ++b) acc[b] = V::zero();
  for (int64_t k = 0; k < rows.count; ++k) {
    const auto w = V::set1(rows.weight[k]);
    const float* y = rows.row[k] + d;
#pragma GCC unroll 16
    for (int b = 0; b < B; ++b) acc[b] = V::fma(w, V::load(y + b * 16), acc[b]);
  }
#pragma GCC unroll 16
  for (int b = 0; b < B; ++b) {
    float* p = out + d + b * 16;
    V::store(p, residual ? V::add(V::load(p), acc[b]) : acc[b]);
  }
}

template <class V>
void combine_row(const TokenRows& rows, int64_t width, bool residual, float* out) {
  constexpr int kBlock = V::kRegisters / 2;
  int64_t d = 0;
  for (; d + kBlock * 16 <= width; d += kBlock * 16)
    combine_block<V, kBlock>(rows, d, residual, out);
  for (; d + 16 <= width; d += 16) combine_block<V, 1>(rows, d, residual, out);
  const int64_t n = width - d;
  if (n <= 0) return;
  auto acc = V::zero();
  for (int64_t k = 0; k < rows.count; ++k)
    acc = V::fma(V::set1(rows.weight[k]), V::load_n(rows.row[k] + d, n), acc);
  V::store_n(out + d, residual ? V::add(V::load_n(out + d, n), acc) : acc, n);
}

// The routed row, normed, joins the dense branch, and both the residual.
template <class V>
void join_branches(const MoeCombineTask& task, int64_t t, const float* routed) {
  float* branch = task.branch + t * task.branch_stride;
  rms_norm_row<V>(branch, task.branch_weight, task.eps, task.d, branch);
  int64_t d = 0;
  for (; d + 16 <= task.d; d += 16)
    V::store(branch + d, V::add(V::load(branch + d), V::load(routed + d)));
  if (const int64_t n = task.d - d; n > 0)
    V::store_n(branch + d, V::add(V::load_n(branch + d, n), V::load_n(routed + d, n)), n);
  norm_then_residual_row<V>(branch, task.post_weight, task.eps, task.scale, task.d,
                            task.residual + t * task.residual_stride);
}

template <class V>
void moe_combine(const MoeCombineTask& task) {
  TokenRows rows;
  const bool then_norm = task.then == CombineThen::kResidualThenNorm;
  const bool residual = task.then == CombineThen::kResidualAdd || then_norm;
  for (int64_t t = task.begin; t < task.end; ++t) {
    float* normed = task.out + t * task.out_stride;
    float* out = then_norm ? task.residual + t * task.residual_stride : normed;
    collect_rows<V>(task, t, rows);
    if (task.rounding.order == CombineOrder::kSlot) sort_by_slot<V>(rows);
    if (is_plain(task.rounding))
      combine_row<V>(rows, task.d, residual, out);
    else
      combine_row_rounded<V>(task.rounding, rows, task.d, residual, out);
    // The row is still in the first-level cache: the norm costs no pass over memory.
    if (task.then != CombineThen::kStore && task.then != CombineThen::kResidualAdd)
      rms_norm_row<V>(out, task.norm_weight, task.eps, task.d, normed);
    if (task.then == CombineThen::kBranches) join_branches<V>(task, t, out);
  }
}

}  // namespace sluice::simd
