// The K largest of one row: for topk itself, and for ops that need them inside a row of their own.
#pragma once

#include <cstdint>

#include "ops/topk/kernels.h"

namespace sluice {

inline constexpr int64_t kTopkMost = 1024;

// ids (and values, when not null) of the k largest of x[0, n), in order;
// 1 <= k <= min(n, kTopkMost). Call it in the kernels' floating-point environment.
void select_topk(TopkKernel* scan, const float* x, int64_t n, int64_t k, int32_t* ids,
                 float* values);

}  // namespace sluice
