#include <cstring>

#include "ops/quant_matmul/cpu_fp8.h"
#include "simd/avx2.h"

namespace sluice {
namespace simd {

// Weights and x widened to 16 bits, even and odd k apart: every product of two int8 is exact, where
// a dot product of bytes would saturate.
// A template only for its name: what it instantiates is this ISA's own (tools/check_isa).
template <class Vector>
struct QuantDots256 {
  using V = Vector;
  using I = typename V::I;
  struct Weights {
    I even, odd;
  };
  static constexpr int kMaxRows = 4;
  static constexpr int64_t kFour = 8;  // bytes of four codes of x: k 0 and 2, then 1 and 3

  static __m256i pair(const std::byte* p) {
    int32_t v;
    std::memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
  }
  static I load(const std::byte* line) { return V::load_i32(line); }
  static I low(I codes) { return V::andi(codes, V::seti(0x0f0f0f0f)); }
  static I high(I codes) { return low(V::template shr<4>(codes)); }
  static Weights signed_bytes(I codes) {
    const auto even = [](__m256i v) { return _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8); };
    return {{even(codes.a), even(codes.b)},
            {_mm256_srai_epi16(codes.a, 8), _mm256_srai_epi16(codes.b, 8)}};
  }
  static Weights weights8(I codes) {
    const __m256i flip = _mm256_set1_epi8(-128);
    return signed_bytes({_mm256_xor_si256(codes.a, flip), _mm256_xor_si256(codes.b, flip)});
  }
  static Weights weights4(I codes) {
    const __m256i eight = _mm256_set1_epi8(8);
    return signed_bytes({_mm256_sub_epi8(codes.a, eight), _mm256_sub_epi8(codes.b, eight)});
  }
  static I first(const std::byte*) { return V::seti(0); }
  static I dot(I sum, const Weights& w, const std::byte* x) {
    const __m256i even = pair(x), odd = pair(x + 4);
    const auto four = [&](__m256i s, __m256i e, __m256i o) {
      return _mm256_add_epi32(
          s, _mm256_add_epi32(_mm256_madd_epi16(e, even), _mm256_madd_epi16(o, odd)));
    };
    return {four(sum.a, w.even.a, w.odd.a), four(sum.b, w.even.b, w.odd.b)};
  }
  static typename V::F to_float(I v) { return {_mm256_cvtepi32_ps(v.a), _mm256_cvtepi32_ps(v.b)}; }
  static int32_t arrange(const int8_t* x, int64_t count, int64_t padded, std::byte* out) {
    for (int64_t k = 0; k < padded; k += 8) {
      int8_t eight[8] = {};
      const int64_t left = count - k;
      std::memcpy(eight, x + k, static_cast<size_t>(left >= 8 ? 8 : left > 0 ? left : 0));
      const __m128i words =
          _mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(eight)));
      // Of every four: k 0, 2, 1, 3.
      const __m128i mixed = _mm_shufflehi_epi16(_mm_shufflelo_epi16(words, 0xd8), 0xd8);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * k), mixed);
    }
    return 0;  // signed weights need no correction
  }
};

}  // namespace simd

using W = simd::QuantDots256<simd::Avx2>;
const QuantKernel quant_matmul_int8_int8_avx2 = simd::kQuantKernel<W, QuantCodes::kInt8>;
const QuantKernel quant_matmul_int8_int4_avx2 = simd::kQuantKernel<W, QuantCodes::kInt4>;
const QuantKernel quant_matmul_fp8_fp8_avx2 = simd::kFp8Kernel<simd::Avx2>;

}  // namespace sluice
