// Narrow formats, over every bit pattern: values by their definition (sign, exponent, mantissa in
// f64), and rounding to bf16 at, just below and just above every boundary.
#include "base/fp.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace sluice {
namespace {

// The value of an IEEE-like pattern of 1 + e + m bits; `top` is the exponent of infinity and NaN
// (beyond the largest exponent where the format has none).
double value_of(uint32_t bits, int e, int m, int bias, int top) {
  const int exponent = static_cast<int>(bits >> m) & ((1 << e) - 1);
  const double mantissa = bits & ((1u << m) - 1u);
  const double sign = (bits >> (e + m)) != 0 ? -1 : 1;
  if (exponent == top) return mantissa == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - m);
  return sign * std::ldexp(mantissa + std::ldexp(1.0, m), exponent - bias - m);
}

void expect_value(float got, double want, uint32_t pattern) {
  if (std::isnan(want)) {
    EXPECT_TRUE(std::isnan(got)) << pattern;
  } else {
    EXPECT_EQ(static_cast<double>(got), want) << pattern;
    EXPECT_EQ(std::signbit(got), std::signbit(want)) << pattern;
  }
}

TEST(Fp, EveryHalf) {
  for (uint32_t h = 0; h < 65536; ++h)
    expect_value(f16_to_f32(static_cast<uint16_t>(h)), value_of(h, 5, 10, 15, 31), h);
}

TEST(Fp, EveryBfloat) {
  for (uint32_t b = 0; b < 65536; ++b)
    expect_value(static_cast<float>(bf16::from_bits(static_cast<uint16_t>(b))),
                 value_of(b, 8, 7, 127, 255), b);
}

TEST(Fp, EveryByteFormat) {
  for (uint32_t v = 0; v < 256; ++v) {
    const uint8_t byte = static_cast<uint8_t>(v);
    const double e4m3 = (v & 0x7f) == 0x7f ? NAN : value_of(v, 4, 3, 7, 16);
    expect_value(e4m3_to_f32(byte), e4m3, v);
    expect_value(e5m2_to_f32(byte), value_of(v, 5, 2, 15, 31), v);
    expect_value(e8m0_to_f32(byte), v == 255 ? NAN : std::ldexp(1.0, static_cast<int>(v) - 127), v);
    expect_value(e2m1_to_f32(byte), value_of(v & 15u, 2, 1, 1, 4), v);
  }
  EXPECT_EQ(e4m3_to_f32(0x7e), 448.0f);
  EXPECT_EQ(e2m1_to_f32(7), 6.0f);
}

// Rounding by the definition: the nearer of the two neighbours, the even one of two equally near.
uint16_t rounded(float f) {
  const uint16_t low = static_cast<uint16_t>(f32_to_bits(f) >> 16);  // toward zero
  const uint16_t high = static_cast<uint16_t>(low + 1);
  const double x = f, down = value_of(low, 8, 7, 127, 256), up = value_of(high, 8, 7, 127, 256);
  const double to_down = std::fabs(x - down), to_up = std::fabs(up - x);
  if (to_down != to_up) return to_down < to_up ? low : high;
  return low % 2 == 0 ? low : high;
}

TEST(Fp, RoundingToBfloatAtEveryBoundary) {
  for (uint32_t upper = 0; upper < 65536; ++upper) {
    for (const uint32_t lower : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      const float f = bits_to_f32((upper << 16) | lower);
      const uint16_t got = bf16(f).bits;
      if (std::isnan(f)) {
        EXPECT_TRUE(std::isnan(static_cast<float>(bf16::from_bits(got))));
        EXPECT_EQ(got >> 15, upper >> 15);
      } else if (std::isinf(f)) {
        EXPECT_EQ(got, upper);
      } else {
        ASSERT_EQ(got, rounded(f)) << upper << " " << lower;
      }
    }
  }
  EXPECT_EQ(round_to_bf16(1.00390625f), 1.0f);       // half way, to even
  EXPECT_EQ(round_to_bf16(1.01171875f), 1.015625f);  // half way, to even
  EXPECT_EQ(round_to_bf16(3.4e38f), INFINITY);       // beyond the largest
}

// Whether `got` is the code of a value nearest to x among 2^bits codes, ties having even codes.
void expect_nearest(double x, uint32_t got, uint32_t codes, const std::vector<double>& values) {
  ASSERT_LT(got, codes);
  const double distance = std::fabs(x - values[got]);
  for (const uint32_t near : {got - 1, got + 1}) {
    if (near >= codes || std::isinf(values[near])) continue;
    const double other = std::fabs(x - values[near]);
    ASSERT_TRUE(distance < other || (distance == other && got % 2 == 0)) << x;
  }
}

TEST(Fp, RoundingToHalfAndToE4m3TakesTheNearest) {
  std::vector<double> halves, bytes;
  for (uint32_t h = 0; h < 0x7c00; ++h) halves.push_back(f16_to_f32(static_cast<uint16_t>(h)));
  for (uint32_t c = 0; c < 0x7f; ++c) bytes.push_back(e4m3_to_f32(static_cast<uint8_t>(c)));
  for (const std::vector<double>* values : {&halves, &bytes}) {
    const auto codes = static_cast<uint32_t>(values->size());
    for (uint32_t c = 0; c + 1 < codes; ++c) {
      const auto low = static_cast<float>((*values)[c]),
                 high = static_cast<float>((*values)[c + 1]);
      const float middle = low + (high - low) / 2;
      for (const float x :
           {low, std::nextafter(middle, low), middle, std::nextafter(middle, high)}) {
        const uint32_t got = values == &halves ? f32_to_f16(x) : f32_to_e4m3(x);
        expect_nearest(x, got, codes, *values);
        const uint32_t sign = values == &halves ? 0x8000u : 0x80u;
        ASSERT_EQ(values == &halves ? f32_to_f16(-x) : f32_to_e4m3(-x), got | sign);
      }
    }
  }
  EXPECT_EQ(f32_to_f16(65519.0f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(f32_to_f16(-INFINITY), 0xfc00);
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(NAN))));
  EXPECT_EQ(f32_to_e4m3(1e9f), 0x7e);
  EXPECT_EQ(f32_to_e4m3(-INFINITY), 0xfe);
  EXPECT_EQ(f32_to_e4m3(NAN) & 0x7f, 0x7f);
}

TEST(Fp, BfloatSurvivesTheRoundTrip) {
  for (uint32_t b = 0; b < 65536; ++b) {
    const float f = static_cast<float>(bf16::from_bits(static_cast<uint16_t>(b)));
    if (!std::isnan(f)) {
      ASSERT_EQ(bf16(f).bits, b);
    }
  }
}

}  // namespace
}  // namespace sluice
