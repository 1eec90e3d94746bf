#include "cli/generate.h"

namespace sluice {

SamplingParams sampling_params(const SamplingFlags& f, const GenerationDefaults& d) {
  SamplingParams p;
  p.temperature = f.temperature.value_or(d.do_sample ? d.temperature.value_or(1.0f) : 0.0f);
  p.top_k = f.top_k.value_or(d.top_k.value_or(0));
  p.top_p = f.top_p.value_or(d.top_p.value_or(1.0f));
  p.min_p = f.min_p.value_or(d.min_p.value_or(0.0f));
  p.repetition_penalty = f.repetition_penalty.value_or(d.repetition_penalty.value_or(1.0f));
  p.presence_penalty = f.presence_penalty;
  p.frequency_penalty = f.frequency_penalty;
  p.seed = f.seed;
  return p;
}

std::string describe_sampling(const SamplingParams& p, const SamplingFlags& f,
                              const GenerationDefaults& d) {
  if (p.temperature == 0) return "sampling: greedy";
  std::string text = fmt::format("sampling: temperature {}", p.temperature);
  if (p.top_k > 0) text += fmt::format(", top-k {}", p.top_k);
  if (p.top_p < 1) text += fmt::format(", top-p {}", p.top_p);
  if (p.min_p > 0) text += fmt::format(", min-p {}", p.min_p);
  if (p.repetition_penalty != 1) text += fmt::format(", repetition {}", p.repetition_penalty);
  text += fmt::format(", seed {}", p.seed);
  std::vector<const char*> from_file;
  if (!f.temperature && d.temperature) from_file.push_back("temperature");
  if (!f.top_k && d.top_k) from_file.push_back("top-k");
  if (!f.top_p && d.top_p) from_file.push_back("top-p");
  if (!f.min_p && d.min_p) from_file.push_back("min-p");
  if (!f.repetition_penalty && d.repetition_penalty) from_file.push_back("repetition");
  if (!from_file.empty())
    text += fmt::format(" (generation_config.json: {})", fmt::join(from_file, ", "));
  return text;
}

void SpeedMeter::add(int64_t prompt_rows, int64_t rows, int64_t tokens, double seconds) {
  if (prompt_rows > 0) {
    prompt_rows_ += prompt_rows;
    prefill_seconds_ += seconds;
  } else if (rows > 0) {
    decode_tokens_ += tokens;
    decode_seconds_ += seconds;
  }
}

}  // namespace sluice
