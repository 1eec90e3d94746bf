// The scalar steps of the rules that every form repeats bit for bit (kernels.h has the words).
#pragma once

#include <cstdint>

#include "ops/sample/kernels.h"
#include "simd/scalar.h"

namespace sluice {

inline constexpr uint64_t kAllMass = ~uint64_t{0};

SLUICE_HD inline float sample_distance(float max, float logit, float inverse_temperature) {
  return (max - logit) * inverse_temperature;
}
SLUICE_HD inline uint32_t sample_mass(float distance) {
  return static_cast<uint32_t>(static_cast<int32_t>(scalar::exp(-distance) * kMassUnit));
}

// The largest sum of masses before a kept token: floor(p * Z).
SLUICE_HD inline uint64_t mass_limit(float top_p, uint64_t total) {
  if (top_p >= 1.0f) return kAllMass;
  return static_cast<uint64_t>(static_cast<double>(top_p) * static_cast<double>(total));
}

// u * mass, rounded down; mass < 2^51.
SLUICE_HD inline uint64_t scaled_mass(uint64_t mass, uint32_t random24) {
  return (mass >> 24) * random24 + (((mass & 0xffffffu) * random24) >> 24);
}

// Penalties of one logit, in adjust.h's order.
SLUICE_HD inline float repeated_logit(float logit, float penalty) {
  return logit > 0 ? logit / penalty : logit * penalty;
}
SLUICE_HD inline float counted_logit(float logit, float frequency, float presence, int32_t count) {
  return (logit - frequency * static_cast<float>(count)) - presence;
}
// Marks of an id: how often it stands in the output, and what has been applied to it already.
inline constexpr int32_t kRepeated = 1 << 30;
inline constexpr int32_t kCounted = 1 << 29;
inline constexpr int32_t kCount = kCounted - 1;

}  // namespace sluice
