// rope: every kernel row against the reference bit for bit, the reference against a rotation in
// f64, the table of angles against libm, batch invariance, errors.
#include "ops/rope/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "ops/rope/angle.h"
#include "ops/rope/kernels.h"
#include "ops/test_data.h"

namespace sluice {
namespace {

using test::Context;
using test::Matrix;
using test::Random;
using test::same_bits;

std::vector<double> frequencies(int64_t c, double theta) {
  std::vector<double> f;
  for (int64_t i = 0; i < c / 2; ++i)
    f.push_back(std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(c)));
  return f;
}

std::vector<float> angles(const std::vector<int32_t>& positions, const std::vector<double>& f,
                          double factor = 1.0, int threads = 0, Isa isa = Isa::kReference) {
  std::vector<float> table(positions.size() * f.size() * 2);
  const Context context(isa, threads);
  const Status s = context.finish(rope_angles(context.exec, {positions, f, factor, table.data()}));
  EXPECT_TRUE(s.ok()) << s.message();
  return table;
}

Status turn(const Context& context, Matrix& x, int64_t c, const std::vector<float>& table) {
  return context.finish(rope(context.exec, {x.view(), c, table.data()}));
}

// The table has its rows in kernels.inc, the turning its own.
std::vector<Kernel<RopeKernel>> rows_of(std::string_view arith) {
  std::vector<Kernel<RopeKernel>> rows = test::all_rows(rope_kernels());
  std::erase_if(rows, [&](const auto& row) { return row.arith != arith; });
  return rows;
}

using Row = Kernel<RopeKernel>;
class RopeRow : public ::testing::TestWithParam<Row> {};

TEST_P(RopeRow, EqualsTheReferenceBitForBit) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  const Context reference(Isa::kReference), row(GetParam().isa, 2);
  Random random(2);
  for (const int64_t c : {2, 16, 32, 34, 64, 80, 96, 128, 192, 256, 512, 1030}) {
    for (const int64_t heads : {1, 3, 8}) {
      for (const bool rough : {false, true}) {
        const std::vector<int32_t> positions = {0, 1, 77, 131071, 5};
        const auto table = angles(positions, frequencies(c, 1e6), 1.25);
        const int64_t pad = c % 3, offset = c % 5;
        Matrix want(5, heads * c, pad, offset);
        want.fill(random, rough);
        Matrix got = want;
        ASSERT_TRUE(turn(reference, want, c, table).ok());
        ASSERT_TRUE(turn(row, got, c, table).ok());
        EXPECT_TRUE(same_bits(got.view(), want.view())) << "C = " << c << ", H = " << heads;
        EXPECT_TRUE(got.guards_hold());
      }
    }
  }
}

TEST_P(RopeRow, RowsDoNotDependOnBatchOrWorkers) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  std::vector<int32_t> positions(200);
  for (size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<int32_t>(3 * i);
  const auto f = frequencies(64, 1e4);
  const auto table = angles(positions, f), again = angles(positions, f, 1.0, 3);
  EXPECT_EQ(table, again);
  Random random(3);
  Matrix x(200, 4 * 64);
  x.fill(random);
  Matrix threaded = x, alone = x;
  ASSERT_TRUE(turn(Context(GetParam().isa), x, 64, table).ok());
  ASSERT_TRUE(turn(Context(GetParam().isa, 3), threaded, 64, table).ok());
  EXPECT_TRUE(same_bits(threaded.view(), x.view()));
  const auto one = angles({positions[150]}, f);
  const Context context(GetParam().isa);
  ASSERT_TRUE(
      context.finish(rope(context.exec, {{&alone.at(150, 0), 1, 256}, 64, one.data()})).ok());
  for (int64_t c = 0; c < 256; ++c) EXPECT_TRUE(same_bits(alone.at(150, c), x.at(150, c)));
}

INSTANTIATE_TEST_SUITE_P(Kernels, RopeRow, ::testing::ValuesIn(rows_of("half_split")),
                         test::RowName());

class RopeAnglesRow : public ::testing::TestWithParam<Row> {};

