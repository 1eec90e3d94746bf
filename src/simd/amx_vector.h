// The vocabulary of kernels on machines with tiles: the virtual vector, and `Tiles`. Include only
// from *_amx.cc.
#pragma once

#include "simd/amx.h"
#include "simd/avx512.h"

namespace sluice::simd {

// A type of its own, so that what *_amx.cc instantiates is never another ISA's copy.
struct Amx : Avx512 {
  using Tiles = AmxTiles;
  static I dot_u8s8(I acc, I u, I s) { return _mm512_dpbusd_epi32(acc, u, s); }
};

}  // namespace sluice::simd
