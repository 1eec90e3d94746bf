#include "engine/kv_blocks.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

ModelSpec two_groups() {
  ModelSpec spec;
  spec.context = 1024;
  spec.kv_groups = {{.kv_heads = 1, .head_size = 16, .window = 0, .layers = {1}},
                    {.kv_heads = 2, .head_size = 16, .window = 40, .layers = {0, 2}}};
  return spec;
}

class KvBlocksTest : public ::testing::Test {
 protected:
  void make(int64_t tokens, int64_t sequences, int64_t chunk) {
    auto made = KvBlocks::create(*device_, two_groups(), Compute::kBf16,
                                 {.tokens = tokens, .max_sequences = sequences, .chunk = chunk});
    ASSERT_TRUE(made.ok()) << made.status().message();
    kv_ = std::move(made).value();
  }
  std::unique_ptr<Device> device_ = make_cpu_device();
  std::unique_ptr<KvBlocks> kv_;
};

TEST(BlockPool, CountsUsesAndHandsEveryBlockOutOnce) {
  BlockPool pool(3);
  std::vector<bool> seen(3, false);
  for (int i = 0; i < 3; ++i) {
    const auto b = pool.take();
    ASSERT_TRUE(b.has_value());
    EXPECT_FALSE(seen[static_cast<size_t>(*b)]);
    seen[static_cast<size_t>(*b)] = true;
  }
  EXPECT_FALSE(pool.take().has_value());
  pool.share(1);
  pool.release(1);
  EXPECT_EQ(pool.free(), 0);
  pool.release(1);
  EXPECT_EQ(pool.free(), 1);
  EXPECT_EQ(*pool.take(), 1);
}

TEST_F(KvBlocksTest, ReserveIsAllOrNothing) {
  make(64, 1, 64);
  SequenceBlocks a, b;
  EXPECT_TRUE(kv_->reserve(a, 40));
  EXPECT_EQ(a.groups[0].blocks.size(), 3u);
  EXPECT_FALSE(kv_->reserve(b, 17));
  EXPECT_EQ(kv_->pool(0).free(), 1);
  EXPECT_TRUE(kv_->reserve(b, 16));
  EXPECT_EQ(kv_->pool(0).free(), 0);
  kv_->release(a);
  EXPECT_EQ(kv_->pool(0).free(), 3);
}

TEST_F(KvBlocksTest, ReserveLeavesWhatIsPromisedToOthers) {
  make(64, 1, 64);
  SequenceBlocks a;
  const std::vector<int64_t> promised = {2, 0};
  EXPECT_FALSE(kv_->reserve(a, 48, promised));
  EXPECT_TRUE(kv_->reserve(a, 32, promised));
}

TEST_F(KvBlocksTest, SlidingGroupsGiveBackBlocksBehindTheWindow) {
  make(1024, 1, 16);
  SequenceBlocks s;
  int64_t most = 0;
  for (int64_t next = 16; next <= 1024; next += 16) {
    ASSERT_TRUE(kv_->reserve(s, next)) << next;
    most = std::max(most, s.groups[1].held());
    kv_->trim(s, next);
    // The query at `next` sees keys from next - 39 on: their blocks are there.
    const int64_t oldest = std::max<int64_t>(0, next - 39);
    EXPECT_LE(s.groups[1].first * kKvBlock, oldest);
    for (int64_t p = oldest; p < next; ++p)
      EXPECT_GE(s.groups[1].blocks[static_cast<size_t>(p / kKvBlock)], 0);
  }
  EXPECT_EQ(s.groups[0].held(), 64);
  EXPECT_LE(most, kv_blocks_needed(two_groups().kv_groups[1], 1024, 16));
  EXPECT_LT(most, 8);
  kv_->release(s);
  EXPECT_EQ(kv_->pool(0).free(), kv_->pool(0).size());
  EXPECT_EQ(kv_->pool(1).free(), kv_->pool(1).size());
}

TEST_F(KvBlocksTest, TheBoundOfASlidingGroupIsReachedForOddChunks) {
  for (const int64_t chunk : {1, 7, 16, 33, 100}) {
    make(1024, 1, chunk);
    SequenceBlocks s;
    int64_t most = 0;
    for (int64_t done = 0; done < 1024;) {
      const int64_t next = std::min<int64_t>(1024, done + chunk);
      ASSERT_TRUE(kv_->reserve(s, next)) << "chunk " << chunk << " at " << done;
      most = std::max(most, s.groups[1].held());
      kv_->trim(s, next);
      done = next;
    }
    EXPECT_LE(most, kv_->needed(1, 1024));
    EXPECT_GE(most + 1, kv_->needed(1, 1024)) << "the bound wastes blocks, chunk " << chunk;
  }
}

TEST_F(KvBlocksTest, TruncateKeepsWhatAWindowStillHas) {
  make(1024, 1, 256);
  SequenceBlocks s;
  ASSERT_TRUE(kv_->reserve(s, 200));
  kv_->trim(s, 200);
  EXPECT_EQ(kv_->truncate(s, 196), 196);
  EXPECT_EQ(s.groups[0].blocks.size(), 13u);
  // Further back than the slack: the window's blocks are gone, so nothing is left.
  EXPECT_EQ(kv_->truncate(s, 100), 0);
  EXPECT_EQ(kv_->pool(0).free(), kv_->pool(0).size());
  EXPECT_EQ(kv_->pool(1).free(), kv_->pool(1).size());
}

TEST_F(KvBlocksTest, BytesAreWhatThePlanSaid) {
  make(1000, 2, 32);
  EXPECT_EQ(kv_->bytes(), kv_pool_bytes(two_groups(), Compute::kBf16,
                                        {.tokens = 1000, .max_sequences = 2, .chunk = 32}));
  EXPECT_EQ(kv_->max_tokens(), 1008);
}

TEST_F(KvBlocksTest, RefusesSizesThatMakeNoSense) {
  auto made = KvBlocks::create(*device_, two_groups(), Compute::kF32, {.tokens = 0});
  EXPECT_EQ(made.status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice
