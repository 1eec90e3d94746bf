#include <immintrin.h>

#include <cstdint>

namespace peers {

void pair_int8_rounds(int64_t rounds);

// Pairs in 16 bits, then in 32, then the sum: how a machine without VNNI multiplies bytes.
void pair_int8_rounds(int64_t rounds) {
  __m256i acc[8];
  for (__m256i& a : acc) a = _mm256_setzero_si256();
  __m256i x = _mm256_set1_epi8(1), y = _mm256_set1_epi8(2);
  const __m256i ones = _mm256_set1_epi16(1);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      __asm__ volatile("" : "+x"(x), "+x"(y));  // not the same product again, for all you know
      acc[j] = _mm256_add_epi32(acc[j], _mm256_madd_epi16(_mm256_maddubs_epi16(x, y), ones));
    }
  }
  __m256i sum = acc[0];
  for (int j = 1; j < 8; ++j) sum = _mm256_add_epi32(sum, acc[j]);
  __asm__ volatile("" : : "x"(sum));
}

}  // namespace peers
