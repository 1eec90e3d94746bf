// moe_combine: every row against the reference, fused forms against their chains, errors.
#include "ops/moe_combine/moe_combine.h"

#include <gtest/gtest.h>

#include "ops/moe_combine/kernels.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/test_data.h"

namespace sluice {
namespace {

using test::Context;
using test::Matrix;
using test::Random;
using test::same_bits;

using Row = Kernel<MoeCombineKernel>;

struct Operands {
  Operands(int64_t t, int64_t k_, int64_t d, int64_t pad, int64_t offset, Random& random)
      : k(k_), y(t * k_, d, pad, offset), norm_weight(static_cast<size_t>(d)) {
    y.fill(random, true);
    inverse.resize(static_cast<size_t>(t * k));
    weights.resize(inverse.size());
    for (int32_t& slot : inverse)
      slot = random.chance(0.1) ? -1 : static_cast<int32_t>(random.below(t * k));
    for (float& w : weights) w = random.normal();
    for (float& w : norm_weight) w = random.normal();
  }
  MoeCombineArgs args(CombineThen then, Matrix& out) {
    MoeCombineArgs a;
    a.y = y.view();
    a.inverse = inverse;
    a.weights = weights;
    a.k = k;
    a.then = then;
    a.norm_weight = norm_weight.data();
    a.eps = 1e-5f;
    (then == CombineThen::kResidualAdd ? a.residual : a.out) = out.view();
    return a;
  }
  int64_t k;
  Matrix y;
  std::vector<int32_t> inverse;
  std::vector<float> weights, norm_weight;
};

class MoeCombineRow : public ::testing::TestWithParam<Row> {
 protected:
  void SetUp() override { SLUICE_SKIP_UNLESS_RUNNABLE(GetParam()); }
};

TEST_P(MoeCombineRow, EqualsTheReferenceAndTheChain) {
  EXPECT_EQ(select_kernel(moe_combine_kernels(), GetParam().isa, "f32", "none", "f32_fma")->name,
            GetParam().name);
  Random random(41);
  for (int64_t i = 0; i < test::property_runs(60); ++i) {
    const int64_t t = random.between(1, 30), k = random.between(1, 10), d = random.between(1, 200);
    Operands in(t, k, d, random.below(4), random.below(16), random);
    Context context(GetParam().isa, static_cast<int>(random.below(4))), truth(Isa::kReference);
    Matrix start(t, d, random.below(3), random.below(16));
    start.fill(random);
    Matrix plain(t, d);
    ASSERT_TRUE(
        context.finish(moe_combine(context.exec, in.args(CombineThen::kStore, plain))).ok());
    for (const CombineThen then :
         {CombineThen::kStore, CombineThen::kResidualAdd, CombineThen::kRmsNorm}) {
      Matrix got = start, want = start, chain = start;
      const Status status = context.finish(moe_combine(context.exec, in.args(then, got)));
      ASSERT_TRUE(status.ok()) << status.message();
      ASSERT_TRUE(moe_combine(truth.exec, in.args(then, want)).ok());
      EXPECT_TRUE(same_bits(got.view(), want.view())) << t << ", " << k << ", " << d;
      EXPECT_TRUE(got.guards_hold());
      if (then == CombineThen::kStore) continue;
      RmsNormArgs norm;
      norm.x = plain.view();
      norm.weight = in.norm_weight.data();
      norm.eps = 1e-5f;
      norm.out = chain.view();
      if (then == CombineThen::kRmsNorm)
        ASSERT_TRUE(context.finish(rms_norm(context.exec, norm)).ok());
      else
        for (int64_t r = 0; r < t; ++r)
          for (int64_t c = 0; c < d; ++c) chain.at(r, c) = start.at(r, c) + plain.at(r, c);
      EXPECT_TRUE(same_bits(got.view(), chain.view())) << "fused and chain";
    }
    if (HasFailure()) return;
  }
}

CombineRounding random_rounding(Random& random) {
  return {random.chance(0.5),
          random.chance(0.5),
          random.chance(0.5),
          random.chance(0.5),
          random.chance(0.5),
          random.chance(0.5),
          random.chance(0.5) ? CombineOrder::kSlot : CombineOrder::kChoice};
}
// combine -> add -> norm, and Gemma 4's two branches: combine -> norm, norm of the dense branch,
// add, norm and residual, in one pass over each row.
TEST_P(MoeCombineRow, FormsWithTwoMatricesEqualTheirChains) {
  Random random(45);
  for (int64_t i = 0; i < test::property_runs(40); ++i) {
    const int64_t t = random.between(1, 20), k = random.between(1, 9), d = random.between(1, 200);
    Operands in(t, k, d, random.below(4), random.below(16), random);
    Context context(GetParam().isa, static_cast<int>(random.below(3)));
    Matrix residual(t, d, random.below(3), random.below(16)), dense(t, d, 1, 3), plain(t, d);
    residual.fill(random), dense.fill(random);
    std::vector<float> weights[2] = {std::vector<float>(static_cast<size_t>(d)),
                                     std::vector<float>(static_cast<size_t>(d))};
    for (auto& weight : weights)
      for (float& w : weight) w = random.normal();
    const auto norm = [&](Matrix& x, const float* weight, Matrix& out) {
      return context.finish(rms_norm(
          context.exec, {.x = x.view(), .weight = weight, .eps = 1e-5f, .out = out.view()}));
    };
    ASSERT_TRUE(
        context.finish(moe_combine(context.exec, in.args(CombineThen::kStore, plain))).ok());

    Matrix got_residual = residual, got(t, d, 2, 1), want_residual = residual, want(t, d);
    MoeCombineArgs args = in.args(CombineThen::kResidualThenNorm, got);
    args.residual = got_residual.view();
    const Status status = context.finish(moe_combine(context.exec, args));
    ASSERT_TRUE(status.ok()) << status.message();
    for (int64_t r = 0; r < t; ++r)
      for (int64_t c = 0; c < d; ++c) want_residual.at(r, c) += plain.at(r, c);
    ASSERT_TRUE(norm(want_residual, in.norm_weight.data(), want).ok());
    ASSERT_TRUE(same_bits(got_residual.view(), want_residual.view()));
    ASSERT_TRUE(same_bits(got.view(), want.view()));

    Matrix branch = dense, joined = residual, want_joined = residual, normed(t, d);
    args = in.args(CombineThen::kBranches, got);
    args.residual = joined.view();
    args.branches = {branch.view(), weights[0].data(), weights[1].data(), 0.75f};
    ASSERT_TRUE(context.finish(moe_combine(context.exec, args)).ok());
    ASSERT_TRUE(norm(plain, in.norm_weight.data(), plain).ok());
    ASSERT_TRUE(norm(dense, weights[0].data(), normed).ok());
    for (int64_t r = 0; r < t; ++r)
      for (int64_t c = 0; c < d; ++c) normed.at(r, c) += plain.at(r, c);
    ASSERT_TRUE(context
                    .finish(rms_norm(context.exec, {.mode = RmsNormMode::kNormThenResidual,
                                                    .x = normed.view(),
                                                    .weight = weights[1].data(),
                                                    .eps = 1e-5f,
                                                    .scale = 0.75f,
                                                    .residual = want_joined.view()}))
                    .ok());
    ASSERT_TRUE(same_bits(joined.view(), want_joined.view()));
    ASSERT_TRUE(got.guards_hold() && joined.guards_hold() && branch.guards_hold());
  }
}

TEST_P(MoeCombineRow, EqualsTheReferenceInEveryRoundingAndOrder) {
  Random random(44);
  for (int64_t i = 0; i < test::property_runs(60); ++i) {
    const int64_t t = random.between(1, 20), k = random.between(1, 9), d = random.between(1, 100);
    Operands in(t, k, d, random.below(4), random.below(16), random);
    Context context(GetParam().isa, static_cast<int>(random.below(3))), truth(Isa::kReference);
    const auto then = static_cast<CombineThen>(random.below(3));
    Matrix got(t, d, random.below(3), random.below(16));
    got.fill(random);
    Matrix want = got;
    MoeCombineArgs args = in.args(then, got);
    args.rounding = random_rounding(random);
    if (random.chance(0.3)) args.weights = {};
    const Status status = context.finish(moe_combine(context.exec, args));
    ASSERT_TRUE(status.ok()) << status.message();
    args.out = args.residual = want.view();
    ASSERT_TRUE(moe_combine(truth.exec, args).ok());
    ASSERT_TRUE(same_bits(got.view(), want.view())) << t << ", " << k << ", " << d;
    ASSERT_TRUE(got.guards_hold());
  }
}

TEST_P(MoeCombineRow, ATokenDoesNotDependOnItsBatch) {
  Random random(43);
  Operands in(37, 8, 1000, 0, 0, random);
  Context one(GetParam().isa, 1), two(GetParam().isa, 2);
  Matrix a(37, 1000), b(37, 1000), alone(1, 1000);
  ASSERT_TRUE(one.finish(moe_combine(one.exec, in.args(CombineThen::kStore, a))).ok());
  ASSERT_TRUE(two.finish(moe_combine(two.exec, in.args(CombineThen::kStore, b))).ok());
  EXPECT_TRUE(is_cuda(GetParam().isa) || two.pool->parallel_loops() > 0);
  EXPECT_TRUE(same_bits(a.view(), b.view()));
  MoeCombineArgs args = in.args(CombineThen::kStore, alone);
  args.inverse = args.inverse.subspan(11 * 8, 8);
  args.weights = args.weights.subspan(11 * 8, 8);
  ASSERT_TRUE(two.finish(moe_combine(two.exec, args)).ok());
  EXPECT_TRUE(same_bits(alone.view(), {a.view().row(11), 1, 1000, 1000}));
}

INSTANTIATE_TEST_SUITE_P(Rows, MoeCombineRow,
                         ::testing::ValuesIn(test::all_rows(moe_combine_kernels())),
                         test::RowName());

TEST(MoeCombine, AddsInAscendingKOnce) {
  Context context(detect_isa());
  Matrix y(3, 1), out(1, 1);
  y.at(0, 0) = 1.0f, y.at(1, 0) = 16777216.0f, y.at(2, 0) = -16777216.0f;
  const int32_t inverse[] = {1, 0, 2};  // 2^24 + 1 - 2^24 in this order: the one is lost
  const float weights[] = {1.0f, 1.0f, 1.0f};
  MoeCombineArgs args;
  args.y = y.view();
  args.inverse = inverse;
  args.weights = weights;
  args.k = 3;
  args.out = out.view();
  ASSERT_TRUE(moe_combine(context.exec, args).ok());
  EXPECT_EQ(out.at(0, 0), 0.0f);
}

// Each rounding at its place, and the order: two rows, the second choice in the first slot.
TEST(MoeCombine, RoundsWhereItIsTold) {
  Context context(detect_isa());
  const float y0 = 1.00390625f + 1e-3f, y1 = -0.3339f, w0 = 0.7071f, w1 = 0.29301f;
  Matrix y(2, 1), out(1, 1);
  y.at(1, 0) = y0, y.at(0, 0) = y1;
  const int32_t inverse[] = {1, 0};
  const float weights[] = {w0, w1};
  const auto got = [&](const CombineRounding& r) {
    MoeCombineArgs args;
    args.y = y.view();
    args.inverse = inverse;
    args.weights = weights;
    args.k = 2;
    args.rounding = r;
    args.out = out.view();
    EXPECT_TRUE(moe_combine(context.exec, args).ok());
    return out.at(0, 0);
  };
  const auto b = [](float v) { return round_to_bf16(v); };
  const auto two = [](float p, float q) {  // no contraction
    volatile float a = p, c = q;
    return a + c;
  };
  EXPECT_EQ(got({}), std::fma(w1, y1, w0 * y0));
  EXPECT_EQ(got({.fused = false}), two(w0 * y0, w1 * y1));
  EXPECT_EQ(got({.rows = true}), std::fma(w1, b(y1), w0 * b(y0)));
  EXPECT_EQ(got({.weights = true}), std::fma(b(w1), y1, b(w0) * y0));
  EXPECT_EQ(got({.products = true}), two(b(w0 * y0), b(w1 * y1)));
  EXPECT_EQ(got({.sums = true}), b(std::fma(w1, y1, b(w0 * y0))));
  EXPECT_EQ(got({.result = true}), b(std::fma(w1, y1, w0 * y0)));
  EXPECT_EQ(got({.order = CombineOrder::kSlot}), std::fma(w0, y0, w1 * y1));
}

TEST(MoeCombine, RefusesWrongShapesAndSlots) {
  Context context(Isa::kReference);
  Random random(1);
  Operands in(2, 2, 8, 0, 0, random);
  Matrix out(2, 8), narrow(2, 7);
  const auto refused = [&](const MoeCombineArgs& args, std::string_view word) {
    const Status s = moe_combine(context.exec, args);
    return s.code() == StatusCode::kInvalidArgument && s.message().find(word) != std::string::npos;
  };
  const MoeCombineArgs good = in.args(CombineThen::kStore, out);
  EXPECT_TRUE(moe_combine(context.exec, good).ok());
  EXPECT_TRUE(refused(in.args(CombineThen::kStore, narrow), "D: expected 7"));
  MoeCombineArgs bad = good;
  bad.k = 0;
  EXPECT_TRUE(refused(bad, "K: expected"));
  bad = good, bad.weights = bad.weights.subspan(1);
  EXPECT_TRUE(refused(bad, "[T*K] = [4]"));
  bad = good, bad.out = in.y.view(), bad.out.rows = 2;
  EXPECT_TRUE(refused(bad, "alias"));
  bad = good, bad.then = CombineThen::kRmsNorm, bad.eps = -1;
  EXPECT_TRUE(refused(bad, "eps"));
  bad = good, bad.then = CombineThen::kResidualThenNorm, bad.residual = narrow.view();
  EXPECT_TRUE(refused(bad, "residual: expected [T, D] = [2, 8], got [2, 7]"));
  bad.residual = out.view();
  EXPECT_TRUE(refused(bad, "residual: must not alias"));
  Matrix other(2, 8);
  bad.residual = other.view(), bad.then = CombineThen::kBranches;
  bad.branches.branch = narrow.view();
  EXPECT_TRUE(refused(bad, "branch: expected [T, D]"));
  in.inverse[3] = 4;
  EXPECT_TRUE(refused(good, "slot below R = 4, got 4"));
}

}  // namespace
}  // namespace sluice
