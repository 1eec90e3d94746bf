#include "cli/score_text.h"

#include <algorithm>
#include <cmath>
#include <deque>

namespace sluice {
namespace {

struct OpenWindow {
  const ScoreWindow* window = nullptr;
  size_t first_slot = 0;  // where its targets' nats go
};

}  // namespace

double TextScore::bits_per_byte() const {
  return bytes == 0 ? 0 : nats / std::log(2.0) / static_cast<double>(bytes);
}

double nats_of(const float* logits, int64_t vocabulary, int32_t target) {
  double highest = -HUGE_VAL, sum = 0;
  for (int64_t v = 0; v < vocabulary; ++v) highest = std::max<double>(highest, logits[v]);
  for (int64_t v = 0; v < vocabulary; ++v) sum += std::exp(logits[v] - highest);
  return highest + std::log(sum) - logits[target];
}

Result<TextScore> score_windows(Engine& engine, const ScoreWindows& windows, int64_t vocabulary,
                                bool keep_logits, StepCounts& counts,
                                const std::function<bool(size_t, size_t)>& progress) {
  TextScore score;
  // One number per target, added up in text order at the end: the sum does not depend on batches.
  size_t targets = 0, total = 0, done = 0;
  for (const ScoreWindow& w : windows.windows) {
    targets += w.ids.size() - std::min(w.ids.size(), static_cast<size_t>(w.first_target));
    total += w.ids.size();
  }
  std::vector<double> nats(targets);
  std::map<RequestId, OpenWindow> open;
  size_t next = 0, slot = 0;
  while (next < windows.windows.size() || engine.busy()) {
    // A few windows ahead keep the batch full; more would only fill the queue.
    while (next < windows.windows.size() && engine.waiting() < 2) {
      const ScoreWindow& w = windows.windows[next++];
      Request request{.prompt = w.ids, .score_prompt = true};
      SLUICE_ASSIGN_OR_RETURN(const RequestId id, engine.submit(std::move(request)));
      open[id] = {&w, slot};
      slot += w.ids.size() - std::min(w.ids.size(), static_cast<size_t>(w.first_target));
    }
    SLUICE_ASSIGN_OR_RETURN(const StepOutput step, engine.step());
    counts.add(step);
    const ConstMatrixF32 logits = engine.logits();
    for (const ScoredRow& r : step.scored) {
      const OpenWindow& o = open.at(r.id);
      if (keep_logits) {
        score.logits.resize(o.window->ids.size() * static_cast<size_t>(vocabulary));
        std::copy_n(logits.row(r.row), vocabulary, score.logits.begin() + r.position * vocabulary);
      }
      const int64_t target = r.position + 1;
      if (target < o.window->first_target || target >= static_cast<int64_t>(o.window->ids.size()))
        continue;
      nats[o.first_slot + static_cast<size_t>(target - o.window->first_target)] =
          nats_of(logits.row(r.row), vocabulary, o.window->ids[static_cast<size_t>(target)]);
    }
    done += static_cast<size_t>(step.rows);
    if (!progress(done, total)) return Status{StatusCode::kCancelled, "interrupted"};
  }
  // A token that nothing stands before is charged as if all were equally likely.
  nats.insert(nats.begin(), static_cast<size_t>(windows.unpredicted),
              std::log(static_cast<double>(vocabulary)));
  for (const double n : nats) score.nats += n;
  score.token_nats.assign(nats.begin(), nats.end());
  score.tokens = static_cast<int64_t>(nats.size());
  score.windows = static_cast<int64_t>(windows.windows.size());
  return score;
}

}  // namespace sluice
