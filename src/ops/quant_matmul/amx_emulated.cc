// The AMX rows over emulated tiles: what cpu_amx.cc does, on any machine, for tests.
#include <cstring>

#include "base/fp.h"
#include "ops/quant_matmul/quant_tiles.h"

namespace sluice {
namespace {

struct Machine {
  using Tiles = simd::EmulatedTiles;
  static void prefetch(const std::byte*) {}

  static void expand_fp8(const std::byte* codes, std::byte* tile) {
    for (int64_t i = 0; i < 512; ++i) {  // code of k = i / 16
      const uint16_t bits = bf16(e4m3_to_f32(static_cast<uint8_t>(codes[i]))).bits;
      std::memcpy(tile + i / 32 * 64 + i % 16 * 4 + i / 16 % 2 * 2, &bits, 2);
    }
  }
  static void expand_int4(const std::byte* lines, std::byte* tile) {
    for (int64_t i = 0; i < 512; ++i) {
      tile[i / 64 * 128 + i % 64] = lines[i] & std::byte{15};
      tile[i / 64 * 128 + 64 + i % 64] = lines[i] >> 4;
    }
  }
  static int32_t arrange(const int8_t* x, int64_t count, int64_t padded, std::byte* out) {
    int32_t sum = 0;
    for (int64_t k = 0; k < padded; ++k) {
      out[k] = static_cast<std::byte>(k < count ? x[k] : 0);
      if (k < count) sum += x[k];
    }
    return sum;
  }
  static void arrange_fp8(const int8_t* x, int64_t count, int64_t padded, std::byte* out) {
    for (int64_t k = 0; k < padded; ++k) {
      const float v = k < count ? e4m3_to_f32(static_cast<uint8_t>(x[k])) : 0.0f;
      const uint16_t bits = bf16(v).bits;
      std::memcpy(out + 2 * k, &bits, 2);
    }
  }

  template <QuantCodes codes>
  static void add_terms(const simd::QuantTerms& t) {
    for (int64_t r = 0; r < t.rows; ++r)
      for (int64_t c = 0; c < 16; ++c) {
        const std::byte* at = t.sums + 64 * r + 4 * c;
        const float x_scale = t.x_scale[r * t.x_stride];
        float term = 0;
        if constexpr (codes == QuantCodes::kFp8) {
          float sum;
          std::memcpy(&sum, at, 4);
          term = (sum * x_scale) * t.w_scale[c];
        } else {
          int32_t sum, correction;
          std::memcpy(&sum, at, 4);
          std::memcpy(&correction, t.corrections + r * t.row_bytes, 4);
          term = (static_cast<float>(sum + correction) * t.w_scale[c]) * x_scale;
        }
        float& acc = t.acc[16 * r + c];
        acc = t.first ? term : acc + term;
      }
  }
  static void store_row(float* out, const float* acc, RoundTo round, int64_t columns) {
    for (int64_t c = 0; c < columns; ++c)
      out[c] = round == RoundTo::kBF16  ? round_to_bf16(acc[c])
               : round == RoundTo::kF16 ? f16_to_f32(f32_to_f16(acc[c]))
                                        : acc[c];
  }
};

}  // namespace

const QuantKernel quant_matmul_int8_int8_amx_emulated =
    simd::kQuantTileKernel<Machine, QuantCodes::kInt8>;
const QuantKernel quant_matmul_int8_int4_amx_emulated =
    simd::kQuantTileKernel<Machine, QuantCodes::kInt4>;
const QuantKernel quant_matmul_fp8_fp8_amx_emulated =
    simd::kQuantTileKernel<Machine, QuantCodes::kFp8>;

}  // namespace sluice
