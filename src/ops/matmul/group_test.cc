// Arith a8g32: every row against the reference over panels of any legal bits and row counts, the
// order that tensor/arith.h writes down, what spoils a row, what packing refuses.
#include <gtest/gtest.h>

#include <algorithm>

#include "ops/matmul/block_values.h"
#include "ops/matmul/matmul.h"
#include "ops/matmul/panels.h"
#include "ops/matmul/weights_data.h"

namespace sluice {
namespace {

using test::Context;
using test::Matrix;
using test::Random;
using test::same_bits;
using test::Scratch;

using Row = Kernel<const PanelKernel>;

Status run(const ExecContext& context, const PackedMatrix& w, ConstMatrixF32 x, Matrix& out) {
  MatmulArgs args;
  args.arith = Arith::kA8G32;
  args.x = x;
  args.w = &w;
  args.out = out.view();
  Scratch scratch(matmul_workspace_bytes(out.rows(), w.k));
  return matmul(context, args, scratch.workspace());
}

// Groups of every kind: normal, all at one extreme, tiny (scale 1), zero, one large outlier.
void fill_groups(Matrix& x, Random& random) {
  for (int64_t r = 0; r < x.rows(); ++r)
    for (int64_t k0 = 0; k0 < x.cols(); k0 += 32) {
      const int64_t kind = random.below(8);
      const float flat = random.chance(0.5) ? 1.0f : -1.0f;
      for (int64_t k = k0; k < std::min(k0 + 32, x.cols()); ++k)
        x.at(r, k) = kind == 0   ? flat
                     : kind == 1 ? 1e-5f * random.normal()
                     : kind == 2 ? 0.0f
                     : kind == 3 ? random.rough()
                                 : random.normal();
    }
}

int64_t legal_k(WeightFormat format, int64_t k) {
  return format == WeightFormat::kMXFP4 ? round_up(k, 32) : k;
}

class GroupRow : public test::PanelRow {
 protected:
  void compare(int64_t t, int64_t n, int64_t any_k, uint64_t seed) {
    Random random(seed);
    const int64_t k = legal_k(format(), any_k);
    Context got_context(GetParam().isa, static_cast<int>(random.below(3)));
    const Context want_context(Isa::kReference);
    const PackedMatrix w =
        test::random_panels(*got_context.device, format(), n, k, random, random.chance(0.5));
    Matrix x(t, k, random.below(5), random.below(7)), got(t, n, random.below(5), random.below(7));
    Matrix want(t, n);
    fill_groups(x, random);
    const Status status = run(got_context.exec, w, x.view(), got);
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_TRUE(run(want_context.exec, w, x.view(), want).ok());
    EXPECT_TRUE(same_bits(got.view(), want.view()))
        << "T = " << t << ", N = " << n << ", K = " << k;
    EXPECT_TRUE(got.guards_hold() && x.guards_hold());
  }
};

TEST_P(GroupRow, IsTheOneThatRuns) {
  EXPECT_EQ(select_panel_kernel(GetParam().isa, format(), Arith::kA8G32)->name, GetParam().name);
}

TEST_P(GroupRow, EqualsTheReferenceForEveryRowCount) {
  for (int64_t t = 1; t <= 50 && !HasFailure(); ++t)
    compare(t, 16 * (t % 3) + 17, t % 2 == 0 ? 160 : 300, static_cast<uint64_t>(t));
}

TEST_P(GroupRow, EqualsTheReferenceForEveryDepth) {
  uint64_t seed = 100;
  for (const int64_t k :
       {1,   2,   15,  16,  17,  31,  32,  33,  63,  64,  65,  96,  127,  128, 224,
        255, 256, 257, 288, 320, 511, 512, 513, 545, 704, 768, 800, 1024, 1056})
    for (const int64_t t : {1, 3, 19})
      if (!HasFailure()) compare(t, 15 + k % 3, k, ++seed);
}

TEST_P(GroupRow, RandomShapesEqualTheReference) {
  Random random(78);
  for (int64_t i = 0; i < test::property_runs(30) && !HasFailure(); ++i)
    compare(random.between(1, random.chance(0.1) ? 140 : 40), random.between(1, 120),
            random.between(1, 900), random.next());
}

TEST_P(GroupRow, WhatIsNotFiniteSpoilsItsRowOnly) {
  Random random(5);
  Context context(GetParam().isa);
  const PackedMatrix w = test::random_panels(*context.device, format(), 20, 608, random);
  Matrix x(4, 608), out(4, 20), clean(4, 20);
  x.fill(random);
  ASSERT_TRUE(run(context.exec, w, x.view(), clean).ok());
  x.at(1, 607) = INFINITY, x.at(2, 3) = NAN;
  ASSERT_TRUE(run(context.exec, w, x.view(), out).ok());
  for (int64_t n = 0; n < 20; ++n) {
    EXPECT_TRUE(same_bits(out.at(0, n), clean.at(0, n)));
    EXPECT_TRUE(std::isnan(out.at(1, n)));
    EXPECT_TRUE(std::isnan(out.at(2, n)));
    EXPECT_TRUE(same_bits(out.at(3, n), clean.at(3, n)));
  }
}

// The largest sums that there are: below 2^24, so that f32 holds them, in every order.
class BlockRow : public GroupRow {};
TEST_P(BlockRow, ExtremesAreExact) {
  Context context(GetParam().isa);
  const Context truth(Isa::kReference);
  Random random(6);
  PackedMatrix w = test::random_panels(*context.device, format(), 32, 256, random);
  std::vector<std::byte> bytes(w.bytes + 64, std::byte{0});
  std::byte* at = bytes.data() + (64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64) % 64;
  const BlockTraits traits = block_traits(format());
  w.data = at;
  for (int64_t p = 0; p < 2; ++p, at += block_bytes(traits, 8))
    for (int64_t c = 0; c < 16; ++c) {
      BlockColumn column;
      for (uint8_t& code : column.code)
        code = static_cast<uint8_t>(p == 0 ? 0 : (1 << traits.bits) - 1);
      for (int64_t g = 0; g < 8; ++g) {
        column.scale[g] = column.min[g] = 0x3c00;  // 1
        column.multiplier[g] = column.min_multiplier[g] = 63;
      }
      for (int8_t& m : column.half_multiplier) m = c % 2 == 0 ? -128 : 127;
      write_block_column(format(), column, c, 8, at);
    }
  Matrix x(2, 256), got(2, 32), want(2, 32);
  for (int64_t k = 0; k < 256; ++k) x.at(0, k) = 127, x.at(1, k) = -127;
  ASSERT_TRUE(run(context.exec, w, x.view(), got).ok());
  ASSERT_TRUE(run(truth.exec, w, x.view(), want).ok());
  EXPECT_TRUE(same_bits(got.view(), want.view()));
  // scale = 1, codes +-127: every group adds the same integer, and eight of them are exact.
  for (int64_t n = 0; n < 32; ++n) {
    const GroupColumn group =
        read_group(format(), w.data + n / 16 * block_bytes(traits, 8), 256, w.block, n % 16, 0);
    int64_t sum = 0;
    for (int64_t i = 0; i < 32; ++i) sum += 127 * group.value[i] * group.multiplier[i / 16];
    ASSERT_LT(std::abs(sum), int64_t{1} << 24);
    const int64_t least = group.has_min ? 127 * 32 * group.min_multiplier : 0;
    const double all =
        8 * (static_cast<double>(sum) * group.scale - static_cast<double>(least) * group.min);
    if (std::abs(all) < 0x1p24) {
      EXPECT_EQ(got.at(0, n), all) << n;
    }
    EXPECT_EQ(got.at(1, n), -got.at(0, n));
  }
}

std::vector<Row> group_rows_of_the_table(bool given_only = false) {
  std::vector<Row> rows;
  for (const Row& row : panel_kernels())
    if (row.arith == "a8g32" && (!given_only || is_block_format(test::format_named(row.weight))))
      rows.push_back(row);
  return rows;
}
INSTANTIATE_TEST_SUITE_P(Rows, BlockRow, ::testing::ValuesIn(group_rows_of_the_table(true)),
                         test::RowName());
INSTANTIATE_TEST_SUITE_P(Rows, GroupRow, ::testing::ValuesIn(group_rows_of_the_table()),
                         test::RowName());

// tensor/arith.h again, from packed_element's scale and code, not from the reference's reader.
TEST(GroupReference, FollowsTheWrittenOrder) {
  Random random(3);
  Context context(Isa::kReference);
  std::vector<std::byte> stored(18 * 2);
  for (std::byte& b : stored) b = static_cast<std::byte>(random.below(256));
  const uint16_t scales[2] = {0x2e66, 0xb155};  // 0.1, -0.167 about
  std::memcpy(stored.data(), &scales[0], 2);
  std::memcpy(stored.data() + 18, &scales[1], 2);
  const PackedMatrix w =
      pack_stored_blocks(*context.device, {WeightFormat::kQ4_0, stored.data(), 1, 64}).value();
  Matrix x(1, 64), out(1, 1);
  x.fill(random);
  ASSERT_TRUE(run(context.exec, w, x.view(), out).ok());
  float acc = 0;
  for (int64_t g = 0; g < 2; ++g) {
    float amax = 0;
    for (int64_t i = 0; i < 32; ++i) amax = std::max(amax, std::fabs(x.at(0, 32 * g + i)));
    const float s = amax / 127.0f;
    int64_t sum = 0;
    for (int64_t i = 0; i < 32; ++i) {
      const auto byte = static_cast<int>(stored[static_cast<size_t>(18 * g + 2 + i % 16)]);
      const int code = i < 16 ? byte & 15 : byte >> 4;
      sum += static_cast<int64_t>(std::nearbyint(x.at(0, 32 * g + i) / s)) * (code - 8);
    }
    acc = std::fma(static_cast<float>(sum) * s, f16_to_f32(scales[g]), acc);
  }
  EXPECT_TRUE(same_bits(out.at(0, 0), acc));
}

TEST(GroupReference, IsWithinTheNoiseOfItsCodesOfF64) {
  // x's rounding error is uniform within half a step: variance step^2 / 12 per weight.
  for (const Row& row : group_rows_of_the_table()) {
    if (row.isa != Isa::kReference) continue;
    Random random(4);
    Context context(Isa::kReference);
    const int64_t n = 40, k = 1024;
    const PackedMatrix w =
        test::random_panels(*context.device, test::format_named(row.weight), n, k, random);
    Matrix x(1, k), out(1, n);
    x.fill(random);
    ASSERT_TRUE(run(context.exec, w, x.view(), out).ok());
    for (int64_t c = 0; c < n; ++c) {
      double sum = 0, ww = 0;
      for (int64_t i = 0; i < k; ++i) {
        const double v = packed_element(w, c, i);
        sum += x.at(0, i) * v, ww += v * v;
      }
      const double step = 5.0 / 127;  // |x| < 5
      EXPECT_NEAR(out.at(0, c), sum, 6 * step / std::sqrt(12.0) * std::sqrt(ww)) << row.weight;
    }
  }
}

TEST(Blocks, RefuseWhatTheyCannotPack) {
  const auto device = make_cpu_device();
  const auto refused = [](const Status& s, std::string_view word) {
    return !s.ok() && s.message().find(word) != std::string::npos;
  };
  std::vector<std::byte> bytes(4 * 2 * 34, std::byte{0});
  StoredBlocks w{WeightFormat::kQ8_0, bytes.data(), 4, 64};
  ASSERT_TRUE(pack_stored_blocks(*device, w).ok());
  StoredBlocks bad = w;
  bad.format = WeightFormat::kInt8;
  EXPECT_TRUE(refused(pack_stored_blocks(*device, bad).status(), "got int8"));
  bad = w, bad.k = 48;
  EXPECT_TRUE(refused(pack_stored_blocks(*device, bad).status(), "multiple of 32, got 48"));
  bad = w, bad.n = 0;
  EXPECT_TRUE(refused(pack_stored_blocks(*device, bad).status(), "got [0, 64]"));
  bad = w, bad.k = 32;
  EXPECT_TRUE(refused(pack_stored_blocks_glu(*device, w, bad).status(), "up: expected [I, D]"));
  bytes[2 * 34 + 1] = std::byte{0x7c};  // row 1, block 0: infinity
  const Status infinite = pack_stored_blocks(*device, w).status();
  EXPECT_EQ(infinite.code(), StatusCode::kDataLoss);
  EXPECT_TRUE(refused(infinite, "row N = 1"));
  std::vector<float> huge(32, 1e9f);
  const StoredMatrix m = stored_rows(huge.data(), 1, 32);
  EXPECT_TRUE(refused(pack_matrix(*device, m, WeightFormat::kQ4_0).status(), "overflows f16"));
  huge[3] = NAN;
  EXPECT_TRUE(refused(pack_matrix(*device, m, WeightFormat::kQ8_0).status(), "(0, 3) is nan"));
}

}  // namespace
}  // namespace sluice
