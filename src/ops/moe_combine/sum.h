// One element of the weighted sum, scalar: the definition that every form repeats bit for bit.
#pragma once

#include "base/fp.h"
#include "ops/moe_combine/kernels.h"
#include "simd/scalar.h"

namespace sluice {

// The k of a token's term after term `last` (-1: its first) in ascending slot, then k; -1 when
// there is none.
SLUICE_HD inline int64_t next_by_slot(const int32_t* inverse, int64_t k, int64_t last) {
  int64_t next = -1;
  for (int64_t i = 0; i < k; ++i) {
    if (inverse[i] < 0) continue;
    const bool later =
        last < 0 || inverse[i] > inverse[last] || (inverse[i] == inverse[last] && i > last);
    if (later && (next < 0 || inverse[i] < inverse[next])) next = i;
  }
  return next;
}

SLUICE_HD inline float add_term(const CombineRounding& r, float acc, float w, float y) {
  if (r.rows) y = round_to_bf16(y);
  if (r.weights) w = round_to_bf16(w);
  if (r.fused && !r.products) {
    acc = scalar::fma(w, y, acc);
  } else {
    const float product = w * y;
    acc = acc + (r.products ? round_to_bf16(product) : product);
  }
  return r.sums ? round_to_bf16(acc) : acc;
}

SLUICE_HD inline float combined(const MoeCombineTask& task, int64_t t, int64_t d) {
  const CombineRounding& r = task.rounding;
  const int32_t* inverse = task.inverse + t * task.k;
  const auto term = [&](float acc, int64_t i) {
    const float w = task.weights != nullptr ? task.weights[t * task.k + i] : 1.0f;
    return add_term(r, acc, w, task.y[inverse[i] * task.y_stride + d]);
  };
  float acc = 0;
  if (r.order == CombineOrder::kSlot) {
    for (int64_t i = next_by_slot(inverse, task.k, -1); i >= 0;
         i = next_by_slot(inverse, task.k, i))
      acc = term(acc, i);
  } else {
    for (int64_t i = 0; i < task.k; ++i)
      if (inverse[i] >= 0) acc = term(acc, i);
  }
  return r.result ? round_to_bf16(acc) : acc;
}

}  // namespace sluice
