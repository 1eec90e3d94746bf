// The elementary functions: accuracy of the scalar definitions against f64.
// (That vector forms repeat them bit for bit is tested by every op's kernel table.)
#include <gtest/gtest.h>

#include <cmath>

#include "base/float_env.h"
#include "simd/isa.h"
#include "simd/scalar.h"

namespace sluice {
namespace {

double ulp_error(float got, double want) {
  const float w = static_cast<float>(want);
  // In f64: the f32 difference may be subnormal, which the environment flushes.
  const double ulp = std::fabs(static_cast<double>(std::nextafter(w, INFINITY)) - w);
  return std::fabs(got - want) / ulp;
}

TEST(Scalar, ExpIsWithinTwoUlp) {
  const ScopedFloatEnv env;
  double worst = 0;
  for (int i = 0; i <= 400000; ++i) {
    const float x = -87.0f + 175.5f * static_cast<float>(i) / 400000.0f;
    worst = std::max(worst, ulp_error(scalar::exp(x), std::exp(static_cast<double>(x))));
  }
  EXPECT_LE(worst, 2.0);
  EXPECT_EQ(scalar::exp(0.0f), 1.0f);
  EXPECT_EQ(scalar::exp(-INFINITY), 0.0f);
  EXPECT_EQ(scalar::exp(INFINITY), INFINITY);
  EXPECT_EQ(scalar::exp(-200.0f), 0.0f);
  EXPECT_TRUE(std::isnan(scalar::exp(NAN)));
}

TEST(Scalar, SigmoidAndTanhAreWithinFourUlp) {
  const ScopedFloatEnv env;
  double sigmoid = 0, tanh = 0;
  for (int i = 0; i <= 400000; ++i) {
    const float x = -20.0f + 40.0f * static_cast<float>(i) / 400000.0f;
    sigmoid = std::max(sigmoid, ulp_error(scalar::sigmoid(x), 1.0 / (1.0 + std::exp(-double{x}))));
    tanh = std::max(tanh, ulp_error(scalar::tanh(x), std::tanh(double{x})));
  }
  EXPECT_LE(sigmoid, 4.0);
  EXPECT_LE(tanh, 4.0);
}

TEST(Scalar, SoftplusIsWithinFourUlp) {
  const ScopedFloatEnv env;
  double worst = 0;
  for (int i = 0; i <= 400000; ++i) {
    const float x = -80.0f + 120.0f * static_cast<float>(i) / 400000.0f;
    const double wide = x;
    const double want = std::max(wide, 0.0) + std::log1p(std::exp(-std::fabs(wide)));
    worst = std::max(worst, ulp_error(scalar::softplus(x), want));
    EXPECT_LE(ulp_error(scalar::sqrt_softplus(x), std::sqrt(want)), 4.0) << x;
  }
  EXPECT_LE(worst, 4.0);
  EXPECT_EQ(scalar::softplus(3e38f), 3e38f);
  EXPECT_EQ(scalar::softplus(-200.0f), 0.0f);
  EXPECT_TRUE(std::isnan(scalar::softplus(NAN)));
}

TEST(Scalar, Sum32HasTheWrittenTree) {
  // 2^24 + 1 is lost in f32: where the big value stands decides what survives.
  scalar::Sum32 sum;
  for (int i = 0; i < 64; ++i) sum.add(i, i == 0 ? 16777216.0f : i == 32 ? -16777216.0f : 1.0f);
  EXPECT_EQ(sum.total(), 62.0f);
}

TEST(Isa, NamesRoundTrip) {
  for (Isa isa : {Isa::kReference, Isa::kAmxEmulated, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Vnni,
                  Isa::kAvx512Bf16, Isa::kAmx})
    EXPECT_EQ(isa_from_name(isa_name(isa)), isa);
  EXPECT_FALSE(isa_from_name("native").has_value());
}

}  // namespace
}  // namespace sluice
