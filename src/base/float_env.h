// The floating-point environment in which every CPU kernel runs: round to nearest even, subnormal
// inputs read as zero, subnormal results become zero. The tile instructions of AMX always behave
// so; putting every path under the same rule is what lets all of them give the same bits.
#pragma once

namespace sluice {

// Enters the kernels' environment; the destructor restores the caller's.
class ScopedFloatEnv {
 public:
  ScopedFloatEnv();
  ~ScopedFloatEnv();
  ScopedFloatEnv(const ScopedFloatEnv&) = delete;
  ScopedFloatEnv& operator=(const ScopedFloatEnv&) = delete;

 private:
  unsigned saved_ = 0;
};

}  // namespace sluice
