// elementwise: every row against the reference bit for bit, the reference against f64, errors.
#include "ops/elementwise/elementwise.h"

#include <gtest/gtest.h>

#include "base/float_env.h"
#include "ops/elementwise/kernels.h"
#include "ops/test_data.h"
#include "simd/scalar.h"

namespace sluice {
namespace {

using test::Context;
using test::Matrix;
using test::Random;
using test::same_bits;

using Row = Kernel<ElementwiseKernel>;

constexpr ActivationKind kKinds[] = {ActivationKind::kSilu, ActivationKind::kGeluTanh,
                                     ActivationKind::kGeluErf, ActivationKind::kSwigluOai};

struct Case {
  int64_t rows, cols, pad, offset;
};
constexpr Case kCases[] = {{1, 1, 0, 0},  {1, 15, 0, 3},  {3, 16, 1, 0},   {2, 17, 5, 7},
                           {5, 64, 0, 1}, {4, 100, 3, 9}, {700, 48, 0, 0}, {33, 1000, 2, 5}};

class ElementwiseRow : public ::testing::TestWithParam<Row> {
 protected:
  void SetUp() override { SLUICE_SKIP_UNLESS_RUNNABLE(GetParam()); }
  // op(context, m, other) on the row and on the reference, from the same values.
  template <class Op>
  void compare(Op op, uint64_t seed) {
    Context got_context(GetParam().isa, static_cast<int>(seed % 3)), want_context(Isa::kReference);
    for (const Case& c : kCases) {
      Random random(seed++);
      Matrix got(c.rows, c.cols, c.pad, c.offset), other(c.rows, c.cols, c.offset, c.pad);
      got.fill(random, true), other.fill(random, true);
      Matrix want = got;
      const Status status = got_context.finish(op(got_context.exec, got.view(), other.view()));
      ASSERT_TRUE(status.ok()) << status.message();
      ASSERT_TRUE(op(want_context.exec, want.view(), other.view()).ok());
      EXPECT_TRUE(same_bits(got.view(), want.view())) << c.rows << " x " << c.cols;
      EXPECT_TRUE(got.guards_hold());
    }
  }
};

TEST_P(ElementwiseRow, IsTheOneSelected) {
  EXPECT_EQ(select_kernel(elementwise_kernels(), GetParam().isa, "f32", "none", "f32")->name,
            GetParam().name);
}
TEST_P(ElementwiseRow, GluEqualsTheReference) {
  for (const ActivationKind kind : kKinds)
    compare(
        [&](const ExecContext& context, MatrixF32 m, ConstMatrixF32 up) {
          return glu(context, m, up, {kind, 1.5f, 3.0f}, m);  // out may be gate
        },
        10 + static_cast<uint64_t>(kind) * 100);
}
TEST_P(ElementwiseRow, GluEqualsTheReferenceWithEveryClampAndRounding) {
  uint64_t seed = 800;
  for (const ActivationKind kind : kKinds)
    for (const ActivationClamp clamp :
         {ActivationClamp::kNone, ActivationClamp::kBefore, ActivationClamp::kAfter})
      for (int bits = 0; bits < 8; ++bits) {
        if (kind == ActivationKind::kSwigluOai && clamp == ActivationClamp::kAfter) continue;
        const Activation a{
            kind, 1.5f, 2.5f, clamp, {(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0}};
        compare([&](const ExecContext& context, MatrixF32 m,
                    ConstMatrixF32 up) { return glu(context, m, up, a, m); },
                seed += 10);
      }
}
TEST_P(ElementwiseRow, WeighRowsEqualsTheReference) {
  Random random(900);
  Context got_context(GetParam().isa, 2), want_context(Isa::kReference);
  for (int i = 0; i < 20; ++i) {
    const int64_t t = random.between(1, 40), k = random.between(1, 4), d = random.between(1, 700);
    Matrix x(t, d, 3, 1), got(t * k, d, 2, 5);
    x.fill(random, true), got.fill(random);
    Matrix want = got;
    std::vector<float> weights(static_cast<size_t>(t * k));
    std::vector<int32_t> slots(weights.size());
    for (float& w : weights) w = random.normal();
    for (size_t p = 0; p < slots.size(); ++p)  // back to front, some dropped
      slots[p] = random.chance(0.2) ? -1 : static_cast<int32_t>(slots.size() - 1 - p);
    WeighRowsArgs args{x.view(), k, slots, weights, random.chance(0.5), got.view()};
    const Status status = got_context.finish(weigh_rows(got_context.exec, args));
    ASSERT_TRUE(status.ok()) << status.message();
    args.out = want.view();
    ASSERT_TRUE(weigh_rows(want_context.exec, args).ok());
    EXPECT_TRUE(same_bits(got.view(), want.view()));
    EXPECT_TRUE(got.guards_hold());
  }
}
TEST_P(ElementwiseRow, AddScaleAndSoftcapEqualTheReference) {
  compare([](const ExecContext& c, MatrixF32 m, ConstMatrixF32 b) { return add(c, m, b); }, 500);
  compare([](const ExecContext& c, MatrixF32 m, ConstMatrixF32) { return scale(c, m, 0.3f); }, 600);
  compare([](const ExecContext& c, MatrixF32 m, ConstMatrixF32) { return softcap(c, m, 30.0f); },
          700);
}
INSTANTIATE_TEST_SUITE_P(Rows, ElementwiseRow,
                         ::testing::ValuesIn(test::all_rows(elementwise_kernels())),
                         test::RowName());

// Error in units in the last place of `want`, for results that are not flushed to zero.
double ulps(float got, double want) {
  if (std::fabs(want) < 1e-36) return 0;
  const float w = std::fabs(static_cast<float>(want));
  return std::fabs(got - want) / (static_cast<double>(std::nextafter(w, INFINITY)) - w);
}

TEST(ElementwiseReference, ActivationsAreWithinEightUlpOfF64) {
  const ScopedFloatEnv env;
  double silu = 0, tanh_form = 0, erf_form = 0;
  for (int i = 0; i <= 200000; ++i) {
    const float x = -12.0f + 24.0f * static_cast<float>(i) / 200000.0f;
    const double d = x;
    if (x == 0) continue;
    silu = std::max(silu, ulps(scalar::silu(x), d / (1 + std::exp(-d))));
    const double u = std::sqrt(2 / M_PI) * (d + 0.044715 * d * d * d);
    // x sigmoid(2u): the f64 tanh form would cancel. exp magnifies the rounding of 2u itself.
    const double slack = std::max(1.0, std::fabs(2 * u));
    tanh_form = std::max(tanh_form, ulps(scalar::gelu_tanh(x), d / (1 + std::exp(-2 * u))) / slack);
    erf_form =
        std::max(erf_form, ulps(scalar::gelu_erf(x), 0.5 * d * std::erfc(-d / std::sqrt(2.0))));
  }
  RecordProperty("worst", std::to_string(silu) + " " + std::to_string(tanh_form) + " " +
                              std::to_string(erf_form));
  EXPECT_LE(silu, 8);
  EXPECT_LE(tanh_form, 8);
  EXPECT_LE(erf_form, 8);
}
TEST(ElementwiseReference, GeluErfHasTheRightLimits) {
  EXPECT_EQ(scalar::gelu_erf(0.0f), 0.0f);
  EXPECT_EQ(scalar::gelu_erf(INFINITY), INFINITY);
  EXPECT_EQ(scalar::gelu_erf(40.0f), 40.0f);
  EXPECT_EQ(scalar::gelu_erf(-40.0f), 0.0f);
  EXPECT_TRUE(std::isnan(scalar::gelu_erf(NAN)));
}

TEST(Elementwise, SwigluClampsBothSides) {
  Context context(Isa::kReference);
  Matrix gate(1, 3), up(1, 3), out(1, 3);
  gate.at(0, 0) = 9, gate.at(0, 1) = 7, gate.at(0, 2) = -9;
  up.at(0, 0) = 9, up.at(0, 1) = 7, up.at(0, 2) = -9;
  const Activation activation{ActivationKind::kSwigluOai, 1.702f, 7.0f};
  ASSERT_TRUE(glu(context.exec, gate.view(), up.view(), activation, out.view()).ok());
  EXPECT_EQ(out.at(0, 0), out.at(0, 1));
  EXPECT_FLOAT_EQ(out.at(0, 2), -6.0f * (-9.0f / (1 + std::exp(1.702f * 9))));
}

// silu with a limit is published in two forms: the limit before the activation and behind it.
TEST(Elementwise, ClampsStandBeforeOrAfter) {
  Context context(Isa::kReference);
  Matrix gate(1, 4), up(1, 4), out(1, 4);
  gate.at(0, 0) = 9, gate.at(0, 1) = 1, gate.at(0, 2) = -9, gate.at(0, 3) = NAN;
  up.at(0, 0) = 9, up.at(0, 1) = -9, up.at(0, 2) = 1, up.at(0, 3) = 1;
  const auto silu = [](double x) { return x / (1 + std::exp(-x)); };
  Activation a{ActivationKind::kSilu, 1.702f, 2.0f, ActivationClamp::kBefore};
  ASSERT_TRUE(glu(context.exec, gate.view(), up.view(), a, out.view()).ok());
  EXPECT_FLOAT_EQ(out.at(0, 0), static_cast<float>(silu(2) * 2));
  EXPECT_FLOAT_EQ(out.at(0, 1), static_cast<float>(silu(1) * -2));
  EXPECT_FLOAT_EQ(out.at(0, 2), static_cast<float>(silu(-9)));
  EXPECT_TRUE(std::isnan(out.at(0, 3)));
  a.clamp = ActivationClamp::kAfter;
  ASSERT_TRUE(glu(context.exec, gate.view(), up.view(), a, out.view()).ok());
  EXPECT_EQ(out.at(0, 0), 4.0f);
  EXPECT_FLOAT_EQ(out.at(0, 1), static_cast<float>(silu(1) * -2));
  EXPECT_TRUE(std::isnan(out.at(0, 3)));
}

// The roundings stand where activation.h says: recomputed here from f64 and single roundings.
TEST(Elementwise, RoundsWhereTheProfileSays) {
  Context context(Isa::kReference);
  const float g = 1.2345678f, u = -0.76543218f;
  Matrix gate(1, 1), up(1, 1), out(1, 1);
  gate.at(0, 0) = g, up.at(0, 0) = u;
  const auto silu = [](double x) { return static_cast<float>(x / (1 + std::exp(-x))); };
  const auto got = [&](ActivationRounding r) {
    const Activation a{.kind = ActivationKind::kSilu, .rounding = r};
    EXPECT_TRUE(glu(context.exec, gate.view(), up.view(), a, out.view()).ok());
    return out.at(0, 0);
  };
  const float gr = round_to_bf16(g), ur = round_to_bf16(u);
  EXPECT_FLOAT_EQ(got({.inputs = true}), silu(gr) * ur);
  EXPECT_EQ(got({.steps = true}), round_to_bf16(silu(g)) * u);
  EXPECT_EQ(got({.result = true}), round_to_bf16(silu(g) * u));
  EXPECT_EQ(got({.inputs = true, .steps = true, .result = true}),
            round_to_bf16(round_to_bf16(silu(gr)) * ur));
}

TEST(Elementwise, NamesRoundTrip) {
  for (const ActivationKind kind : kKinds)
    EXPECT_EQ(activation_from_name(activation_name(kind)), kind);
  EXPECT_EQ(activation_from_name("gelu_pytorch_tanh"), ActivationKind::kGeluTanh);
  EXPECT_EQ(activation_from_name("gelu"), ActivationKind::kGeluErf);
  EXPECT_FALSE(activation_from_name("relu").has_value());
  for (const ActivationKind kind : kKinds)
    EXPECT_EQ(parse_activation("op", activation_name(kind)).value(), kind);
  EXPECT_EQ(parse_activation("fused_experts", "gelu").status().message(),
            "fused_experts: activation: expected silu, gelu_tanh, gelu_erf or swiglu_oai, got "
            "\"gelu\"");
}

TEST(Elementwise, RefusesWrongShapesAndLimits) {
  Context context(Isa::kReference);
  Matrix a(2, 8), b(2, 7);
  const auto says = [](const Status& s, std::string_view word) {
    return s.code() == StatusCode::kInvalidArgument && s.message().find(word) != std::string::npos;
  };
  EXPECT_TRUE(says(glu(context.exec, a.view(), b.view(), {}, a.view()), "glu: up: expected"));
  EXPECT_TRUE(says(glu(context.exec, a.view(), a.view(), {}, b.view()), "glu: out: expected"));
  EXPECT_TRUE(says(add(context.exec, a.view(), b.view()), "add: b: expected [T, D] = [2, 8]"));
  EXPECT_TRUE(says(softcap(context.exec, a.view(), 0.0f), "cap"));
  EXPECT_TRUE(says(softcap(context.exec, a.view(), NAN), "cap"));
  const Activation none{ActivationKind::kSwigluOai, 1.702f, 0.0f};
  EXPECT_TRUE(says(glu(context.exec, a.view(), a.view(), none, a.view()), "limit"));
  Activation clamped{ActivationKind::kSilu, 1.702f, NAN, ActivationClamp::kBefore};
  EXPECT_TRUE(says(glu(context.exec, a.view(), a.view(), clamped, a.view()), "clamp"));
  clamped = {ActivationKind::kSwigluOai, 1.702f, 7.0f, ActivationClamp::kAfter};
  EXPECT_TRUE(says(glu(context.exec, a.view(), a.view(), clamped, a.view()), "clamps before"));
  const int32_t slots[] = {0, 2};
  const float weights[] = {1.0f, 1.0f};
  EXPECT_TRUE(says(weigh_rows(context.exec, {a.view(), 1, slots, weights, false, a.view()}),
                   "slots: expected below R = 2, got 2"));
  EXPECT_TRUE(says(weigh_rows(context.exec, {a.view(), 2, slots, weights, false, a.view()}),
                   "[T*K] = [2 * 2]"));
  EXPECT_TRUE(
      says(weigh_rows(context.exec, {a.view(), 1, slots, weights, false, b.view()}), "out"));
}

}  // namespace
}  // namespace sluice
