// What a row reports of a draw, whichever path drew it.
#pragma once

#include "ops/sample/choose.h"
#include "ops/sample/sample.h"

namespace sluice {

ChoiceRule choice_rule(const SampleRow& row);
// logit: the chosen token's, as the model gave it; max and exp_sum of the model's logits; the n
// best ids and their logits. Call it in the kernels' floating-point environment.
void set_logprobs(float logit, float max, float exp_sum, const int32_t* ids, const float* logits,
                  int64_t n, SampleRow& row);

}  // namespace sluice
