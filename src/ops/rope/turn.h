// One pair turned, scalar: the definition that every form repeats bit for bit.
#pragma once

#include "simd/scalar.h"

namespace sluice {

SLUICE_HD inline void rope_turn(float cos, float sin, float& first, float& second) {
  const float u = first, v = second;
  first = scalar::fma(u, cos, -(v * sin));
  second = scalar::fma(v, cos, u * sin);
}

}  // namespace sluice
