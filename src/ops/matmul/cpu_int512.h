// The vocabulary of cpu_int.h on AVX-512 with VNNI, over V = Avx512Vnni or Amx. Include only from
// the files of these.
#pragma once

#include <cstring>

#include "ops/matmul/cpu_int.h"
#include "simd/avx512.h"

namespace sluice::simd {

// `most_dot_rows`: products of more rows do without these dot products of int4 weights.
template <class Vector, int64_t most_dot_rows = INT64_MAX>
struct Int512 {
  using V = Vector;
  static constexpr int64_t kMostDotRows = most_dot_rows;
  using I = __m512i;
  using Dots = __m512i;
  // 8 rows take 8 dot products and 8 totals of the 32 registers.
  static constexpr int kMaxRows = 8;

  static I zero() { return _mm512_setzero_si512(); }
  static I load(const std::byte* line) { return _mm512_loadu_si512(line); }
  static int32_t word(const void* p) {
    int32_t v;
    std::memcpy(&v, p, 4);
    return v;
  }
  static I low(I codes) { return _mm512_and_si512(codes, _mm512_set1_epi8(15)); }
  static I high(I codes) {
    return _mm512_and_si512(_mm512_srli_epi16(codes, 4), _mm512_set1_epi8(15));
  }
  // Bit c: column c's zero point is 7.
  static __mmask16 zero_points(const std::byte* p) {
    uint16_t v;
    std::memcpy(&v, p, 2);
    return v;
  }
  // -zero * (sum of the group's codes of x).
  static Dots first_dots(__mmask16 seven, const int32_t* with8, const int32_t* with7) {
    return _mm512_mask_set1_epi32(_mm512_set1_epi32(*with8), seven, *with7);
  }
  static Dots dot4(Dots dots, I codes, const int8_t* x) {
    return V::dot_u8s8(dots, codes, _mm512_set1_epi32(word(x)));
  }
  static I multiplier(I eight) { return _mm512_and_si512(eight, _mm512_set1_epi32(15)); }
  static I next_multiplier(I eight) { return _mm512_srli_epi32(eight, 4); }
  // |dots| <= 8 * 127 * 32 fits in 16 bits, and a multiplier's upper 16 bits are zero: one product
  // of pairs of 16-bit numbers adds dots * multiplier.
  static I add_group(I total, Dots dots, I multiplier) {
    return _mm512_dpwssd_epi32(total, dots, multiplier);
  }
  // Of the high and of the low halves of x.
  struct Sums {
    I high, low;
  };
  static Sums first_sums(const int32_t* correction) {
    return {zero(), _mm512_set1_epi32(*correction)};
  }
  static I int8_codes(I line) { return line; }
  static Sums dot8(Sums sums, I codes, const int8_t* high, const int8_t* low) {
    return {dot4(sums.high, codes, high), dot4(sums.low, codes, low)};
  }
  static I total_of(Sums sums) {
    return _mm512_add_epi32(_mm512_slli_epi32(sums.high, 8), sums.low);
  }

  static typename V::F to_float(I v) { return _mm512_cvtepi32_ps(v); }
  static void store_bytes(int8_t* p, I v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
  }
  static void copy_line(const int8_t* from, int8_t* to) {
    _mm512_storeu_si512(to, _mm512_loadu_si512(from));
  }
  static int32_t sum32(const int8_t* x) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
    const __m256i four = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), v);
    const __m128i s4 =
        _mm_add_epi32(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
    const __m128i s2 = _mm_add_epi32(s4, _mm_shuffle_epi32(s4, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s2, _mm_shuffle_epi32(s2, 0xb1)));
  }
  static void group_corrections(const int8_t* x, int32_t* out, int64_t height) {
    const int32_t sum = sum32(x);
    out[0] = -8 * sum;
    out[height] = -7 * sum;
  }
};

}  // namespace sluice::simd
