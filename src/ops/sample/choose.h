// One row's choice, from adjusted logits to a token: the rules of sample.h over a set of passes.
#pragma once

#include <cstdint>

#include "ops/sample/kernels.h"

namespace sluice {

struct ChoiceRule {
  float temperature = 1.0f;
  int64_t top_k = 0;  // 0: off
  float top_p = 1.0f, min_p = 0.0f;
  uint32_t random24 = 0;  // the uniform number, times 2^24
};

// The number of tokens that a rule keeps, and their mass: what the draw is among.
struct Kept {
  int64_t count = 0;
  uint64_t mass = 0;
};

// min-p as a distance: exp(-d) >= min_p.
float min_p_distance(float min_p);
// The lowest id of the largest value; NaN never wins; 0 when everything is NaN.
int64_t arg_max(const SampleKernel& kernel, const float* logits, int64_t n);
// Call it in the kernels' floating-point environment. `kept` may be null.
int64_t choose(const SampleKernel& kernel, const float* logits, int64_t n, const ChoiceRule& rule,
               Kept* kept);

}  // namespace sluice
