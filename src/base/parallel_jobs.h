// Jobs of one parallel loop that may fail or be cancelled.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/status.h"
#include "base/thread_pool.h"

namespace sluice {

// Calls job(i) for every i in [0, count) on the pool until one fails; of those that did, the lowest
// i speaks. go_on() is asked by the calling thread before the first job, after each of its own (it
// may come too late for any) and after the last: false ends the loop with `cancelled`.
Status run_jobs(ThreadPool& pool, int64_t count, const std::function<Status(int64_t)>& job,
                const std::function<bool()>& go_on, const std::string& cancelled);

}  // namespace sluice
