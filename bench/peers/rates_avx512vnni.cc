#include <immintrin.h>

#include <cstdint>

namespace peers {

void dot_int8_rounds(int64_t rounds);

// Twelve chains: latency 4 or 5 at two a cycle.
void dot_int8_rounds(int64_t rounds) {
  __m512i acc[12];
  for (__m512i& a : acc) a = _mm512_setzero_si512();
  __m512i x = _mm512_set1_epi8(1), y = _mm512_set1_epi8(2);
  for (int64_t r = 0; r < rounds; ++r) {
    __asm__ volatile("" : "+v"(x), "+v"(y));  // not the same product every round, for all you know
#pragma GCC unroll 12
    for (int j = 0; j < 12; ++j) acc[j] = _mm512_dpbusd_epi32(acc[j], x, y);
  }
  __m512i sum = acc[0];
  for (int j = 1; j < 12; ++j) sum = _mm512_add_epi32(sum, acc[j]);
  __asm__ volatile("" : : "v"(sum));
}

}  // namespace peers
