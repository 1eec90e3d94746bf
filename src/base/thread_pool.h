// A pool of workers for data-parallel loops; the calling thread is worker 0.
//
// Workers spin briefly between loops (about 50 us), then sleep, so that an I/O thread lives on a
// two-core machine. Loops never nest. Which worker runs which index is unspecified: bodies must
// not let results depend on it. Inside a loop body, and only there, the floating-point environment
// is flush-to-zero and denormals-are-zero (see base/float_env.h), the same in every worker.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace sluice {

class ThreadPool {
 public:
  // threads: workers including the caller, >= 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const;

  // Calls body(i, worker) for every i in [0, n), worker in [0, size()), and returns when all are
  // done. Indices are handed out in ascending order, `grain` at a time.
  void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int)>& body);

  // Loops since construction that were shared out to more than one worker (one that wakes too late
  // finds nothing left to do): what `score --json` looks at to tell how many workers ran.
  int64_t parallel_loops() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice
