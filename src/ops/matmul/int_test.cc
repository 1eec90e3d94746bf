// Ariths int and int16: every row against the reference over panels of any legal bytes, blocks and
// row counts; the quantisation of x; what the quantisers of weights promise.
#include <gtest/gtest.h>

#include <algorithm>

#include "ops/matmul/matmul.h"
#include "ops/matmul/pack.h"
#include "ops/matmul/panels.h"
#include "ops/matmul/weights_data.h"
#include "weights/int_panels.h"

namespace sluice {
namespace {

using test::Context;
using test::Matrix;
using test::Random;
using test::same_bits;
using test::Scratch;

using Row = Kernel<const PanelKernel>;

// Panels of random bytes: every code, multiplier and zero point occurs, extremes more than others.
struct RawPanels {
  RawPanels(WeightFormat format, int64_t n, int64_t k, int64_t block, Random& random)
      : bytes(packed_bytes(format, WeightLayout::kPanel16, n, k, block) + 64) {
    w.format = format;
    w.n = n;
    w.k = k;
    w.block = block;
    auto* at = reinterpret_cast<std::byte*>(
        round_up(static_cast<int64_t>(reinterpret_cast<uintptr_t>(bytes.data())), 64));
    w.data = at;
    w.bytes = bytes.size() - 64;
    for (int64_t p = 0; p < w.panels(); ++p)
      for (int64_t first = 0; first < int_groups(k); first += block / kIntGroup) {
        const int64_t groups = std::min(int_groups(k) - first, block / kIntGroup);
        at = format == WeightFormat::kInt4 ? int4_block(at, groups, random)
                                           : int8_block(at, groups, random);
      }
  }
  static std::byte* fill(std::byte* at, int64_t count, uint8_t least, Random& random) {
    const auto extreme = static_cast<std::byte>(random.chance(0.5) ? 255 : least);
    const bool flat = random.chance(0.1);
    for (int64_t i = 0; i < count; ++i)
      at[i] = flat ? extreme : static_cast<std::byte>(random.between(least, 255));
    return at + count;
  }
  static std::byte* int4_block(std::byte* at, int64_t groups, Random& random) {
    for (int64_t c = 0; c < 16; ++c) {
      const uint16_t scale = bf16(random.normal()).bits;
      std::memcpy(at + 2 * c, &scale, 2);
    }
    fill(at + kInt4ZeroAt, 2 * groups, 0, random);
    fill(at + kInt4MultiplierAt, int4_codes_at(groups) - kInt4MultiplierAt, 0, random);
    return fill(at + int4_codes_at(groups), groups * kInt4GroupBytes, 0, random);
  }
  static std::byte* int8_block(std::byte* at, int64_t groups, Random& random) {
    for (int64_t c = 0; c < 16; ++c) {
      const float scale = random.normal();
      std::memcpy(at + 4 * c, &scale, 4);
    }
    return fill(at + kInt8CodesAt, groups * kInt8GroupBytes, 1, random);
  }
  std::vector<std::byte> bytes;
  PackedMatrix w;
};

// The scale of block b of column c < 16, all blocks being whole.
float column_scale(const PackedMatrix& w, int64_t b, int64_t c) {
  const int64_t groups = w.block / kIntGroup;
  if (w.format == WeightFormat::kInt4) {
    uint16_t bits = 0;
    std::memcpy(&bits, w.data + b * int4_block_bytes(groups) + 2 * c, 2);
    return static_cast<float>(bf16::from_bits(bits));
  }
  float scale = 0;
  std::memcpy(&scale, w.data + b * int8_block_bytes(groups) + 4 * c, 4);
  return scale;
}

Status run(const Context& context, const PackedMatrix& w, ConstMatrixF32 x, Matrix& out) {
  MatmulArgs args;
  args.arith = panel_arith(w.format, Compute::kBf16);
  args.x = x;
  args.w = &w;
  args.out = out.view();
  Scratch scratch(matmul_workspace_bytes(out.rows(), w.k));
  return context.finish(matmul(context.exec, args, scratch.workspace()));
}

// Rows of every kind: normal, all at the same extreme, tiny (scale 1), zero, one large outlier.
void fill_rows(Matrix& x, Random& random) {
  for (int64_t r = 0; r < x.rows(); ++r) {
    const int64_t kind = random.below(8);
    const float flat = random.chance(0.5) ? 1.0f : -1.0f;
    for (int64_t k = 0; k < x.cols(); ++k)
      x.at(r, k) = kind == 0   ? flat
                   : kind == 1 ? 1e-5f * random.normal()
                   : kind == 2 ? 0.0f
                   : kind == 3 ? random.rough()
                               : random.normal();
  }
}

class IntRow : public test::PanelRow {
 protected:
  void compare(int64_t t, int64_t n, int64_t k, int64_t block, uint64_t seed) {
    Random random(seed);
    Context got_context(GetParam().isa, static_cast<int>(random.below(3)));
    const Context want_context(Isa::kReference);
    const RawPanels panels(format(), n, k, block, random);
    Matrix x(t, k, random.below(5), random.below(7)), got(t, n, random.below(5), random.below(7));
    Matrix want(t, n);
    fill_rows(x, random);
    const Status status = run(got_context, panels.w, x.view(), got);
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_TRUE(run(want_context, panels.w, x.view(), want).ok());
    EXPECT_TRUE(same_bits(got.view(), want.view()))
        << "T = " << t << ", N = " << n << ", K = " << k << ", block " << block;
    EXPECT_TRUE(got.guards_hold() && x.guards_hold());
  }
};

TEST_P(IntRow, IsTheOneThatRuns) {
  EXPECT_EQ(
      select_panel_kernel(GetParam().isa, format(), panel_arith(format(), Compute::kBf16))->name,
      GetParam().name);
}

TEST_P(IntRow, EqualsTheReferenceForEveryRowCount) {
  for (int64_t t = 1; t <= 70 && !HasFailure(); ++t)
    compare(t, 16 * (t % 3) + 17, t % 2 == 0 ? 160 : 544, int64_t{128} << (t % 3),
            static_cast<uint64_t>(t));
}

TEST_P(IntRow, EqualsTheReferenceForEveryDepth) {
  uint64_t seed = 100;
  for (const int64_t k : {1,   2,   31,  32,  33,  63,  64,  65,  96,  127,  128,  129,  255,
                          256, 257, 320, 511, 512, 513, 545, 576, 700, 1024, 1056, 1100, 2048})
    for (const int64_t block : {128, 256, 512})
      for (const int64_t t : {1, 3, 19})
        if (!HasFailure()) compare(t, 15 + k % 3, k, block, ++seed);
}

TEST_P(IntRow, RandomShapesEqualTheReference) {
  Random random(78);
  for (int64_t i = 0; i < test::property_runs(40) && !HasFailure(); ++i)
    compare(random.between(1, random.chance(0.1) ? 140 : 40), random.between(1, 120),
            random.between(1, 1300), int64_t{128} << random.below(3), random.next());
}

// x within two units of the last place of the middle between two codes, ties themselves among them:
// a quotient that is not the nearest one would fall to the wrong side.
TEST_P(IntRow, EdgesBetweenCodesEqualTheReference) {
  Random random(79);
  const Context context(GetParam().isa), truth(Isa::kReference);
  const RawPanels panels(format(), 33, 512, 512, random);
  const int64_t levels = format() == WeightFormat::kInt4 ? 127 : 32639;
  Matrix x(48, 512), got(48, 33), want(48, 33);
  for (int64_t r = 0; r < x.rows(); ++r) {
    const float most = std::ldexp(1.0f + static_cast<float>(random.uniform()),
                                  static_cast<int>(random.between(-10, 60)));
    const float scale = most / static_cast<float>(levels);
    x.at(r, 0) = most;
    for (int64_t k = 1; k < x.cols(); ++k) {
      float v = (static_cast<float>(random.below(levels)) + 0.5f) * scale;
      for (int64_t step = random.between(-2, 2); step != 0; step += step < 0 ? 1 : -1)
        v = std::nextafter(v, step < 0 ? 0.0f : most);
      x.at(r, k) = random.chance(0.5) ? v : -v;
    }
  }
  ASSERT_TRUE(run(context, panels.w, x.view(), got).ok());
  ASSERT_TRUE(run(truth, panels.w, x.view(), want).ok());
  EXPECT_TRUE(same_bits(got.view(), want.view()));
}
TEST_P(IntRow, WhatIsNotFiniteSpoilsItsRowOnly) {
  Random random(5);
  Context context(GetParam().isa);
  const RawPanels panels(format(), 20, 600, 512, random);
  Matrix x(4, 600), out(4, 20), clean(4, 20);
  x.fill(random);
  ASSERT_TRUE(run(context, panels.w, x.view(), clean).ok());
  x.at(1, 599) = INFINITY, x.at(2, 3) = NAN;
  ASSERT_TRUE(run(context, panels.w, x.view(), out).ok());
  for (int64_t n = 0; n < 20; ++n) {
    EXPECT_TRUE(same_bits(out.at(0, n), clean.at(0, n)));
    EXPECT_TRUE(std::isnan(out.at(1, n)));
    EXPECT_TRUE(std::isnan(out.at(2, n)));
    EXPECT_TRUE(same_bits(out.at(3, n), clean.at(3, n)));
  }
}

std::vector<Row> int_rows_of_the_table() {
  std::vector<Row> rows;
  for (const Row& row : panel_kernels())
    if (row.arith == "int" || row.arith == "int16") rows.push_back(row);
  return rows;
}
INSTANTIATE_TEST_SUITE_P(Rows, IntRow, ::testing::ValuesIn(int_rows_of_the_table()),
                         test::RowName());

// The written rule in integers: W = identity-like columns show the codes of x.
std::vector<float> shown_codes(WeightFormat format, const std::vector<float>& row) {
  const auto device = make_cpu_device();
  const float v = format == WeightFormat::kInt4 ? -8 * 15 : 127;  // scale 1
  std::vector<float> w(4 * 4, 0.0f);
  for (size_t i = 0; i < 4; ++i) w[i * 4 + i] = v;
  const StoredMatrix stored = stored_rows(w.data(), 4, 4);
  const IntPacking how = {.rounding = IntRounding::kNearest};
  const PackedMatrix packed = pack_matrix(*device, stored, format, how).value();
  Matrix x(1, 4), out(1, 4);
  for (int64_t k = 0; k < 4; ++k) x.at(0, k) = row[static_cast<size_t>(k)];
  EXPECT_TRUE(run(Context(Isa::kReference), packed, x.view(), out).ok());
  std::vector<float> values;
  for (int64_t k = 0; k < 4; ++k) values.push_back(out.at(0, k) / v);
  return values;
}

TEST(IntReference, QuantisesByTheWrittenRule) {
  const auto codes = [](const std::vector<float>& row) {
    return shown_codes(WeightFormat::kInt4, row);
  };
  // scale = 1: ties go to the even code.
  EXPECT_EQ(codes({127.0f, 0.5f, 1.5f, -2.5f}), (std::vector<float>{127, 0, 2, -2}));
  EXPECT_EQ(codes({-127.0f, 126.5f, -0.4f, 3.0f}), (std::vector<float>{-127, 126, 0, 3}));
  // amax 1.26e-4 would give a scale under 1e-6: it becomes 1, and every code 0.
  EXPECT_EQ(codes({1.26e-4f, 0, 0, -1e-4f}), (std::vector<float>{0, 0, 0, 0}));
  EXPECT_NE(codes({1.28e-4f, 0, 0, 0})[0], 0);
  EXPECT_EQ(codes({0, 0, 0, 0}), (std::vector<float>{0, 0, 0, 0}));
}

TEST(IntReference, QuantisesTo16BitsByTheWrittenRule) {
  const auto codes = [](const std::vector<float>& row) {
    return shown_codes(WeightFormat::kInt8, row);
  };
  EXPECT_EQ(codes({32639.0f, 0.5f, 1.5f, -2.5f}), (std::vector<float>{32639, 0, 2, -2}));
  EXPECT_EQ(codes({-32639.0f, 127.5f, -128.5f, 32511.5f}),
            (std::vector<float>{-32639, 128, -128, 32512}));
  // As small as they are: 1e-12 is the least that counts as a largest magnitude.
  EXPECT_NE(codes({1e-11f, 0, 0, 0})[0], 0);
  EXPECT_EQ(codes({1e-17f, 0, 0, 0}), (std::vector<float>{0, 0, 0, 0}));
  EXPECT_EQ(codes({0, 0, 0, 0}), (std::vector<float>{0, 0, 0, 0}));
}

TEST(IntReference, FollowsTheWrittenOrder) {
  // Two blocks of 128: acc = fma(S1 * s1, w1, 0), then fma(S2 * s2, w2, acc).
  for (const auto& [format, most] :
       {std::pair{WeightFormat::kInt4, 127.0f}, {WeightFormat::kInt8, 32639.0f}}) {
    Random random(3);
    const RawPanels panels(format, 16, 256, 128, random);
    Matrix x(1, 256), out(1, 16);
    x.fill(random);
    ASSERT_TRUE(run(Context(Isa::kReference), panels.w, x.view(), out).ok());
    for (int64_t c = 0; c < 16; ++c) {
      float acc = 0;
      for (int64_t b = 0; b < 2; ++b) {
        float amax = 0;
        for (int64_t k = 0; k < 128; ++k) amax = std::max(amax, std::fabs(x.at(0, 128 * b + k)));
        const float s = amax / most;
        const float scale = column_scale(panels.w, b, c);
        int64_t sum = 0;
        for (int64_t k = 128 * b; k < 128 * (b + 1); ++k)
          sum += static_cast<int64_t>(std::nearbyint(x.at(0, k) / s)) *
                 std::llround(packed_element(panels.w, c, k) / scale);
        ASSERT_LT(std::abs(sum), int64_t{1} << 31);
        acc = std::fma(static_cast<float>(sum) * s, scale, acc);
      }
      EXPECT_TRUE(same_bits(out.at(0, c), acc));
    }
  }
}

TEST(IntReference, IsWithinTheNoiseOfItsCodesOfF64) {
  // x's rounding error is uniform within half a step: variance scale^2 / 12 per weight. Beside
  // codes of 16 bits the f32 roundings of each block show, too.
  for (const auto& [format, most] :
       {std::pair{WeightFormat::kInt4, 127.0}, {WeightFormat::kInt8, 32639.0}}) {
    Random random(4);
    const int64_t n = 64, k = 1024;
    const RawPanels panels(format, n, k, 512, random);
    Matrix x(1, k), out(1, n);
    x.fill(random);
    ASSERT_TRUE(run(Context(Isa::kReference), panels.w, x.view(), out).ok());
    for (int64_t c = 0; c < n; ++c) {
      double sum = 0, ww = 0;
      for (int64_t i = 0; i < k; ++i) {
        const double w = packed_element(panels.w, c, i);
        sum += x.at(0, i) * w, ww += w * w;
      }
      const double step = 5.0 / most;  // |x| < 5
      EXPECT_NEAR(out.at(0, c), sum,
                  6 * step / std::sqrt(12.0) * std::sqrt(ww) + 1e-6 * std::sqrt(ww * k));
    }
  }
}

}  // namespace
}  // namespace sluice
