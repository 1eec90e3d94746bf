#include "ops/matmul/cpu_int512.h"
#include "ops/matmul/int_tiles.h"
#include "ops/matmul/kernels.h"
#include "simd/amx_vector.h"

namespace sluice {
namespace {

using V = simd::Amx;
using W = simd::Int512<V>;
using enum WeightFormat;

struct Machine {
  using Tiles = V::Tiles;
  SLUICE_SIMD_INLINE static void prefetch(const std::byte* p) { V::prefetch(p); }

  // 8 rows of a tile: multiplier * (code - zero) of 32 k. Unsigned codes times the multiplier stay
  // below 256, so one product of 16-bit lanes makes two of bytes.
  SLUICE_SIMD_INLINE static void expand_int4(const std::byte* block, int64_t g,
                                             const std::byte* codes, std::byte* out) {
    const __m512i eight = W::load(block + kInt4MultiplierAt + g / 8 * 64);
    const __m512i shifted = _mm512_srl_epi32(eight, _mm_cvtsi32_si128(static_cast<int>(g % 8) * 4));
    const __m512i first_byte = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0x00000000);
    const __m512i bytes =
        _mm512_and_si512(_mm512_shuffle_epi8(shifted, first_byte), _mm512_set1_epi8(15));
    const __m512i words = _mm512_and_si512(bytes, _mm512_set1_epi16(255));
    const __m512i times8 = _mm512_slli_epi16(bytes, 3);
    const __mmask16 seven = W::zero_points(block + kInt4ZeroAt + 2 * g);
    const __m512i zero = _mm512_mask_sub_epi32(times8, seven, times8, bytes);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m512i line = W::load(codes + 64 * j);
      const __m512i low = _mm512_mullo_epi16(W::low(line), words);
      const __m512i high = _mm512_mullo_epi16(W::high(line), words);
      _mm512_store_si512(out + 128 * j, _mm512_sub_epi8(low, zero));
      _mm512_store_si512(out + 128 * j + 64, _mm512_sub_epi8(high, zero));
    }
  }
  SLUICE_SIMD_INLINE static void copy_half(const std::byte* codes, std::byte* out) {
    for (int j = 0; j < 8; ++j) _mm512_store_si512(out + 64 * j, W::load(codes + 64 * j));
  }
  // acc = fma(f32(S) * x_scale, w, acc) for the 16 columns of a row.
  template <WeightFormat format>
  SLUICE_SIMD_INLINE static void add_block(const int32_t* sums, int32_t correction, float x_scale,
                                           const std::byte* scales, bool first, float* acc) {
    __m512i sum = _mm512_loadu_si512(sums);
    if (format == kInt8) sum = _mm512_add_epi32(sum, _mm512_set1_epi32(correction));
    const V::F scaled = V::mul(W::to_float(sum), V::set1(x_scale));
    const V::F weight_scale = format == kInt4
                                  ? V::load_bf16(reinterpret_cast<const uint16_t*>(scales))
                                  : V::load(reinterpret_cast<const float*>(scales));
    const V::F before = first ? V::zero() : V::load(acc);
    V::store(acc, V::fma(scaled, weight_scale, before));
  }
};

// From how many rows on tiles win over dot products of the codes as they lie.
constexpr int64_t kTileRows = 2;

template <WeightFormat format>
void multiply(const PanelProduct& product) {
  if (product.row_count < kTileRows)
    simd::multiply_int<W, format>(product);
  else
    simd::multiply_int_tiles<Machine, format>(product);
}

}  // namespace

const PanelKernel matmul_int8_int4_amx = {simd::prepare_int<W, kInt4>, multiply<kInt4>,
                                          simd::store<V>};
const PanelKernel matmul_int8_int8_amx = {simd::prepare_int<W, kInt8>, multiply<kInt8>,
                                          simd::store<V>};

}  // namespace sluice
