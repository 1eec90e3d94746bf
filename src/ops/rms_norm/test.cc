// rms_norm: every kernel row against the reference bit for bit, fused against chain, accuracy
// against f64, invariance, errors.
#include "ops/rms_norm/rms_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/float_env.h"
#include "ops/rms_norm/kernels.h"
#include "ops/test_data.h"

namespace sluice {
namespace {

using test::Context;
using test::Matrix;
using test::Random;
using test::same_bits;

constexpr RmsNormMode kModes[] = {RmsNormMode::kNorm, RmsNormMode::kResidualThenNorm,
                                  RmsNormMode::kNormThenResidual};

struct Problem {
  RmsNormMode mode = RmsNormMode::kNorm;
  int64_t t = 1, d = 16, pad = 0, offset = 0;
  bool weight = true, rough = false;
};

// Inputs and results of one call: what the mode does not write stays as it was.
struct Call {
  Call(const Problem& p, uint64_t seed)
      : x(p.t, p.d, p.pad, p.offset),
        residual(p.t, p.d, p.pad, p.offset),
        out(p.t, p.d, p.pad, p.offset) {
    Random random(seed);
    x.fill(random, p.rough);
    residual.fill(random, p.rough);
    for (int64_t i = 0; i < p.d; ++i) weight.push_back(p.rough ? random.rough() : random.normal());
    args.mode = p.mode;
    args.x = x.view();
    args.weight = p.weight ? weight.data() : nullptr;
    args.eps = 1e-6f;
    args.scale = 0.375f;
    args.residual = residual.view();
    args.out = out.view();
  }
  Call& run(const Context& context) {
    const Status s = context.finish(rms_norm(context.exec, args));
    EXPECT_TRUE(s.ok()) << s.message();
    EXPECT_TRUE(x.guards_hold() && residual.guards_hold() && out.guards_hold());
    return *this;
  }
  Matrix x, residual, out;
  std::vector<float> weight;
  RmsNormArgs args;
};

using Row = Kernel<RmsNormKernel>;
class RmsNormRow : public ::testing::TestWithParam<Row> {};

TEST_P(RmsNormRow, EqualsTheReferenceBitForBit) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  const Context reference(Isa::kReference), row(GetParam().isa, 2);
  uint64_t seed = 0;
  for (const RmsNormMode mode : kModes) {
    for (const int64_t d : {1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 64, 80, 128, 704, 2880}) {
      for (const bool rough : {false, true}) {
        Problem p{mode, 5, d, d % 3, d % 4, d % 5 != 0, rough};
        Call want(p, ++seed), got(p, seed);
        want.run(reference);
        got.run(row);
        EXPECT_TRUE(same_bits(got.out.view(), want.out.view())) << "D = " << d;
        EXPECT_TRUE(same_bits(got.residual.view(), want.residual.view())) << "D = " << d;
      }
    }
  }
}

TEST_P(RmsNormRow, FusedEqualsChain) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  const Context context(GetParam().isa);
  for (const int64_t d : {16, 50, 2048}) {
    for (const bool rough : {false, true}) {
      const auto at = [&](RmsNormMode mode) { return Call({mode, 3, d, 1, 1, true, rough}, 77); };
      Call fused = at(RmsNormMode::kResidualThenNorm), chain = at(RmsNormMode::kNorm);
      {
        const ScopedFloatEnv env;
        for (int64_t r = 0; r < 3; ++r)
          for (int64_t i = 0; i < d; ++i) chain.residual.at(r, i) += chain.x.at(r, i);
      }
      chain.args.x = chain.residual.view();
      fused.run(context), chain.run(context);
      EXPECT_TRUE(same_bits(fused.out.view(), chain.out.view()));
      EXPECT_TRUE(same_bits(fused.residual.view(), chain.residual.view()));

      Call after = at(RmsNormMode::kNormThenResidual), norm = at(RmsNormMode::kNorm);
      after.run(context), norm.run(context);
      const ScopedFloatEnv env;
      for (int64_t r = 0; r < 3; ++r)
        for (int64_t i = 0; i < d; ++i) {
          const float sum = norm.residual.at(r, i) + norm.out.at(r, i);
          ASSERT_TRUE(same_bits(after.residual.at(r, i), sum * 0.375f));
        }
    }
  }
}

