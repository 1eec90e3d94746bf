// Sine and cosine of an angle in f64, the definition on every backend: libm's last bit differs from
// one library to the next, and a GPU has none.
//
// The angle is reduced by n = nearest(x * 2/pi), r = (x - n * P1) - n * P2 with P1 + P2 = pi/2 to
// 107 bits: the first step is exact under an FMA, the second rounds once. On |r| <= pi/4 (and a
// hair) sine and cosine are their Taylor polynomials, whose first omitted terms are below 2^-63;
// plain products and sums, so that a CPU without FMA instructions stays fast. For |x| < 2^51 within
// 2 ulp of f64 and |x| * 2^-109, what pi/2 lacks.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "base/host_device.h"

namespace sluice {

struct SinCos {
  double sin, cos;
};

SLUICE_HD inline double taylor_sin(double r) {
  const double z = r * r;
  double p = 0x1.952c77030ad4ap-49;  // 1 / 17!
  p = p * z - 0x1.ae7f3e733b81fp-41;
  p = p * z + 0x1.6124613a86d09p-33;
  p = p * z - 0x1.ae64567f544e4p-26;
  p = p * z + 0x1.71de3a556c734p-19;
  p = p * z - 0x1.a01a01a01a01ap-13;
  p = p * z + 0x1.1111111111111p-7;
  p = p * z - 0x1.5555555555555p-3;
  return r + r * (z * p);
}

SLUICE_HD inline double taylor_cos(double r) {
  const double z = r * r;
  double p = -0x1.6827863b97d97p-53;  // 1 / 18!
  p = p * z + 0x1.ae7f3e733b81fp-45;
  p = p * z - 0x1.93974a8c07c9dp-37;
  p = p * z + 0x1.1eed8eff8d898p-29;
  p = p * z - 0x1.27e4fb7789f5cp-22;
  p = p * z + 0x1.a01a01a01a01ap-16;
  p = p * z - 0x1.6c16c16c16c17p-10;
  p = p * z + 0x1.5555555555555p-5;
  return 1.0 - (0.5 * z - z * (z * p));
}

SLUICE_HD inline SinCos sin_cos(double x) {
  constexpr double kMagic = 0x1.8p52;  // adding it rounds to an integer, which is its low bits
  const double t = x * 0x1.45f306dc9c883p-1 + kMagic;
  const double n = t - kMagic;
  const double r = std::fma(-n, 0x1.1a62633145c07p-54, std::fma(-n, 0x1.921fb54442d18p+0, x));
  const uint64_t quarter = std::bit_cast<uint64_t>(t) & 3u;
  const double s = taylor_sin(r), c = taylor_cos(r);
  const SinCos turned = (quarter & 1) == 0 ? SinCos{s, c} : SinCos{c, -s};
  return (quarter & 2) == 0 ? turned : SinCos{-turned.sin, -turned.cos};
}

// One entry of the table: {cos, sin} of position * inv_freq, times factor, rounded once.
SLUICE_HD inline void rope_angle(int32_t position, double inv_freq, double factor, float* cos_sin) {
  const SinCos v = sin_cos(static_cast<double>(position) * inv_freq);
  cos_sin[0] = static_cast<float>(v.cos * factor);
  cos_sin[1] = static_cast<float>(v.sin * factor);
}

}  // namespace sluice
