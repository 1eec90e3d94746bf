// Ariths: the written orders of operations of matrix products. Two kernels of one arith give the
// same bits on every machine; which arith runs depends on the compute mode and the weight format,
// never on row counts, threads or the machine.
//
//   f32_fma    acc = 0; for k ascending: acc = fma(x[k], w[k], acc). f32 inputs as they are;
//              weights are widened or dequantised to f32 exactly.
//   bf16_tile  x and w rounded once to bf16 (nearest even). For each step of 32 k (the last one
//              padded with zeros): e = FMA chain over even k, o = FMA chain over odd k, both
//              ascending from 0; then acc = acc + (e + o). This is what AMX's TDPBF16PS computes.
//
// All run flush-to-zero, denormals-are-zero (base/float_env.h). A bias is added last: acc + bias.
#pragma once

#include <string_view>

namespace sluice {

enum class Arith { kF32Fma, kBf16Tile };

constexpr std::string_view arith_name(Arith a) {
  return a == Arith::kF32Fma ? "f32_fma" : "bf16_tile";
}

// What the user chooses (--compute): f32 = everything f32; bf16 = GEMM inputs rounded once to bf16,
// KV cache in bf16, the rest f32.
enum class Compute { kF32, kBf16 };

constexpr std::string_view compute_name(Compute c) {
  return c == Compute::kF32 ? "f32" : "bf16";
}
constexpr Arith arith_of(Compute c) {
  return c == Compute::kF32 ? Arith::kF32Fma : Arith::kBf16Tile;
}

}  // namespace sluice
