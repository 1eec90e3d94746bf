// The vocabulary of cpu_group.h on AVX2: two registers for 16 columns, dot products of four bytes
// by way of 16 bits.
#include <cstring>

#include "ops/matmul/cpu_group.h"
#include "ops/matmul/kernels.h"
#include "simd/avx2.h"

namespace sluice {
namespace simd {

// A template only for its name: what it instantiates is this ISA's own (tools/check_isa).
template <class Vector>
struct Group256 {
  using V = Vector;
  using I = typename V::I;
  static constexpr int kMaxRows = 3;

  static I load(const std::byte* line) { return V::load_i32(line); }
  static typename V::F load_f16(const std::byte* p) {
    return V::load_f16(reinterpret_cast<const uint16_t*>(p));
  }
  static I low(I codes) { return V::andi(codes, V::seti(0x0f0f0f0f)); }
  static I high(I codes) { return low(V::template shr<4>(codes)); }
  static I or_bits(I a, I b) { return V::ori(a, b); }
  // Bit t of each byte as bit 4.
  template <int t>
  static I bit_to_4(I bits) {
    constexpr int left = t <= 4 ? 4 - t : 0, right = t <= 4 ? 0 : t - 4;
    return V::andi(V::template shr<right>(V::template shl<left>(bits)), V::seti(0x10101010));
  }
  // Bits 2 t and 2 t + 1 of each byte as bits 4 and 5.
  template <int t>
  static I pair_to_4(I bits) {
    constexpr int left = t <= 2 ? 4 - 2 * t : 0, right = t <= 2 ? 0 : 2 * t - 4;
    return V::andi(V::template shr<right>(V::template shl<left>(bits)), V::seti(0x30303030));
  }
  // Wide levels are taken with their sign: 255 times 127 twice would not fit in 16 bits.
  static I wide_codes(I line) { return {flip(line.a), flip(line.b)}; }
  template <bool wide>
  static I look_up(I codes, const uint8_t* level) {
    const __m256i table =
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(level)));
    const I found = {_mm256_shuffle_epi8(table, codes.a), _mm256_shuffle_epi8(table, codes.b)};
    return wide ? wide_codes(found) : found;
  }
  // Four rows of 16 bytes as 16 lanes of four.
  static I quads(const std::byte* p) {
    const auto row = [p](int j) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16 * j));
    };
    const __m128i a = row(0), b = row(1), c = row(2), d = row(3);
    const __m128i ab = _mm_unpacklo_epi8(a, b), cd = _mm_unpacklo_epi8(c, d);
    const __m128i ab8 = _mm_unpackhi_epi8(a, b), cd8 = _mm_unpackhi_epi8(c, d);
    return {_mm256_setr_m128i(_mm_unpacklo_epi16(ab, cd), _mm_unpackhi_epi16(ab, cd)),
            _mm256_setr_m128i(_mm_unpacklo_epi16(ab8, cd8), _mm_unpackhi_epi16(ab8, cd8))};
  }
  static typename V::F half_e8m0(const std::byte* p) {
    const I e = V::load_u8(p);
    const __m256i one = _mm256_set1_epi32(1);
    const I less = {_mm256_sub_epi32(_mm256_max_epi32(e.a, one), one),
                    _mm256_sub_epi32(_mm256_max_epi32(e.b, one), one)};
    return V::from_bits(V::template shl<23>(less));
  }
  static typename V::F six_bits(I low4, int64_t low_at, I high2, int64_t high_at) {
    const I upper = V::template shl<4>(V::andi(right(high2, high_at), V::seti(3)));
    return to_float(V::ori(V::andi(right(low4, low_at), V::seti(15)), upper));
  }
  static typename V::F signed_byte(I four, int64_t at) {
    const __m128i left = _mm_cvtsi64_si128(24 - 8 * at);
    return to_float(
        V::template sar<24>(I{_mm256_sll_epi32(four.a, left), _mm256_sll_epi32(four.b, left)}));
  }
  template <WeightFormat format>
  static I start(const int32_t* correction) {
    constexpr int zero = block_traits(format).zero;
    if constexpr (zero == 0 || zero == 128) return V::seti(0);
    return V::seti(*correction);
  }
  template <bool wide>
  static I dot(I sum, I codes, const int8_t* x) {
    int32_t word;
    std::memcpy(&word, x, 4);
    const __m256i four = _mm256_set1_epi32(word), ones = _mm256_set1_epi16(1);
    const auto dot4 = [&](__m256i c) {
      // |code| times x with the code's sign: two products of at most 128 * 127 fit in 16 bits.
      const __m256i pairs =
          wide ? _mm256_maddubs_epi16(_mm256_abs_epi8(c), _mm256_sign_epi8(four, c))
               : _mm256_maddubs_epi16(c, four);
      return _mm256_madd_epi16(pairs, ones);
    };
    return {_mm256_add_epi32(sum.a, dot4(codes.a)), _mm256_add_epi32(sum.b, dot4(codes.b))};
  }
  static typename V::F to_float(I v) { return {_mm256_cvtepi32_ps(v.a), _mm256_cvtepi32_ps(v.b)}; }

  template <WeightFormat format>
  static void store_codes(int8_t* p, I v) {
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(v.a, v.b), 0xd8);
    __m128i bytes =
        _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    if constexpr (format == WeightFormat::kMXFP4)
      bytes = _mm_shuffle_epi8(bytes,
                               _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
  }
  static int32_t sum16(const int8_t* x) {
    const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
    const __m128i s4 = _mm_madd_epi16(_mm_maddubs_epi16(_mm_set1_epi8(1), v), _mm_set1_epi16(1));
    const __m128i s2 = _mm_add_epi32(s4, _mm_shuffle_epi32(s4, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s2, _mm_shuffle_epi32(s2, 0xb1)));
  }
  static void copy32(const int8_t* from, int8_t* to) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }

 private:
  static __m256i flip(__m256i v) { return _mm256_xor_si256(v, _mm256_set1_epi8(-128)); }
  static I right(I v, int64_t by) {
    const __m128i count = _mm_cvtsi64_si128(by);
    return {_mm256_srl_epi32(v.a, count), _mm256_srl_epi32(v.b, count)};
  }
};

}  // namespace simd

using W = simd::Group256<simd::Avx2>;
#define SLUICE_BLOCK_FORMAT(name, format) \
  const PanelKernel matmul_int8_##name##_avx2 = simd::kGroupKernel<W, WeightFormat::format>;
#include "ops/matmul/block_formats.inc"
#undef SLUICE_BLOCK_FORMAT
const PanelKernel matmul_int8_mxfp4_avx2 = simd::kGroupKernel<W, WeightFormat::kMXFP4>;

}  // namespace sluice
