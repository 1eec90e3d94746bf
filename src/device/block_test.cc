// HostBlock's primitives against plain loops: what a kernel body may rely on, on the host as on a
// GPU.
#include "device/block.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "simd/scalar.h"

namespace sluice {
namespace {

float value(int i) {
  return static_cast<float>((i * 2654435761u) % 1009u) * 0.37f - 150.0f;
}

TEST(HostBlock, PhasesVisitEveryThreadOnceInBothDirections) {
  for (const int64_t index : {0, 1}) {
    HostBlock block(index, 96, 0);
    std::vector<int> order;
    block.each([&](int t) { order.push_back(t); });
    std::vector<int> want(96);
    std::iota(want.begin(), want.end(), 0);
    if (index == 1) std::reverse(want.begin(), want.end());
    EXPECT_EQ(order, want);
  }
}

TEST(HostBlock, SharedMemoryStartsAsNaN) {
  HostBlock block(0, 32, 64);
  for (int i = 0; i < 16; ++i) EXPECT_TRUE(block.shared<float>()[i] != block.shared<float>()[i]);
  block.shared<int>(32)[0] = 5;
  EXPECT_EQ(block.shared<int>()[8], 5);
}

// The order of simd/scalar.h's sum of 32 partials, in each warp on its own.
TEST(HostBlock, WarpSumIsTheFixedTree) {
  for (const int64_t index : {0, 1}) {
    HostBlock block(index, 128, 0);
    HostBlock::PerThread<float> v(block);
    block.each([&](int t) { v[t] = value(t); });
    block.warp_sum(v);
    for (int warp = 0; warp < 4; ++warp) {
      scalar::Sum32 sum;
      for (int j = 0; j < kWarp; ++j) sum.p[j] = value(warp * kWarp + j);
      for (int j = 0; j < kWarp; ++j) EXPECT_EQ(v[warp * kWarp + j], sum.total());
    }
  }
}

TEST(HostBlock, WarpFoldTakesTheLowLaneFirst) {
  HostBlock block(0, 64, 0);
  HostBlock::PerThread<int64_t> v(block);
  block.each([&](int t) { v[t] = t; });
  block.warp_fold(v, [](int64_t low, int64_t high) { return 2 * low + high; });
  for (int warp = 0; warp < 2; ++warp) {
    std::vector<int64_t> want(kWarp);
    std::iota(want.begin(), want.end(), warp * kWarp);
    for (size_t half = kWarp / 2; half >= 1; half /= 2)
      for (size_t j = 0; j < half; ++j) want[j] = 2 * want[j] + want[j + half];
    EXPECT_EQ(v[warp * kWarp], want[0]);
    EXPECT_EQ(v[warp * kWarp + 31], want[0]);
  }
}

TEST(HostBlock, ExclusiveScanAddsWhatStandsBefore) {
  for (const int threads : {32, 64, 256, 1024}) {
    HostBlock block(1, threads, kScanScratch * sizeof(uint64_t));
    HostBlock::PerThread<uint64_t> v(block);
    block.each([&](int t) { v[t] = static_cast<uint64_t>(t * t + 1) << 40; });
    const uint64_t total = block.exclusive_scan(v, block.shared<uint64_t>());
    uint64_t sum = 0;
    for (int t = 0; t < threads; ++t) {
      EXPECT_EQ(v[t], sum);
      sum += static_cast<uint64_t>(t * t + 1) << 40;
    }
    EXPECT_EQ(total, sum);
  }
}

TEST(HostBlock, AtomicsReturnWhatWasThere) {
  int32_t count = 7;
  uint64_t mass = 1;
  EXPECT_EQ(HostBlock::atomic_add(&count, -3), 7);
  EXPECT_EQ(count, 4);
  EXPECT_EQ(HostBlock::atomic_add(&mass, uint64_t{1} << 60), 1u);
  EXPECT_EQ(mass, (uint64_t{1} << 60) + 1);
  EXPECT_EQ(HostBlock::atomic_or(&count, 8), 4);
  EXPECT_EQ(count, 12);
}

struct CountBlocks {
  static constexpr int kThreads = 32;
  std::vector<int>* seen;
  void operator()(HostBlock& block) const { ++(*seen)[static_cast<size_t>(block.index())]; }
};

TEST(HostBlock, EveryBlockRunsOnce) {
  std::vector<int> seen(5);
  run_on_host(5, CountBlocks{&seen});
  EXPECT_EQ(seen, std::vector<int>(5, 1));
}

}  // namespace
}  // namespace sluice
