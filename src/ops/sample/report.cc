#include "ops/sample/report.h"

#include <algorithm>
#include <cmath>

#include "ops/sample/philox.h"

namespace sluice {
namespace {

constexpr float kLogprobFloor = -9999.0f;

float logprob_of(float logit, float max, float log_sum) {
  const float lp = (logit - max) - log_sum;
  return lp > kLogprobFloor ? lp : kLogprobFloor;  // NaN gives the floor
}

}  // namespace

ChoiceRule choice_rule(const SampleRow& row) {
  const SamplingParams& p = *row.params;
  ChoiceRule rule;
  rule.temperature = p.temperature;
  rule.top_k = std::max(0, p.top_k);
  rule.top_p = p.top_p;
  rule.min_p = p.min_p;
  rule.random24 = philox_bits24(p.seed, static_cast<uint64_t>(row.position));
  return rule;
}

void set_logprobs(float logit, float max, float exp_sum, const int32_t* ids, const float* logits,
                  int64_t n, SampleRow& row) {
  const float log_sum = static_cast<float>(std::log(static_cast<double>(exp_sum)));
  row.logprob = logprob_of(logit, max, log_sum);
  row.top.resize(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i)
    row.top[static_cast<size_t>(i)] = {ids[i], logprob_of(logits[i], max, log_sum)};
}

}  // namespace sluice
