// Bits per byte of a text: windows of the model's context through the engine, no logits kept.
#pragma once

#include <functional>
#include <string>

#include "cli/score_input.h"
#include "cli/score_results.h"

namespace sluice {

struct TextScore {
  double nats = 0;
  std::vector<float> token_nats;  // per token of the text
  std::vector<float> logits;  // [ids of the window, V], when there is one window and they are kept
  int64_t tokens = 0;         // of the text
  int64_t windows = 0;
  int64_t bytes = 0;
  double bits_per_byte() const;
};

// The natural logarithm of softmax(logits)[target], negated, in f64.
double nats_of(const float* logits, int64_t vocabulary, int32_t target);

// Runs all windows; `progress` sees tokens done and may stop it (kCancelled) by returning false.
Result<TextScore> score_windows(Engine& engine, const ScoreWindows& windows, int64_t vocabulary,
                                bool keep_logits, StepCounts& counts,
                                const std::function<bool(size_t done, size_t total)>& progress);

}  // namespace sluice
