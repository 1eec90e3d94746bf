// The AMX rows of ariths `int` and `int16` over emulated tiles: what cpu_int_amx.cc does, on any
// machine.
#include <cmath>
#include <cstring>

#include "device/block.h"
#include "ops/matmul/emulated_machine.h"
#include "ops/matmul/int_reference.h"
#include "ops/matmul/int_tiles.h"
#include "ops/matmul/kernels.h"

namespace sluice {
namespace {

using enum WeightFormat;

struct Machine : EmulatedMachine {
  template <int half>
  static void expand_int4(const std::byte* block, int64_t even, const std::byte* codes,
                          std::byte* out) {
    const int64_t g = even + half;
    for (int64_t i = 0; i < 256; ++i) {
      const int64_t line = i / 64, c = i % 64 / 4, k = i % 4;
      const auto multipliers = load_as<uint32_t>(block + kInt4MultiplierAt + g / 8 * 64 + 4 * c);
      const auto multiplier = static_cast<int>(multipliers >> (g % 8 * 4) & 15);
      const auto zeros = load_as<uint16_t>(block + kInt4ZeroAt + 2 * g);
      const int zero = (zeros >> c & 1) != 0 ? 7 : 8;
      const auto pair = static_cast<int>(codes[i]);
      std::byte* row = out + line * 128 + 4 * c + k;
      row[0] = static_cast<std::byte>(multiplier * ((pair & 15) - zero));
      row[64] = static_cast<std::byte>(multiplier * ((pair >> 4) - zero));
    }
  }
  static void copy_half(const std::byte* codes, std::byte* out) { std::memcpy(out, codes, 512); }
  template <WeightFormat format, int Count>
  static void add_rows(const int32_t* sums, int64_t low, int64_t rows, const int32_t* corrections,
                       const float* scales, const std::byte* weight_scales, int64_t panel_bytes,
                       bool first, float* acc) {
    for (int64_t i = 0; i < rows * Count * 16; ++i) {
      const int64_t r = i / (Count * 16), c = i % 16;
      const std::byte* of_panel = weight_scales + i / 16 % Count * panel_bytes;
      const float w = format == kInt4
                          ? static_cast<float>(bf16::from_bits(load_as<uint16_t>(of_panel + 2 * c)))
                          : load_as<float>(of_panel + 4 * c);
      auto sum = static_cast<uint32_t>(sums[i]);
      if (format == kInt8)
        sum = 256 * sum + static_cast<uint32_t>(sums[low + i]) +
              static_cast<uint32_t>(corrections[r]);
      acc[i] = std::fma(static_cast<float>(static_cast<int32_t>(sum)) * scales[r], w,
                        first ? 0.0f : acc[i]);
    }
  }
};

template <WeightFormat format>
void prepare(const PanelProduct& product, int64_t begin, int64_t end) {
  const IntRows rows = int_rows(product, format);
  for (int64_t r = begin; r < end; ++r) {
    const float* x = product.x + (product.rows != nullptr ? product.rows[r] : r) * product.x_stride;
    const IntRow row = int_row(rows, r);
    for (int64_t s = 0; s < rows.steps; ++s)
      for (int64_t half = 0; half < rows.halves; ++half)
        std::memset(row.codes + s * row.step + half * row.height * 64, 0, 64);
    for (int64_t b = 0; b < rows.blocks; ++b) {
      const int64_t k0 = b * product.block, left = product.k - k0;
      const int64_t count = left < product.block ? left : product.block;
      const IntRowBlock block = quantize_row<format == WeightFormat::kInt8>(x + k0, count);
      int32_t sum = 0;
      for (int64_t i = 0; i < count; ++i) {
        int8_t* at = row.codes + (k0 + i) / 64 * row.step + (k0 + i) % 64;
        const int32_t high = format == kInt8 ? (block.code[i] + 128) >> 8 : block.code[i];
        at[0] = static_cast<int8_t>(high);
        if (format == kInt8) at[row.height * 64] = static_cast<int8_t>(block.code[i] - 256 * high);
        sum += block.code[i];
      }
      row.scales[b * row.height] = block.scale;
      if (format == kInt8) row.corrections[b * row.height] = -128 * sum;
    }
  }
}

}  // namespace

const PanelKernel matmul_int8_int4_amx_emulated = {
    prepare<kInt4>, simd::multiply_int_tiles<Machine, kInt4>, store_tile_reference};
const PanelKernel matmul_int16_int8_amx_emulated = {
    prepare<kInt8>, simd::multiply_int_tiles<Machine, kInt8>, store_tile_reference};

}  // namespace sluice
