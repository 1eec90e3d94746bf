// Sequence: the engine's side of a request, from the queue to its last token.
#pragma once

#include "engine/kv_blocks.h"
#include "engine/request.h"

namespace sluice {

struct Sequence {
  RequestId id = 0;
  Request request;
  std::vector<int32_t> tokens;  // prompt, then output
  int64_t prompt_tokens = 0;
  int64_t computed = 0;  // tokens whose keys and values are in the cache
  int64_t scored = 0;    // prompt rows whose logits have been handed out
  int preemptions = 0;
  bool cancelled = false;
  SequenceBlocks kv;

  int64_t length() const { return static_cast<int64_t>(tokens.size()); }
  int64_t remaining() const { return length() - computed; }
  int64_t generated() const { return length() - prompt_tokens; }
  bool wants_token() const { return generated() < request.max_new_tokens; }
  // Positions in the cache when the last token has been drawn: that one is never fed back.
  int64_t worst_length() const {
    return prompt_tokens + std::max<int64_t>(0, request.max_new_tokens - 1);
  }
  std::span<const int32_t> prompt() const {
    return {tokens.data(), static_cast<size_t>(prompt_tokens)};
  }
  std::span<const int32_t> output() const {
    return {tokens.data() + prompt_tokens, tokens.size() - static_cast<size_t>(prompt_tokens)};
  }
  // Served before `other`: higher priority first, then earlier arrival.
  bool before(const Sequence& other) const {
    return request.priority != other.request.priority ? request.priority > other.request.priority
                                                      : id < other.id;
  }
};

// Consecutive tokens of one sequence that a step computes.
struct Chunk {
  Sequence* sequence = nullptr;
  int64_t start = 0, count = 0;
  int64_t end() const { return start + count; }
  // The step reaches the sequence's last token, so that the next one can be drawn.
  bool draws() const { return end() == sequence->length() && sequence->wants_token(); }
  // Rows [score_from, score_to) by position hand out prompt logits.
  int64_t score_from() const {
    return sequence->request.score_prompt ? std::max(start, sequence->scored) : end();
  }
  int64_t score_to() const {
    return sequence->request.score_prompt ? std::min(end(), sequence->prompt_tokens) : end();
  }
};

}  // namespace sluice
