// moe_route_sort against the chain of its pieces: every token count around the budgets, masks,
// strides, ties, what is not finite, shared experts; errors.
#include "ops/moe_route_sort/moe_route_sort.h"

#include <gtest/gtest.h>

#include <memory>

#include "ops/moe_route/route_runs.h"
#include "ops/test_data.h"

namespace sluice {
namespace {

using test::Context;
using test::Logits;
using test::Random;
using test::RouteProblem;

struct Problem {
  RouteProblem route;
  int64_t experts = 8, block = 32;
  std::vector<int32_t> mask;
  PairForm form = PairForm::kPacked;
  int64_t all() const { return experts + route.rule.shared; }
  int64_t local() const {
    return mask.empty() ? all()
                        : std::count_if(mask.begin(), mask.end(), [](int32_t m) { return m != 0; });
  }
};

struct Out {
  std::vector<int32_t> ids, starts, source, inverse, sorted_pairs, block_experts;
  std::vector<float> weights, sorted_weights;
  int32_t padded_rows = -7, live_count = -7;
  RouteStats route;
  SortStats sort;
  int32_t live = -1;  // an input
  Status status;
  bool operator==(const Out& o) const {
    const auto bits = [](const std::vector<float>& v) {
      std::vector<uint32_t> b;
      for (const float f : v) b.push_back(f32_to_bits(f));
      return b;
    };
    return ids == o.ids && starts == o.starts && source == o.source && inverse == o.inverse &&
           sorted_pairs == o.sorted_pairs && block_experts == o.block_experts &&
           bits(weights) == bits(o.weights) && bits(sorted_weights) == bits(o.sorted_weights) &&
           padded_rows == o.padded_rows && live_count == o.live_count &&
           route.non_finite_rows == o.route.non_finite_rows &&
           route.zero_rows == o.route.zero_rows && sort.dropped == o.sort.dropped &&
           sort.live_pairs == o.sort.live_pairs;
  }
};

MoeRouteSortArgs bind(const Logits& logits, int64_t rows, const Problem& p, Out& out) {
  const int64_t pairs = rows * p.route.wide();
  const int64_t capacity = moe_sort_distinct_capacity(rows, p.route.wide(), p.local(), p.block);
  for (auto* v : {&out.ids, &out.source, &out.inverse}) v->assign(static_cast<size_t>(pairs), -7);
  out.weights.assign(static_cast<size_t>(pairs), -7.0f);
  out.starts.assign(static_cast<size_t>(p.local() + 1), -7);
  out.sorted_pairs.assign(static_cast<size_t>(capacity), -7);
  out.sorted_weights.assign(static_cast<size_t>(capacity), -7.0f);
  out.block_experts.assign(static_cast<size_t>(capacity / p.block), -7);
  MoeRouteSortArgs a;
  a.route.logits = logits.view(0, rows);
  a.route.rule = p.route.rule;
  a.route.k = p.route.k;
  out.live = p.route.live;
  a.route.live_tokens = out.live < 0 ? nullptr : &out.live;
  a.route.ids = out.ids;
  a.route.weights = out.weights;
  a.route.stats = &out.route;
  a.sort.experts = p.local();
  a.sort.expert_mask = p.mask;
  a.sort.starts = out.starts;
  a.sort.source = out.source;
  a.sort.inverse = out.inverse;
  a.sort.block_size = p.block;
  a.sort.form = p.form;
  a.sort.sorted_pairs = out.sorted_pairs;
  a.sort.sorted_weights = out.sorted_weights;
  a.sort.block_experts = out.block_experts;
  a.sort.padded_rows = &out.padded_rows;
  a.sort.live_count = &out.live_count;
  a.sort.stats = &out.sort;
  a.sort.distinct_ids = true;
  a.sort.fill_tails = true;
  return a;
}

// Out lies on the heap, which a device can read.
Out fused(const Context& context, const Logits& logits, int64_t rows, const Problem& p,
          int64_t budget, RouteSortStats* stats) {
  const auto out = std::make_unique<Out>();
  MoeRouteSortArgs a = bind(logits, rows, p, *out);
  a.token_budget = budget;
  a.stats = stats;
  out->status = context.finish(moe_route_sort(context.exec, a));
  return std::move(*out);
}

Out chain(const Context& context, const Logits& logits, int64_t rows, const Problem& p) {
  const auto out = std::make_unique<Out>();
  MoeRouteSortArgs a = bind(logits, rows, p, *out);
  out->status = context.finish(moe_route(context.exec, a.route));
  a.sort.ids = out->ids;
  a.sort.k = p.route.wide();
  a.sort.weights = out->weights;
  a.sort.live_tokens = a.route.live_tokens;
  if (out->status.ok()) out->status = context.finish(moe_sort(context.exec, a.sort));
  return std::move(*out);
}

void fill(Logits& logits, Random& random, bool ties, bool broken) {
  for (int64_t r = 0; r < logits.rows(); ++r)
    for (int64_t c = 0; c < logits.cols(); ++c) {
      const float v = std::floor(random.normal() * (ties ? 2.0f : 96.0f)) / (ties ? 1.0f : 32.0f);
      logits.set(r, c, broken && random.chance(0.1) ? (random.chance(0.5) ? NAN : INFINITY) : v);
    }
}

class MoeRouteSortOn : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!test::runnable(GetParam())) GTEST_SKIP() << "no " << isa_name(GetParam());
  }
};
INSTANTIATE_TEST_SUITE_P(Paths, MoeRouteSortOn,
                         ::testing::Values(detect_isa(), Isa::kCudaHost, Isa::kCuda),
                         [](const auto& path) { return std::string(isa_name(path.param)); });

