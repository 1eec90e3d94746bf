// topk's kernels: what each is given, and the declaration of every row of kernels.inc.
#pragma once

#include <cstdint>
#include <span>

namespace sluice {

// Order as an integer: greater keys come first. The upper half orders values (NaN lowest, both
// zeros equal), the lower half is the complement of the index, so that no two keys are equal.
// Tag: the ISA whose translation unit asks, so that no two of them share a function.
template <class Tag>
uint64_t topk_key(float value, int64_t index) {
  uint32_t b = __builtin_bit_cast(uint32_t, value);
  if ((b & 0x7fffffffu) == 0) b = 0;
  const bool nan = (b & 0x7fffffffu) > 0x7f800000u;
  const uint32_t order = nan ? 0 : (b >> 31) != 0 ? ~b : b | 0x80000000u;
  return (uint64_t{order} << 32) | static_cast<uint32_t>(~static_cast<uint32_t>(index));
}

// Candidates of one row. A key enters when it is greater than `floor`; `threshold` is floor's value
// as a float, for comparing sixteen at a time.
struct TopkBuffer {
  uint64_t* keys = nullptr;
  int64_t count = 0, capacity = 0;
  uint64_t floor = 0;
  float threshold = 0.0f;
  bool strict = false;  // only values greater than the threshold can enter (else: not less)
};
// Appends the candidates of x[begin, end) in order; returns where it stopped: at end, or before it
// when fewer than kTopkRoom keys are free.
inline constexpr int64_t kTopkRoom = 64;
using TopkKernel = int64_t(const float* x, int64_t begin, int64_t end, TopkBuffer& buffer);

#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) TopkKernel name;
#include "ops/topk/kernels.inc"
#undef SLUICE_KERNEL

template <class Fn>
struct Kernel;  // ops/kernel_table.h
std::span<const Kernel<TopkKernel>> topk_kernels();

}  // namespace sluice
