#include "bench/gpu/sum_orders.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>

#include "base/fp.h"

namespace sluice::probe {
namespace {

uint16_t bf16_bits(float f) {
  return bf16(f).bits;
}
std::vector<Scaled> scaled(const std::vector<float>& values) {
  std::vector<Scaled> all;
  for (const float v : values) all.push_back(from_bf16(bf16_bits(v)));
  return all;
}

// bf16 of any sign, exponents within +-range of 2^0.
std::vector<Scaled> random_values(std::mt19937& random, size_t count, int range) {
  std::vector<Scaled> all;
  for (size_t i = 0; i < count; ++i) {
    const auto exponent = static_cast<uint32_t>(
        127 + static_cast<int>(random() % static_cast<unsigned>(2 * range + 1)) - range);
    const uint32_t bits = (random() & 0x807fu) | (exponent << 7);
    all.push_back(from_bf16(static_cast<uint16_t>(bits)));
  }
  return all;
}

TEST(SumOrders, DecodesEveryCode) {
  for (uint32_t b = 0; b < 0x10000; ++b) {
    const float f = static_cast<float>(bf16::from_bits(static_cast<uint16_t>(b)));
    if (std::isfinite(f)) {
      ASSERT_EQ(value_of(from_bf16(static_cast<uint16_t>(b))), double{f}) << b;
    }
  }
  for (uint32_t b = 0; b < 256; ++b)
    if ((b & 0x7f) != 0x7f) {
      ASSERT_EQ(value_of(from_e4m3(static_cast<uint8_t>(b))),
                double{e4m3_to_f32(static_cast<uint8_t>(b))});
    }
}

// One product at a time, exact, rounded to nearest: that is the fused multiply-add, subnormal
// results and cancellations included.
TEST(SumOrders, OneExactTermIsTheFusedMultiplyAdd) {
  std::mt19937 random(1);
  for (int range : {0, 3, 20, 60, 70}) {
    for (int i = 0; i < 400; ++i) {
      const auto a = random_values(random, 24, range), b = random_values(random, 24, range);
      const float want = chain(a, b);
      if (!std::isfinite(want)) continue;
      ASSERT_EQ(f32_to_bits(dot({1, FusedSum::kExact, Rounding::kNearestEven, false}, a, b)),
                f32_to_bits(want + 0.0f));
    }
  }
}

TEST(SumOrders, OneExactBlockIsTheExactSumRounded) {
  std::mt19937 random(2);
  for (int i = 0; i < 400; ++i) {
    const auto a = random_values(random, 16, 4), b = random_values(random, 16, 4);
    double sum = 0;  // exact: 16 products of 16 bits within 2^+-16
    for (size_t k = 0; k < 16; ++k) sum += value_of(a[k]) * value_of(b[k]);
    const float nearest = dot({16, FusedSum::kExact, Rounding::kNearestEven, false}, a, b);
    const float cut = dot({16, FusedSum::kExact, Rounding::kTowardZero, false}, a, b);
    ASSERT_EQ(nearest, static_cast<float>(sum));
    ASSERT_LE(std::fabs(cut), std::fabs(sum));
    ASSERT_GT(std::fabs(std::nextafter(cut, cut < 0 ? -INFINITY : INFINITY)), std::fabs(sum));
    // Enough bits are as good as all.
    for (const bool normalised : {false, true})
      ASSERT_EQ(dot({16, 60, Rounding::kTowardZero, normalised}, a, b), cut);
  }
}

// 2^24 + 15 times 1: each 1 stands 24 below the leading bit.
TEST(SumOrders, AlignmentCutsTheBitsThatItSays) {
  std::vector<float> values(16, 1.0f);
  values[0] = 0x1p24f;
  const auto a = scaled(values), ones = scaled(std::vector<float>(16, 1.0f));
  const auto run = [&](int bits) { return dot({16, bits, Rounding::kTowardZero, false}, a, ones); };
  EXPECT_EQ(run(23), 0x1p24f);
  EXPECT_EQ(run(24), 0x1p24f + 14);  // 2^24 + 15, cut to even
  EXPECT_EQ(dot({16, 24, Rounding::kNearestEven, false}, a, ones), 0x1p24f + 16);
  // Four at a time: 3, then blocks of 4 beside 2^24 + 2.
  EXPECT_EQ(dot({4, 24, Rounding::kTowardZero, false}, a, ones), 0x1p24f + 14);
  EXPECT_EQ(chain(a, ones), 0x1p24f);
}

// 1.5 * 1.5 is 2.25: its leading one is one position above the factors' exponents.
TEST(SumOrders, NormalisedPositionsSeeTheCarryOfAProduct) {
  const auto a = scaled({1.5f, 0x1p-24f}), b = scaled({1.5f, 1.0f});
  EXPECT_EQ(dot({2, 24, Rounding::kTowardZero, false}, a, b), 2.25f);
  EXPECT_EQ(dot({2, 24, Rounding::kTowardZero, true}, a, b), 2.25f);
  // The small term survives 24 bits below 2^0 but not below 2^1; 16 of them show in the result.
  std::vector<float> x(17, 0x1p-24f), y(17, 1.0f);
  x[0] = y[0] = 1.5f;
  const auto xs = scaled(x), ys = scaled(y);
  EXPECT_EQ(dot({32, 24, Rounding::kTowardZero, false}, xs, ys), 2.25f + 0x1p-20f);
  EXPECT_EQ(dot({32, 24, Rounding::kTowardZero, true}, xs, ys), 2.25f);
}

TEST(SumOrders, SubnormalResultsAreKept) {
  const auto a = scaled({0x1p-70f, 0x1p-70f}), b = scaled({0x1p-70f, 0x1p-79f});
  EXPECT_EQ(dot({2, FusedSum::kExact, Rounding::kNearestEven, false}, a, b), 0x1p-140f + 0x1p-149f);
}

TEST(SumOrders, CandidatesHaveDifferentNamesAndDifferOnWideData) {
  for (const bool fp8 : {false, true}) {
    std::set<std::string> names;
    for (const Candidate& c : candidates(fp8)) EXPECT_TRUE(names.insert(c.name).second) << c.name;
  }
  std::mt19937 random(3);
  const auto a = random_values(random, 512, 12), b = random_values(random, 512, 12);
  std::set<uint32_t> results;
  for (const Candidate& c : candidates(false)) {
    const float r = c.run(c, a, b);
    double size = 0, sum = 0;
    for (size_t k = 0; k < a.size(); ++k) {
      sum += value_of(a[k]) * value_of(b[k]);
      size += std::fabs(value_of(a[k]) * value_of(b[k]));
    }
    EXPECT_NEAR(r, sum, size * 512 * 0x1p-21) << c.name;
    results.insert(f32_to_bits(r));
  }
  EXPECT_GT(results.size(), 5u);
}

// The probe's self-check: every order passes, a product of the wrong rows does not.
TEST(SumOrders, TheBoundHoldsForEveryOrderAndCatchesWrongLayouts) {
  std::mt19937 random(4);
  for (const bool fp8 : {false, true}) {
    const auto row = [&] {
      std::vector<Scaled> all;
      for (int i = 0; i < 1024; ++i) {
        const uint32_t code = (random() & 0x87u) | ((5 + random() % 5) << 3);
        all.push_back(fp8 ? from_e4m3(static_cast<uint8_t>(code))
                          : from_bf16(static_cast<uint16_t>((random() & 0x807fu) |
                                                            ((123 + random() % 7) << 7))));
      }
      return all;
    };
    int caught = 0;
    for (int i = 0; i < 20; ++i) {
      const auto a = row(), b = row(), other = row();
      const Bounded want = bounded_dot(a, b, fp8 ? 13 : 22);
      for (const Candidate& c : candidates(fp8)) {
        if (c.fused.terms > 1 && c.fused.bits != FusedSum::kExact && c.fused.bits < (fp8 ? 13 : 22))
          continue;
        ASSERT_LE(std::abs(c.run(c, a, b) - want.sum), want.bound) << c.name;
      }
      caught += std::abs(chain(a, other) - want.sum) > want.bound ? 1 : 0;
    }
    EXPECT_GE(caught, 15) << fp8;
  }
}

}  // namespace
}  // namespace sluice::probe
