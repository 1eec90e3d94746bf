// router_norm: every row against the reference bit for bit, the reference against f64, its
// rounding points, invariance, errors. That the whole router equals an eager chain in bf16 is
// tested in tests/router_chain_test.cc.
#include "ops/router_norm/router_norm.h"

#include <gtest/gtest.h>

#include "ops/router_norm/kernels.h"
#include "ops/test_data.h"

namespace sluice {
namespace {

using test::Context;
using test::Matrix;
using test::Random;
using test::same_bits;
using Row = Kernel<RouterNormKernel>;

class RouterNormRow : public ::testing::TestWithParam<Row> {
 protected:
  void SetUp() override { SLUICE_SKIP_UNLESS_RUNNABLE(GetParam()); }
};

std::vector<float> random_scale(int64_t d, Random& random) {
  std::vector<float> scale(static_cast<size_t>(d));
  for (float& s : scale) s = 1 + 0.2f * random.normal();
  return scale;
}

TEST_P(RouterNormRow, EqualsTheReference) {
  EXPECT_EQ(select_kernel(router_norm_kernels(), GetParam().isa, "f32", "none", "sum32")->name,
            GetParam().name);
  Random random(41);
  const Context truth(Isa::kReference);
  for (int64_t i = 0; i < test::property_runs(200); ++i) {
    const int64_t d = random.between(1, random.chance(0.1) ? 3000 : 130);
    const int64_t t = random.between(0, 9);
    Matrix x(t, d, random.below(5), random.below(16)), got(t, d, 3, 1), want(t, d);
    x.fill(random, random.chance(0.3));
    const std::vector<float> scale = random_scale(d, random);
    const bool round = random.chance(0.5);
    const Context context(GetParam().isa, static_cast<int>(random.below(3)));
    const auto run = [&](const Context& c, Matrix& out) {
      const RouterNormArgs args = {x.view(), scale.data(), 1e-6f, round, out.view()};
      return c.finish(router_norm(c.exec, args)).ok();
    };
    ASSERT_TRUE(run(context, got));
    ASSERT_TRUE(run(truth, want));
    ASSERT_TRUE(same_bits(got.view(), want.view())) << "T = " << t << ", D = " << d;
    ASSERT_TRUE(got.guards_hold());
    ASSERT_TRUE(run(context, x));
    ASSERT_TRUE(same_bits(x.view(), want.view())) << "in place";
  }
}

TEST_P(RouterNormRow, ARowDoesNotDependOnItsBatch) {
  Random random(42);
  const Context context(GetParam().isa, 2);
  Matrix x(64, 2816), all(64, 2816), alone(1, 2816);
  x.fill(random);
  const std::vector<float> scale = random_scale(2816, random);
  const auto run = [&](ConstMatrixF32 rows, Matrix& out) {
    const RouterNormArgs args = {rows, scale.data(), 1e-6f, true, out.view()};
    return context.finish(router_norm(context.exec, args)).ok();
  };
  ASSERT_TRUE(run(x.view(), all));
  for (const int64_t t : {0, 31, 63}) {
    const ConstMatrixF32 row(x.view().row(t), 1, 2816);
    ASSERT_TRUE(run(row, alone));
    EXPECT_TRUE(same_bits(alone.view(), ConstMatrixF32(all.view().row(t), 1, 2816)));
  }
}

INSTANTIATE_TEST_SUITE_P(Rows, RouterNormRow,
                         ::testing::ValuesIn(test::all_rows(router_norm_kernels())),
                         test::RowName());

TEST(RouterNormReference, FollowsItsFormulaAndRoundsWhereItSays) {
  Random random(43);
  const Context context(Isa::kReference);
  const int64_t d = 300;
  Matrix x(4, d), plain(4, d), rounded(4, d);
  x.fill(random);
  const std::vector<float> scale = random_scale(d, random);
  ASSERT_TRUE(router_norm(context.exec, {x.view(), scale.data(), 1e-6f, false, plain.view()}).ok());
  ASSERT_TRUE(
      router_norm(context.exec, {x.view(), scale.data(), 1e-6f, true, rounded.view()}).ok());
  int twice = 0;
  for (int64_t t = 0; t < 4; ++t) {
    double sum = 0, rough = 0;
    for (int64_t i = 0; i < d; ++i) {
      sum += double{x.at(t, i)} * x.at(t, i);
      rough += double{round_to_bf16(x.at(t, i))} * round_to_bf16(x.at(t, i));
    }
    for (int64_t i = 0; i < d; ++i) {
      const float s = scale[static_cast<size_t>(i)];
      const double root = 1 / std::sqrt(static_cast<double>(d));
      const double want = x.at(t, i) / std::sqrt(sum / d + 1e-6) * s * root;
      EXPECT_NEAR(plain.at(t, i), want, 1e-6 * std::fabs(want));
      // Each step rounded; an f64 norm can only fall on another side of a tie by accident.
      const double n = round_to_bf16(x.at(t, i)) / std::sqrt(rough / d + 1e-6);
      const float steps = round_to_bf16(round_to_bf16(round_to_bf16(static_cast<float>(n)) * s) *
                                        static_cast<float>(root));
      EXPECT_EQ(rounded.at(t, i), steps);
      twice += steps != round_to_bf16(static_cast<float>(want)) ? 1 : 0;
    }
  }
  EXPECT_GT(twice, 100);  // rounding once at the end is another function
}

TEST(RouterNorm, RefusesWrongShapes) {
  const Context context(Isa::kReference);
  Matrix x(2, 8), narrow(2, 7);
  const std::vector<float> scale(8, 1.0f);
  const auto message = [&](const RouterNormArgs& args) {
    return router_norm(context.exec, args).message();
  };
  EXPECT_EQ(message({x.view(), scale.data(), 1e-6f, false, narrow.view()}),
            "router_norm: out: expected [T, D] = [2, 8] as x, got [2, 7]");
  EXPECT_EQ(message({x.view(), nullptr, 1e-6f, false, x.view()}), "router_norm: scale: is missing");
  EXPECT_EQ(message({x.view(), scale.data(), -1.0f, false, x.view()}),
            "router_norm: eps: expected finite and >= 0, got -1");
  EXPECT_EQ(message({{x.view().data, 2, 0}, scale.data(), 1e-6f, false, {x.view().data, 2, 0}}),
            "router_norm: x: D: expected >= 1, got 0");
  const MatrixF32 shifted(x.view().data + 1, 2, 8);
  EXPECT_EQ(message({x.view(), scale.data(), 1e-6f, false, shifted}),
            "router_norm: out: must be x or not overlap it");
}

}  // namespace
}  // namespace sluice
