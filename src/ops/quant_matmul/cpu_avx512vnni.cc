#include <cstring>

#include "ops/quant_matmul/cpu.h"
#include "simd/avx512vnni.h"

namespace sluice {
namespace simd {

// Weights as unsigned bytes; `first` takes back what that adds.
// A template only for its name: what it instantiates is this ISA's own (tools/check_isa).
template <class Vector>
struct QuantDots512 {
  using V = Vector;
  using I = __m512i;
  static constexpr int kMaxRows = 8;
  static constexpr int64_t kFour = 4;  // bytes of four codes of x

  static int32_t word(const std::byte* p) {
    int32_t v;
    std::memcpy(&v, p, 4);
    return v;
  }
  static I load(const std::byte* line) { return _mm512_loadu_si512(line); }
  static I low(I codes) { return _mm512_and_si512(codes, _mm512_set1_epi8(15)); }
  static I high(I codes) { return low(_mm512_srli_epi16(codes, 4)); }
  static I weights8(I codes) { return codes; }
  static I weights4(I codes) { return codes; }
  static I first(const std::byte* correction) { return _mm512_set1_epi32(word(correction)); }
  static I dot(I sum, I w, const std::byte* x) {
    return V::dot_u8s8(sum, w, _mm512_set1_epi32(word(x)));
  }
  static typename V::F to_float(I v) { return _mm512_cvtepi32_ps(v); }
  // Copies a group, zeros behind it; returns the sum.
  static int32_t arrange(const int8_t* x, int64_t count, int64_t padded, std::byte* out) {
    I sum = _mm512_setzero_si512();
    for (int64_t k = 0; k < padded; k += 64) {
      const auto bits = [k](int64_t n) {
        return n - k >= 64 ? ~__mmask64{0} : n <= k ? 0 : (__mmask64{1} << (n - k)) - 1;
      };
      const I v = _mm512_maskz_loadu_epi8(bits(count), x + k);
      _mm512_mask_storeu_epi8(out + k, bits(padded), v);
      sum = V::dot_u8s8(sum, _mm512_set1_epi8(1), v);
    }
    return _mm512_reduce_add_epi32(sum);
  }
};

}  // namespace simd

using W = simd::QuantDots512<simd::Avx512Vnni>;
const QuantKernel quant_matmul_int8_int8_avx512vnni = simd::kQuantKernel<W, QuantCodes::kInt8>;
const QuantKernel quant_matmul_int8_int4_avx512vnni = simd::kQuantKernel<W, QuantCodes::kInt4>;

}  // namespace sluice
