// How ops share a loop among the pool's workers; ops themselves never see threads.
#pragma once

#include <cstdint>
#include <functional>

#include "base/float_env.h"
#include "device/device.h"

namespace sluice {

// Calls body(begin, end) for consecutive ranges of at most `grain` indices that cover [0, n), on
// the context's pool, or in order on the calling thread when it has none. Always in the kernels'
// floating-point environment. A CUDA kernel takes the whole range in one launch.
template <class Body>
void parallel_ranges(const ExecContext& context, int64_t n, int64_t grain, const Body& body) {
  if (n <= 0) return;
  if (grain < 1) grain = 1;
  if (is_cuda(context.isa)) {
    const ScopedFloatEnv env;
    return body(int64_t{0}, n);
  }
  const int64_t ranges = (n + grain - 1) / grain;
  const auto one = [&](int64_t i, int) {
    const int64_t begin = i * grain;
    body(begin, begin + grain < n ? begin + grain : n);
  };
  // By reference: a std::function that held the captures would allocate, step after step.
  if (context.pool != nullptr) return context.pool->parallel_for(ranges, 1, std::cref(one));
  const ScopedFloatEnv env;
  for (int64_t i = 0; i < ranges; ++i) one(i, 0);
}

inline int64_t workers_of(const ExecContext& context) {
  return context.pool != nullptr ? context.pool->size() : 1;
}

// Calls body(i, worker) for i in [0, n), one by one in ascending order of their beginnings, worker
// in [0, workers_of(context)). CPU only.
template <class Body>
void parallel_items(const ExecContext& context, int64_t n, const Body& body) {
  const auto one = [&](int64_t i, int worker) { body(i, static_cast<int64_t>(worker)); };
  if (context.pool != nullptr) return context.pool->parallel_for(n, 1, std::cref(one));
  const ScopedFloatEnv env;
  for (int64_t i = 0; i < n; ++i) one(i, 0);
}

// The grain that gives each worker about four ranges of at least `least` indices.
inline int64_t balanced_grain(const ExecContext& context, int64_t n, int64_t least) {
  const int64_t workers = workers_of(context);
  const int64_t grain = (n + workers * 4 - 1) / (workers * 4);
  return grain < least ? least : grain;
}

}  // namespace sluice
