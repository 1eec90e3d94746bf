// The pool: every index once, workers in range, the kernels' environment inside and only there.
#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

namespace sluice {
namespace {

TEST(ThreadPool, CallsEveryIndexOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (const int64_t n : {0, 1, 2, 7, 64, 1000}) {
      for (const int64_t grain : {-1, 0, 1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> calls(static_cast<size_t>(n));
        pool.parallel_for(n, grain, [&](int64_t i, int worker) {
          EXPECT_TRUE(worker >= 0 && worker < threads);
          calls[static_cast<size_t>(i)].fetch_add(1);
        });
        for (const std::atomic<int>& c : calls) EXPECT_EQ(c.load(), 1);
      }
    }
  }
}

TEST(ThreadPool, AtLeastOneWorker) {
  EXPECT_EQ(ThreadPool(0).size(), 1);
  EXPECT_EQ(ThreadPool(-3).size(), 1);
}

// A worker takes consecutive indices in order, and no worker runs two bodies at a time: scratch by
// worker is safe.
TEST(ThreadPool, WorkersKeepOrderAndDoNotOverlap) {
  ThreadPool pool(4);
  std::vector<int64_t> last(4, -1);
  std::vector<std::atomic<bool>> busy(4);
  pool.parallel_for(5000, 3, [&](int64_t i, int worker) {
    const size_t w = static_cast<size_t>(worker);
    EXPECT_FALSE(busy[w].exchange(true));
    EXPECT_LT(last[w], i);
    last[w] = i;
    busy[w].store(false);
  });
}

TEST(ThreadPool, ManyLoopsSeeEachOthersWrites) {
  ThreadPool pool(3);
  std::vector<int64_t> sums(97);
  for (int round = 1; round <= 1000; ++round)
    pool.parallel_for(std::ssize(sums), 1,
                      [&](int64_t i, int) { sums[static_cast<size_t>(i)] += round; });
  for (const int64_t s : sums) EXPECT_EQ(s, 1000 * 1001 / 2);
  EXPECT_EQ(pool.parallel_loops(), 1000);
}

TEST(ThreadPool, SleepingWorkersWakeUp) {
  ThreadPool pool(2);
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::atomic<int> both{0};
    // Neither body ends before the other has begun: both workers must take part.
    pool.parallel_for(2, 1, [&](int64_t, int) {
      both.fetch_add(1);
      while (both.load() < 2) std::this_thread::yield();
    });
    EXPECT_EQ(both.load(), 2);
  }
}

TEST(ThreadPool, CountsOnlyLoopsThatWereShared) {
  ThreadPool pool(2), alone(1);
  const auto nothing = [](int64_t, int) {};
  pool.parallel_for(10, 10, nothing);
  EXPECT_EQ(pool.parallel_loops(), 0);
  pool.parallel_for(11, 10, nothing);
  EXPECT_EQ(pool.parallel_loops(), 1);
  alone.parallel_for(100, 1, nothing);
  EXPECT_EQ(alone.parallel_loops(), 0);
}

#if defined(__SSE2__)
TEST(ThreadPool, BodiesFlushSubnormalsAndCallersDoNot) {
  for (const int threads : {1, 2}) {
    ThreadPool pool(threads);
    std::vector<float> product(64, -1.0f);
    const volatile float tiny = 1e-30f;
    pool.parallel_for(64, 1, [&](int64_t i, int) {
      const volatile float p = tiny * 1e-10f;
      product[static_cast<size_t>(i)] = p;
    });
    for (const float p : product) EXPECT_EQ(p, 0.0f);
    const volatile float outside = tiny * 1e-10f;
    EXPECT_GT(outside, 0.0f);
  }
}
#endif

TEST(ThreadPool, DestructionDoesNotWaitForWork) {
  for (int i = 0; i < 200; ++i) {
    ThreadPool pool(3);
    if (i % 2 == 0) pool.parallel_for(3, 1, [](int64_t, int) {});
  }
}

}  // namespace
}  // namespace sluice
