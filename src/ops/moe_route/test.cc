// moe_route: every row against the reference and against the rules written a second time; planted
// ties, what is not finite, groups, shared experts, rounding; invariance, errors.
#include "ops/moe_route/moe_route.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "ops/moe_route/kernels.h"
#include "ops/moe_route/route_runs.h"

namespace sluice {
namespace {

using test::Context;
using test::Logits;
using test::naive_route;
using test::Random;
using test::Routed;
using test::RouteProblem;
using test::run_route;

using Row = Kernel<MoeRouteKernel>;

constexpr RouteScore kScores[] = {RouteScore::kSoftmaxAll, RouteScore::kSoftmaxSelected,
                                  RouteScore::kSigmoid, RouteScore::kSqrtSoftplus};

DType dtype_of(std::string_view in) {
  if (in == "f32") return DType::kF32;
  return in == "bf16" ? DType::kBF16 : DType::kF16;
}

// Values on a grid that halves hold, coarse where ties are wanted; sometimes not finite, extreme or
// subnormal.
void plant(Logits& m, Random& random, bool ties, bool broken) {
  for (int64_t r = 0; r < m.rows(); ++r) {
    const bool all_broken = broken && random.chance(0.1);
    for (int64_t c = 0; c < m.cols(); ++c) {
      float v = random.normal() * 3;
      v = ties ? std::floor(v) : std::floor(v * 32) / 32;
      constexpr float kBroken[] = {INFINITY, -INFINITY, NAN};
      constexpr float kOdd[] = {-65504.0f, 65504.0f, -100.0f, 0.0f, -0.0f, 0x1p-14f};
      if (random.chance(0.02)) v = kOdd[random.below(6)];
      if (all_broken || (broken && random.chance(0.15))) v = kBroken[random.below(3)];
      m.set(r, c, v);
    }
  }
}

void draw_groups(RouteRule& rule, int64_t& k, int64_t experts, Random& random) {
  std::vector<int64_t> divisors;
  for (int64_t d = 1; d <= experts; ++d)
    if (experts % d == 0) divisors.push_back(d);
  rule.groups.count =
      divisors[static_cast<size_t>(random.below(static_cast<int64_t>(divisors.size())))];
  rule.groups.kept = random.between(1, rule.groups.count);
  const int64_t each = experts / rule.groups.count;
  rule.groups.score = each > 1 && random.chance(0.5) ? GroupScore::kSumOf2 : GroupScore::kMax;
  k = std::min(k, rule.groups.kept * each);
}

RouteProblem random_problem(int64_t experts, Random& random) {
  RouteProblem p;
  p.rule.score = kScores[random.below(4)];
  p.rule.select = random.chance(0.3) ? RouteSelect::kLogit : RouteSelect::kScore;
  p.rule.renormalise = random.chance(0.5);
  constexpr float kEpsilons[] = {0.0f, 1e-20f, 0.01f};
  p.rule.epsilon = kEpsilons[random.below(3)];
  p.rule.routed_scale = random.chance(0.5) ? 2.5f : 1.0f;
  p.k = random.between(1, std::min<int64_t>(experts, 64));
  if (random.chance(0.3)) draw_groups(p.rule, p.k, experts, random);
  if (random.chance(0.3))
    p.rule.rounding = {random.chance(0.5), random.chance(0.5), random.chance(0.5),
                       random.chance(0.5)};
  if (random.chance(0.3)) {
    p.rule.shared = random.between(1, random.chance(0.1) ? 64 : 8);
    p.rule.shared_weight = random.chance(0.5) ? SharedWeight::kOne : SharedWeight::kSigmoid;
  }
  if (random.chance(0.3))
    for (int64_t e = 0; e < experts; ++e)
      p.bias.push_back(random.chance(0.01) ? NAN : random.normal() * 0.1f);
  if (random.chance(0.3))
    for (int64_t e = 0; e < experts; ++e)
      p.scale.push_back(random.chance(0.01) ? INFINITY : 1 + 0.1f * random.normal());
  p.out_pad = random.chance(0.3) ? random.between(1, 10) : 0;
  return p;
}

// Whatever the input: ids in range and distinct within a row, weights finite.
void expect_sound(const Routed& r, const RouteProblem& p, int64_t rows, int64_t experts) {
  for (int64_t t = 0; t < rows; ++t) {
    const auto at = r.ids.begin() + t * (p.wide() + p.out_pad);
    const std::set<int32_t> distinct(at, at + p.wide());
    ASSERT_EQ(static_cast<int64_t>(distinct.size()), p.wide());
    ASSERT_GE(*distinct.begin(), 0);
    ASSERT_LT(*distinct.rbegin(), experts + p.rule.shared);
  }
  for (const float w : r.weights) ASSERT_TRUE(std::isfinite(w));
}

class MoeRouteRow : public ::testing::TestWithParam<Row> {
 protected:
  void SetUp() override { SLUICE_SKIP_UNLESS_RUNNABLE(GetParam()); }
};

TEST_P(MoeRouteRow, EqualsTheReferenceAndTheRulesWrittenTwice) {
  const Row& row = GetParam();
  EXPECT_EQ(select_kernel(moe_route_kernels(), row.isa, row.in, "none", "f32")->name, row.name);
  Random random(51);
  Context truth(Isa::kReference), alone(row.isa), pooled(row.isa, 2);
  for (int64_t i = 0; i < test::property_runs(400); ++i) {
    const int64_t experts = random.between(1, random.chance(0.02) ? 4096 : 150);
    RouteProblem p = random_problem(experts, random);
    Logits logits(dtype_of(row.in), random.between(1, 6), experts + p.shared_columns(),
                  random.below(5), random.below(16));
    plant(logits, random, random.chance(0.5), random.chance(0.4));
    if (random.chance(0.1)) p.live = static_cast<int32_t>(random.between(0, logits.rows() + 1));
    const Routed got = run_route(random.chance(0.5) ? alone : pooled, logits.view(), p);
    ASSERT_TRUE(got.status.ok()) << got.status.message();
    ASSERT_TRUE(got == naive_route(logits, p))
        << "configuration " << i << ", E = " << experts << ", K = " << p.k;
    ASSERT_TRUE(got == run_route(truth, logits.view(), p)) << "configuration " << i;
    if (p.out_pad == 0 && p.live < 0) expect_sound(got, p, logits.rows(), experts);
  }
}

TEST_P(MoeRouteRow, ARowDoesNotDependOnItsBatch) {
  Random random(52);
  Logits logits(dtype_of(GetParam().in), 300, 128);
  plant(logits, random, false, false);
  RouteProblem p;
  p.k = 8;
  Context one(GetParam().isa, 1), two(GetParam().isa, 2);
  const Routed all = run_route(one, logits.view(), p);
  EXPECT_TRUE(all == run_route(two, logits.view(), p));
  EXPECT_TRUE(is_cuda(GetParam().isa) || two.pool->parallel_loops() > 0);
  const Routed alone = run_route(two, logits.view(211, 1), p);
  EXPECT_TRUE(std::equal(alone.ids.begin(), alone.ids.end(), all.ids.begin() + 211 * 8));
  EXPECT_TRUE(
      std::equal(alone.weights.begin(), alone.weights.end(), all.weights.begin() + 211 * 8));
}

TEST_P(MoeRouteRow, ReadsEveryHalf) {
  // All 65536 patterns of the 16-bit formats, subnormals and NaN too; as upper halves in f32.
  const DType dtype = dtype_of(GetParam().in);
  std::vector<uint32_t> wide;
  std::vector<uint16_t> halves;
  for (uint32_t i = 0; i < 65536; ++i) {
    halves.push_back(static_cast<uint16_t>(i * 40503u));
    wide.push_back(uint32_t{halves.back()} << 16);
  }
  const void* data = dtype == DType::kF32 ? static_cast<const void*>(wide.data()) : halves.data();
  RouteProblem p;
  p.k = 64;
  Context context(GetParam().isa), truth(Isa::kReference);
  for (const RouteScore score : kScores) {
    p.rule.score = score;
    const Routed got = run_route(context, {data, dtype, 16, 4096, 4096}, p);
    EXPECT_TRUE(got == run_route(truth, {data, dtype, 16, 4096, 4096}, p));
    EXPECT_EQ(got.stats.non_finite_rows, 16);
  }
}

TEST_P(MoeRouteRow, TiesGoToTheLowestId) {
  Logits logits(dtype_of(GetParam().in), 1, 40);
  for (int64_t e = 0; e < 40; ++e) logits.set(0, e, e % 20 == 7 ? 2.0f : 1.0f);
  RouteProblem p;
  p.k = 5;
  Context context(GetParam().isa);
  for (const RouteScore score : kScores) {
    p.rule.score = score;
    EXPECT_EQ(run_route(context, logits.view(), p).ids, (std::vector<int32_t>{7, 27, 0, 1, 2}));
  }
}

TEST_P(MoeRouteRow, ProbabilitiesThatRoundToTheSameValueTie) {
  // Far below the maximum many logits share one f32 probability: 0 here.
  Logits logits(dtype_of(GetParam().in), 1, 32);
  for (int64_t e = 0; e < 32; ++e) logits.set(0, e, -500.0f + static_cast<float>(2 * e));
  logits.set(0, 20, 0.0f);
  RouteProblem p;
  p.k = 3;
  Context context(GetParam().isa);
  EXPECT_EQ(run_route(context, logits.view(), p).ids, (std::vector<int32_t>{20, 0, 1}));
  p.rule.select = RouteSelect::kLogit;
  EXPECT_EQ(run_route(context, logits.view(), p).ids, (std::vector<int32_t>{20, 31, 30}));
  p.rule.score = RouteScore::kSoftmaxSelected;
  p.rule.select = RouteSelect::kScore;
  EXPECT_EQ(run_route(context, logits.view(), p).ids, (std::vector<int32_t>{20, 31, 30}));
}

TEST_P(MoeRouteRow, WhatIsNotFiniteComesLast) {
  Logits logits(dtype_of(GetParam().in), 4, 6);
  const float rows[4][6] = {{NAN, 1, INFINITY, 2, -INFINITY, 0},
                            {NAN, NAN, INFINITY, NAN, -INFINITY, 3},
                            {NAN, INFINITY, NAN, -INFINITY, NAN, NAN},
                            {5, 4, 3, 2, 1, 0}};
  for (int64_t r = 0; r < 4; ++r)
    for (int64_t c = 0; c < 6; ++c) logits.set(r, c, rows[r][c]);
  RouteProblem p;
  p.k = 4;
  Context context(GetParam().isa);
  for (const RouteScore score : kScores) {
    p.rule.score = score;
    const Routed r = run_route(context, logits.view(), p);
    EXPECT_EQ(r.ids, (std::vector<int32_t>{3, 1, 5, 0, 5, 0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3}));
    EXPECT_EQ(r.stats.non_finite_rows, 3);
    EXPECT_EQ(r.stats.zero_rows, 0);
    for (const int i : {3, 5, 6, 7, 8, 9, 10, 11})
      EXPECT_EQ(r.weights[static_cast<size_t>(i)], 0.0f);
  }
}

TEST_P(MoeRouteRow, ADivisorOfZeroGivesZerosAndIsCounted) {
  Logits logits(dtype_of(GetParam().in), 1, 8);
  for (int64_t e = 0; e < 8; ++e) logits.set(0, e, -65504.0f);
  RouteProblem p;
  p.k = 4;
  p.rule = {RouteScore::kSigmoid, true, 0.0f, 1.0f};
  Context context(GetParam().isa);
  for (const float epsilon : {0.0f, 1e-20f}) {
    p.rule.epsilon = epsilon;
    const Routed r = run_route(context, logits.view(), p);
    EXPECT_EQ(r.weights, std::vector<float>(4, 0.0f));
    EXPECT_EQ(r.stats.zero_rows, 1);
    EXPECT_EQ(r.stats.non_finite_rows, 0);
  }
}

TEST_P(MoeRouteRow, ANegativeBiasNeverLeavesTheKeptGroups) {
  // Every choice value of the kept group 1 is negative: masking others with 0 would choose those.
  Logits logits(dtype_of(GetParam().in), 1, 8);
  RouteProblem p;
  p.k = 3;
  p.rule.score = RouteScore::kSigmoid;
  p.rule.groups = {2, 1, GroupScore::kSumOf2};
  p.bias = {-5, -5, -5, -5, -2, -3, -4, -3};
  Context context(GetParam().isa);
  const Routed r = run_route(context, logits.view(), p);
  EXPECT_EQ(r.ids, (std::vector<int32_t>{4, 5, 7}));
  EXPECT_EQ(r.weights, (std::vector<float>{0.5f, 0.5f, 0.5f}));  // the bias is not in the weight
}

TEST_P(MoeRouteRow, SharedExpertsComeAfterTheRoutedOnes) {
  Logits logits(dtype_of(GetParam().in), 1, 6);
  for (int64_t c = 0; c < 6; ++c) logits.set(0, c, c < 4 ? static_cast<float>(c) : 0.0f);
  logits.set(0, 5, NAN);
  RouteProblem p;
  p.k = 1;
  p.rule = {RouteScore::kSoftmaxAll, true, 0.0f, 2.5f};
  p.rule.shared = 2;
  p.rule.shared_weight = SharedWeight::kSigmoid;
  Context context(GetParam().isa);
  Routed r = run_route(context, logits.view(), p);
  EXPECT_EQ(r.ids, (std::vector<int32_t>{3, 4, 5}));
  EXPECT_EQ(r.weights, (std::vector<float>{2.5f, 0.5f, 0.0f}));
  EXPECT_EQ(r.stats.non_finite_rows, 1);
  logits.set(0, 5, 1.0f);
  p.rule.shared_weight = SharedWeight::kOne;
  r = run_route(context, logits.view(), p);
  EXPECT_EQ(r.ids, (std::vector<int32_t>{3, 6, 7}));
  EXPECT_EQ(r.weights, (std::vector<float>{2.5f, 1.0f, 1.0f}));
}

INSTANTIATE_TEST_SUITE_P(Rows, MoeRouteRow,
                         ::testing::ValuesIn(test::all_rows(moe_route_kernels())), test::RowName());

TEST(MoeRouteReference, FollowsTheFamiliesFormulas) {
  Context context(Isa::kReference);
  Random random(53);
  Logits logits(DType::kF32, 6, 64);
  for (int64_t t = 0; t < 6; ++t) {
    for (int64_t e = 0; e < 64; ++e) logits.set(t, e, random.normal() * 3);
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
      RouteProblem problem;
      problem.rule = rule;
      problem.k = 8;
      const Routed r = run_route(context, logits.view(t, 1), problem);
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
  const Logits logits(DType::kF32, 2, 8);
  const LogitsView view = logits.view();
  const RouteProblem good;
  const auto refused = [&](const RouteProblem& problem, LogitsView l, std::string_view word) {
    const Status s = run_route(context, l, problem).status;
    EXPECT_NE(s.message().find(word), std::string::npos) << s.message();
    return s.code() == StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(run_route(context, view, good).status.ok());
  RouteProblem p = good;
  p.k = 9;
  EXPECT_TRUE(refused(p, view, "K: expected in [1, min(E = 8, 64)], got 9"));
  p.k = 0;
  EXPECT_TRUE(refused(p, view, "K"));
  p = good;
  EXPECT_TRUE(
      refused(p, {view.data, DType::kF32, 0, 5000, 5000}, "E: expected in [1, 4096], got 5000"));
  EXPECT_TRUE(refused(p, {view.data, DType::kF32, 2, 8, 7}, "stride"));
  p.rule.epsilon = NAN;
  EXPECT_TRUE(refused(p, view, "epsilon"));
  p = good, p.rule.shared = 65;
  EXPECT_TRUE(refused(p, view, "S: expected in [0, 64], got 65"));
  p = good, p.rule.shared = 8, p.rule.shared_weight = SharedWeight::kSigmoid;
  EXPECT_TRUE(refused(p, view, "E: expected in [1, 4096], got 0"));
  p = good, p.rule.groups.count = 3;
  EXPECT_TRUE(refused(p, view, "groups: expected a divisor of E = 8, got 3"));
  p = good, p.k = 3, p.rule.groups = {4, 1, GroupScore::kMax};
  EXPECT_TRUE(refused(p, view, "1 to 4 kept groups of 2 experts that hold K = 3, got 1"));
  p = good, p.rule.groups = {8, 2, GroupScore::kSumOf2};
  EXPECT_TRUE(refused(p, view, "2 experts per group, got 1"));
  EXPECT_EQ(run_route(context, {view.data, DType::kI32, 2, 8, 8}, good).status.message(),
            "moe_route: logits: expected f32, bf16 or f16, got I32");
}

TEST(MoeRoute, RefusesWrongOutputs) {
  Context context(Isa::kReference);
  const Logits logits(DType::kF32, 2, 8);
  std::vector<int32_t> ids(6);
  std::vector<float> weights(6);
  MoeRouteArgs args;
  args.logits = logits.view();
  args.k = 3;
  args.ids = ids;
  args.weights = weights;
  EXPECT_TRUE(moe_route(context.exec, args).ok());
  args.rule.shared = 1;
  EXPECT_EQ(moe_route(context.exec, args).message(),
            "moe_route: ids, weights: expected [T*(K+S)] = [8], got [6] and [6]");
  args.rule.shared = 0;
  args.out_stride = 4;
  EXPECT_NE(moe_route(context.exec, args).message().find("= [7], got [6]"), std::string::npos);
  args.out_stride = 2;
  EXPECT_NE(moe_route(context.exec, args).message().find("row stride: expected at least K+S = 3"),
            std::string::npos);
}

}  // namespace
}  // namespace sluice
