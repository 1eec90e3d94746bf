// rope's kernels: what each is given, and the declaration of every row of kernels.inc.
#pragma once

#include <cstdint>
#include <span>

namespace sluice {

class Stream;  // device/device.h

struct RopeRows {
  int64_t rows = 0;
  int64_t half = 0;  // C / 2
  // half_split: turns x by cos_sin.
  float* x = nullptr;
  int64_t stride = 0, heads = 0;
  const float* cos_sin = nullptr;
  // f64_angle: fills table.
  const int32_t* positions = nullptr;
  const double* inv_freq = nullptr;  // host memory on every backend
  double factor = 1.0;
  float* table = nullptr;
  Stream* stream = nullptr;  // CUDA only
};
using RopeKernel = void(const RopeRows&);

#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) RopeKernel name;
#include "ops/rope/kernels.inc"
#undef SLUICE_KERNEL

template <class Fn>
struct Kernel;  // ops/kernel_table.h
std::span<const Kernel<RopeKernel>> rope_kernels();

}  // namespace sluice
