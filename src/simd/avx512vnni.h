// Avx512 with the integer dot product of AVX512_VNNI. Include only from
// *_avx512vnni.cc; *_amx.cc has the same word in simd/amx_vector.h.
#pragma once

#include "simd/avx512.h"

namespace sluice::simd {

struct Avx512Vnni : Avx512 {
  // acc + four products of unsigned with signed bytes per lane, exactly (wrapping).
  static I dot_u8s8(I acc, I u, I s) { return _mm512_dpbusd_epi32(acc, u, s); }
};

}  // namespace sluice::simd