TEST_P(RmsNormRow, RowsDoNotDependOnBatchOrWorkers) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  for (const RmsNormMode mode : kModes) {
    Problem p{mode, 300, 96, 0, 0, true, false};
    Call all(p, 3);
    all.run(Context(GetParam().isa));
    for (const int threads : {1, 2, 3}) {
      Call again(p, 3);
      again.run(Context(GetParam().isa, threads));
      EXPECT_TRUE(same_bits(again.out.view(), all.out.view()));
      EXPECT_TRUE(same_bits(again.residual.view(), all.residual.view()));
    }
    Call one(p, 3);
    one.args.x = {&one.x.at(123, 0), 1, 96};
    one.args.residual = {&one.residual.at(123, 0), 1, 96};
    one.args.out = {&one.out.at(123, 0), 1, 96};
    one.run(Context(GetParam().isa));
    for (int64_t i = 0; i < 96; ++i) {
      EXPECT_TRUE(same_bits(one.out.at(123, i), all.out.at(123, i)));
      EXPECT_TRUE(same_bits(one.residual.at(123, i), all.residual.at(123, i)));
    }
  }
}

TEST_P(RmsNormRow, MayWriteOverItsInput) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  const Context context(GetParam().isa);
  for (const RmsNormMode mode : {RmsNormMode::kNorm, RmsNormMode::kResidualThenNorm}) {
    Problem p{mode, 4, 50, 2, 1};
    Call apart(p, 5), over(p, 5);
    over.args.out = over.x.view();
    apart.run(context), over.run(context);
    EXPECT_TRUE(same_bits(over.x.view(), apart.out.view()));
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, RmsNormRow,
                         ::testing::ValuesIn(test::all_rows(rms_norm_kernels())), test::RowName());

TEST(RmsNorm, ReferenceIsWithinEightEpsOfF64) {
  for (const int64_t d : {1, 64, 2048, 5376}) {
    Call call({RmsNormMode::kNorm, 20, d}, 6);
    call.run(Context(Isa::kReference));
    for (int64_t r = 0; r < 20; ++r) {
      double sum = 0;
      for (int64_t i = 0; i < d; ++i) sum += double{call.x.at(r, i)} * call.x.at(r, i);
      const double factor = 1 / std::sqrt(sum / static_cast<double>(d) + double{1e-6f});
      for (int64_t i = 0; i < d; ++i) {
        const double y = call.x.at(r, i) * factor * call.weight[static_cast<size_t>(i)];
        ASSERT_NEAR(call.out.at(r, i), y, 8 * 0x1p-24 * std::fabs(y));
      }
    }
  }
}

TEST(RmsNorm, SaysWhatIsWrong) {
  const auto failure = [](auto change) {
    Call call({RmsNormMode::kResidualThenNorm, 2, 8}, 1);
    change(call);
    const Status s = rms_norm(Context(Isa::kReference).exec, call.args);
    return s.ok() ? std::string() : s.message();
  };
  EXPECT_EQ(failure([](Call&) {}), "");
  const std::pair<const char*, std::string> cases[] = {
      {"D: expected >= 1", failure([](Call& c) { c.args.x.cols = 0; })},
      {"eps", failure([](Call& c) { c.args.eps = -1; })},
      {"eps", failure([](Call& c) { c.args.eps = NAN; })},
      {"eps", failure([](Call& c) { c.args.eps = INFINITY; })},
      {"out: expected [T, D] = [2, 8] as x, got [1, 8]",
       failure([](Call& c) { c.args.out.rows = 1; })},
      {"residual: expected", failure([](Call& c) { c.args.residual.cols = 7; })},
      {"residual: is missing", failure([](Call& c) { c.args.residual.data = nullptr; })},
      {"x: row stride", failure([](Call& c) { c.args.x.stride = 4; })},
      {"residual: must not overlap", failure([](Call& c) { c.args.residual = c.x.view(); })},
      {"residual: must not overlap", failure([](Call& c) { c.args.out = c.residual.view(); })},
      {"must be x or not overlap", failure([](Call& c) { c.args.out.data = &c.x.at(0, 1); })},
  };
  for (const auto& [part, message] : cases)
    EXPECT_NE(message.find(part), std::string::npos) << part << " | " << message;
}

TEST(RmsNorm, ColumnsOfOneBufferAreApart) {
  std::vector<float> buffer(2 * 24);
  RmsNormArgs args;
  args.x = {buffer.data(), 2, 8, 24};
  args.out = {buffer.data() + 16, 2, 8, 24};
  EXPECT_TRUE(rms_norm(Context(Isa::kReference).exec, args).ok());
  args.out.data = buffer.data() + 7;
  EXPECT_FALSE(rms_norm(Context(Isa::kReference).exec, args).ok());
}

}  // namespace
}  // namespace sluice
