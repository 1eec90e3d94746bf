#include "ops/matmul/cpu.h"
#include "ops/matmul/kernels.h"
#include "ops/matmul/tiles.h"
#include "simd/amx_vector.h"

namespace sluice {
namespace {

using V = simd::Amx;

// MXFP4 codes become bf16 by a table and an exponent by one subtraction: the table holds a code's
// value, its exponent raised by kRaise and zeros at 0, so that subtracting what a column's scale
// leaves of the raise saturates at zero for zeros alone. That needs every scale to give normal
// values; steps that hold another one take the long way. Codes of -0 would become +0: packing
// leaves none (weights/packed.h).
constexpr int kRaise = 125 << 7;
constexpr int kLowScale = 2, kHighScale = 252;
struct alignas(64) Mxfp4Tables {
  uint16_t value[32];      // by the low five bits of a 16-bit lane; the fifth is another code's
  uint8_t byte_of[4][64];  // of 64 bytes, row j's 16 columns into both halves of 32-bit lanes
  uint16_t shift[32];      // the odd lanes hold the high nibble
  uint8_t window[64];  // the same shift by another unit: the bit of its qword that a byte starts at
};
constexpr Mxfp4Tables make_tables() {
  constexpr uint16_t kBf16[8] = {0, 0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040, 0x4080, 0x40c0};
  Mxfp4Tables t{};
  for (int i = 0; i < 32; ++i) {
    const int magnitude = i % 8, sign = (i / 8) % 2;
    t.value[i] =
        static_cast<uint16_t>(magnitude == 0 ? 0 : kBf16[magnitude] + kRaise + (sign << 15));
    t.shift[i] = i % 2 == 0 ? 0 : 4;
    t.window[2 * i] = static_cast<uint8_t>(i % 4 * 16 + t.shift[i]);
    t.window[2 * i + 1] = static_cast<uint8_t>((i % 4 * 16 + t.shift[i] + 8) % 64);
    for (int j = 0; j < 4; ++j) {
      t.byte_of[j][2 * i] = static_cast<uint8_t>(16 * j + i / 2);
      t.byte_of[j][2 * i + 1] = static_cast<uint8_t>(16 * j + i / 2);
    }
  }
  return t;
}
constexpr Mxfp4Tables kTables = make_tables();

// fp8 times its scale, rounded to bf16, has one of 8 mantissas for each column: tables of them for
// columns 0 to 7 and 8 to 15, to which a code's sign and exponent are added. A lookup takes 4 k of
// 8 columns: 16-bit lanes with a code in the upper byte and its column in the lower one's upper
// bits. Subnormal codes have no exponent, and nothing can be added to a scale of zero: both go the
// long way. A layer of Qwen3-30B-A3B on two cores, 1, 64 and 512 tokens: 1.6, 26.8 and 41.4 ms, all
// the long way 1.9, 30.5 and 44.9; AVX-512 2.4, 55.7 and 225.
struct alignas(64) Fp8Lanes {
  uint8_t codes[2][64];   // of 64 codes [4][16]; the pairs of k of the second half in turned order
  uint8_t column[2][64];  // below them
  uint16_t pairs[32];     // of 16 words and 16 others: one of these, one of those, ...
};
constexpr Fp8Lanes make_lanes() {
  Fp8Lanes t{};
  for (int half = 0; half < 2; ++half)
    for (int w = 0; w < 32; ++w) {
      const int pair = half == 0 ? w / 16 : 1 - w / 16, c = w % 16 / 2;
      t.codes[half][2 * w + 1] = static_cast<uint8_t>((2 * pair + w % 2) * 16 + 8 * half + c);
      t.column[half][2 * w] = static_cast<uint8_t>(c << 5);
    }
  for (int i = 0; i < 32; ++i) t.pairs[i] = static_cast<uint16_t>(i / 2 + i % 2 * 16);
  return t;
}
constexpr Fp8Lanes kLanes = make_lanes();

struct Machine : simd::TileMachine<V> {
  SLUICE_SIMD_INLINE static void expand_mxfp4(const std::byte* step, std::byte* tile) {
    const __m512i scale = V::load_u8(step);
    const __mmask16 odd = _mm512_cmpgt_epu32_mask(V::subi(scale, V::seti(kLowScale)),
                                                  V::seti(kHighScale - kLowScale));
    if (odd != 0) [[unlikely]]
      return expand_any_scale(step, tile);
    const __m512i lower = V::subi(V::seti(kRaise + (127 << 7)), V::shl<7>(scale));
    const __m512i both = V::ori(lower, V::shl<16>(lower));
    __m512i table = V::load_i32(kTables.value), shift = V::load_i32(kTables.shift);
    __m512i window = V::load_i32(kTables.window);
    __m512i byte_of[4];
    for (int j = 0; j < 4; ++j) byte_of[j] = V::load_i32(kTables.byte_of[j]);
    // In registers, or GCC would read each again from memory at each use.
    __asm__(""
            : "+v"(table), "+v"(shift), "+v"(window), "+v"(byte_of[0]), "+v"(byte_of[1]),
              "+v"(byte_of[2]), "+v"(byte_of[3]));
#pragma GCC unroll 4
    for (int quarter = 0; quarter < 4; ++quarter) {
      const __m512i codes = V::load_i32(step + 16 + 64 * quarter);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const __m512i bytes = _mm512_permutexvar_epi8(byte_of[j], codes);
        // The word table takes both vector ports, a shift and a saturating subtraction the first, a
        // byte permutation the second: every other shift is made one of these.
        const __m512i codes_of_k = j % 2 == 0 ? _mm512_srlv_epi16(bytes, shift)
                                              : _mm512_multishift_epi64_epi8(window, bytes);
        const __m512i raised = _mm512_permutexvar_epi16(codes_of_k, table);
        V::store_i32(tile + (4 * quarter + j) * 128, _mm512_subs_epu16(raised, both));
      }
    }
  }

