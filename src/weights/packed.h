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
// Layout kGluPanel16: the same, for gate_up matrices with N = 2 I: panel 2 j holds 16 gate columns
//   16 j .., panel 2 j + 1 the 16 up columns of the same units, so that the activation finds both
//   in registers. Each half is padded to 16 on its own: there are 2 * ceil(I / 16) panels.
// Layout kRowMajor: [N][K] elements as stored, any alignment (embedding tables read row by row).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "tensor/view.h"

namespace sluice {

enum class WeightFormat : uint8_t { kF32, kBF16, kMXFP4, kF16 };
std::string_view weight_format_name(WeightFormat format);

enum class WeightLayout : uint8_t { kPanel16, kGluPanel16, kRowMajor };
std::string_view weight_layout_name(WeightLayout layout);

enum class StorageKind : uint8_t { kHeap, kMapped, kDevice };

struct PackedMatrix {
  WeightFormat format = WeightFormat::kF32;
  WeightLayout layout = WeightLayout::kPanel16;
  StorageKind storage = StorageKind::kHeap;
  int64_t n = 0;  // output features; for kGluPanel16 N = 2 I
  int64_t k = 0;  // input features
  const std::byte* data = nullptr;
  size_t bytes = 0;
  std::shared_ptr<const void> owner;  // keeps `data` alive

  bool empty() const { return data == nullptr; }
  int64_t panels() const {
    return layout == WeightLayout::kGluPanel16 ? 2 * ceil_div(n / 2, 16) : ceil_div(n, 16);
  }
};

inline constexpr int64_t kPanelColumns = 16;

// Bytes of one panel of 16 columns and K inputs; 64-byte multiples for every format when K % 32 ==
// 0.
size_t panel_bytes(WeightFormat format, int64_t k);
// Bytes of a whole matrix in `layout`.
size_t packed_bytes(WeightFormat format, WeightLayout layout, int64_t n, int64_t k);

}  // namespace sluice
