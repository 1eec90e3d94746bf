// The elementary functions of the kernels, scalar: the definition that the vector forms in math.h
// repeat operation for operation, so that every path gives the same bits.
//
// Explicit fused multiply-adds, true divisions and square roots, no libm, no approximations.
// Accuracy (checked in test.cc against f64): exp within 2 ulp over its finite range; sigmoid, silu,
// tanh, softplus within 4 ulp. exp(x) is 0 below -103.97 (earlier where subnormals flush), infinity
// above 88.73; NaN stays NaN.
#pragma once

#include <cmath>
#include <cstdint>

#include "base/fp.h"

namespace sluice::scalar {

// x86's min and max: the second operand wins when either is NaN or both are zero.
SLUICE_HD inline float min(float a, float b) {
  return a < b ? a : b;
}
SLUICE_HD inline float max(float a, float b) {
  return a > b ? a : b;
}
SLUICE_HD inline float fma(float a, float b, float c) {
  return std::fma(a, b, c);
}

// Constants of exp, shared with math.h. One name per coefficient: device code cannot
// index a static table.
struct ExpConstants {
  static constexpr float kLow = -104.0f, kHigh = 89.0f;
  static constexpr float kLog2e = 1.44269504088896341f;
  static constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  static constexpr float kLn2High = 0.693145751953125f, kLn2Low = 1.42860682030941723212e-6f;
  // Minimax-like Taylor coefficients of e^r on |r| <= ln2/2, highest power first.
  static constexpr float kC6 = 1.0f / 720.0f, kC5 = 1.0f / 120.0f, kC4 = 1.0f / 24.0f,
                         kC3 = 1.0f / 6.0f, kC2 = 0.5f, kC1 = 1.0f;
  static constexpr float kC7 = 1.0f / 5040.0f;
};

SLUICE_HD inline float pow2i(int32_t n) {
  return bits_to_f32(static_cast<uint32_t>(n + 127) << 23);
}

SLUICE_HD inline float exp(float x) {
  using K = ExpConstants;
  const float clamped = min(max(x, K::kLow), K::kHigh);
  const float t = fma(clamped, K::kLog2e, K::kMagic);
  const float n = t - K::kMagic;
  const int32_t k = static_cast<int32_t>(f32_to_bits(t) - f32_to_bits(K::kMagic));
  float r = fma(n, -K::kLn2High, clamped);
  r = fma(n, -K::kLn2Low, r);
  float p = fma(K::kC7, r, K::kC6);
  p = fma(p, r, K::kC5);
  p = fma(p, r, K::kC4);
  p = fma(p, r, K::kC3);
  p = fma(p, r, K::kC2);
  p = fma(p, r, K::kC1);
  p = fma(p, r, 1.0f);
  // Two exact factors, because 2^k itself may overflow or be subnormal.
  const int32_t half = k >> 1;
  const float y = (p * pow2i(half)) * pow2i(k - half);
  return x != x ? x : y;
}

SLUICE_HD inline float sigmoid(float x) {
  return 1.0f / (1.0f + exp(-x));
}
SLUICE_HD inline float silu(float x) {
  return x * sigmoid(x);
}

// 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3).
inline constexpr float kGeluTwoSqrt2OverPi = 1.5957691216057308f;
SLUICE_HD inline float gelu_tanh(float x) {
  const float inner = fma(x * x * 0.044715f, x, x);
  return x * sigmoid(kGeluTwoSqrt2OverPi * inner);
}

// log(1 + e^x) = max(x, 0) + log1p(t), t = e^-|x|; log1p(t) = 2 atanh(z), z = t / (2 + t) <= 1/3,
// by its series to z^17. Within 4 ulp; 0 below -87.3, where t flushes.
struct SoftplusConstants {
  static constexpr float kC17 = 1.0f / 17.0f, kC15 = 1.0f / 15.0f, kC13 = 1.0f / 13.0f,
                         kC11 = 1.0f / 11.0f, kC9 = 1.0f / 9.0f, kC7 = 1.0f / 7.0f,
                         kC5 = 1.0f / 5.0f, kC3 = 1.0f / 3.0f;
};
SLUICE_HD inline float softplus(float x) {
  using K = SoftplusConstants;
  const float t = exp(-bits_to_f32(f32_to_bits(x) & 0x7fffffffu));
  const float z = t / (2.0f + t), q = z * z;
  float p = fma(K::kC17, q, K::kC15);
  p = fma(p, q, K::kC13);
  p = fma(p, q, K::kC11);
  p = fma(p, q, K::kC9);
  p = fma(p, q, K::kC7);
  p = fma(p, q, K::kC5);
  p = fma(p, q, K::kC3);
  const float atanh = fma(z * q, p, z);
  const float y = max(x, 0.0f) + (atanh + atanh);
  return x != x ? x : y;
}
SLUICE_HD inline float sqrt_softplus(float x) {
  return std::sqrt(softplus(x));
}

struct TanhConstants {
  static constexpr float kSmall = 0.625f;
  static constexpr float kC0 = -5.70498872745e-3f, kC1 = 2.06390887954e-2f,
                         kC2 = -5.37397155531e-2f, kC3 = 1.33314422036e-1f,
                         kC4 = -3.33332819422e-1f;
};
SLUICE_HD inline float tanh(float x) {
  using K = TanhConstants;
  const float a = bits_to_f32(f32_to_bits(x) & 0x7fffffffu);
  const float z = a * a;
  float p = fma(K::kC0, z, K::kC1);
  p = fma(p, z, K::kC2);
  p = fma(p, z, K::kC3);
  p = fma(p, z, K::kC4);
  const float small = fma(p * z, a, a);
  const float large = 1.0f - 2.0f / (exp(a + a) + 1.0f);
  const float y = a < K::kSmall ? small : large;
  return x != x ? x : bits_to_f32(f32_to_bits(y) | (f32_to_bits(x) & 0x80000000u));
}

// x Phi(x) by erfc(z) = exp(-z^2) q(t), z = |x| / sqrt(2), t = 1 / (1 + z / 2), q a polynomial
// fitted to exp(z^2) erfc(z) / t on [0, 10]. exp takes z^2 in two parts, so that the tail keeps its
// relative accuracy: within 6 ulp of f64 where the result is normal.
struct GeluErfConstants {
  static constexpr float kLimit = 15.0f;  // beyond it Phi is 0 or 1 in f32
  static constexpr float kQuarterSqrt2 = 0.35355339059327f;
  static constexpr float kC0 = -0.05831824243068695f, kC1 = 0.2811919152736664f,
                         kC2 = -0.4808026850223541f, kC3 = 0.271470844745636f,
                         kC4 = -0.0225914251059294f, kC5 = 0.20119665563106537f,
                         kC6 = 0.24342681467533112f, kC7 = 0.28233784437179565f,
                         kC8 = 0.28208819031715393f;
};
SLUICE_HD inline float gelu_erf(float x) {
  using K = GeluErfConstants;
  const float a = min(bits_to_f32(f32_to_bits(x) & 0x7fffffffu), K::kLimit);
  const float t = 1.0f / fma(a, K::kQuarterSqrt2, 1.0f);
  float q = fma(K::kC0, t, K::kC1);
  q = fma(q, t, K::kC2);
  q = fma(q, t, K::kC3);
  q = fma(q, t, K::kC4);
  q = fma(q, t, K::kC5);
  q = fma(q, t, K::kC6);
  q = fma(q, t, K::kC7);
  q = fma(q, t, K::kC8);
  const float square = a * a, rest = fma(a, a, -square);
  const float e = exp(-0.5f * square);
  const float tail = 0.5f * ((q * t) * fma(-0.5f * rest, e, e));
  return x * (x < 0.0f ? tail : 1.0f - tail);
}

// gpt-oss: gate clamped above, up clamped on both sides, (up + 1) * gate * sigmoid(alpha * gate).
// The limit is the first operand: a NaN stays one.
SLUICE_HD inline float swiglu_oai(float gate, float up, float alpha, float limit) {
  const float g = min(limit, gate);
  const float u = max(-limit, min(limit, up));
  return (u + 1.0f) * (g * sigmoid(alpha * g));
}

// The fixed tree of every sum: 32 interleaved partials p[i mod 32], each ascending, then halves
// are added: 32 -> 16 -> 8 -> 4 -> 2 -> 1 (p[j] + p[j + half]).
struct Sum32 {
  float p[32] = {};
  SLUICE_HD void add(int64_t i, float v) { p[i & 31] += v; }
  SLUICE_HD void add_product(int64_t i, float a, float b) { p[i & 31] = fma(a, b, p[i & 31]); }
  SLUICE_HD float total() const {
    float s[32];
    for (int i = 0; i < 32; ++i) s[i] = p[i];
    for (int half = 16; half >= 1; half /= 2)
      for (int i = 0; i < half; ++i) s[i] = s[i] + s[i + half];
    return s[0];
  }
};

}  // namespace sluice::scalar
