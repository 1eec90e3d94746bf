// The virtual vector of 16 f32 lanes, as one AVX-512 register. Include only from *_avx512.cc.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace sluice::simd {

struct Avx512 {
  using F = __m512;
  using I = __m512i;
  using M = __mmask16;
  static constexpr int kLanes = 16;
  static constexpr int kRegisters = 32;  // architectural registers per virtual vector

  static F zero() { return _mm512_setzero_ps(); }
  static F set1(float v) { return _mm512_set1_ps(v); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static M first(int64_t n) {
    return n >= 16 ? M(0xffff) : n <= 0 ? M(0) : M((1u << static_cast<unsigned>(n)) - 1u);
  }
  // The first n lanes from memory, the others zero; never reads past p + n.
  static F load_n(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static void store_n(float* p, F v, int64_t n) { _mm512_mask_storeu_ps(p, first(n), v); }
  // Around the caches; p on a line (streaming.h).
  static void stream(float* p, F v) { _mm512_stream_ps(p, v); }

  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F sqrt(F a) { return _mm512_sqrt_ps(a); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }  // b when unordered
  static F max(F a, F b) { return _mm512_max_ps(a, b); }  // b when unordered
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static M less(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  static M greater(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
  static M equal(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
  static M is_nan(F a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
  static F select(M m, F yes, F no) { return _mm512_mask_blend_ps(m, no, yes); }
  static uint32_t bits(M m) { return m; }

  static I bits_of(F a) { return _mm512_castps_si512(a); }
  static F from_bits(I a) { return _mm512_castsi512_ps(a); }
  static I seti(int32_t v) { return _mm512_set1_epi32(v); }
  static I truncate(F x) { return _mm512_cvttps_epi32(x); }  // |x| < 2^31
  static void store_i32(void* p, I v) { _mm512_storeu_si512(p, v); }
  static I addi(I a, I b) { return _mm512_add_epi32(a, b); }
  static I subi(I a, I b) { return _mm512_sub_epi32(a, b); }
  static I andi(I a, I b) { return _mm512_and_si512(a, b); }
  static I ori(I a, I b) { return _mm512_or_si512(a, b); }
  template <int N>
  static I shl(I a) {
    return _mm512_slli_epi32(a, N);
  }
  template <int N>
  static I shr(I a) {
    return _mm512_srli_epi32(a, N);
  }
  template <int N>
  static I sar(I a) {
    return _mm512_srai_epi32(a, N);
  }

  static I load_i32(const void* p) { return _mm512_loadu_si512(p); }
  // 16 bytes, one per lane.
  static I load_u8(const void* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }
  // The lowest byte of each lane.
  static void store_u8(void* p, I v) {
    _mm_storeu_si128(static_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
  }
  // The fp4 E2M1 value of each lane's low four bits.
  static F e2m1(I codes) {
    const __m512 value = _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f,
                                        -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f);
    return _mm512_permutexvar_ps(codes, value);  // looks at four bits
  }
  // 16 fp8 E4M3 values (no NaN), each 2^-8 of it, exactly: a half has their mantissas in the same
  // place and an exponent bias greater by 8.
  static F load_e4m3_256th(const void* p) {
    const __m256i codes = _mm256_cvtepi8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(p)));
    const __m256i halves = _mm256_and_si256(_mm256_slli_epi16(codes, 7),
                                            _mm256_set1_epi16(static_cast<int16_t>(0xbf80)));
    return _mm512_cvtph_ps(halves);
  }
  // 16 bf16 values, widened.
  static F load_bf16(const uint16_t* p) {
    return from_bits(_mm512_slli_epi32(
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
  }
  // 16 half-precision values, widened exactly (subnormal halves too, whatever the environment).
  static F load_f16(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  // The nearest half, ties to even, as f32.
  static F round_f16(F v) { return _mm512_cvtph_ps(_mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT)); }
  // Rounds to nearest even and stores 16 bf16 values; NaN becomes a quiet NaN.
  static void store_bf16(uint16_t* p, F v) {
    const I b = bits_of(v);
    const I odd = andi(shr<16>(b), seti(1));
    const I rounded = shr<16>(addi(addi(b, seti(0x7fff)), odd));
    const I quiet = ori(shr<16>(b), seti(0x40));
    const I r = _mm512_mask_blend_epi32(is_nan(v), rounded, quiet);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(r));
  }

  static float reduce_max(F a) { return _mm512_reduce_max_ps(a); }
  // The last four steps of the fixed tree: lane j + lane j + 8, then 4, 2, 1.
  static float reduce_add(F a) {
    const __m256 lo = _mm512_castps512_ps256(a), hi = _mm512_extractf32x8_ps(a, 1);
    const __m256 s8 = _mm256_add_ps(lo, hi);
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
