// Avx512 with the bf16 dot product of AVX512_BF16. Include only from *_avx512bf16.cc.
#pragma once

#include "simd/avx512.h"

namespace sluice::simd {

struct Avx512Bf16 : Avx512 {
  // Per lane with its two bf16 of x and w: fma(x even, w even, fma(x odd, w odd, acc)). Nearest
  // even, subnormal inputs and results are zero, whatever MXCSR says.
  static F dot_bf16(F acc, I x, I w) {
    return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(w));
  }
};

}  // namespace sluice::simd
