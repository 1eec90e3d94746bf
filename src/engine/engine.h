// Engine: requests in, tokens out; a single-threaded state machine over one model.
//
// submit() queues a request, step() computes one batch and says what happened, cancel() ends a
// request between steps. Nothing calls back inside a step but the optional tap. A request's tokens
// and logits do not depend on the other requests, on chunks, threads or preemption.
#pragma once

#include <map>

#include "engine/runner.h"
#include "engine/scheduler.h"

namespace sluice {

struct EngineOptions {
  int64_t max_batch_tokens = 512;  // rows of a step
  int64_t chunk = 0;               // rows of one request in a step; 0: max_batch_tokens
  int64_t max_sequences = 16;      // requests computed at the same time
  int64_t max_queue = 512;         // requests waiting
  int64_t kv_tokens = 0;           // KV cache, in tokens; 0: default_kv_tokens()
  bool scoring = false;            // requests may ask for score_prompt: logits for a whole batch
  std::optional<Isa> isa;          // narrower kernels than the runtime's
};

// The model's context for one sequence, more for short contexts, at most a quarter of the memory.
int64_t default_kv_tokens(const ModelSpec& spec, Compute compute, const EngineOptions& options);

struct EngineStats {
  int64_t steps = 0;
  int64_t prompt_tokens = 0;  // rows of prompts computed, again after preemption too
  int64_t output_tokens = 0;
  int64_t preemptions = 0;
  int64_t reused_tokens = 0;  // rows that a kept prefix saved
  RouteSortStats routes;      // layers routed and sorted in one launch, or one by one
  size_t kv_bytes = 0, state_bytes = 0;
};

struct StepOutput {
  std::vector<Event> events;
  std::span<const ScoredRow> scored;  // rows of logits(), until the next step
  int64_t rows = 0;                   // tokens computed
  int64_t prompt_rows = 0;            // of these, tokens of prompts
};

class Engine {
 public:
  // Runtime and model must outlive the engine.
  static Result<std::unique_ptr<Engine>> create(Runtime& runtime, const Model& model,
                                                const EngineOptions& options);

  // Refuses with a sentence what can never run: an id outside the vocabulary, parameters out of
  // range, more tokens than the context or the KV cache holds.
  Result<RequestId> submit(Request request);
  // Its finish event comes with the next step. Unknown ids are an error.
  Status cancel(RequestId id);
  // Frees the blocks of a finished request that was kept.
  void forget(RequestId id);
  bool busy() const {
    return scheduler_->running() + scheduler_->waiting() > 0 || !events_.empty();
  }

  // One batch. Without work, only the events of cancel(). After an error every request is failed.
  Result<StepOutput> step(const Tap* tap = nullptr);
  ConstMatrixF32 logits() const { return runner_->logits(); }
  // Owners of the batch rows of the step at hand: valid in the tap and until the next step.
  std::span<const RowOwner> owners() const { return runner_->batch().owners(); }

  EngineStats stats() const;
  std::vector<std::vector<int64_t>> expert_counts() const {
    return runner_->state().expert_counts();
  }
  const std::vector<int32_t>& eos_ids() const { return runner_->eos_ids(); }
  int64_t max_tokens() const { return max_tokens_; }
  int64_t running() const { return scheduler_->running(); }
  int64_t waiting() const { return scheduler_->waiting(); }
  const KvBlocks& kv() const { return *kv_; }

 private:
  Status check(const Request& request) const;
  void take_over(Sequence& sequence);
  bool drop_kept();
  void account(std::span<const Chunk> plan, StepOutput& output);
  void finish(const Sequence* sequence, FinishReason reason, Event event);
  FinishReason finish_reason(const Sequence& sequence, int32_t token) const;
  void fail_all();

  const Model* model_ = nullptr;
  EngineOptions options_;
  int64_t max_tokens_ = 0;  // of one request: min(context, KV cache)
  std::unique_ptr<KvBlocks> kv_;
  std::unique_ptr<Runner> runner_;
  std::unique_ptr<Scheduler> scheduler_;
  std::map<RequestId, std::unique_ptr<Sequence>> kept_;
  std::vector<Event> events_;
  EngineStats stats_;
  RequestId next_id_ = 1;
};

}  // namespace sluice
