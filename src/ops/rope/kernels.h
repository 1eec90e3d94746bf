// rope's kernels: what each is given, and the declaration of every row of kernels.inc.
#pragma once

#include <cstdint>
#include <span>

namespace sluice {

struct RopeRows {
  float* x = nullptr;
  int64_t stride = 0;
  int64_t rows = 0, heads = 0;
  int64_t half = 0;  // C / 2
  const float* cos_sin = nullptr;
};
using RopeKernel = void(const RopeRows&);

#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) RopeKernel name;
#include "ops/rope/kernels.inc"
#undef SLUICE_KERNEL

// Rows [begin, end) of the table of cosines and sines, in f64.
struct RopeAnglesArgs;
void rope_angle_rows(const RopeAnglesArgs& args, int64_t begin, int64_t end);

template <class Fn>
struct Kernel;  // ops/kernel_table.h
std::span<const Kernel<RopeKernel>> rope_kernels();

}  // namespace sluice
