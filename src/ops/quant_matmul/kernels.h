// quant_matmul's kernels: what each is given, and the declaration of every row of kernels.inc.
#pragma once

#include <cstdint>
#include <span>

#include "ops/quant_matmul/quant_matmul.h"
#include "ops/quant_matmul/quant_panels.h"

namespace sluice {

// Rows of one expert times a range of its panels.
struct QuantProduct {
  const int8_t* x = nullptr;
  int64_t x_stride = 0;
  RowScales x_scale;
  int64_t rows = 0, n = 0, k = 0, group = 0;
  // What prepare() makes of x, quant_row_bytes of a row after those of another. fp8: x may lie at
  // the end of its row here, because prepare() goes from the first k to the last.
  std::byte* prepared = nullptr;
  const std::byte* panels = nullptr;
  size_t panel_bytes = 0;
  int64_t panel_begin = 0, panel_end = 0;
  RoundTo round = RoundTo::kF32;
  float* out = nullptr;
  int64_t out_stride = 0;
};
struct QuantKernel {
  void (*prepare)(const QuantProduct& product, int64_t begin, int64_t end);
  void (*multiply)(const QuantProduct& product);
};

#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) extern const QuantKernel name;
#include "ops/quant_matmul/kernels.inc"
#undef SLUICE_KERNEL

template <class Fn>
struct Kernel;  // ops/kernel_table.h
std::span<const Kernel<const QuantKernel>> quant_kernels();

}  // namespace sluice
