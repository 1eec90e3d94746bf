// Ariths: the written orders of operations of matrix products. Two kernels of one arith give the
// same bits on every machine; which arith runs depends on the compute mode and the weight format,
// never on row counts, threads or the machine.
//
//   f32_fma    acc = 0; for k ascending: acc = fma(x[k], w[k], acc). f32 inputs as they are;
//              weights are widened or dequantised to f32 exactly.
//   bf16_tile  x and w rounded once to bf16 (nearest even). For each step of 32 k (the last one
//              padded with zeros): e = FMA chain over even k, o = FMA chain over odd k, both
//              ascending from 0; then acc = acc + (e + o). This is what AMX's TDPBF16PS computes.
//   bf16_dot   x and w rounded once to bf16, K padded with zeros to a multiple of 32. acc = 0; for
//              pairs of k ascending, the odd one of a pair first:
//              acc = fma(x[2j], w[2j], fma(x[2j+1], w[2j+1], acc)), as VDPBF16PS computes.
//   int        x in int8, one scale per row and block of k (512 unless the weights say 128 or 256):
//              amax = max |x| of the block; scale = max(amax, 1e-12) / 127, or 1 where that is
//              below 1e-6; code = x / scale rounded to nearest, ties to even. It never leaves
//              -127..127: x / scale <= 127 (1 + 2 eps). A block that holds NaN or infinity gets the
//              scale NaN and the codes 0, so that its row comes out NaN. Weights are
//              integers, too: v(n, k) = multiplier * (code - zero) for int4, the code for int8,
//              and one f32 scale w(n, b) per output and block. acc = 0; for blocks b ascending:
//              S = sum of code(k) * v(n, k) over the block, exactly, |S| < 2^24;
//              acc = fma(f32(S) * scale(b), w(n, b), acc). The integer sum may be taken in any
//              order; the two f32 roundings per block may not.
//   int16      the same with x in 16 bits, for int8 weights: beside them 8-bit codes of x make most
//              of the error. scale = max(amax, 1e-12) / 32639, codes -32639..32639, the widest
//              range in which both bytes of code = 256 * high + low are signed, so that one product
//              of bytes serves twice. |S| <= 512 * 32639 * 127 < 2^31: exact in 32 bits; f32(S)
//              rounds to nearest even.
//   a8g32      x in int8 by the rule of `int`, one scale per row and group of 32 k (the last group
//              may be shorter). Weights are integers with scales that are given: a code v(n, k),
//              where the format has them an integer multiplier m(n, g) per group (or one for each
//              16 k of it), and an f32 scale d(n, g), exact. acc = 0; for groups g ascending:
//              S = sum of code(k) * v(n, k) * m over the group, exactly, |S| < 2^24;
//              acc = fma(f32(S) * scale(g), d(n, g), acc); and where the format has a minimum, with
//              X = sum of code(k) and its integer multiplier q(n, g) (1 where it has none):
//              acc = fma(f32(X * q) * scale(g), -dmin(n, g), acc). Four f32 roundings per group at
//              most, in this order. MXFP4's values are doubled to integers and its scales halved,
//              where less than 2^-126 counts as 0.
//   fp8_g128   x in e4m3, one scale per row and group of 128 k (the last group may be shorter), as
//              checkpoints with fp8 weights of 128 x 128 blocks define their products: amax =
//              max |x| of the group; scale = amax / 448; code = x * (1 / scale), that factor
//              rounded to f32 and 0 where scale is, to nearest e4m3, ties to even. A group that
//              holds NaN or infinity gets the scale NaN. Weights are e4m3 codes w with an f32 scale
//              d(n, g). For groups g ascending: S = the sum over the group in the order of
//              bf16_tile, in which all products are exact; acc = acc + (S * scale(g)) * d(n, g),
//              every operation rounded, the first term as it is.
//
// All run flush-to-zero, denormals-are-zero (base/float_env.h). A bias is added last: acc + bias.
#pragma once

#include <optional>
#include <string_view>

namespace sluice {

enum class Arith { kF32Fma, kBf16Tile, kInt, kInt16, kA8G32, kBf16Dot, kFp8G128 };
inline constexpr int kAriths = 7;

constexpr std::string_view arith_name(Arith a) {
  switch (a) {
    case Arith::kF32Fma:
      return "f32_fma";
    case Arith::kBf16Tile:
      return "bf16_tile";
    case Arith::kInt:
      return "int";
    case Arith::kInt16:
      return "int16";
    case Arith::kA8G32:
      return "a8g32";
    case Arith::kBf16Dot:
      return "bf16_dot";
    case Arith::kFp8G128:
      return "fp8_g128";
  }
  return "unknown";
}
constexpr std::optional<Arith> arith_from_name(std::string_view name) {
  for (int i = 0; i < kAriths; ++i)
    if (arith_name(static_cast<Arith>(i)) == name) return static_cast<Arith>(i);
  return std::nullopt;
}
// Rows of x are rounded to bf16.
constexpr bool rounds_x(Arith a) {
  return a == Arith::kBf16Tile || a == Arith::kBf16Dot;
}
// Rows of x become codes with scales over several k.
constexpr bool quantizes_x(Arith a) {
  return a == Arith::kInt || a == Arith::kInt16 || a == Arith::kA8G32 || a == Arith::kFp8G128;
}

// What the user chooses (--compute): f32 = everything f32; bf16 = GEMM inputs rounded once to bf16,
// KV cache in bf16, the rest f32.
enum class Compute { kF32, kBf16 };

constexpr std::string_view compute_name(Compute c) {
  return c == Compute::kF32 ? "f32" : "bf16";
}
// What low-bit weights are multiplied as (--mode). The default: int (int4 by `int`, int8 by
// `int16`), a8g32 for GGUF's formats, a16 for MXFP4 and fp8. a16: rows stay floats, and the arith
// is the compute mode's. fp8: fp8 weights by fp8_g128.
enum class Mode { kDefault, kInt, kA8G32, kFp8, kA16 };
inline constexpr int kModes = 5;

constexpr std::string_view mode_name(Mode m) {
  switch (m) {
    case Mode::kDefault:
      return "default";
    case Mode::kInt:
      return "int";
    case Mode::kA8G32:
      return "a8g32";
    case Mode::kFp8:
      return "fp8";
    case Mode::kA16:
      return "a16";
  }
  return "unknown";
}
// Of formats of floats, and of every format in mode a16.
constexpr Arith arith_of(Compute c) {
  return c == Compute::kF32 ? Arith::kF32Fma : Arith::kBf16Tile;
}

}  // namespace sluice
