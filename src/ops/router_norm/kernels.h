// router_norm's kernels: what each is given, and the declaration of every row of kernels.inc.
#pragma once

#include <cstdint>
#include <span>

namespace sluice {

class Stream;  // device/device.h

struct RouterNormRows {
  const float* x = nullptr;
  int64_t x_stride = 0;
  const float* scale = nullptr;
  float* out = nullptr;
  int64_t out_stride = 0;
  int64_t rows = 0, d = 0;
  float eps = 0.0f, root = 1.0f;  // root: D^-0.5
  bool round = false;
  Stream* stream = nullptr;  // CUDA only
};
using RouterNormKernel = void(const RouterNormRows&);

#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) RouterNormKernel name;
#include "ops/router_norm/kernels.inc"
#undef SLUICE_KERNEL

template <class Fn>
struct Kernel;  // ops/kernel_table.h
std::span<const Kernel<RouterNormKernel>> router_norm_kernels();

}  // namespace sluice
