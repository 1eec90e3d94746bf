// What `run` and `chat` share: sampling flags over the model's defaults, and the measured speeds.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/load.h"
#include "ops/sample/sample.h"
#include "text/session.h"

namespace sluice {

struct SamplingFlags {
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int32_t> top_k;
  float presence_penalty = 0, frequency_penalty = 0;
  uint64_t seed = 0;
};

// Flags, else generation_config.json, else temperature 1 over the whole vocabulary.
SamplingParams sampling_params(const SamplingFlags& flags, const GenerationDefaults& defaults);
// "temperature 0.7, top-p 0.8, seed 0 (generation_config.json: temperature, top-p)"
std::string describe_sampling(const SamplingParams& params, const SamplingFlags& flags,
                              const GenerationDefaults& defaults);

// Prompt and answer speeds over the steps of one or several requests.
class SpeedMeter {
 public:
  void add(int64_t prompt_rows, int64_t rows, int64_t tokens, double seconds);
  // Rows of prompts per second of the steps that read prompts.
  double prefill() const { return rate(prompt_rows_, prefill_seconds_); }
  // Tokens drawn per second of the other steps.
  double decode() const { return rate(decode_tokens_, decode_seconds_); }
  int64_t prompt_rows() const { return prompt_rows_; }
  int64_t decode_tokens() const { return decode_tokens_; }

 private:
  static double rate(int64_t n, double seconds) {
    return seconds > 0 ? static_cast<double>(n) / seconds : 0;
  }
  int64_t prompt_rows_ = 0, decode_tokens_ = 0;
  double prefill_seconds_ = 0, decode_seconds_ = 0;
};

}  // namespace sluice
