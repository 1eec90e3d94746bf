// rms_norm's kernels: what each is given, and the declaration of every row of kernels.inc.
#pragma once

#include <cstdint>
#include <span>

namespace sluice {

class Stream;  // device/device.h

// Rows of one call. `residual` and `out` are null where the mode has none.
struct RmsNormRows {
  const float* x = nullptr;
  int64_t x_stride = 0;
  const float* weight = nullptr;
  float* residual = nullptr;
  int64_t residual_stride = 0;
  float* out = nullptr;
  int64_t out_stride = 0;
  int64_t rows = 0, d = 0;
  float eps = 0.0f, scale = 1.0f;
  Stream* stream = nullptr;  // CUDA only
};
// out == nullptr: norm, then residual. residual == nullptr: norm alone. Else residual, then norm.
using RmsNormKernel = void(const RmsNormRows&);

#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) RmsNormKernel name;
#include "ops/rms_norm/kernels.inc"
#undef SLUICE_KERNEL

template <class Fn>
struct Kernel;  // ops/kernel_table.h
std::span<const Kernel<RmsNormKernel>> rms_norm_kernels();

}  // namespace sluice
