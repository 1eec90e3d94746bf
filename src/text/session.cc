#include "text/session.h"

namespace sluice {

Result<RequestId> Session::submit(TextRequest r) {
  Stream stream{.reader = r.format ? ReplyReader(tokenizer_, *r.format, r.request.prompt)
                                   : ReplyReader(tokenizer_),
                .stops = StopMatcher(std::move(r.stops))};
  SLUICE_ASSIGN_OR_RETURN(const RequestId id, engine_.submit(std::move(r.request)));
  streams_.emplace(id, std::move(stream));
  return id;
}

void Session::advance(Stream& stream, const Event& event, TextEvent& out) {
  const auto add = [&](ReplyText text) {
    out.text.reasoning += text.reasoning;
    out.text.answer += stream.stops.push(text.answer);
  };
  // A token that ended the answer is not part of it.
  const bool ended_it = event.finish == FinishReason::kStop;
  if (event.has_token && !ended_it) add(stream.reader.push(event.token));
  if (event.finish != FinishReason::kNone && !stream.stops.stopped()) {
    add(stream.reader.finish());
    if (!stream.stops.stopped()) out.text.answer += stream.stops.finish();
  }
  if (!stream.stops.stopped()) return;
  out.stop = stream.stops.matched();
  out.finish = FinishReason::kStop;
}

Result<std::vector<TextEvent>> Session::step(const Tap* tap) {
  SLUICE_ASSIGN_OR_RETURN(const StepOutput step, engine_.step(tap));
  rows_ = step.rows;
  prompt_rows_ = step.prompt_rows;
  std::vector<TextEvent> out;
  for (const Event& e : step.events) {
    const auto it = streams_.find(e.id);
    if (it == streams_.end()) continue;
    Stream& stream = it->second;
    if (!stream.stopped) {
      TextEvent text{.id = e.id,
                     .has_token = e.has_token,
                     .token = e.token,
                     .logprob = e.logprob,
                     .top = e.top,
                     .finish = e.finish};
      advance(stream, e, text);
      stream.stopped = text.finish != FinishReason::kNone;
      // The engine does not know of stop strings: it is told.
      if (stream.stopped && e.finish == FinishReason::kNone)
        SLUICE_RETURN_IF_ERROR(engine_.cancel(e.id));
      out.push_back(std::move(text));
    }
    if (e.finish != FinishReason::kNone) streams_.erase(it);
  }
  return out;
}

}  // namespace sluice
