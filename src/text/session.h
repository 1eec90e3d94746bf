// Session: text in and out over an engine: detokenising, reasoning apart, stop strings.
#pragma once

#include <map>

#include "engine/engine.h"
#include "text/reply.h"
#include "text/stop.h"

namespace sluice {

struct TextRequest {
  Request request;                   // prompt ids and everything about sampling
  std::vector<std::string> stops;    // end the answer; never shown
  std::optional<ChatFormat> format;  // of the reply; none: plain text
};

// One event of the engine as text.
struct TextEvent {
  RequestId id = 0;
  bool has_token = false;
  int32_t token = 0;
  float logprob = 0.0f;
  std::vector<TokenLogprob> top;
  ReplyText text;  // what became certain: stop strings and half code points are held back
  FinishReason finish = FinishReason::kNone;
  std::string stop;  // the stop string that ended it
};

class Session {
 public:
  // Engine and tokenizer must outlive the session.
  Session(Engine& engine, const Tokenizer& tokenizer) : engine_(engine), tokenizer_(tokenizer) {}

  Result<RequestId> submit(TextRequest request);
  Status cancel(RequestId id) { return engine_.cancel(id); }
  bool busy() const { return engine_.busy(); }
  // One step of the engine. The last event of a request has its finish reason.
  Result<std::vector<TextEvent>> step(const Tap* tap = nullptr);
  // Rows of the last step: all, and those of prompts.
  int64_t rows() const { return rows_; }
  int64_t prompt_rows() const { return prompt_rows_; }

 private:
  struct Stream {
    ReplyReader reader;
    StopMatcher stops;
    bool stopped = false;  // by a stop string; the engine's own end is still to come
  };
  static void advance(Stream& stream, const Event& event, TextEvent& out);

  Engine& engine_;
  const Tokenizer& tokenizer_;
  std::map<RequestId, Stream> streams_;
  int64_t rows_ = 0, prompt_rows_ = 0;
};

}  // namespace sluice
