// moe_route: every row against the reference, planted ties, what is not finite, the families'
// rules against plain f64 formulas, invariance, errors.
#include "ops/moe_route/moe_route.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "ops/moe_route/kernels.h"
#include "ops/test_data.h"

namespace sluice {
namespace {

using test::Context;
using test::Matrix;
using test::Random;

using Row = Kernel<MoeRouteKernel>;

struct Routed {
  std::vector<int32_t> ids;
  std::vector<float> weights;
  RouteStats stats;
  Status status;
  bool operator==(const Routed& o) const {
    return ids == o.ids && stats.non_finite_rows == o.stats.non_finite_rows &&
           std::equal(weights.begin(), weights.end(), o.weights.begin(), o.weights.end(),
                      [](float a, float b) { return test::same_bits(a, b); });
  }
};

struct Problem {
  RouteRule rule;
  int64_t k = 1;
  std::vector<float> bias, scale;
};

Routed route(const ExecContext& context, ConstMatrixF32 logits, const Problem& p) {
  Routed r;
  r.ids.assign(static_cast<size_t>(logits.rows * p.k), -7);
  r.weights.assign(r.ids.size(), NAN);
  MoeRouteArgs args;
  args.logits = logits;
  args.rule = p.rule;
  args.k = p.k;
  args.selection_bias = p.bias.empty() ? nullptr : p.bias.data();
  args.per_expert_scale = p.scale.empty() ? nullptr : p.scale.data();
  args.ids = r.ids;
  args.weights = r.weights;
  args.stats = &r.stats;
  r.status = moe_route(context, args);
  return r;
}

// Values from a coarse grid, so that ties abound; sometimes not finite.
void plant(Matrix& m, Random& random, bool ties, bool broken) {
  for (int64_t r = 0; r < m.rows(); ++r) {
    const bool all_broken = broken && random.chance(0.1);
    for (int64_t c = 0; c < m.cols(); ++c) {
      float v = random.normal() * 3;
      if (ties) v = std::floor(v);
      constexpr float kBroken[] = {INFINITY, -INFINITY, NAN};
      if (all_broken || (broken && random.chance(0.15))) v = kBroken[random.below(3)];
      m.at(r, c) = v;
    }
  }
}

Problem random_problem(int64_t experts, Random& random) {
  Problem p;
  constexpr RouteScore kScores[] = {RouteScore::kSoftmaxAll, RouteScore::kSoftmaxSelected,
                                    RouteScore::kSigmoid};
  p.rule.score = kScores[random.below(3)];
  p.rule.renormalise = random.chance(0.5);
  p.rule.epsilon = random.chance(0.5) ? 1e-20f : 0.0f;
  p.rule.routed_scale = random.chance(0.5) ? 2.5f : 1.0f;
  p.k = random.between(1, std::min<int64_t>(experts, 64));
  if (random.chance(0.3))
    for (int64_t e = 0; e < experts; ++e) p.bias.push_back(random.normal() * 0.1f);
  if (random.chance(0.3))
    for (int64_t e = 0; e < experts; ++e) p.scale.push_back(1 + 0.1f * random.normal());
  return p;
}

class MoeRouteRow : public ::testing::TestWithParam<Row> {
 protected:
  void SetUp() override { SLUICE_SKIP_UNLESS_RUNNABLE(GetParam()); }
};

TEST_P(MoeRouteRow, EqualsTheReference) {
  EXPECT_EQ(select_kernel(moe_route_kernels(), GetParam().isa, "f32", "none", "f32")->name,
            GetParam().name);
  Random random(51);
  Context truth(Isa::kReference);
  for (int64_t i = 0; i < test::property_runs(300); ++i) {
    const int64_t experts = random.between(1, random.chance(0.05) ? 4096 : 150);
    const Problem p = random_problem(experts, random);
    Matrix logits(random.between(1, 12), experts, random.below(5), random.below(16));
    plant(logits, random, random.chance(0.5), random.chance(0.4));
    Context context(GetParam().isa, static_cast<int>(random.below(3)));
    const Routed got = route(context.exec, logits.view(), p);
    const Routed want = route(truth.exec, logits.view(), p);
    ASSERT_TRUE(got.status.ok()) << got.status.message();
    ASSERT_TRUE(got == want) << "E = " << experts << ", K = " << p.k;
    for (size_t t = 0; t < got.ids.size(); t += static_cast<size_t>(p.k)) {
      std::set<int32_t> distinct(got.ids.begin() + static_cast<int64_t>(t),
                                 got.ids.begin() + static_cast<int64_t>(t) + p.k);
      ASSERT_EQ(static_cast<int64_t>(distinct.size()), p.k);
      ASSERT_GE(*distinct.begin(), 0);
      ASSERT_LT(*distinct.rbegin(), experts);
    }
    for (const float w : got.weights) ASSERT_TRUE(std::isfinite(w));
  }
}

TEST_P(MoeRouteRow, ARowDoesNotDependOnItsBatch) {
  Random random(52);
  Matrix logits(300, 128);
  plant(logits, random, false, false);
  Problem p;
  p.k = 8;
  Context one(GetParam().isa, 1), two(GetParam().isa, 2);
  const Routed all = route(one.exec, logits.view(), p);
  EXPECT_TRUE(all == route(two.exec, logits.view(), p));
  EXPECT_GT(two.pool->parallel_loops(), 0);
  const Routed alone = route(two.exec, {logits.view().row(211), 1, 128}, p);
  EXPECT_TRUE(std::equal(alone.ids.begin(), alone.ids.end(), all.ids.begin() + 211 * 8));
  EXPECT_TRUE(
      std::equal(alone.weights.begin(), alone.weights.end(), all.weights.begin() + 211 * 8));
}

TEST_P(MoeRouteRow, TiesGoToTheLowestId) {
  Matrix logits(1, 40);
  for (int64_t e = 0; e < 40; ++e) logits.at(0, e) = e % 20 == 7 ? 2.0f : 1.0f;
  Problem p;
  p.k = 5;
  Context context(GetParam().isa);
  for (const RouteScore score :
       {RouteScore::kSoftmaxAll, RouteScore::kSoftmaxSelected, RouteScore::kSigmoid}) {
    p.rule.score = score;
    EXPECT_EQ(route(context.exec, logits.view(), p).ids, (std::vector<int32_t>{7, 27, 0, 1, 2}));
  }
}

TEST_P(MoeRouteRow, ProbabilitiesThatRoundToTheSameValueTie) {
  // Far below the maximum many logits share one f32 probability: 0 here.
  Matrix logits(1, 32);
  for (int64_t e = 0; e < 32; ++e) logits.at(0, e) = -500.0f + static_cast<float>(e);
  logits.at(0, 20) = 0.0f;
  Problem p;
  p.k = 3;
  Context context(GetParam().isa);
  EXPECT_EQ(route(context.exec, logits.view(), p).ids, (std::vector<int32_t>{20, 0, 1}));
  p.rule.score = RouteScore::kSoftmaxSelected;
  EXPECT_EQ(route(context.exec, logits.view(), p).ids, (std::vector<int32_t>{20, 31, 30}));
}

TEST_P(MoeRouteRow, WhatIsNotFiniteComesLast) {
  Matrix logits(4, 6);
  const float rows[4][6] = {{NAN, 1, INFINITY, 2, -INFINITY, 0},
                            {NAN, NAN, INFINITY, NAN, -INFINITY, 3},
                            {NAN, INFINITY, NAN, -INFINITY, NAN, NAN},
                            {5, 4, 3, 2, 1, 0}};
  for (int64_t r = 0; r < 4; ++r)
    for (int64_t c = 0; c < 6; ++c) logits.at(r, c) = rows[r][c];
  Problem p;
  p.k = 4;
  Context context(GetParam().isa);
  for (const RouteScore score :
       {RouteScore::kSoftmaxAll, RouteScore::kSoftmaxSelected, RouteScore::kSigmoid}) {
    p.rule.score = score;
    const Routed r = route(context.exec, logits.view(), p);
    EXPECT_EQ(r.ids, (std::vector<int32_t>{3, 1, 5, 0, 5, 0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3}));
    EXPECT_EQ(r.stats.non_finite_rows, 3);
    for (int i = 8; i < 12; ++i) EXPECT_EQ(r.weights[static_cast<size_t>(i)], 0.25f);
    for (const int i : {3, 5, 6, 7}) EXPECT_EQ(r.weights[static_cast<size_t>(i)], 0.0f);
  }
}

TEST_P(MoeRouteRow, ADivisorOfZeroSharesEvenly) {
  Matrix logits(1, 8);
  for (int64_t e = 0; e < 8; ++e) logits.at(0, e) = -1e30f;
  Problem p;
  p.k = 4;
  p.rule = {RouteScore::kSigmoid, true, 0.0f, 1.0f};
  Context context(GetParam().isa);
  EXPECT_EQ(route(context.exec, logits.view(), p).weights, std::vector<float>(4, 0.25f));
}

INSTANTIATE_TEST_SUITE_P(Rows, MoeRouteRow,
                         ::testing::ValuesIn(test::all_rows(moe_route_kernels())), test::RowName());

TEST(MoeRouteReference, FollowsTheFamiliesFormulas) {
  Context context(Isa::kReference);
  Random random(53);
  Matrix logits(6, 64);
  plant(logits, random, false, false);
  for (int64_t t = 0; t < 6; ++t) {
    std::vector<double> p(64);
    double sum = 0;
    for (int64_t e = 0; e < 64; ++e)
      sum += p[static_cast<size_t>(e)] = std::exp(double{logits.at(t, e)});
    std::vector<int32_t> order(64);
    for (int32_t e = 0; e < 64; ++e) order[static_cast<size_t>(e)] = e;
    std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return p[static_cast<size_t>(a)] > p[static_cast<size_t>(b)];
    });
    double chosen = 0;
    for (int k = 0; k < 8; ++k) chosen += p[static_cast<size_t>(order[static_cast<size_t>(k)])];
    const auto check = [&](const RouteRule& rule, double divisor) {
      Problem problem;
      problem.rule = rule;
      problem.k = 8;
      const Routed r = route(context.exec, {logits.view().row(t), 1, 64}, problem);
      for (size_t k = 0; k < 8; ++k) {
        EXPECT_EQ(r.ids[k], order[k]);
        EXPECT_NEAR(r.weights[k], p[static_cast<size_t>(order[k])] / divisor, 1e-6);
      }
    };
    check({RouteScore::kSoftmaxAll, false, 0, 1}, sum);
    check({RouteScore::kSoftmaxAll, true, 0, 1}, chosen);
    check({RouteScore::kSoftmaxSelected, false, 0, 1}, chosen);
  }
}

TEST(MoeRoute, RefusesWrongShapes) {
  Context context(Isa::kReference);
  Matrix logits(2, 8);
  Problem p;
  const auto refused = [&](const Problem& problem, ConstMatrixF32 l, std::string_view word) {
    const Status s = route(context.exec, l, problem).status;
    return s.code() == StatusCode::kInvalidArgument && s.message().find(word) != std::string::npos;
  };
  EXPECT_TRUE(route(context.exec, logits.view(), p).status.ok());
  p.k = 9;
  EXPECT_TRUE(refused(p, logits.view(), "K: expected in [1, min(E = 8, 64)], got 9"));
  p.k = 0;
  EXPECT_TRUE(refused(p, logits.view(), "K"));
  p.k = 1;
  EXPECT_TRUE(refused(p, {logits.view().data, 0, 5000}, "E: expected in [1, 4096], got 5000"));
  EXPECT_TRUE(refused(p, {logits.view().data, 2, 8, 7}, "stride"));
  p.rule.epsilon = NAN;
  EXPECT_TRUE(refused(p, logits.view(), "epsilon"));
}

}  // namespace
}  // namespace sluice
