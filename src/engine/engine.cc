#include "engine/engine.h"

#include <algorithm>

#include "base/topology.h"

namespace sluice {
namespace {

constexpr int64_t kShortContexts = 16384;  // tokens worth sharing among short sequences
constexpr int64_t kSmallestCache = 1024;

KvSizing sizing_of(const EngineOptions& o, int64_t tokens) {
  return {.tokens = tokens, .max_sequences = o.max_sequences, .chunk = o.chunk};
}

Status check_options(const EngineOptions& o) {
  const auto positive = [](std::string_view name, int64_t v, int64_t most) {
    return v >= 1 && v <= most
               ? ok_status()
               : invalid_argument("engine: {}: expected 1 to {}, got {}", name, most, v);
  };
  SLUICE_RETURN_IF_ERROR(positive("max_batch_tokens", o.max_batch_tokens, 1 << 20));
  SLUICE_RETURN_IF_ERROR(positive("chunk", o.chunk, 1 << 20));
  SLUICE_RETURN_IF_ERROR(positive("max_sequences", o.max_sequences, 65536));
  SLUICE_RETURN_IF_ERROR(positive("max_queue", o.max_queue, 1 << 20));
  return ok_status();
}

}  // namespace

int64_t default_kv_tokens(const ModelSpec& spec, Compute compute, const EngineOptions& options) {
  EngineOptions o = options;
  if (o.chunk == 0) o.chunk = o.max_batch_tokens;
  int64_t tokens = std::max(spec.context, std::min(spec.context * o.max_sequences, kShortContexts));
  const size_t budget = memory_limit_bytes() / 4;
  while (tokens > kSmallestCache && kv_pool_bytes(spec, compute, sizing_of(o, tokens)) > budget)
    tokens /= 2;
  return tokens;
}

Result<std::unique_ptr<Engine>> Engine::create(Runtime& runtime, const Model& model,
                                               const EngineOptions& options) {
  auto engine = std::make_unique<Engine>();
  EngineOptions& o = engine->options_;
  o = options;
  o.chunk = o.chunk == 0 ? o.max_batch_tokens : std::min(o.chunk, o.max_batch_tokens);
  SLUICE_RETURN_IF_ERROR(check_options(o));
  if (o.kv_tokens == 0) o.kv_tokens = default_kv_tokens(model.spec, model.compute, o);
  SLUICE_ASSIGN_OR_RETURN(engine->kv_, KvBlocks::create(runtime.device(), model.spec, model.compute,
                                                        sizing_of(o, o.kv_tokens)));
  engine->model_ = &model;
  engine->max_tokens_ = std::min(model.spec.context, engine->kv_->max_tokens());
  // No more sequences than rows: every sequence of a step has at least one.
  const int64_t sequences = std::min(o.max_sequences, o.max_batch_tokens);
  const int64_t logit_rows = o.scoring ? o.max_batch_tokens : sequences;
  SLUICE_ASSIGN_OR_RETURN(engine->runner_,
                          Runner::create(runtime, model, *engine->kv_,
                                         {.tokens = o.max_batch_tokens,
                                          .sequences = sequences,
                                          .logit_rows = logit_rows,
                                          .blocks = ceil_div(engine->kv_->max_tokens(), kKvBlock)},
                                         o.isa.value_or(runtime.isa())));
  engine->scheduler_ =
      std::make_unique<Scheduler>(SchedulerLimits{.max_batch_tokens = o.max_batch_tokens,
                                                  .chunk = o.chunk,
                                                  .max_sequences = sequences,
                                                  .max_queue = o.max_queue,
                                                  .max_logit_rows = logit_rows},
                                  *engine->kv_);
  return engine;
}

Status Engine::check(const Request& r) const {
  const int64_t vocabulary = model_->spec.vocabulary;
  const auto prompt = static_cast<int64_t>(r.prompt.size());
  if (r.prompt.empty()) return invalid_argument("request: the prompt has no tokens");
  for (size_t i = 0; i < r.prompt.size(); ++i)
    if (r.prompt[i] < 0 || r.prompt[i] >= vocabulary)
      return invalid_argument("request: prompt[{}] is {}, outside the vocabulary [0, {})", i,
                              r.prompt[i], vocabulary);
  if (r.max_new_tokens < 0)
    return invalid_argument("request: max_new_tokens: expected 0 or more, got {}",
                            r.max_new_tokens);
  if (r.score_prompt && !options_.scoring)
    return invalid_argument("request: score_prompt needs an engine made for scoring");
  SLUICE_RETURN_IF_ERROR(validate_sampling(r.sampling, vocabulary));
  if (r.max_new_tokens > model_->spec.context - prompt)
    return invalid_argument("request: {} prompt tokens and {} new ones, the model's context is {}",
                            prompt, r.max_new_tokens, model_->spec.context);
  if (r.max_new_tokens - 1 > kv_->max_tokens() - prompt || prompt > kv_->max_tokens())
    return invalid_argument("request: {} prompt tokens and {} new ones, the KV cache holds {}",
                            prompt, r.max_new_tokens, kv_->max_tokens());
  return ok_status();
}

Result<RequestId> Engine::submit(Request request) {
  SLUICE_RETURN_IF_ERROR(check(request).annotate("engine"));
  if (scheduler_->waiting() >= options_.max_queue)
    return resource_exhausted("engine: {} requests are waiting, the limit is {}",
                              scheduler_->waiting(), options_.max_queue);
  auto sequence = std::make_unique<Sequence>();
  sequence->id = next_id_++;
  sequence->tokens = request.prompt;
  sequence->prompt_tokens = static_cast<int64_t>(request.prompt.size());
  sequence->request = std::move(request);
  take_over(*sequence);
  const RequestId id = sequence->id;
  SLUICE_RETURN_IF_ERROR(scheduler_->enqueue(std::move(sequence)));
  return id;
}

// Starts from the blocks of a kept request as far as the tokens agree. Nothing depends on it but
// time: if the blocks have been dropped meanwhile, the prompt is computed whole.
void Engine::take_over(Sequence& s) {
  if (!s.request.reuse || s.request.score_prompt) return;
  const auto it = kept_.find(*s.request.reuse);
  if (it == kept_.end()) return;
  const std::unique_ptr<Sequence> kept = std::move(it->second);
  kept_.erase(it);
  // At least one token is left to compute: its logits are wanted.
  const int64_t most = std::min(kept->computed, s.length() - 1);
  int64_t same = 0;
  while (same < most &&
         kept->tokens[static_cast<size_t>(same)] == s.tokens[static_cast<size_t>(same)])
    ++same;
  s.kv = std::move(kept->kv);
  s.computed = kv_->truncate(s.kv, same);
  stats_.reused_tokens += s.computed;
}

Status Engine::cancel(RequestId id) {
  const Sequence* s = scheduler_->find(id);
  if (s == nullptr) return not_found("engine: cancel: there is no request {}", id);
  finish(s, FinishReason::kCancelled, {.id = id});
  return ok_status();
}

void Engine::forget(RequestId id) {
  const auto it = kept_.find(id);
  if (it == kept_.end()) return;
  kv_->release(it->second->kv);
  kept_.erase(it);
}

bool Engine::drop_kept() {
  if (kept_.empty()) return false;
  forget(kept_.begin()->first);
  return true;
}

Result<StepOutput> Engine::step(const Tap* tap) {
  StepOutput output;
  output.events.swap(events_);
  if (scheduler_->running() + scheduler_->waiting() == 0) return output;
  const std::vector<Chunk>& plan = scheduler_->plan([this] { return drop_kept(); });
  if (plan.empty()) {
    fail_all();
    return internal_error("engine: {} requests wait and none can be computed",
                          scheduler_->waiting());
  }
  if (const Status status = runner_->run(plan, tap); !status.ok()) {
    fail_all();
    return status;
  }
  account(plan, output);
  output.events.insert(output.events.end(), std::make_move_iterator(events_.begin()),
                       std::make_move_iterator(events_.end()));
  events_.clear();
  return output;
}

// What the step computed, and what follows from it for every sequence.
void Engine::account(std::span<const Chunk> plan, StepOutput& output) {
  ++stats_.steps;
  output.scored = runner_->batch().scored();
  std::vector<const Sequence*> done;
  for (const Chunk& c : plan) {
    Sequence& s = *c.sequence;
    const int64_t prompt_rows = std::clamp<int64_t>(s.prompt_tokens - c.start, 0, c.count);
    output.rows += c.count;
    output.prompt_rows += prompt_rows;
    if (s.request.score_prompt) s.scored = std::max(s.scored, c.score_to());
    s.computed = c.end();
    kv_->trim(s.kv, s.computed);
    if (s.remaining() == 0 && !s.wants_token()) done.push_back(&s);
  }
  stats_.prompt_tokens += output.prompt_rows;
  for (const Sequence* s : done) finish(s, FinishReason::kLength, {.id = s->id});

  const std::span<const SampleRow> drawn = runner_->drawn();
  const std::span<Sequence* const> drawing = runner_->batch().drawing();
  for (size_t i = 0; i < drawn.size(); ++i) {
    Sequence& s = *drawing[i];
    const SampleRow& row = drawn[i];
    s.tokens.push_back(row.token);
    ++stats_.output_tokens;
    Event event{
        .id = s.id, .has_token = true, .token = row.token, .logprob = row.logprob, .top = row.top};
    const FinishReason reason = finish_reason(s, row.token);
    if (reason == FinishReason::kNone)
      events_.push_back(std::move(event));
    else
      finish(&s, reason, std::move(event));
  }
}

FinishReason Engine::finish_reason(const Sequence& s, int32_t token) const {
  const auto contains = [token](const std::vector<int32_t>& ids) {
    return std::find(ids.begin(), ids.end(), token) != ids.end();
  };
  if (s.generated() > s.request.min_new_tokens || s.request.min_new_tokens == 0) {
    if (!s.request.ignore_eos && contains(runner_->eos_ids())) return FinishReason::kStop;
    if (contains(s.request.stop_ids)) return FinishReason::kStop;
  }
  return s.wants_token() ? FinishReason::kNone : FinishReason::kLength;
}

void Engine::finish(const Sequence* sequence, FinishReason reason, Event event) {
  event.finish = reason;
  events_.push_back(std::move(event));
  std::unique_ptr<Sequence> s = scheduler_->remove(sequence);
  const bool completed = reason == FinishReason::kStop || reason == FinishReason::kLength ||
                         reason == FinishReason::kCancelled;
  if (completed && s->request.keep && s->computed > 0) {
    const RequestId id = s->id;
    kept_[id] = std::move(s);
  } else {
    kv_->release(s->kv);
  }
}

void Engine::fail_all() {
  for (const Sequence* s : scheduler_->all()) finish(s, FinishReason::kFailed, {.id = s->id});
}

EngineStats Engine::stats() const {
  EngineStats s = stats_;
  s.preemptions = scheduler_->preemptions();
  s.routes = runner_->state().routes();
  s.kv_bytes = kv_->bytes();
  s.state_bytes = runner_->state().bytes();
  return s;
}

}  // namespace sluice
