#include "bench/gpu/tile_maps.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

namespace sluice::probe {
namespace {

// Every place of a rows x columns tile is held exactly once, `width` columns a register.
template <class Map>
void expect_covers(int threads, int registers, int rows, int columns, int width, Map map) {
  std::set<std::pair<int, int>> seen;
  for (int t = 0; t < threads; ++t)
    for (int i = 0; i < registers; ++i) {
      const Place p = map(t, i);
      for (int c = 0; c < width; ++c) {
        ASSERT_TRUE(p.row >= 0 && p.row < rows && p.column + c < columns) << t << " " << i;
        EXPECT_TRUE(seen.insert({p.row, p.column + c}).second) << t << " " << i;
      }
    }
  EXPECT_EQ(seen.size(), static_cast<size_t>(rows * columns));
}

TEST(TileMaps, FragmentsCoverTheirTilesOnce) {
  expect_covers(32, 4, 16, 8, 1, mma_accumulator);
  expect_covers(32, 4, 16, kStepBytes, 4, mma_a);
  expect_covers(32, 2, 8, kStepBytes, 4, mma_b);
  expect_covers(128, 4, 64, kStepBytes, 4, wgmma_a);
  for (const int n : {8, 16, 32, 64, 128, 256})
    expect_covers(128, n / 2, 64, n, 1, wgmma_accumulator);
}

// The corners that the PTX ISA's figures show.
TEST(TileMaps, FragmentsMatchThePublishedFigures) {
  const auto is = [](Place p, int row, int column) { return p.row == row && p.column == column; };
  EXPECT_TRUE(is(mma_accumulator(5, 3), 9, 3));
  EXPECT_TRUE(is(mma_a(31, 3), 15, 28));
  EXPECT_TRUE(is(mma_a(4, 1), 9, 0));
  EXPECT_TRUE(is(mma_a(4, 2), 1, 16));
  EXPECT_TRUE(is(mma_b(31, 1), 7, 28));
  EXPECT_TRUE(is(wgmma_accumulator(0, 4), 0, 8));
  EXPECT_TRUE(is(wgmma_accumulator(127, 2), 63, 6));
  EXPECT_TRUE(is(wgmma_accumulator(33, 127), 24, 251));
}

template <class Offset>
void expect_bijection(int rows, int row_bytes, Offset offset) {
  std::vector<bool> taken(static_cast<size_t>(rows * row_bytes));
  for (int r = 0; r < rows; ++r)
    for (int b = 0; b < row_bytes; ++b) {
      const int at = offset(r, b);
      ASSERT_TRUE(at >= 0 && at < rows * row_bytes);
      EXPECT_FALSE(taken[static_cast<size_t>(at)]);
      taken[static_cast<size_t>(at)] = true;
      EXPECT_EQ(at % 16, b % 16) << "a 16-byte piece stays together";
    }
}

TEST(TileMaps, SharedTilesAreBijections) {
  for (const int rows : {8, 64, 256}) {
    expect_bijection(rows, kStepBytes, plain_offset);
    expect_bijection(rows, kSwizzleRow, swizzled_offset);
  }
}

// Eight rows of one 16-byte column, the access of a matrix unit, touch each bank group once.
TEST(TileMaps, TheSwizzleSpreadsAColumnOverAllBanks) {
  for (int byte = 0; byte < kSwizzleRow; byte += 16) {
    std::set<int> groups;
    for (int r = 0; r < 8; ++r) groups.insert(swizzled_offset(r, byte) / 16 % 8);
    EXPECT_EQ(groups.size(), 8u);
  }
}

// How the ISA says that the unit reads byte `byte` of row `row` through a descriptor, k-major.
int address_through(uint64_t d, int row, int byte) {
  const auto field = [d](int at) { return static_cast<int>((d >> at) & 0x3fff) << 4; };
  const int start = field(0), leading = field(16), stride = field(32);
  if ((d >> 62) == 0)
    return start + (row / 8) * stride + (byte / 16) * leading + (row % 8) * 16 + byte % 16;
  EXPECT_EQ(d >> 62, 1u);
  return swizzle128(start + (row / 8) * stride + (row % 8) * kSwizzleRow + byte);
}

TEST(TileMaps, DescriptorsLeadToTheBytesThatWereStored) {
  for (const int base : {0, 1024, 0x10000, 0x38000}) {
    const uint64_t plain =
        wgmma_descriptor(static_cast<uint32_t>(base), kPlainLeading, kPlainStride, Swizzle::kNone);
    for (int row = 0; row < 256; ++row)
      for (int byte = 0; byte < kStepBytes; ++byte)
        ASSERT_EQ(address_through(plain, row, byte), base + plain_offset(row, byte));
    for (int step = 0; step < kSwizzleRow / kStepBytes; ++step) {
      const uint64_t d = wgmma_descriptor(static_cast<uint32_t>(base + step * kStepBytes), 16,
                                          kSwizzleStride, Swizzle::k128);
      for (int row = 0; row < 256; ++row)
        for (int byte = 0; byte < kStepBytes; ++byte)
          ASSERT_EQ(address_through(d, row, byte),
                    base + swizzled_offset(row, step * kStepBytes + byte));
    }
  }
}

// A whole product by mma.sync's maps on the host: what the lanes hold, multiplied as the
// instruction is documented, against the plain triple loop.
TEST(TileMaps, MmaFragmentsMultiplyLikeMatrices) {
  std::mt19937 random(7);
  std::vector<int> a(16 * kStepBytes), b(8 * kStepBytes);
  for (int& v : a) v = static_cast<int>(random() % 201) - 100;
  for (int& v : b) v = static_cast<int>(random() % 201) - 100;
  std::vector<int> at(a.size(), 0), bt(b.size(), 0);
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i)
      for (int c = 0; c < 4; ++c) {
        const Place p = mma_a(lane, i);
        // Row group + 8 in the odd registers, second half of k in the upper two.
        at[static_cast<size_t>((lane / 4 + 8 * (i & 1)) * kStepBytes + (lane % 4) * 4 + c +
                               16 * (i >> 1))] +=
            a[static_cast<size_t>(p.row * kStepBytes + p.column + c)];
      }
    for (int i = 0; i < 2; ++i)
      for (int c = 0; c < 4; ++c) {
        const Place p = mma_b(lane, i);
        bt[static_cast<size_t>((lane / 4) * kStepBytes + (lane % 4) * 4 + c + 16 * i)] +=
            b[static_cast<size_t>(p.row * kStepBytes + p.column + c)];
      }
  }
  EXPECT_EQ(at, a);
  EXPECT_EQ(bt, b);
}

}  // namespace
}  // namespace sluice::probe
