// Scalar floating-point formats narrower than f32, and the bits behind them.
//
// Every conversion to f32 is exact; every conversion from f32 rounds to nearest, ties to even.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "base/host_device.h"

namespace sluice {

SLUICE_HD inline float bits_to_f32(uint32_t b) {
  return std::bit_cast<float>(b);
}
SLUICE_HD inline uint32_t f32_to_bits(float f) {
  return std::bit_cast<uint32_t>(f);
}

// bfloat16: the upper half of an f32.
struct bf16 {
  uint16_t bits = 0;
  bf16() = default;
  SLUICE_HD explicit bf16(float f) : bits(round(f)) {}
  SLUICE_HD static bf16 from_bits(uint16_t b) {
    bf16 r;
    r.bits = b;
    return r;
  }
  SLUICE_HD explicit operator float() const { return bits_to_f32(uint32_t{bits} << 16); }

 private:
  SLUICE_HD static uint16_t round(float f) {
    const uint32_t b = f32_to_bits(f);
    if ((b & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((b >> 16) | 0x40u);  // quiet
    return static_cast<uint16_t>((b + 0x7fffu + ((b >> 16) & 1u)) >> 16);
  }
};
static_assert(sizeof(bf16) == 2);

SLUICE_HD inline float round_to_bf16(float f) {
  return static_cast<float>(bf16(f));
}

// IEEE half precision, bit pattern only.
SLUICE_HD inline float f16_to_f32(uint16_t h) {
  const uint32_t sign = uint32_t{h & 0x8000u} << 16;
  const uint32_t magnitude = h & 0x7fffu;
  if (magnitude >= 0x7c00u) return bits_to_f32(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  if (magnitude >= 0x400u) return bits_to_f32(sign | ((magnitude << 13) + 0x38000000u));
  // Subnormal halves are normal f32 values: multiply the integer by 2^-24, exactly.
  const float f = static_cast<float>(magnitude) * 0x1p-24f;
  return bits_to_f32(sign | f32_to_bits(f));
}

// To nearest even, beyond 65519 infinity; NaN becomes quiet.
SLUICE_HD inline uint16_t f32_to_f16(float f) {
  const uint32_t b = f32_to_bits(f), magnitude = b & 0x7fffffffu;
  const uint32_t sign = (b >> 16) & 0x8000u;
  if (magnitude > 0x7f800000u)
    return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude >= 0x38800000u) {
    const uint32_t up = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return static_cast<uint16_t>(sign | ((up - 0x38000000u) >> 13));
  }
  // 2^-24, the step of subnormal halves, is the ulp of 0.5.
  const uint32_t steps = f32_to_bits(bits_to_f32(magnitude) + 0.5f) - f32_to_bits(0.5f);
  return static_cast<uint16_t>(sign | steps);
}

// fp8 E4M3 "FN": bias 7, largest 448, 0x7f and 0xff are NaN, no infinity.
SLUICE_HD inline float e4m3_to_f32(uint8_t v) {
  const uint32_t sign = uint32_t{v & 0x80u} << 24;
  const uint32_t exponent = (v >> 3) & 15u, mantissa = v & 7u;
  if (exponent == 15 && mantissa == 7) return bits_to_f32(sign | 0x7fc00000u);
  if (exponent == 0) return bits_to_f32(sign | f32_to_bits(static_cast<float>(mantissa) * 0x1p-9f));
  return bits_to_f32(sign | ((exponent + 120u) << 23) | (mantissa << 20));
}

// To nearest even; beyond 448 the largest, infinity too; NaN becomes 0x7f or 0xff.
SLUICE_HD inline uint8_t f32_to_e4m3(float f) {
  const uint32_t b = f32_to_bits(f), sign = (b >> 24) & 0x80u;
  uint32_t magnitude = b & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint8_t>(sign | 0x7fu);
  if (magnitude > 0x43e00000u) magnitude = 0x43e00000u;  // 448
  if (magnitude >= 0x3c800000u) {                        // 2^-6, the smallest normal
    const uint32_t up = magnitude + 0x7ffffu + ((magnitude >> 20) & 1u);
    return static_cast<uint8_t>(sign | ((up >> 20) - (120u << 3)));
  }
  // 2^-9, the step of the subnormals, is the ulp of 2^14.
  const uint32_t steps = f32_to_bits(bits_to_f32(magnitude) + 16384.0f) - f32_to_bits(16384.0f);
  return static_cast<uint8_t>(sign | steps);
}

// fp8 E5M2: an IEEE half without its low byte.
SLUICE_HD inline float e5m2_to_f32(uint8_t v) {
  return f16_to_f32(static_cast<uint16_t>(v << 8));
}

// fp4 E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives. Only the low nibble counts.
SLUICE_HD inline float e2m1_to_f32(uint8_t code) {
  const uint32_t magnitude = code & 7u;  // from 2 on the upper bits of an f32, less a bias
  const float small = magnitude == 0 ? 0.0f : 0.5f;
  const float v = magnitude < 2 ? small : bits_to_f32((magnitude + 252u) << 22);
  return (code & 8u) != 0 ? -v : v;
}

// E8M0 block scale: 2^(e-127). 0 gives the subnormal 2^-127. 255 is NaN in the MX standard; the
// loader refuses it, so that here it only has to be harmless.
SLUICE_HD inline float e8m0_to_f32(uint8_t e) {
  if (e == 0) return 0x1p-127f;
  if (e == 255) return bits_to_f32(0x7fc00000u);
  return bits_to_f32(uint32_t{e} << 23);
}

}  // namespace sluice
