#include "ops/sample/adjust.h"

#include <cstring>

#include "ops/sample/mass.h"

namespace sluice {

bool needs_adjustment(const SampleRow& row) {
  const SamplingParams& p = *row.params;
  const bool output = p.presence_penalty != 0 || p.frequency_penalty != 0;
  return !p.logit_bias.empty() || p.repetition_penalty != 1.0f || (output && !row.output.empty());
}

void adjust_logits(const SampleRow& row, const float* logits, int64_t n, int32_t* marks,
                   float* out) {
  const SamplingParams& p = *row.params;
  std::memcpy(out, logits, static_cast<size_t>(n) * sizeof(float));
  for (const auto& [id, bias] : p.logit_bias) out[id] = out[id] + bias;
  std::memset(marks, 0, static_cast<size_t>(n) * sizeof(int32_t));
  for (const int32_t id : row.output) ++marks[id];
  if (p.repetition_penalty != 1.0f) {
    for (const auto ids : {row.prompt, row.output}) {
      for (const int32_t id : ids) {
        if ((marks[id] & kRepeated) != 0) continue;
        marks[id] |= kRepeated;
        out[id] = repeated_logit(out[id], p.repetition_penalty);
      }
    }
  }
  if (p.presence_penalty == 0 && p.frequency_penalty == 0) return;
  for (const int32_t id : row.output) {
    if ((marks[id] & kCounted) != 0) continue;
    const int32_t count = marks[id] & kCount;
    marks[id] |= kCounted;
    out[id] = counted_logit(out[id], p.frequency_penalty, p.presence_penalty, count);
  }
}

}  // namespace sluice
