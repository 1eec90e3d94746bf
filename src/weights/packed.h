// PackedMatrix: a weight matrix [N, K] (y = x W^T) in the form that kernels stream.
//
// Layout kPanel16 (every ISA reads the same bytes): columns n are cut into panels of 16; panel p
// holds n = 16 p .. 16 p + 15, zero-padded past N, and is contiguous:
//   f32    [K][16] f32
//   bf16   [round_up(K,32) / 2][16][2] bf16: the two k of a pair beside each other (the operand of
//          AMX's and AVX-512's bf16 dot products), zero-padded past K
//   mxfp4  for each block of 32 k: 16 scale bytes (E8M0, one per column), then [16][16] bytes of
//          nibbles: byte j of column c at 16 j + c, low nibble k = 2 j, high nibble k = 2 j + 1,
//          so that 16 consecutive bytes hold the same two k of all columns; -0 (code 8) is packed
//          as +0, because tables that add a scale to an exponent have no place for its sign
//   fp8    for each block of 128 k, the last may be shorter: one line of 16 f32 scales, one per
//          column, then for each k 16 e4m3fn codes, one per column, none NaN; K zero-padded to 32.
//          Value (n, k) = code * scale, rounded once to f32 (bf16_tile: then to bf16). Scales are 0
//          or of a magnitude from 2^-100 to 2^100. 128 k take 8.25 bits per weight
//   int4   blocks of `block` k (128, 256 or 512; the last may be shorter), each in one piece of
//          whole cache lines, K zero-padded to 32. Value (n, k) = scale * multiplier * (code -
//          zero), with one scale per column and block, one multiplier 0..15 and zero point (8 or 7)
//          per column and group of 32 k. Of a block of G groups:
//            line 0       16 bf16 scales, one per column, then 16 words of 16 bits, one per group:
//                         bit c says that column c's codes have the zero point 7
//            then         ceil(G / 8) lines of multipliers: 32-bit lane c holds those of column c
//                         for eight groups, the first in the lowest four bits
//            then         4 G lines of codes: line j holds k = 8 j .. 8 j + 7; byte i of lane c has
//                         k = 8 j + i in its low and k = 8 j + 4 + i in its high nibble
//          512 k take 67 lines, 4.1875 bits per weight. A code fits in 4 bits and code times
//          multiplier in 8, so that the same bytes feed a 4-bit dot product and, multiplied out,
//          int8 tiles of 16 columns x 64 k
//   int8   blocks of `block` k, K padded to 32. A block is one line of 16 f32 scales, one per
//          column, then a line for each 4 k: byte i of 32-bit lane c is 128 + code(k = 4 j + i),
//          codes in -127..127. 64 k are one tile as they lie. 512 k take 8.0625 bits per weight
//   q8_0, q4_0, q5_0, q5_1, q4_k, q5_k, q6_k, iq4_nl: GGUF's formats, bit for bit in whole lines.
//          Blocks of 8 groups of 32 k (the last may have fewer), K zero-padded to 32; of a block
//          first the scales, then the codes of each group (weights/block_panels.h has a row of
//          traits for each):
//            iq4_nl            as q4_0, with a table of values
//            q8_0, q4_0, q5_0  per group 16 f16 scales d, two groups to a line
//            q5_1              per group a line of 16 d and 16 f16 minima m (w = d * code + m)
//            q4_k, q5_k        a line of 16 d and 16 dmin; then three of 32-bit lanes, one per
//                              column: of each group's 6-bit multiplier the low four bits at 4 g,
//                              of its minimum's likewise, and the high two at 2 g and 16 + 2 g
//            q6_k              a line of 16 d, the rest 0; then four of 32-bit lanes with four
//                              8-bit signed multipliers each, one per 16 k
//            codes of q8_0     8 lines as int8's: 128 + code
//            all others        4 lines as int4's, the low four bits of a code; then q5_*: a line
//                              of fifth bits, bit t of byte i of a lane for k = 4 t + i; q6_k: two
//                              of upper pairs, bits 2 t and 2 t + 1 of byte i for k = 4 t + i and
//                              for k = 16 + 4 t + i
//          256 k of q8_0 take 68 lines, 8.5 bits per weight, of q4_0 36: 4.5 bits, as in GGUF; but
//          of q6_k 53 lines, 6.625 bits where GGUF has 6.5625
// Layout kGluPanel16: the same, for gate_up matrices with N = 2 I: panel 2 j holds 16 gate columns
//   16 j .., panel 2 j + 1 the 16 up columns of the same units, so that the activation finds both
//   in registers. Each half is padded to 16 on its own: there are 2 * ceil(I / 16) panels.
// Layout kRowMajor: [N][K] elements as stored, any alignment (embedding tables read row by row).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "tensor/view.h"

namespace sluice {

// GGUF's formats stand last.
enum class WeightFormat : uint8_t {
  kF32,
  kBF16,
  kMXFP4,
  kF16,
  kInt4,
  kInt8,
  kFP8,
  kQ8_0,
  kQ4_0,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL
};
inline constexpr int kWeightFormats = 15;
std::string_view weight_format_name(WeightFormat format);
std::optional<WeightFormat> weight_format_from_name(std::string_view name);
// The formats of ariths `int` and `int16`, whose scales come with the codes that we choose.
constexpr bool is_int_format(WeightFormat format) {
  return format == WeightFormat::kInt4 || format == WeightFormat::kInt8;
}
// GGUF's formats, whose scales are given.
constexpr bool is_block_format(WeightFormat format) {
  return format >= WeightFormat::kQ8_0;
}
inline constexpr int64_t kIntBlock = 512;  // k per scale of int4 and int8 unless said otherwise

enum class WeightLayout : uint8_t { kPanel16, kGluPanel16, kRowMajor };
std::string_view weight_layout_name(WeightLayout layout);

enum class StorageKind : uint8_t { kHeap, kMapped, kDevice };

struct PackedMatrix {
  WeightFormat format = WeightFormat::kF32;
  WeightLayout layout = WeightLayout::kPanel16;
  StorageKind storage = StorageKind::kHeap;
  int64_t n = 0;              // output features; for kGluPanel16 N = 2 I
  int64_t k = 0;              // input features
  int64_t block = kIntBlock;  // int4, int8: k per scale; unused by the other formats
  const std::byte* data = nullptr;
  size_t bytes = 0;
  std::shared_ptr<const void> owner;  // keeps `data` alive

  bool empty() const { return data == nullptr; }
  int64_t panels() const {
    return layout == WeightLayout::kGluPanel16 ? 2 * ceil_div(n / 2, 16) : ceil_div(n, 16);
  }
};

inline constexpr int64_t kPanelColumns = 16;

// Names the bytes of every layout above. Whoever changes one of them counts this up: stores packed
// before are then refused. (model/store_test.cc compares the bytes with what they were.)
inline constexpr uint32_t kPanelLayoutId = 1;

// Bytes of one panel of 16 columns and K inputs; 64-byte multiples for every format when K % 32 ==
// 0.
size_t panel_bytes(WeightFormat format, int64_t k, int64_t block = kIntBlock);
// Bytes of a whole matrix in `layout`.
size_t packed_bytes(WeightFormat format, WeightLayout layout, int64_t n, int64_t k,
                    int64_t block = kIntBlock);

}  // namespace sluice
