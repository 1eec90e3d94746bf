#include <cstring>

#include "ops/quant_matmul/cpu_fp8.h"
#include "ops/quant_matmul/quant_tiles.h"
#include "simd/amx_vector.h"

namespace sluice {
namespace {

using V = simd::Amx;

// One core, [1536, 2048], best of many: 1, 16 and 256 rows take 94, 99 and 618 us of int8 (VNNI 94,
// 182, 2749), 37, 58 and 656 of int4 (62, 159, 2593), 133, 158 and 1369 of fp8 (AVX-512 162, 737,
// 12558). So there is no number of rows for which these rows do not pay.
struct alignas(64) Fp8Tables {
  uint8_t pairs[2][64];    // of 4 k of 16 codes, 2 k: a pair's codes side by side, each twice
  uint16_t subnormal[32];  // by the mantissa: what makes bf16 of it
};
constexpr Fp8Tables make_tables() {
  Fp8Tables t{};
  for (int line = 0; line < 2; ++line)
    for (int i = 0; i < 64; ++i)
      t.pairs[line][i] = static_cast<uint8_t>(32 * line + i / 2 % 2 * 16 + i / 4);
  constexpr uint16_t kBf16[8] = {0,        118 << 7,        119 << 7,        (119 << 7) + 64,
                                 120 << 7, (120 << 7) + 32, (120 << 7) + 64, (120 << 7) + 96};
  for (int m = 0; m < 8; ++m) t.subnormal[m] = static_cast<uint16_t>(kBf16[m] - (m << 4));
  return t;
}
constexpr Fp8Tables kTables = make_tables();

struct Machine {
  using Tiles = V::Tiles;
  SLUICE_SIMD_INLINE static void prefetch(const std::byte* p) { V::prefetch(p); }

  // A code's exponent and mantissa move to their places, its exponent grows by the difference of
  // the biases; subnormals, which have none, take from a table what they lack.
  SLUICE_SIMD_INLINE static void expand_fp8(const std::byte* codes, std::byte* tile) {
    const __m512i keep = _mm512_set1_epi16(static_cast<int16_t>(0x87f0));
    const __m512i exponent = _mm512_set1_epi16(0x0780), bias = _mm512_set1_epi16(120 << 7);
    const __m512i subnormal = V::load_i32(kTables.subnormal);
    const __m512i pairs[2] = {V::load_i32(kTables.pairs[0]), V::load_i32(kTables.pairs[1])};
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const __m512i lines = V::load_i32(codes + 64 * j);
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const __m512i twice = _mm512_permutexvar_epi8(pairs[half], lines);
        const __m512i word = _mm512_and_si512(_mm512_srai_epi16(twice, 4), keep);
        const __mmask32 small = _mm512_testn_epi16_mask(word, exponent);
        const __m512i more = _mm512_mask_permutexvar_epi16(bias, small, twice, subnormal);
        V::store_i32(tile + (2 * j + half) * 64, _mm512_add_epi16(word, more));
      }
    }
  }
  SLUICE_SIMD_INLINE static void expand_int4(const std::byte* lines, std::byte* tile) {
    const __m512i nibble = _mm512_set1_epi8(15);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const __m512i v = V::load_i32(lines + 64 * j);
      V::store_i32(tile + 128 * j, _mm512_and_si512(v, nibble));
      V::store_i32(tile + 128 * j + 64, _mm512_and_si512(_mm512_srli_epi16(v, 4), nibble));
    }
  }

  static int32_t arrange(const int8_t* x, int64_t count, int64_t padded, std::byte* out) {
    __m512i sum = _mm512_setzero_si512();
    for (int64_t k = 0; k < padded; k += 64) {
      const int64_t n = count - k;
      const __mmask64 bits = n >= 64 ? ~__mmask64{0} : (__mmask64{1} << n) - 1;
      const __m512i v = _mm512_maskz_loadu_epi8(bits, x + k);
      V::store_i32(out + k, v);
      sum = V::dot_u8s8(sum, _mm512_set1_epi8(1), v);
    }
    return _mm512_reduce_add_epi32(sum);
  }
  static void arrange_fp8(const int8_t* x, int64_t count, int64_t padded, std::byte* out) {
    auto* to = reinterpret_cast<uint16_t*>(out);
    for (int64_t k = 0; k < padded; k += 16) {
      int8_t tail[16] = {};
      for (int64_t i = 0; k + 16 > count && k + i < count; ++i) tail[i] = x[k + i];
      const V::F v = simd::fp8_values<V>(k + 16 <= count ? x + k : tail);
      V::store_bf16(to + k, V::mul(v, V::set1(0x1p-8f)));
    }
  }

  template <QuantCodes codes>
  static void add_terms(const simd::QuantTerms& t) {
    const V::F w_scale = V::load(t.w_scale);
    for (int64_t r = 0; r < t.rows; ++r) {
      const V::F x_scale = V::set1(t.x_scale[r * t.x_stride]);
      V::F term;
      if constexpr (codes == QuantCodes::kFp8) {
        const V::F sum = V::load(reinterpret_cast<const float*>(t.sums + 64 * r));
        term = V::mul(V::mul(sum, x_scale), w_scale);
      } else {
        int32_t correction;
        std::memcpy(&correction, t.corrections + r * t.row_bytes, 4);
        const V::I sum = V::addi(V::load_i32(t.sums + 64 * r), V::seti(correction));
        term = V::mul(V::mul(_mm512_cvtepi32_ps(sum), w_scale), x_scale);
      }
      V::store(t.acc + 16 * r, t.first ? term : V::add(V::load(t.acc + 16 * r), term));
    }
  }
  static void store_row(float* out, const float* acc, RoundTo round, int64_t columns) {
    V::store_n(out, simd::rounded<V>(round, V::load(acc)), columns);
  }
};

}  // namespace

const QuantKernel quant_matmul_int8_int8_amx = simd::kQuantTileKernel<Machine, QuantCodes::kInt8>;
const QuantKernel quant_matmul_int8_int4_amx = simd::kQuantTileKernel<Machine, QuantCodes::kInt4>;
const QuantKernel quant_matmul_fp8_fp8_amx = simd::kQuantTileKernel<Machine, QuantCodes::kFp8>;

}  // namespace sluice
