// The scheduler alone, against a model of the engine that only counts tokens.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace sluice {
namespace {

ModelSpec spec_of(int64_t window) {
  ModelSpec spec;
  spec.kv_groups = {{.kv_heads = 1, .head_size = 16, .window = 0, .layers = {0}}};
  if (window > 0)
    spec.kv_groups.push_back({.kv_heads = 1, .head_size = 16, .window = window, .layers = {1}});
  return spec;
}

class SchedulerTest : public ::testing::Test {
 protected:
  void make(const SchedulerLimits& limits, int64_t kv_tokens, int64_t window = 0) {
    limits_ = limits;
    auto kv = KvBlocks::create(
        *device_, spec_of(window), Compute::kBf16,
        {.tokens = kv_tokens, .max_sequences = limits.max_sequences, .chunk = limits.chunk});
    ASSERT_TRUE(kv.ok()) << kv.status().message();
    kv_ = std::move(kv).value();
    scheduler_ = std::make_unique<Scheduler>(limits_, *kv_);
  }
  RequestId add(int64_t prompt, int64_t output, bool score = false, int priority = 0) {
    auto s = std::make_unique<Sequence>();
    s->id = ++last_id_;
    s->tokens.assign(static_cast<size_t>(prompt), 1);
    s->prompt_tokens = prompt;
    s->request.max_new_tokens = output;
    s->request.score_prompt = score;
    s->request.priority = priority;
    EXPECT_TRUE(scheduler_->enqueue(std::move(s)).ok());
    return last_id_;
  }
  // Computes a planned step as the engine does; returns (id, count) in plan order.
  std::vector<std::pair<RequestId, int64_t>> step() {
    const std::vector<Chunk> plan = scheduler_->plan([] { return false; });
    std::vector<std::pair<RequestId, int64_t>> out;
    std::vector<Sequence*> done;
    int64_t rows = 0;
    for (const Chunk& c : plan) {
      Sequence& s = *c.sequence;
      EXPECT_EQ(c.start, s.computed);
      EXPECT_GE(c.count, 1);
      EXPECT_LE(c.count, limits_.chunk);
      EXPECT_GE(static_cast<int64_t>(s.kv.groups[0].blocks.size()) * kKvBlock, c.end());
      rows += c.count;
      out.emplace_back(s.id, c.count);
      const bool draws = c.draws();
      if (s.request.score_prompt) s.scored = std::max(s.scored, c.score_to());
      s.computed = c.end();
      kv_->trim(s.kv, s.computed);
      if (draws) s.tokens.push_back(2);
      if (!s.wants_token() && s.remaining() <= (draws ? 1 : 0)) done.push_back(&s);
    }
    EXPECT_LE(rows, limits_.max_batch_tokens);
    for (Sequence* s : done) {
      order_.push_back(s->id);
      auto taken = scheduler_->remove(s);
      kv_->release(taken->kv);
    }
    return out;
  }
  int run_all(int limit = 100000) {
    int steps = 0;
    while (scheduler_->running() + scheduler_->waiting() > 0 && steps < limit) {
      if (step().empty()) break;
      ++steps;
    }
    EXPECT_EQ(scheduler_->running() + scheduler_->waiting(), 0) << "stuck after " << steps;
    for (size_t g = 0; g < kv_->groups(); ++g) EXPECT_EQ(kv_->pool(g).free(), kv_->pool(g).size());
    return steps;
  }

