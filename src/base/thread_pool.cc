#include "base/thread_pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "base/float_env.h"

namespace sluice {
namespace {
constexpr auto kSpin = std::chrono::microseconds(50);

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}
}  // namespace

// One loop at a time, behind a gate: a word that holds the loop's number, whether it is closed, and
// how many workers are inside. The caller opens the gate, works like everybody else until no index
// is left, closes the gate and waits for those inside. A worker enters by counting itself in while
// the gate is open, so one that wakes late never touches a finished loop, and the caller never
// waits for one that has not even begun: on a busy machine it would cost a time slice per loop.
struct ThreadPool::Impl {
  static constexpr uint64_t kInside = 0xffff, kClosed = 0x10000, kLoop = 0x20000;

  explicit Impl(int threads) {
    workers.reserve(static_cast<size_t>(threads) - 1);
    for (int w = 1; w < threads; ++w) workers.emplace_back([this, w] { worker_main(w); });
  }
  ~Impl() {
    stop.store(true);
    wake_sleepers();
    for (std::thread& t : workers) t.join();
  }

  void run_share(int worker) {
    const ScopedFloatEnv env;
    for (;;) {
      const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= n) return;
      const int64_t end = begin + grain < n ? begin + grain : n;
      for (int64_t i = begin; i < end; ++i) (*body)(i, worker);
    }
  }

  void worker_main(int worker) {
    uint64_t done = 0;  // the number of the last loop that this worker was in
    while (wait_for_loop(done)) {
      uint64_t seen = gate.load();
      if (!is_open(seen, done)) continue;
      if (!gate.compare_exchange_weak(seen, seen + 1)) continue;
      done = seen / kLoop;
      run_share(worker);
      gate.fetch_sub(1);
    }
  }

  static bool is_open(uint64_t word, uint64_t done) {
    return (word & kClosed) == 0 && word / kLoop != done;
  }

  // False when the pool ends.
  bool wait_for_loop(uint64_t done) {
    const auto ready = [&] { return stop.load() || is_open(gate.load(), done); };
    const auto until = std::chrono::steady_clock::now() + kSpin;
    while (!ready()) {
      relax();
      if (std::chrono::steady_clock::now() < until) continue;
      // The caller opens the gate before it looks at `sleepers`; here it is the other way round, so
      // that one of the two always sees the other.
      std::unique_lock lock(mutex);
      sleepers.fetch_add(1);
      wake.wait(lock, ready);
      sleepers.fetch_sub(1);
    }
    return !stop.load();
  }

  void wake_sleepers() {
    if (sleepers.load() == 0) return;
    // Under the lock, so that a worker between its last check and its sleep cannot miss it.
    { const std::lock_guard lock(mutex); }
    wake.notify_all();
  }

  std::vector<std::thread> workers;
  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<uint64_t> gate{kClosed};
  std::atomic<int> sleepers{0};
  std::atomic<bool> stop{false};
  std::atomic<int64_t> next{0};
  int64_t n = 0;
  int64_t grain = 1;
  const std::function<void(int64_t, int)>* body = nullptr;
  int64_t loops = 0;
};

ThreadPool::ThreadPool(int threads) : impl_(new Impl(threads < 1 ? 1 : threads)) {}
ThreadPool::~ThreadPool() = default;
int ThreadPool::size() const {
  return static_cast<int>(impl_->workers.size()) + 1;
}
int64_t ThreadPool::parallel_loops() const {
  return impl_->loops;
}

void ThreadPool::parallel_for(int64_t n, int64_t grain,
                              const std::function<void(int64_t, int)>& body) {
  if (n <= 0) return;
  Impl& p = *impl_;
  p.n = n;
  p.grain = grain < 1 ? 1 : grain;
  p.body = &body;
  p.next.store(0, std::memory_order_relaxed);
  if (p.workers.empty() || n <= p.grain) {
    p.run_share(0);
    return;
  }
  ++p.loops;
  const uint64_t loop = p.gate.load() / Impl::kLoop + 1;
  p.gate.store(loop * Impl::kLoop);
  p.wake_sleepers();
  p.run_share(0);
  p.gate.fetch_or(Impl::kClosed);
  // Those inside are at their last indices.
  while ((p.gate.load() & Impl::kInside) != 0) relax();
}

}  // namespace sluice
