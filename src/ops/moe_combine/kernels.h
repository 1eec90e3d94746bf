// The rows of kernels.inc and what they take.
#pragma once

#include <cstdint>
#include <span>

#include "ops/moe_combine/combine_then.h"

namespace sluice {

class Stream;  // device/device.h

inline constexpr int64_t kMaxRowsPerToken = 64;

// Tokens [begin, end); for kResidualAdd out is the residual, for kBranches a row of scratch.
struct MoeCombineTask {
  const float* y = nullptr;
  int64_t y_stride = 0;
  const int32_t* inverse = nullptr;
  const float* weights = nullptr;  // null: all 1
  int64_t k = 0, d = 0;
  CombineThen then = CombineThen::kStore;
  CombineRounding rounding;
  const float* norm_weight = nullptr;
  float eps = 0.0f;
  float* out = nullptr;
  int64_t out_stride = 0;
  float* residual = nullptr;  // kResidualThenNorm, kBranches
  int64_t residual_stride = 0;
  // kBranches
  float* branch = nullptr;
  int64_t branch_stride = 0;
  const float* branch_weight = nullptr;
  const float* post_weight = nullptr;
  float scale = 1.0f;
  int64_t begin = 0, end = 0;
  Stream* stream = nullptr;  // CUDA only
};
using MoeCombineKernel = void(const MoeCombineTask& task);
template <class Fn>
struct Kernel;  // ops/kernel_table.h
std::span<const Kernel<MoeCombineKernel>> moe_combine_kernels();

#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) void name(const MoeCombineTask& task);
#include "ops/moe_combine/kernels.inc"
#undef SLUICE_KERNEL

}  // namespace sluice
