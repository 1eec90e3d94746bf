// The rows of kernels.inc and what they take.
#pragma once

#include <cstdint>
#include <span>

#include "ops/elementwise/activation.h"

namespace sluice {

class Stream;  // device/device.h

enum class ElementwiseStep { kGlu, kAdd, kScale, kSoftcap, kWeigh };

// Rows of equal length; `a` is gate for kGlu and x for kWeigh, and unused otherwise, where out is
// read and written.
struct ElementwiseTask {
  ElementwiseStep step = ElementwiseStep::kGlu;
  Activation activation;
  float s = 1.0f;  // scale, or cap
  int64_t rows = 0, cols = 0;
  const float* a = nullptr;
  const float* b = nullptr;  // up, or the summand
  float* out = nullptr;
  int64_t a_stride = 0, b_stride = 0, out_stride = 0;
  // kWeigh: row r is pair first_pair + r; a is x and b is unused.
  const int32_t* slots = nullptr;
  const float* weights = nullptr;
  int64_t first_pair = 0, fan_out = 1;
  bool rounded = false;
  Stream* stream = nullptr;  // CUDA only
};
using ElementwiseKernel = void(const ElementwiseTask& task);

template <class Fn>
struct Kernel;  // ops/kernel_table.h
std::span<const Kernel<ElementwiseKernel>> elementwise_kernels();

#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) void name(const ElementwiseTask& task);
#include "ops/elementwise/kernels.inc"
#undef SLUICE_KERNEL

}  // namespace sluice
