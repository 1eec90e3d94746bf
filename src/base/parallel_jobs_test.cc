#include "base/parallel_jobs.h"

#include <gtest/gtest.h>

#include <atomic>

namespace sluice {
namespace {

TEST(ParallelJobs, RunEveryJobOnceAndAskBeforeAndAfter) {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  int asked = 0;
  const auto job = [&](int64_t i) {
    sum += i;
    return ok_status();
  };
  const auto go_on = [&] { return ++asked > 0; };
  EXPECT_TRUE(run_jobs(pool, 100, job, go_on, "").ok());
  EXPECT_EQ(sum.load(), 4950);
  EXPECT_GE(asked, 2);
  EXPECT_TRUE(run_jobs(pool, 0, job, go_on, "").ok());
}

TEST(ParallelJobs, TheLowestFailureSpeaksAndTheRestIsLeftOut) {
  for (const int threads : {1, 4}) {
    ThreadPool pool(threads);
    std::atomic<int64_t> ran{0};
    const Status status = run_jobs(
        pool, 10000,
        [&](int64_t i) {
          ++ran;
          return i >= 7 ? invalid_argument("job {}", i) : ok_status();
        },
        [] { return true; }, "");
    EXPECT_EQ(status.message(), "job 7");
    EXPECT_LT(ran.load(), 10000);
  }
}

TEST(ParallelJobs, GoOnCancels) {
  ThreadPool pool(1);
  int64_t ran = 0, asked = 0;
  const auto job = [&](int64_t) {
    ++ran;
    return ok_status();
  };
  const Status before = run_jobs(
      pool, 5, job, [] { return false; }, "stopped");
  EXPECT_EQ(before.code(), StatusCode::kCancelled);
  EXPECT_EQ(before.message(), "stopped");
  EXPECT_EQ(ran, 0);
  const Status within = run_jobs(
      pool, 5, job, [&] { return ++asked < 3; }, "stopped");
  EXPECT_EQ(within.code(), StatusCode::kCancelled);
  EXPECT_EQ(ran, 2);
}

}  // namespace
}  // namespace sluice