TEST_P(RopeAnglesRow, EqualsTheReferenceBitForBit) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  Random random(5);
  std::vector<int32_t> positions = {0, 1, 2, 77, 131071, 1 << 30, INT32_MAX, -5};
  for (int i = 0; i < 40; ++i) positions.push_back(static_cast<int32_t>(random.below(1 << 20)));
  for (const int64_t c : {2, 64, 80, 128, 512, 514, 1030}) {
    for (const int threads : {0, 2}) {
      const auto f = frequencies(c, 1.5e5);
      const auto want = angles(positions, f, 1.3465),
                 got = angles(positions, f, 1.3465, threads, GetParam().isa);
      for (size_t i = 0; i < want.size(); ++i)
        ASSERT_EQ(f32_to_bits(got[i]), f32_to_bits(want[i])) << "C = " << c << ", entry " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, RopeAnglesRow, ::testing::ValuesIn(rows_of("f64_angle")),
                         test::RowName());

// Near multiples of pi/2, where the reduction cancels, too.
TEST(RopeAngles, SineAndCosineAreLibmsWithinTwoUlp) {
  Random random(6);
  double worst = 0;
  const auto compare = [&](double x) {
    const SinCos got = sin_cos(x);
    for (const auto& [ours, theirs] :
         {std::pair<double, double>{got.sin, std::sin(x)}, {got.cos, std::cos(x)}}) {
      const double ulp = std::nextafter(std::fabs(theirs), 2.0) - std::fabs(theirs);
      worst = std::max(worst, (std::fabs(ours - theirs) - std::fabs(x) * 0x1p-109) / ulp);
    }
  };
  for (int i = 0; i < 200000; ++i) {
    const double bits = 36 * random.uniform() - 5;
    compare((random.chance(0.5) ? 1 : -1) * std::exp2(bits));
    compare(static_cast<double>(random.below(1 << 22)) * M_PI_2);
  }
  RecordProperty("worst", std::to_string(worst));
  EXPECT_LE(worst, 2);
  EXPECT_EQ(sin_cos(0.0).sin, 0.0);
  EXPECT_EQ(sin_cos(0.0).cos, 1.0);
}

// Two roundings of the table, one of each product and one of the sum.
TEST(Rope, ReferenceIsARotation) {
  constexpr int64_t kC = 128;
  const auto f = frequencies(kC, 1e6);
  const std::vector<int32_t> positions = {0, 1, 1000, 262143};
  const auto table = angles(positions, f, 1.5);
  Random random(4);
  Matrix x(4, kC);
  x.fill(random);
  Matrix y = x;
  ASSERT_TRUE(turn(Context(Isa::kReference), y, kC, table).ok());
  for (int64_t t = 0; t < 4; ++t) {
    for (int64_t i = 0; i < kC / 2; ++i) {
      const double angle = positions[static_cast<size_t>(t)] * f[static_cast<size_t>(i)];
      const double u = x.at(t, i), v = x.at(t, i + kC / 2);
      const double bound = 0x1p-24 * 4 * 1.5 * (std::fabs(u) + std::fabs(v));
      EXPECT_NEAR(y.at(t, i), 1.5 * (u * std::cos(angle) - v * std::sin(angle)), bound);
      EXPECT_NEAR(y.at(t, i + kC / 2), 1.5 * (v * std::cos(angle) + u * std::sin(angle)), bound);
    }
  }
}

TEST(Rope, FrequencyZeroLeavesAPairAlone) {
  const auto table = angles({12345}, {0.5, 0.0});
  Matrix x(1, 4);
  for (int64_t i = 0; i < 4; ++i) x.at(0, i) = static_cast<float>(i + 1);
  ASSERT_TRUE(turn(Context(Isa::kReference), x, 4, table).ok());
  EXPECT_EQ(x.at(0, 1), 2.0f);
  EXPECT_EQ(x.at(0, 3), 4.0f);
  EXPECT_NE(x.at(0, 0), 1.0f);
}

TEST(Rope, SaysWhatIsWrong) {
  const Context context(Isa::kReference);
  Matrix x(2, 8);
  std::vector<float> table(16);
  const auto failure = [&](RopeArgs args) {
    const Status s = rope(context.exec, args);
    return s.ok() ? std::string() : s.message();
  };
  EXPECT_EQ(failure({x.view(), 4, table.data()}), "");
  EXPECT_NE(failure({x.view(), 3, table.data()}).find("C: expected even"), std::string::npos);
  EXPECT_NE(failure({x.view(), 0, table.data()}).find("C: expected even"), std::string::npos);
  EXPECT_NE(failure({x.view(), 6, table.data()}).find("multiple of C = 6, got 8"),
            std::string::npos);
  EXPECT_NE(failure({x.view(), 4, nullptr}).find("cos_sin: is missing"), std::string::npos);
  EXPECT_NE(failure({MatrixF32(x.view().data, 2, 8, 4), 4, table.data()}).find("row stride"),
            std::string::npos);
  const std::vector<int32_t> positions = {1};
  const std::vector<double> good = {1.0}, bad = {INFINITY}, large = {2e6};
  EXPECT_FALSE(rope_angles(context.exec, {positions, good, 1.0, nullptr}).ok());
  EXPECT_FALSE(rope_angles(context.exec, {positions, bad, 1.0, table.data()}).ok());
  EXPECT_FALSE(rope_angles(context.exec, {positions, large, 1.0, table.data()}).ok());
  EXPECT_FALSE(rope_angles(context.exec, {positions, good, NAN, table.data()}).ok());
  EXPECT_TRUE(rope_angles(context.exec, {{}, good, 1.0, nullptr}).ok());
}

}  // namespace
}  // namespace sluice
