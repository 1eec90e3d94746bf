// topk's kernels: what each is given, and the declaration of every row of kernels.inc.
#pragma once

#include <cstdint>
#include <span>

#include "base/host_device.h"

namespace sluice {

class Stream;  // device/device.h

inline constexpr int64_t kTopkMost = 1024;

// Rows of one call; 1 <= k <= min(n, kTopkMost). Call it in the kernels' floating-point
// environment.
struct TopkRows {
  const float* x = nullptr;
  int64_t x_stride = 0;
  int64_t rows = 0, n = 0, k = 0;
  int32_t* ids = nullptr;    // [rows, k]
  float* values = nullptr;   // [rows, k], or null
  Stream* stream = nullptr;  // CUDA only
};
using TopkKernel = void(const TopkRows&);

// Order as an integer: greater keys come first. The upper half orders values (NaN lowest, both
// zeros equal), the lower half is the complement of the index, so that no two keys are equal.
// Tag: the ISA whose translation unit asks, so that no two of them share a function.
template <class Tag>
SLUICE_HD uint64_t topk_key(float value, int64_t index) {
  uint32_t b = __builtin_bit_cast(uint32_t, value);
  if ((b & 0x7fffffffu) == 0) b = 0;
  const bool nan = (b & 0x7fffffffu) > 0x7f800000u;
  const uint32_t order = nan ? 0 : (b >> 31) != 0 ? ~b : b | 0x80000000u;
  return (uint64_t{order} << 32) | static_cast<uint32_t>(~static_cast<uint32_t>(index));
}
SLUICE_HD inline int32_t topk_index(uint64_t key) {
  return static_cast<int32_t>(~static_cast<uint32_t>(key));
}

#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) TopkKernel name;
#include "ops/topk/kernels.inc"
#undef SLUICE_KERNEL

template <class Fn>
struct Kernel;  // ops/kernel_table.h
std::span<const Kernel<TopkKernel>> topk_kernels();

}  // namespace sluice
