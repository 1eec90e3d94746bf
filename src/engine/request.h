// What a caller asks of the engine and what comes back: token ids only, no text.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "ops/sample/sample.h"

namespace sluice {

using RequestId = uint64_t;

struct Request {
  std::vector<int32_t> prompt;
  SamplingParams sampling;
  int64_t max_new_tokens = 0;     // 0: compute the prompt only
  int64_t min_new_tokens = 0;     // before this many, no end-of-sequence or stop id is drawn
  bool ignore_eos = false;        // the model's end-of-sequence ids are ordinary tokens
  std::vector<int32_t> stop_ids;  // these end the answer too
  bool score_prompt = false;      // hand out the logits of every prompt row
  int32_t priority = 0;           // higher is served first; equal ones in order of arrival
  // Keep the KV blocks when this one finishes, for a later request with the same first tokens.
  bool keep = false;
  std::optional<RequestId> reuse;  // a finished request that was kept
};

enum class FinishReason { kNone, kStop, kLength, kCancelled, kFailed };

constexpr std::string_view finish_reason_name(FinishReason reason) {
  constexpr std::string_view kNames[] = {"", "stop", "length", "cancelled", "failed"};
  return kNames[static_cast<int>(reason)];
}

// One thing that happened to a request in a step: a token, an end, or both.
struct Event {
  RequestId id = 0;
  bool has_token = false;
  int32_t token = 0;
  float logprob = 0.0f;           // of the chosen token, when logprobs were asked for
  std::vector<TokenLogprob> top;  // alternatives
  FinishReason finish = FinishReason::kNone;
};

// Where a row of the last step's logits belongs: the distribution after prompt[position].
struct ScoredRow {
  RequestId id = 0;
  int64_t position = 0;
  int64_t row = 0;
};

// Which (request, position) a batch row is: gives a tap's rows their names.
struct RowOwner {
  RequestId id = 0;
  int64_t position = 0;
};

}  // namespace sluice