TEST_P(MoeRouteSortOn, EqualsTheChainAtEveryTokenCount) {
  Random random(91);
  Context pooled(GetParam(), 2), alone(Isa::kReference);
  for (const auto& [experts, k, most] :
       {std::tuple<int64_t, int64_t, int64_t>{128, 4, 130}, {256, 8, 68}, {100, 5, 60}}) {
    Problem p;
    p.experts = experts;
    p.route.k = k;
    p.route.rule.renormalise = true;
    const int64_t budget = moe_route_sort_budget(experts);
    EXPECT_EQ(budget, kRouteSortLogits / experts);
    Logits logits(DType::kF32, most, experts, 10);
    fill(logits, random, false, false);
    for (int64_t rows = 0; rows <= most; ++rows) {
      RouteSortStats stats;
      const Out got = fused(pooled, logits, rows, p, -1, &stats);
      ASSERT_TRUE(got.status.ok()) << got.status.message();
      ASSERT_TRUE(got == chain(pooled, logits, rows, p)) << rows << " tokens";
      ASSERT_TRUE(got == chain(alone, logits, rows, p)) << rows << " tokens";
      EXPECT_EQ(stats.fused_calls, rows <= budget ? 1 : 0) << rows << " tokens";
      EXPECT_EQ(stats.chained_calls, rows <= budget ? 0 : 1) << rows << " tokens";
    }
  }
}

TEST_P(MoeRouteSortOn, TheHandOverIsInvisibleButForTheStatistics) {
  Random random(92);
  Context context(GetParam(), 2);
  for (int64_t i = 0; i < test::property_runs(300); ++i) {
    Problem p;
    p.experts = random.between(2, 200);
    p.route.k = random.between(1, std::min<int64_t>(p.experts, 12));
    p.route.rule.score = static_cast<RouteScore>(random.below(4));
    p.route.rule.renormalise = random.chance(0.5);
    if (random.chance(0.3)) p.route.rule.shared = random.between(1, 3);
    p.form = random.chance(0.5) ? PairForm::kFlat : PairForm::kPacked;
    p.block = int64_t{1} << random.below(7);
    const int64_t rows = random.between(0, 60);
    if (random.chance(0.4)) {
      for (int64_t e = 0; e < p.all(); ++e) p.mask.push_back(random.chance(0.5) ? 1 : 0);
      p.mask[0] = 1;
    }
    if (random.chance(0.3)) p.route.live = static_cast<int32_t>(random.between(0, rows));
    constexpr DType kTypes[] = {DType::kF32, DType::kBF16, DType::kF16};
    Logits logits(kTypes[random.below(3)], std::max<int64_t>(rows, 1), p.experts, random.below(9),
                  random.below(5));
    fill(logits, random, random.chance(0.5), random.chance(0.3));
    RouteSortStats stats;
    const Out one = fused(context, logits, rows, p, rows, &stats);
    EXPECT_EQ(stats.fused_calls, 1);
    const Out two = fused(context, logits, rows, p, std::max<int64_t>(rows - 1, 0), &stats);
    EXPECT_EQ(stats.chained_calls, rows > 0 ? 1 : 0);
    ASSERT_TRUE(one.status.ok()) << one.status.message();
    ASSERT_TRUE(one == two && one == chain(context, logits, rows, p)) << "configuration " << i;
  }
}

TEST(MoeRouteSort, RefusesSortArgumentsThatAreTheRoutes) {
  Context context(Isa::kReference);
  Logits logits(DType::kF32, 2, 8);
  const Problem p;
  Out out;
  MoeRouteSortArgs a = bind(logits, 2, p, out);
  EXPECT_TRUE(moe_route_sort(context.exec, a).ok());
  a.sort.k = 1;
  EXPECT_NE(moe_route_sort(context.exec, a).message().find("to be the route's"), std::string::npos);
  a.sort.k = 0;
  a.route.out_stride = 9;
  EXPECT_NE(moe_route_sort(context.exec, a).message().find("row stride: expected 0"),
            std::string::npos);
  a.route.out_stride = 0;
  a.route.k = 9;
  EXPECT_NE(moe_route_sort(context.exec, a).message().find("moe_route: K"), std::string::npos);
  a.route.k = 1;
  a.sort.block_experts = {};
  EXPECT_NE(moe_route_sort(context.exec, a).message().find("moe_sort: sorted_pairs"),
            std::string::npos);
}

}  // namespace
}  // namespace sluice
