// Routing against what tools/goldens/make_route_goldens.py computes from the definitions of AITER
// (topk_softmax, topk_gating, biased and grouped top-k), vLLM, SGLang and MaxText: ids exactly,
// weights within 1e-6 of f64.
#include <gtest/gtest.h>

#include "ops/moe_route/kernels.h"
#include "ops/moe_route_sort/golden_cases.h"

namespace sluice {
namespace {

using test::Context;
using test::expect_routed;
using test::Golden;
using test::load_case;
using test::Logits;
using test::Random;
using test::RouteCase;
using test::Routed;
using test::RouteProblem;
using test::run_route;
using test::tiled;

std::vector<Isa> isas() {
  std::vector<Isa> out;
  for (const auto& row : moe_route_kernels())
    if (row.in == "f32" && test::runnable(row.isa)) out.push_back(row.isa);
  return out;
}

void expect_cases(std::string_view prefix, size_t count) {
  const Golden golden("route.safetensors");
  size_t found = 0;
  for (const std::string& name : golden.names(".rule")) {
    if (!name.starts_with(prefix)) continue;
    ++found;
    RouteCase c = load_case(golden, name);
    for (const Isa isa : isas()) {
      const bool slow = isa == Isa::kReference || isa == Isa::kCudaHost;
      const Context context(isa, slow ? 0 : 2);
      for (const int64_t t : {0, 1, 7, 64, 128, 1024}) {
        if (slow && t > 64) continue;
        c.problem.out_pad = t % 2 == 0 ? 10 : 0;  // upstream's strided rows: pitch E+10, K+10
        const Logits logits = tiled(c, t, c.problem.out_pad);
        expect_routed(c, run_route(context, logits.view(), c.problem), t);
        ASSERT_FALSE(::testing::Test::HasFailure()) << isa_name(isa) << ", T = " << t;
      }
    }
  }
  EXPECT_EQ(found, count);
}

TEST(Conformance, TopkSoftmaxSigmoidGrouped) {
  expect_cases("topk.", 49);
}
TEST(Conformance, BiasedGroupedTopk) {
  expect_cases("biased.", 3);
}
TEST(Conformance, TopkSoftmaxWithSharedExperts) {
  expect_cases("shared.", 4);
}

TEST(Conformance, TopkGatingKeepsNonFiniteRowsSound) {
  // AITER topk_gating: four NaN and an infinity in every row; Triton routing: rows of nothing else.
  Random random(61);
  const Context context(detect_isa(), 2);
  for (const int64_t e : {8, 64, 128, 256, 384})
    for (const int64_t k : {1, 2, 4, 6, 8})
      for (int score = 0; score < 4; ++score) {
        Logits logits(DType::kF32, 12, e);
        for (int64_t t = 0; t < 12; ++t) {
          for (int64_t c = 0; c < e; ++c) logits.set(t, c, random.normal());
          for (int i = 0; i < 4; ++i) logits.set(t, random.below(e), NAN);
          logits.set(t, random.below(e), t % 2 == 0 ? INFINITY : -INFINITY);
          constexpr float kAll[] = {INFINITY, -INFINITY, NAN, -NAN};
          for (int64_t c = 0; t < 4 && c < e; ++c) logits.set(t, c, kAll[t]);
        }
        RouteProblem p;
        p.k = k;
        p.rule.score = static_cast<RouteScore>(score);
        p.rule.renormalise = true;
        const Routed r = run_route(context, logits.view(), p);
        EXPECT_EQ(r.stats.non_finite_rows, 12);
        for (int64_t t = 0; t < 12; ++t)
          for (int64_t i = 0; i < k; ++i) {
            const int32_t id = r.ids[static_cast<size_t>(t * k + i)];
            const float w = r.weights[static_cast<size_t>(t * k + i)];
            ASSERT_TRUE(id >= 0 && id < e && std::isfinite(w));
            ASSERT_TRUE(t >= 4 || (id == i && w == 0.0f)) << "nothing to choose by";
            for (int64_t j = 0; j < i; ++j) ASSERT_NE(id, r.ids[static_cast<size_t>(t * k + j)]);
          }
      }
}

TEST(Conformance, OneRuleForEveryBatchSize) {
  // AITER's biased kernels change the rule at a token threshold: here a row is a row.
  const Golden golden("route.safetensors");
  const RouteCase c = load_case(golden, "biased.deepseek_r1");
  const Context context(detect_isa(), 2);
  for (const int64_t t : {2, 212, 4096, 16384}) {
    const Logits logits = tiled(c, t, 0);
    expect_routed(c, run_route(context, logits.view(), c.problem), t);
  }
}

}  // namespace
}  // namespace sluice
