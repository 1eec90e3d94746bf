// quantize_rows' kernels: what each is given, and the declaration of every row of kernels.inc.
#pragma once

#include <cstdint>
#include <span>

#include "ops/quantize_rows/quantize_rows.h"

namespace sluice {

// How a group's scale comes from its largest magnitude (NaN: the group holds one).
struct QuantizeRule {
  QuantizeTo to = QuantizeTo::kInt8;
  ScaleType scale_type = ScaleType::kF32;
  float scale_bound = 1200.0f;
};
struct GroupScale {
  float scale = 0;
  float factor = 0;  // kInt8: what y is divided by; kE4m3: what it is multiplied with
};
GroupScale group_scale(const QuantizeRule& rule, float amax);

enum class QuantizeStep {
  kScalesAndCodes,  // of every group of every row
  kAmax,            // of all rows, into `amax`
  kCodes,           // with the scale `given`
};

// Rows of one expert.
struct QuantizeRowsTask {
  QuantizeStep step = QuantizeStep::kScalesAndCodes;
  QuantizeRule rule;
  const void* x = nullptr;  // f32, or bf16 as uint16_t: each row of the table reads one
  int64_t x_stride = 0, rows = 0, d = 0, group = 0;
  const float* smooth = nullptr;  // [D]
  uint8_t* codes = nullptr;
  int64_t codes_stride = 0;
  ScaleView scales;
  float* amax = nullptr;
  GroupScale given;
};
using QuantizeRowsKernel = void(const QuantizeRowsTask&);

#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) QuantizeRowsKernel name;
#include "ops/quantize_rows/kernels.inc"
#undef SLUICE_KERNEL

template <class Fn>
struct Kernel;  // ops/kernel_table.h
std::span<const Kernel<QuantizeRowsKernel>> quantize_rows_kernels();

}  // namespace sluice
