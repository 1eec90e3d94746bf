#include "engine/scheduler.h"

#include <algorithm>

namespace sluice {
namespace {

bool is_protected(const Sequence& s) {
  return s.preemptions >= kMaxPreemptions;
}

int64_t logit_rows(const Chunk& c) {
  const int64_t scored = std::max<int64_t>(0, c.score_to() - c.score_from());
  const bool last_is_scored = scored > 0 && c.score_to() == c.end();
  return scored + (c.draws() && !last_is_scored ? 1 : 0);
}

}  // namespace

void Scheduler::insert_in_order(Queue& queue, std::unique_ptr<Sequence> sequence) {
  const auto at = std::upper_bound(queue.begin(), queue.end(), sequence,
                                   [](const auto& a, const auto& b) { return a->before(*b); });
  queue.insert(at, std::move(sequence));
}

Status Scheduler::enqueue(std::unique_ptr<Sequence> sequence) {
  if (waiting() >= limits_.max_queue)
    return resource_exhausted("queue: {} requests are waiting, the limit is {}", waiting(),
                              limits_.max_queue);
  insert_in_order(waiting_, std::move(sequence));
  return ok_status();
}

const std::vector<Chunk>& Scheduler::plan(const std::function<bool()>& make_room) {
  plan_.clear();
  make_room_ = &make_room;
  tokens_left_ = limits_.max_batch_tokens;
  logit_rows_left_ = limits_.max_logit_rows;
  for (const bool decode : {true, false}) {
    // By index: a sequence served later than the one being placed may leave the queue meanwhile.
    for (size_t i = 0; i < running_.size() && tokens_left_ > 0; ++i) {
      Sequence& s = *running_[i];
      if ((s.remaining() == 1) == decode) place(s, std::min(s.remaining(), limits_.chunk));
    }
  }
  admit();
  make_room_ = nullptr;
  return plan_;
}

// Puts at most `count` tokens of a sequence into the plan.
bool Scheduler::place(Sequence& s, int64_t count) {
  Chunk c{&s, s.computed, std::min(count, tokens_left_)};
  if (logit_rows(c) > logit_rows_left_) {
    // Fewer rows of a prompt that is being scored; else wait for the next step.
    if (!s.request.score_prompt || logit_rows_left_ == 0) return false;
    c.count = std::min(c.count, logit_rows_left_);
  }
  if (c.count < 1) return false;
  const std::vector<int64_t> others = is_protected(s) ? std::vector<int64_t>() : promised();
  while (!kv_.reserve(s.kv, c.end(), others))
    if (!(*make_room_)() && !strip_waiting() && !preempt_after(s)) return false;
  tokens_left_ -= c.count;
  logit_rows_left_ -= logit_rows(c);
  plan_.push_back(c);
  return true;
}

void Scheduler::admit() {
  while (!waiting_.empty() && tokens_left_ > 0 && running() < limits_.max_sequences) {
    while (!fits(*waiting_.front()))
      if (!(*make_room_)() && !strip_waiting()) return;
    std::unique_ptr<Sequence> s = std::move(waiting_.front());
    waiting_.pop_front();
    Sequence& placed = *s;
    insert_in_order(running_, std::move(s));
    if (!place(placed, std::min(placed.remaining(), limits_.chunk))) return;
  }
}

// Whether a waiting sequence may start: room for all it has now, or for all it can become when it
// has been preempted too often.
bool Scheduler::fits(const Sequence& s) const {
  const std::vector<int64_t> others = promised();
  const int64_t tokens = is_protected(s) ? s.worst_length() : s.length();
  for (size_t g = 0; g < kv_.groups(); ++g) {
    const int64_t held = s.kv.groups.empty() ? 0 : s.kv.groups[g].held();
    if (kv_.pool(g).free() - others[g] < kv_.needed(g, tokens) - held) return false;
  }
  return true;
}

// Blocks per group that protected sequences have not taken yet but must be able to.
std::vector<int64_t> Scheduler::promised() const {
  std::vector<int64_t> blocks(kv_.groups());
  for (const auto& s : running_) {
    if (!is_protected(*s)) continue;
    for (size_t g = 0; g < blocks.size(); ++g) {
      const int64_t held = s->kv.groups.empty() ? 0 : s->kv.groups[g].held();
      blocks[g] += std::max<int64_t>(0, kv_.needed(g, s->worst_length()) - held);
    }
  }
  return blocks;
}

// Frees the blocks that a waiting sequence took over from an earlier request; never the next one's.
bool Scheduler::strip_waiting() {
  for (size_t i = waiting_.size(); i-- > 1;) {
    Sequence& s = *waiting_[i];
    if (s.kv.groups.empty() || s.kv.groups[0].blocks.empty()) continue;
    kv_.release(s.kv);
    s.computed = 0;
    return true;
  }
  return false;
}

// Frees the blocks of the running sequence that is served last, if that is after `s`.
bool Scheduler::preempt_after(const Sequence& s) {
  for (auto it = running_.rbegin(); it != running_.rend(); ++it) {
    if (!s.before(**it)) return false;
    if (is_protected(**it)) continue;
    preempt(it->get());
    return true;
  }
  return false;
}

void Scheduler::preempt(Sequence* victim) {
  ++preemptions_;
  ++victim->preemptions;
  for (auto it = plan_.begin(); it != plan_.end(); ++it) {
    if (it->sequence != victim) continue;
    tokens_left_ += it->count;
    logit_rows_left_ += logit_rows(*it);
    plan_.erase(it);
    break;
  }
  std::unique_ptr<Sequence> s = remove(victim);
  kv_.release(s->kv);
  s->computed = 0;
  insert_in_order(waiting_, std::move(s));
}

std::unique_ptr<Sequence> Scheduler::remove(const Sequence* sequence) {
  for (Queue* queue : {&running_, &waiting_}) {
    for (auto it = queue->begin(); it != queue->end(); ++it) {
      if (it->get() != sequence) continue;
      std::unique_ptr<Sequence> taken = std::move(*it);
      queue->erase(it);
      return taken;
    }
  }
  return nullptr;
}

Sequence* Scheduler::find(RequestId id) {
  for (Sequence* s : all())
    if (s->id == id) return s;
  return nullptr;
}

std::vector<Sequence*> Scheduler::all() const {
  std::vector<Sequence*> out;
  for (const Queue* queue : {&running_, &waiting_})
    for (const auto& s : *queue) out.push_back(s.get());
  return out;
}

}  // namespace sluice
