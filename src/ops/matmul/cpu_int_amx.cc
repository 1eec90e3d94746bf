#include "ops/matmul/cpu_int512.h"
#include "ops/matmul/int_tiles.h"
#include "ops/matmul/kernels.h"
#include "ops/matmul/tiles.h"
#include "simd/amx_vector.h"

namespace sluice {
namespace {

using V = simd::Amx;

// Up to how many rows dot products of int4 codes as they lie win over tiles. Weights in the
// second-level cache, N = 1536, K = 2048, microseconds with dots and with tiles: 2 rows 36 and 54,
// 4 rows 55 and 57, 6 rows 92 and 60.
using W = simd::Int512<V, 4>;
using enum WeightFormat;

// Byte j of each 32-bit lane into all its bytes: the multipliers of groups 2 j and 2 j + 1.
struct alignas(64) Pick {
  uint8_t byte_of[4][64];
};
constexpr Pick make_pick() {
  Pick p{};
  for (int j = 0; j < 4; ++j)
    for (int i = 0; i < 64; ++i) p.byte_of[j][i] = static_cast<uint8_t>(i % 16 / 4 * 4 + j);
  return p;
}
constexpr Pick kPick = make_pick();

struct Machine : simd::TileMachine<V> {
  // 8 rows of a tile: multiplier * (code - zero) of 32 k, of group g + half, g even. Unsigned codes
  // times the multiplier stay below 256, so one product of 16-bit lanes makes two of bytes: of the
  // low nibbles its lower half, of the high ones, 16 times their worth, with 4096 times the
  // multiplier its upper half.
  template <int half>
  SLUICE_SIMD_INLINE static void expand_int4(const std::byte* block, int64_t g,
                                             const std::byte* codes, std::byte* out) {
    const auto at = static_cast<uint64_t>(g);
    const __m512i four = _mm512_shuffle_epi8(W::load(block + kInt4MultiplierAt + at / 8 * 64),
                                             V::load_i32(kPick.byte_of[at / 2 % 4]));
    const __m512i bytes = half == 0 ? W::low(four) : W::high(four);
    const __m512i words = _mm512_and_si512(bytes, _mm512_set1_epi16(255));
    const __m512i words4096 = _mm512_slli_epi16(bytes, 12);
    const __m512i times8 = _mm512_slli_epi16(bytes, 3);
    const __mmask16 seven = W::zero_points(block + kInt4ZeroAt + 2 * (g + half));
    const __m512i zero = _mm512_mask_sub_epi32(times8, seven, times8, bytes);
    const __m512i upper = _mm512_set1_epi8(static_cast<char>(0xf0));
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m512i line = W::load(codes + 64 * j);
      const __m512i low = _mm512_mullo_epi16(W::low(line), words);
      const __m512i high = _mm512_mulhi_epu16(_mm512_and_si512(line, upper), words4096);
      _mm512_store_si512(out + 128 * j, _mm512_sub_epi8(low, zero));
      _mm512_store_si512(out + 128 * j + 64, _mm512_sub_epi8(high, zero));
    }
  }
  SLUICE_SIMD_INLINE static void copy_half(const std::byte* codes, std::byte* out) {
    for (int j = 0; j < 8; ++j) _mm512_store_si512(out + 64 * j, W::load(codes + 64 * j));
  }
  // acc = fma(f32(S) * scale, w, acc) for the 16 columns of each of Count panels of each row.
  // int8: S = 256 * sums[..] + sums[low + ..] + the row's correction.
  template <WeightFormat format, int Count>
  SLUICE_SIMD_INLINE static void add_rows(const int32_t* sums, int64_t low, int64_t rows,
                                          const int32_t* corrections, const float* scales,
                                          const std::byte* weight_scales, int64_t panel_bytes,
                                          bool first, float* acc) {
    V::F weight_scale[Count];
    for (int p = 0; p < Count; ++p, weight_scales += panel_bytes)
      weight_scale[p] = format == kInt4
                            ? V::load_bf16(reinterpret_cast<const uint16_t*>(weight_scales))
                            : V::load(reinterpret_cast<const float*>(weight_scales));
    for (int64_t r = 0; r < rows; ++r, sums += Count * 16, acc += Count * 16) {
      const V::F scale = V::set1(scales[r]);
#pragma GCC unroll 2
      for (int p = 0; p < Count; ++p) {
        __m512i sum = _mm512_loadu_si512(sums + p * 16);
        if (format == kInt8)
          sum = _mm512_add_epi32(
              _mm512_add_epi32(_mm512_slli_epi32(sum, 8), _mm512_loadu_si512(sums + low + p * 16)),
              _mm512_set1_epi32(corrections[r]));
        const V::F before = first ? V::zero() : V::load(acc + p * 16);
        V::store(acc + p * 16, V::fma(V::mul(W::to_float(sum), scale), weight_scale[p], before));
      }
    }
  }
};

template <WeightFormat format>
void multiply(const PanelProduct& product) {
  if (product.row_count <= (format == kInt4 ? W::kMostDotRows : 1))
    simd::multiply_int<W, format>(product);
  else
    simd::multiply_int_tiles<Machine, format>(product);
}

}  // namespace

const PanelKernel matmul_int8_int4_amx = {.prepare = simd::prepare_int<W, kInt4>,
                                          .multiply = multiply<kInt4>,
                                          .store = simd::store<V>,
                                          .gather = simd::gather_int<W, kInt4>,
                                          .rows_of_pass = simd::int_group_rows(kInt4)};
const PanelKernel matmul_int16_int8_amx = {.prepare = simd::prepare_int<W, kInt8>,
                                           .multiply = multiply<kInt8>,
                                           .store = simd::store<V>,
                                           .gather = simd::gather_int<W, kInt8>,
                                           .rows_of_pass = simd::int_group_rows(kInt8)};

}  // namespace sluice
