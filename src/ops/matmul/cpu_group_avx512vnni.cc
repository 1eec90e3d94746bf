// The vocabulary of cpu_group.h on AVX-512 with VNNI. Machines with tiles take these rows, too: a
// rescaling of tiles for each 32 k costs more than it saves.
#include <cstring>

#include "ops/matmul/cpu_group.h"
#include "ops/matmul/kernels.h"
#include "simd/avx512vnni.h"

namespace sluice {
namespace simd {

// A template only for its name: what it instantiates is this ISA's own (tools/check_isa).
template <class Vector>
struct Group512 {
  using V = Vector;
  using I = __m512i;
  // 8 rows take 8 sums and 8 accumulators of the 32 registers.
  static constexpr int kMaxRows = 8;

  static I load(const std::byte* line) { return _mm512_loadu_si512(line); }
  static typename V::F load_f16(const std::byte* p) {
    return V::load_f16(reinterpret_cast<const uint16_t*>(p));
  }
  static I low(I codes) { return _mm512_and_si512(codes, _mm512_set1_epi8(15)); }
  static I high(I codes) { return low(_mm512_srli_epi16(codes, 4)); }
  static I or_bits(I a, I b) { return _mm512_or_si512(a, b); }
  // Bit t of each byte as bit 4.
  template <int t>
  static I bit_to_4(I bits) {
    const I moved = t <= 4 ? _mm512_slli_epi16(bits, t <= 4 ? 4 - t : 0)
                           : _mm512_srli_epi16(bits, t <= 4 ? 0 : t - 4);
    return _mm512_and_si512(moved, _mm512_set1_epi8(0x10));
  }
  // Bits 2 t and 2 t + 1 of each byte as bits 4 and 5.
  template <int t>
  static I pair_to_4(I bits) {
    const I moved = t <= 2 ? _mm512_slli_epi16(bits, t <= 2 ? 4 - 2 * t : 0)
                           : _mm512_srli_epi16(bits, t <= 2 ? 0 : 2 * t - 4);
    return _mm512_and_si512(moved, _mm512_set1_epi8(0x30));
  }
  static I wide_codes(I line) { return line; }
  template <bool wide>
  static I look_up(I codes, const uint8_t* level) {
    const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(level));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), codes);
  }
  // Four rows of 16 bytes as 16 lanes of four.
  static I quads(const std::byte* p) {
    const I by_column = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const I bytes =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    return _mm512_shuffle_epi8(_mm512_permutexvar_epi32(by_column, load(p)), bytes);
  }
  static typename V::F half_e8m0(const std::byte* p) {
    const I least = _mm512_max_epi32(V::load_u8(p), _mm512_set1_epi32(1));
    return V::from_bits(V::template shl<23>(_mm512_sub_epi32(least, _mm512_set1_epi32(1))));
  }
  static typename V::F six_bits(I low4, int64_t low_at, I high2, int64_t high_at) {
    const I a = _mm512_srl_epi32(low4, _mm_cvtsi64_si128(low_at));
    const I b = _mm512_srl_epi32(high2, _mm_cvtsi64_si128(high_at));
    const I upper = _mm512_slli_epi32(_mm512_and_si512(b, _mm512_set1_epi32(3)), 4);
    return to_float(_mm512_or_si512(_mm512_and_si512(a, _mm512_set1_epi32(15)), upper));
  }
  static typename V::F signed_byte(I four, int64_t at) {
    return to_float(_mm512_srai_epi32(_mm512_sll_epi32(four, _mm_cvtsi64_si128(24 - 8 * at)), 24));
  }
  template <WeightFormat format>
  static I start(const int32_t* correction) {
    if constexpr (block_traits(format).zero == 0) return _mm512_setzero_si512();
    return _mm512_set1_epi32(*correction);
  }
  template <bool wide>
  static I dot(I sum, I codes, const int8_t* x) {
    int32_t four;
    std::memcpy(&four, x, 4);
    return V::dot_u8s8(sum, codes, _mm512_set1_epi32(four));
  }
  static typename V::F to_float(I v) { return _mm512_cvtepi32_ps(v); }

  template <WeightFormat format>
  static void store_codes(int8_t* p, I v) {
    __m128i bytes = _mm512_cvtepi32_epi8(v);
    if constexpr (format == WeightFormat::kMXFP4)
      bytes = _mm_shuffle_epi8(bytes,
                               _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
  }
  static int32_t sum16(const int8_t* x) {
    const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
    const __m128i s4 = _mm_dpbusd_epi32(_mm_setzero_si128(), _mm_set1_epi8(1), v);
    const __m128i s2 = _mm_add_epi32(s4, _mm_shuffle_epi32(s4, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s2, _mm_shuffle_epi32(s2, 0xb1)));
  }
  static void copy32(const int8_t* from, int8_t* to) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
};

}  // namespace simd

using W = simd::Group512<simd::Avx512Vnni>;
#define SLUICE_BLOCK_FORMAT(name, format) \
  const PanelKernel matmul_int8_##name##_avx512vnni = simd::kGroupKernel<W, WeightFormat::format>;
#include "ops/matmul/block_formats.inc"
#undef SLUICE_BLOCK_FORMAT
const PanelKernel matmul_int8_mxfp4_avx512vnni = simd::kGroupKernel<W, WeightFormat::kMXFP4>;

}  // namespace sluice