  struct alignas(64) Fp8Block {
    uint16_t mantissas[2][2][32];  // of each half of the columns: [8][8 columns]
    const std::byte* scales;
    bool plain;  // no scale is zero
  };
  SLUICE_SIMD_INLINE static void begin_fp8(const std::byte* scales, Fp8Block* block) {
    const V::F scale = V::load(reinterpret_cast<const float*>(scales));
    block->scales = scales;
    block->plain = V::bits(V::equal(scale, V::zero())) == 0;
    const V::F least = V::mul(scale, V::set1(0x1p-7f));  // of an exponent of 0
    __m512i two[4];                                      // mantissas 2 i and 2 i + 1
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
      two[i] = (__m512i)_mm512_cvtne2ps_pbh(
          V::mul(least, V::set1(1.0f + 0.125f * static_cast<float>(2 * i + 1))),
          V::mul(least, V::set1(1.0f + 0.25f * static_cast<float>(i))));
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const __m512i a = two[2 * i], b = two[2 * i + 1];
      V::store_i32(block->mantissas[0][i], _mm512_shuffle_i64x2(a, b, 0x88));
      V::store_i32(block->mantissas[1][i], _mm512_shuffle_i64x2(a, b, 0xdd));
    }
  }
  SLUICE_SIMD_INLINE static void expand_fp8(const std::byte* codes, const Fp8Block& block,
                                            std::byte* tile) {
    if (!block.plain) [[unlikely]]
      return expand_any_fp8(codes, block.scales, tile);
    const __m512i keep = _mm512_set1_epi16(static_cast<int16_t>(0x8780));
    const __m512i magnitude = _mm512_set1_epi8(0x7f);
    __m512i least = magnitude;
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const __m512i v = V::load_i32(codes + 64 * j);
      least = _mm512_min_epu8(least, _mm512_and_si512(v, magnitude));
      __m512i word[2];
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const __m512i lane =
            _mm512_mask_permutexvar_epi8(V::load_i32(kLanes.column[half]), 0xaaaaaaaaaaaaaaaaull,
                                         V::load_i32(kLanes.codes[half]), v);
        const __m512i mantissa = _mm512_permutex2var_epi16(V::load_i32(block.mantissas[half][0]),
                                                           _mm512_srai_epi16(lane, 5),
                                                           V::load_i32(block.mantissas[half][1]));
        const __m512i exponent = _mm512_and_si512(_mm512_srai_epi16(lane, 4), keep);
        word[half] = _mm512_add_epi16(mantissa, exponent);
      }
      V::store_i32(tile + 256 * j, _mm512_mask_blend_epi64(0xf0, word[0], word[1]));
      V::store_i32(tile + 256 * j + 128, _mm512_alignr_epi64(word[1], word[0], 4));
    }
    if (_mm512_cmplt_epu8_mask(least, _mm512_set1_epi8(8)) != 0) [[unlikely]]
      expand_any_fp8(codes, block.scales, tile);
  }

 private:
  // 16 codes of an even k and 16 of the odd one after it as f32, times their scales, rounded and
  // packed by one instruction, interleaved by another.
  [[gnu::noinline]] static void expand_any_fp8(const std::byte* codes, const std::byte* scales,
                                               std::byte* tile) {
    // A code's half with the same bits is 2^-8 of its value.
    const V::F scale = V::mul(V::load(reinterpret_cast<const float*>(scales)), V::set1(256.0f));
    const __m512i pairs = V::load_i32(kLanes.pairs);
    const __m512i keep = _mm512_set1_epi16(static_cast<int16_t>(0xbf80));
    for (int j = 0; j < 16; ++j) {
      const __m512i words = _mm512_cvtepi8_epi16(
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + 32 * j)));
      const __m512i halves = _mm512_and_si512(_mm512_slli_epi16(words, 7), keep);
      const V::F even = V::mul(_mm512_cvtph_ps(_mm512_castsi512_si256(halves)), scale);
      const V::F odd = V::mul(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1)), scale);
      const auto both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
      V::store_i32(tile + 128 * j, _mm512_permutexvar_epi16(pairs, both));
    }
  }
  [[gnu::noinline]] static void expand_any_scale(const std::byte* step, std::byte* tile) {
    const V::F scale = V::from_bits(V::shl<23>(V::load_u8(step)));
    for (int j = 0; j < 16; ++j) {
      const V::I codes = V::load_u8(step + 16 + 16 * j);
      const V::I low = V::bits_of(V::mul(V::e2m1(codes), scale));
      const V::I high = V::bits_of(V::mul(V::e2m1(V::shr<4>(codes)), scale));
      const V::I upper = V::seti(static_cast<int32_t>(0xffff0000u));
      V::store_i32(tile + 128 * j, V::ori(V::shr<16>(low), V::andi(high, upper)));
    }
  }
};

}  // namespace

// A group of rows passes over a range once, pair of panels by pair of panels.
constexpr size_t kRangeBytes = size_t{1} << 20;
const PanelKernel matmul_bf16_bf16_amx = {simd::prepare_tiles<Machine>,
                                          simd::multiply_tiles<Machine, WeightFormat::kBF16>,
                                          simd::store<V>,
                                          nullptr,
                                          nullptr,
                                          kRangeBytes};
const PanelKernel matmul_bf16_mxfp4_amx = {simd::prepare_tiles<Machine>,
                                           simd::multiply_tiles<Machine, WeightFormat::kMXFP4>,
                                           simd::store<V>,
                                           nullptr,
                                           nullptr,
                                           kRangeBytes};
const PanelKernel matmul_bf16_fp8_amx = {simd::prepare_tiles<Machine>,
                                         simd::multiply_tiles<Machine, WeightFormat::kFP8>,
                                         simd::store<V>,
                                         nullptr,
                                         nullptr,
                                         kRangeBytes};

}  // namespace sluice
