#include "base/parallel_jobs.h"

#include <atomic>
#include <mutex>

namespace sluice {

Status run_jobs(ThreadPool& pool, int64_t count, const std::function<Status(int64_t)>& job,
                const std::function<bool()>& go_on, const std::string& cancelled) {
  const auto asked = [&] {
    return go_on() ? ok_status() : Status(StatusCode::kCancelled, cancelled);
  };
  SLUICE_RETURN_IF_ERROR(asked());
  std::atomic<bool> stop{false};
  std::mutex mutex;
  int64_t failed_at = count;
  Status failure;
  pool.parallel_for(count, 1, [&](int64_t i, int worker) {
    if (stop.load()) return;
    Status status = job(i);
    if (status.ok() && worker == 0) status = asked();
    if (status.ok()) return;
    stop.store(true);
    std::lock_guard lock(mutex);
    if (i >= failed_at) return;
    failed_at = i;
    failure = std::move(status);
  });
  SLUICE_RETURN_IF_ERROR(failure);
  return asked();
}

}  // namespace sluice
