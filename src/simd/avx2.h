// The virtual vector of 16 f32 lanes, as two AVX2 registers. Include only from *_avx2.cc.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace sluice::simd {

struct Avx2 {
  struct F {
    __m256 a, b;
  };
  struct I {
    __m256i a, b;
  };
  using M = F;  // all ones or all zeros per lane
  static constexpr int kLanes = 16;
  static constexpr int kRegisters = 8;

  static F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static F set1(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
  static F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static void store(float* p, F v) {
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
  }
  static __m256i lanes_below(int64_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
  }
  static M first(int64_t n) {
    return {_mm256_castsi256_ps(lanes_below(n)), _mm256_castsi256_ps(lanes_below(n - 8))};
  }
  // The first n lanes from memory, the others zero; never reads past p + n.
  static F load_n(const float* p, int64_t n) {
    return {_mm256_maskload_ps(p, lanes_below(n)), _mm256_maskload_ps(p + 8, lanes_below(n - 8))};
  }
  static void store_n(float* p, F v, int64_t n) {
    _mm256_maskstore_ps(p, lanes_below(n), v.a);
    _mm256_maskstore_ps(p + 8, lanes_below(n - 8), v.b);
  }
  // Around the caches; p on a line (streaming.h).
  static void stream(float* p, F v) {
    _mm256_stream_ps(p, v.a);
    _mm256_stream_ps(p + 8, v.b);
  }

  static F add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
  static F sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
  static F mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
  static F div(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
  static F sqrt(F x) { return {_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)}; }
  static F min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
  static F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
  static F fma(F x, F y, F z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
  }
  template <int Op>
  static M compare(F x, F y) {
    return {_mm256_cmp_ps(x.a, y.a, Op), _mm256_cmp_ps(x.b, y.b, Op)};
  }
  static M less(F x, F y) { return compare<_CMP_LT_OQ>(x, y); }
  static M greater(F x, F y) { return compare<_CMP_GT_OQ>(x, y); }
  static M equal(F x, F y) { return compare<_CMP_EQ_OQ>(x, y); }
  static M is_nan(F x) { return compare<_CMP_UNORD_Q>(x, x); }
  static F select(M m, F yes, F no) {
    return {_mm256_blendv_ps(no.a, yes.a, m.a), _mm256_blendv_ps(no.b, yes.b, m.b)};
  }
  static uint32_t bits(M m) {
    return static_cast<uint32_t>(_mm256_movemask_ps(m.a)) |
           (static_cast<uint32_t>(_mm256_movemask_ps(m.b)) << 8);
  }

  static I bits_of(F x) { return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
  static F from_bits(I x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
  static I seti(int32_t v) { return {_mm256_set1_epi32(v), _mm256_set1_epi32(v)}; }
  // |x| < 2^31.
  static I truncate(F x) { return {_mm256_cvttps_epi32(x.a), _mm256_cvttps_epi32(x.b)}; }
  static void store_i32(void* p, I v) {
    __m256i* q = static_cast<__m256i*>(p);
    _mm256_storeu_si256(q, v.a);
    _mm256_storeu_si256(q + 1, v.b);
  }
  static I addi(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
  static I subi(I x, I y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
  static I andi(I x, I y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
  static I ori(I x, I y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
  template <int N>
  static I shl(I x) {
    return {_mm256_slli_epi32(x.a, N), _mm256_slli_epi32(x.b, N)};
  }
  template <int N>
  static I shr(I x) {
    return {_mm256_srli_epi32(x.a, N), _mm256_srli_epi32(x.b, N)};
  }
  template <int N>
  static I sar(I x) {
    return {_mm256_srai_epi32(x.a, N), _mm256_srai_epi32(x.b, N)};
  }

  static I load_i32(const void* p) {
    const __m256i* q = static_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
  }
  // 16 bytes, one per lane.
  static I load_u8(const void* p) {
    const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(p));
    return {_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
  }
  // The lowest byte of each lane.
  static void store_u8(void* p, I v) {
    const I low = andi(v, seti(255));
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(low.a, low.b), 0xd8);
    _mm_storeu_si128(
        static_cast<__m128i*>(p),
        _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
  }
  // The fp4 E2M1 value of each lane's low four bits.
  static F e2m1(I codes) {
    const __m256 magnitude = _mm256_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f);
    const __m256i sign = _mm256_set1_epi32(8);
    const auto value = [&](__m256i c) {  // permutevar looks at three bits
      const __m256i s = _mm256_slli_epi32(_mm256_and_si256(c, sign), 28);
      return _mm256_or_ps(_mm256_permutevar8x32_ps(magnitude, c), _mm256_castsi256_ps(s));
    };
    return {value(codes.a), value(codes.b)};
  }
  // 16 fp8 E4M3 values (no NaN), each 2^-8 of it, exactly: a half has their mantissas in the same
  // place and an exponent bias greater by 8.
  static F load_e4m3_256th(const void* p) {
    const __m256i codes = _mm256_cvtepi8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(p)));
    const __m256i halves = _mm256_and_si256(_mm256_slli_epi16(codes, 7),
                                            _mm256_set1_epi16(static_cast<int16_t>(0xbf80)));
    return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
            _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
  }
  static F load_bf16(const uint16_t* p) {
    const auto widen = [](const uint16_t* q) {
      const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q));
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
    };
    return {widen(p), widen(p + 8)};
  }
  // 16 half-precision values, widened exactly (subnormal halves too, whatever the environment).
  static F load_f16(const uint16_t* p) {
    const __m128i* q = reinterpret_cast<const __m128i*>(p);
    return {_mm256_cvtph_ps(_mm_loadu_si128(q)), _mm256_cvtph_ps(_mm_loadu_si128(q + 1))};
  }
  // The nearest half, ties to even, as f32.
  static F round_f16(F v) {
    const auto round = [](__m256 x) {
      return _mm256_cvtph_ps(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    };
    return {round(v.a), round(v.b)};
  }
  // Rounds to nearest even and stores 16 bf16 values; NaN becomes a quiet NaN.
  static void store_bf16(uint16_t* p, F v) {
    const I b = bits_of(v);
    const I odd = andi(shr<16>(b), seti(1));
    const I rounded = shr<16>(addi(addi(b, seti(0x7fff)), odd));
    const I quiet = ori(shr<16>(b), seti(0x40));
    const I r = bits_of(select(is_nan(v), from_bits(quiet), from_bits(rounded)));
    const __m256i packed = _mm256_packus_epi32(r.a, r.b);  // interleaves 128-bit halves
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
  }

  static float reduce_max(F x) {
    const __m256 m = _mm256_max_ps(x.a, x.b);
    const __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    const __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    return _mm_cvtss_f32(_mm_max_ss(m2, _mm_shuffle_ps(m2, m2, 1)));
  }
  // The last four steps of the fixed tree: lane j + lane j + 8, then 4, 2, 1.
  static float reduce_add(F x) {
    const __m256 s8 = _mm256_add_ps(x.a, x.b);
    const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
  }
  // Always inlined: GCC 12 takes a function that only prefetches for one without effect, and drops
  // the call.
  [[gnu::always_inline]] static void prefetch(const void* p) {
    _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
  }
  [[gnu::always_inline]] static void prefetch_l2(const void* p) {
    _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1);
  }
};

}  // namespace sluice::simd