  std::unique_ptr<Device> device_ = make_cpu_device();
  SchedulerLimits limits_;
  std::unique_ptr<KvBlocks> kv_;
  std::unique_ptr<Scheduler> scheduler_;
  RequestId last_id_ = 0;
  std::vector<RequestId> order_;
};

using Plan = std::vector<std::pair<RequestId, int64_t>>;

TEST_F(SchedulerTest, CutsAPromptIntoChunks) {
  make({.max_batch_tokens = 64, .chunk = 7}, 256);
  add(30, 0);
  EXPECT_EQ(step(), (Plan{{1, 7}}));
  EXPECT_EQ(run_all(), 4);  // ceil(30 / 7) = 5 steps in all
}

TEST_F(SchedulerTest, DecodeRowsComeBeforePrompts) {
  make({.max_batch_tokens = 16, .chunk = 16}, 512);
  add(4, 3);
  step();
  add(40, 0);
  EXPECT_EQ(step(), (Plan{{1, 1}, {2, 15}}));
  EXPECT_EQ(step(), (Plan{{1, 1}, {2, 15}}));
  EXPECT_EQ(step(), (Plan{{2, 10}}));
}

TEST_F(SchedulerTest, HigherPriorityIsServedFirst) {
  make({.max_batch_tokens = 8, .chunk = 8, .max_sequences = 1}, 64);
  add(8, 0, false, 0);
  add(8, 0, false, 5);
  add(8, 0, false, 5);
  run_all();
  EXPECT_EQ(order_, (std::vector<RequestId>{2, 3, 1}));
}

TEST_F(SchedulerTest, ScoringStaysWithinTheLogitRows) {
  make({.max_batch_tokens = 64, .chunk = 64, .max_logit_rows = 10}, 256);
  add(25, 1, true);
  add(30, 1);
  Plan first = step();
  EXPECT_EQ(first[0], (std::pair<RequestId, int64_t>{1, 10}));
  run_all();
}

TEST_F(SchedulerTest, PreemptsTheYoungestWhenBlocksRunOut) {
  make({.max_batch_tokens = 64, .chunk = 64, .max_sequences = 2}, 64);
  add(16, 40);
  add(16, 40);
  run_all();
  EXPECT_GT(scheduler_->preemptions(), 0);
  EXPECT_EQ(order_, (std::vector<RequestId>{1, 2}));
}

TEST_F(SchedulerTest, ASequencePreemptedTooOftenIsLeftAlone) {
  make({.max_batch_tokens = 256, .chunk = 256, .max_sequences = 8}, 256);
  std::map<RequestId, int> preempted;
  for (int i = 0; i < 24; ++i) add(8, 100);
  for (int steps = 0; scheduler_->running() + scheduler_->waiting() > 0; ++steps) {
    ASSERT_LT(steps, 20000);
    for (const Sequence* s : scheduler_->all())
      preempted[s->id] = std::max(preempted[s->id], s->preemptions);
    ASSERT_FALSE(step().empty());
  }
  EXPECT_GT(scheduler_->preemptions(), 0);
  for (const auto& [id, times] : preempted) EXPECT_LE(times, kMaxPreemptions) << id;
}

TEST_F(SchedulerTest, RandomLoadsAlwaysFinishAndReturnEveryBlock) {
  std::mt19937 random(7);
  const auto pick = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  for (int round = 0; round < 60; ++round) {
    const int64_t kv_tokens = pick(32, 300);
    const int64_t batch = pick(1, 80);
    make({.max_batch_tokens = batch,
          .chunk = pick(1, batch),
          .max_sequences = std::min<int64_t>(batch, pick(1, 9)),
          .max_queue = 100,
          .max_logit_rows = batch},
         kv_tokens, round % 2 == 0 ? 0 : pick(1, 60));
    last_id_ = 0;
    for (int i = 0; i < 20; ++i) {
      const int64_t prompt = pick(1, kv_tokens);
      add(prompt, pick(0, kv_tokens - prompt), pick(0, 3) == 0, static_cast<int>(pick(0, 2)));
      if (pick(0, 2) == 0) step();
    }
    run_all();
    if (HasFailure()) return;
  }
}

TEST_F(SchedulerTest, TheQueueIsBounded) {
  make({.max_queue = 2}, 64);
  add(1, 1);
  add(1, 1);
  const Status third = scheduler_->enqueue(std::make_unique<Sequence>());
  EXPECT_EQ(third.code(), StatusCode::kResourceExhausted);
  EXPECT_NE(third.message().find('2'), std::string::npos);
}

}  // namespace
}  // namespace sluice
