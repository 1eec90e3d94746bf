// topk: the K largest of each row by (value descending, index ascending); NaN last, by index.
//
// tensor | shape  | dtype | layout
// x      | [T, N] | f32   | row stride; N <= 2^20
// ids    | [T, K] | i32   | contiguous;  values [T, K] f32
// Exact. Errors: K outside [1, min(N, 1024)], shapes. Used by logprobs and the sampler.
#pragma once

#include <span>

#include "device/device.h"
#include "tensor/view.h"

namespace sluice {

struct TopkArgs {
  ConstMatrixF32 x;
  int64_t k = 0;
  std::span<int32_t> ids;
  std::span<float> values;
};
Status topk(const ExecContext& context, const TopkArgs& args);

}  // namespace sluice
