// The vocabulary of cpu_int.h on AVX2: two registers for 16 columns, dot products of four bytes by
// way of 16 bits.
#include <cstring>

#include "ops/matmul/cpu_int.h"
#include "ops/matmul/kernels.h"
#include "simd/avx2.h"

namespace sluice {
namespace simd {

// A template only for its name: what it instantiates is this ISA's own (tools/check_isa).
template <class Vector>
struct Int256 {
  using V = Vector;
  static constexpr int64_t kMostDotRows = INT64_MAX;
  using I = typename V::I;
  // int4: 16-bit lane pairs, the sums of k 0, 1 and of k 2, 3 of every four.
  using Dots = I;
  static constexpr int kMaxRows = 4;

  static I zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static I load(const std::byte* line) { return V::load_i32(line); }
  static int32_t word(const void* p) {
    int32_t v;
    std::memcpy(&v, p, 4);
    return v;
  }
  static I low(I codes) { return V::andi(codes, V::seti(0x0f0f0f0f)); }
  static I high(I codes) { return low(V::template shr<4>(codes)); }
  // All ones in the lanes of the columns with zero point 7.
  static I zero_points(const std::byte* p) {
    uint16_t v;
    std::memcpy(&v, p, 2);
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i a = _mm256_and_si256(_mm256_set1_epi32(v), bits);
    const __m256i b = _mm256_and_si256(_mm256_set1_epi32(v >> 8), bits);
    return {_mm256_cmpeq_epi32(a, bits), _mm256_cmpeq_epi32(b, bits)};
  }
  static Dots first_dots(I seven, const int32_t* with8, const int32_t* with7) {
    const __m256i x = _mm256_set1_epi32(*with8), y = _mm256_set1_epi32(*with7);
    return {_mm256_blendv_epi8(x, y, seven.a), _mm256_blendv_epi8(x, y, seven.b)};
  }
  // 16-bit sums may wrap on the way: the group's lies within 8 * 127 * 16.
  static Dots dot4(Dots dots, I codes, const int8_t* x) {
    const __m256i four = _mm256_set1_epi32(word(x));
    return {_mm256_add_epi16(dots.a, _mm256_maddubs_epi16(codes.a, four)),
            _mm256_add_epi16(dots.b, _mm256_maddubs_epi16(codes.b, four))};
  }
  static I multiplier(I eight) {
    const I m = V::andi(eight, V::seti(15));
    return V::ori(m, V::template shl<16>(m));
  }
  static I next_multiplier(I eight) { return V::template shr<4>(eight); }
  static I add_group(I total, Dots dots, I multiplier) {
    return {_mm256_add_epi32(total.a, _mm256_madd_epi16(dots.a, multiplier.a)),
            _mm256_add_epi32(total.b, _mm256_madd_epi16(dots.b, multiplier.b))};
  }
  using Sums = I;
  static Sums first_sums(const int32_t*) { return zero(); }
  static I total_of(Sums sums) { return sums; }
  static I int8_codes(I line) {
    return {_mm256_xor_si256(line.a, _mm256_set1_epi8(-128)),
            _mm256_xor_si256(line.b, _mm256_set1_epi8(-128))};
  }
  // |x| * (the code with the sign of x), since x may be -128: two products of at most 128 * 127 fit
  // in 16 bits. What adds the pairs multiplies the high half by 256.
  static Sums dot8(Sums sums, I codes, const int8_t* high, const int8_t* low) {
    const __m256i h = _mm256_set1_epi32(word(high)), l = _mm256_set1_epi32(word(low));
    const __m256i h_abs = _mm256_abs_epi8(h), l_abs = _mm256_abs_epi8(l);
    const auto dot = [&](__m256i c) {
      const __m256i hs = _mm256_maddubs_epi16(h_abs, _mm256_sign_epi8(c, h));
      const __m256i ls = _mm256_maddubs_epi16(l_abs, _mm256_sign_epi8(c, l));
      return _mm256_add_epi32(_mm256_madd_epi16(hs, _mm256_set1_epi16(256)),
                              _mm256_madd_epi16(ls, _mm256_set1_epi16(1)));
    };
    return {_mm256_add_epi32(sums.a, dot(codes.a)), _mm256_add_epi32(sums.b, dot(codes.b))};
  }

  static typename V::F to_float(I v) { return {_mm256_cvtepi32_ps(v.a), _mm256_cvtepi32_ps(v.b)}; }
  static void store_bytes(int8_t* p, I v) {
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(v.a, v.b), 0xd8);
    const __m128i bytes =
        _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
  }
  static void copy_line(const int8_t* from, int8_t* to) { V::store_i32(to, V::load_i32(from)); }
  // 16-bit lanes 0 and 1: the sums over k 0, 1 and over k 2, 3 of every four of 32 codes.
  static __m128i pair_sums(const int8_t* x) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
    const __m256i two = _mm256_maddubs_epi16(_mm256_set1_epi8(1), v);
    const __m128i s8 = _mm_add_epi16(_mm256_castsi256_si128(two), _mm256_extracti128_si256(two, 1));
    const __m128i s4 = _mm_add_epi16(s8, _mm_shuffle_epi32(s8, 0x4e));
    return _mm_add_epi16(s4, _mm_shuffle_epi32(s4, 0xb1));
  }
  static int32_t sum32(const int8_t* x) {
    return _mm_cvtsi128_si32(_mm_madd_epi16(pair_sums(x), _mm_set1_epi16(1)));
  }
  static void group_corrections(const int8_t* x, int32_t* out, int64_t height) {
    const __m128i sums = pair_sums(x);
    out[0] = _mm_cvtsi128_si32(_mm_mullo_epi16(sums, _mm_set1_epi16(-8)));
    out[height] = _mm_cvtsi128_si32(_mm_mullo_epi16(sums, _mm_set1_epi16(-7)));
  }
};

}  // namespace simd

using W = simd::Int256<simd::Avx2>;
const PanelKernel matmul_int8_int4_avx2 = simd::kIntKernel<W, WeightFormat::kInt4>;
const PanelKernel matmul_int16_int8_avx2 = simd::kIntKernel<W, WeightFormat::kInt8>;

}  // namespace sluice
