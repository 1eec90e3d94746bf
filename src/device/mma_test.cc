// The maps of mma.sync.m16n8k32 against the PTX ISA's own text, every lane and byte, and the
// emulated instruction against a plain product.
#include "device/mma.h"

#include <gtest/gtest.h>

#include <set>
#include <utility>

#include "device/block.h"

namespace sluice {
namespace {

// "Matrix fragments for mma.m16n8k32", word by word: groupID = %laneid >> 2, threadID_in_group =
// %laneid % 4.
TEST(MmaMaps, AreTheIsasText) {
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane >> 2, thread = lane % 4;
    for (int i = 0; i < 16; ++i) {
      const bool upper = (0 <= i && i < 4) || (8 <= i && i < 12);
      const int row = upper ? group : group + 8;
      const int col = i < 8 ? thread * 4 + (i & 0x3) : thread * 4 + (i & 0x3) + 16;
      EXPECT_EQ(mma_a_place(lane, i).row, row);
      EXPECT_EQ(mma_a_place(lane, i).column, col);
    }
    for (int i = 0; i < 8; ++i) {
      const int row = i < 4 ? thread * 4 + (i & 0x3) : thread * 4 + (i & 0x3) + 16;
      EXPECT_EQ(mma_b_place(lane, i).row, row);
      EXPECT_EQ(mma_b_place(lane, i).column, group);
    }
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(mma_d_place(lane, i).row, i < 2 ? group : group + 8);
      EXPECT_EQ(mma_d_place(lane, i).column, thread * 2 + (i & 0x1));
    }
  }
}

TEST(MmaMaps, HoldEveryElementOnce) {
  std::set<std::pair<int, int>> a, b, d;
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 16; ++i)
      EXPECT_TRUE(a.emplace(mma_a_place(lane, i).row, mma_a_place(lane, i).column).second);
    for (int i = 0; i < 8; ++i)
      EXPECT_TRUE(b.emplace(mma_b_place(lane, i).row, mma_b_place(lane, i).column).second);
    for (int i = 0; i < 4; ++i)
      EXPECT_TRUE(d.emplace(mma_d_place(lane, i).row, mma_d_place(lane, i).column).second);
  }
  EXPECT_EQ(a.size(), 16u * 32);
  EXPECT_EQ(b.size(), 32u * 8);
  EXPECT_EQ(d.size(), 16u * 8);
  EXPECT_EQ(a.rbegin()->first, 15);
  EXPECT_EQ(b.rbegin()->first, 31);
}

int byte_of(const uint32_t* words, int i) {
  return static_cast<int>(words[i / 4] >> (8 * (i % 4)) & 255u);
}

// One element of A times one of B, for every pair that meets: nothing else may be in D.
TEST(HostBlock, WarpMmaMultipliesElementByElement) {
  HostBlock block(0, 32, 0);
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < 32; ++k) {
      const int column = (row + 3 * k) % 8;
      block.warp_mma(
          [&](int lane) {
            MmaOperands o;
            for (int i = 0; i < 16; ++i)
              if (mma_a_place(lane, i).row == row && mma_a_place(lane, i).column == k)
                o.a[i / 4] |= 0xfdu << (8 * (i % 4));  // -3
            for (int i = 0; i < 8; ++i)
              if (mma_b_place(lane, i).row == k && mma_b_place(lane, i).column == column)
                o.b[i / 4] |= 0x85u << (8 * (i % 4));  // -123
            return o;
          },
          [&](int lane, const MmaSums& sums) {
            for (int i = 0; i < 4; ++i) {
              const MmaPlace at = mma_d_place(lane, i);
              EXPECT_EQ(sums.d[i], at.row == row && at.column == column ? 369 : 0);
            }
          });
    }
}

template <MmaB kind>
void compare_random_bytes() {
  HostBlock block(1, 96, 0);
  uint32_t state = 12345;
  const auto word = [&] {
    uint32_t w = 0;
    for (int i = 0; i < 4; ++i) w = w << 8 | (state = state * 1664525u + 1013904223u) >> 24;
    return w;
  };
  MmaOperands given[96];
  MmaSums got[96];
  for (MmaOperands& o : given) {
    for (uint32_t& w : o.a) w = word();
    for (uint32_t& w : o.b) w = word();
  }
  block.warp_mma<kind>([&](int t) { return given[t]; },
                       [&](int t, const MmaSums& sums) { got[t] = sums; });
  // By the lanes that hold row and column, not by the maps' places.
  for (int t = 0; t < 96; ++t)
    for (int i = 0; i < 4; ++i) {
      const int base = t / 32 * 32, group = t % 32 / 4, column = t % 4 * 2 + i % 2;
      int64_t want = 0;
      for (int part = 0; part < 4; ++part)
        for (int byte = 0; byte < 8; ++byte) {
          const int a =
              byte_of(given[base + group * 4 + part].a, byte % 4 + (byte / 4) * 8 + (i / 2) * 4);
          const int b = byte_of(given[base + column * 4 + part].b, byte);
          want += static_cast<int8_t>(a) * (kind == MmaB::kSigned ? static_cast<int8_t>(b) : b);
        }
      EXPECT_EQ(got[t].d[i], want);
    }
}
TEST(HostBlock, WarpMmaOfSignedBytes) {
  compare_random_bytes<MmaB::kSigned>();
}
TEST(HostBlock, WarpMmaOfUnsignedBytes) {
  compare_random_bytes<MmaB::kUnsigned>();
}

}  // namespace
}  // namespace sluice
