// quantize_rows: dynamic 8-bit quantisation of activations, by tensor, row or group of columns.
//
//   y[t, d] = x[t, d] * inv_smooth[e(t), d]        (rounded to f32; inv_smooth absent: x[t, d])
//   amax    = max |y| over the tensor, the row, or the row's columns [g G, (g + 1) G)
//   kInt8   scale = max(amax, 1e-12) / 127, or 1 where that is below 1e-6
//           code = y / scale to nearest, ties to even; it never leaves -127..127:
//           y / scale <= 127 (1 + 2 eps). (The rule of mojo_opset and of arith int.)
//   kE4m3   scale = min(amax, scale_bound) / 448; factor = 1 / scale, or 0 where scale is 0 or the
//           quotient is not finite; code = e4m3fn(y * factor), to nearest, ties to even, beyond
//           +-448 the largest. (MAX's rule; it multiplies by the rounded reciprocal.) amax,
//           scale_bound, scale and factor are each rounded to scale_type; kE8M0 instead takes
//           max(min(amax, scale_bound) / 448, 1e-10), rounded up to a power of two.
// A group that holds NaN (kInt8: or infinity) gets the scale NaN and one code for all: 0 of kInt8,
// NaN (0x7f) of kE4m3. Infinity in kE4m3 is bounded by scale_bound. Subnormals count as zeros, so
// that scale is 0 where it would be one. e(t) follows `counts`: rows are sorted by expert.
//
// tensor     | shape  | dtype       | layout
// x          | [T, D] | f32 or bf16 | row stride
// inv_smooth | [E, D] | f32         | optional, contiguous; E = 1 without counts
// counts     | [E]    | i32         | optional: rows of each expert
// codes      | [T, D] | 8 bits      | row stride
// scales     | [T, N] | f32         | any strides; N groups of a row, the last may be short; kRow:
//            |        |             | N = 1; kTensor: one value in all
// Batch- (but kTensor) and thread-invariant; every ISA gives the same bits. T = 0 writes nothing.
// Errors: shapes that disagree, counts that are negative or do not add to T, G = 0, a scale_bound
// that is not finite and positive.
#pragma once

#include <cstdint>
#include <span>

#include "base/fp.h"
#include "device/device.h"
#include "tensor/view.h"

namespace sluice {

enum class QuantizeTo { kInt8, kE4m3 };
enum class QuantizeScope { kTensor, kRow, kGroup };
enum class ScaleType { kF32, kBF16, kF16, kE8M0 };

struct ScaleView {
  float* data = nullptr;
  int64_t row_stride = 1, group_stride = 1;
};
struct QuantizeRowsArgs {
  QuantizeTo to = QuantizeTo::kInt8;
  QuantizeScope scope = QuantizeScope::kRow;
  int64_t group = 0;  // kGroup: columns of a group
  ConstMatrixF32 x;   // or
  MatrixView<const bf16> x_bf16;
  const float* inv_smooth = nullptr;
  std::span<const int32_t> counts;
  ScaleType scale_type = ScaleType::kF32;  // kE4m3 only; values are stored as f32
  float scale_bound = 1200.0f;             // kE4m3 only
  MatrixView<uint8_t> codes;               // kInt8: two's complement
  ScaleView scales;
};
Status quantize_rows(const ExecContext& context, const QuantizeRowsArgs& args);

}  // namespace sluice
