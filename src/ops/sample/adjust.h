// Bias and penalties: one row's logits as the sampling rules see them.
#pragma once

#include <cstdint>

#include "ops/sample/sample.h"

namespace sluice {

bool needs_adjustment(const SampleRow& row);
// out = logits after bias, repetition, frequency and presence, in this order:
//   l = l + bias                       (biases of one id add up)
//   l = l > 0 ? l / r : l * r          once for each id of prompt and output
//   l = (l - frequency * count) - presence         for each id of the output
// `marks` is scratch of n values.
void adjust_logits(const SampleRow& row, const float* logits, int64_t n, int32_t* marks,
                   float* out);

}  // namespace sluice
