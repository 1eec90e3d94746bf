// Scheduler: which tokens of which sequences the next step computes.
//
// Decode rows come first, then chunks of prompts being read, then new sequences in order of
// (priority, arrival), until the step's token budget is spent. When KV blocks run out, the sequence
// that would be served last gives its blocks back and is computed again later; results do not
// depend on that, because no sum depends on how a sequence was cut into steps. The sequence served
// first is never preempted for another and fits alone (admission), so that something always
// finishes. A sequence preempted kMaxPreemptions times comes back only when its worst case is free,
// and is then left alone.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "base/status.h"
#include "engine/sequence.h"

namespace sluice {

inline constexpr int kMaxPreemptions = 4;

struct SchedulerLimits {
  int64_t max_batch_tokens = 512;  // rows of a step
  int64_t chunk = 512;             // rows of one sequence in a step
  int64_t max_sequences = 16;      // sequences computed at the same time
  int64_t max_queue = 512;         // sequences waiting
  int64_t max_logit_rows = 512;    // rows of a step that want logits
};

class Scheduler {
 public:
  Scheduler(const SchedulerLimits& limits, KvBlocks& kv) : limits_(limits), kv_(kv) {}

  // Puts a sequence in the queue; a full queue is an error.
  Status enqueue(std::unique_ptr<Sequence> sequence);
  // The chunks of the next step, with KV blocks for all of them; valid until the next call.
  // `make_room` is asked to free kept blocks before anything is preempted; true when it freed some.
  const std::vector<Chunk>& plan(const std::function<bool()>& make_room);
  // Takes a sequence out, wherever it is. Its blocks stay with it.
  std::unique_ptr<Sequence> remove(const Sequence* sequence);
  Sequence* find(RequestId id);

  int64_t running() const { return static_cast<int64_t>(running_.size()); }
  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t preemptions() const { return preemptions_; }
  // All sequences, those being computed first.
  std::vector<Sequence*> all() const;

 private:
  using Queue = std::deque<std::unique_ptr<Sequence>>;
  static void insert_in_order(Queue& queue, std::unique_ptr<Sequence> sequence);

  bool place(Sequence& sequence, int64_t count);
  void admit();
  bool fits(const Sequence& sequence) const;
  bool strip_waiting();
  bool preempt_after(const Sequence& sequence);
  void preempt(Sequence* victim);
  std::vector<int64_t> promised() const;

  SchedulerLimits limits_;
  KvBlocks& kv_;
  Queue waiting_, running_;  // both in serving order
  std::vector<Chunk> plan_;
  const std::function<bool()>* make_room_ = nullptr;
  int64_t tokens_left_ = 0, logit_rows_left_ = 0;
  int64_t preemptions_ = 0;
};

}  // namespace sluice
