// The engine's rules on tiny random models: admission, ends, cancelling, reuse, windows, sampling.
#include "engine/engine.h"

#include "model_runs.h"

namespace sluice::test {
namespace {

class EngineTest : public ::testing::Test {
 protected:
  void SetUp() override { open("qwen3moe-a"); }
  void open(const std::string& name) {
    engine_.reset();
    case_.model.reset();  // before its runtime
    case_ = load_case(name, Compute::kBf16, 2);
    ASSERT_NE(case_.model, nullptr);
    ids_ = case_.golden.at("input_ids").as<int32_t>();
  }
  void make(const EngineOptions& options) {
    auto engine = Engine::create(*case_.runtime, *case_.model, options);
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    engine_ = std::move(engine).value();
  }
  Request request(int64_t n, size_t prompt = 20) const {
    return {.prompt = {ids_.begin(), ids_.begin() + static_cast<long>(prompt)},
            .sampling = {.temperature = 0},
            .max_new_tokens = n,
            .ignore_eos = true};
  }
  RequestId submit(Request r) {
    const auto id = engine_->submit(std::move(r));
    EXPECT_TRUE(id.ok()) << id.status().message();
    return id.ok() ? *id : 0;
  }
  void step() {
    const auto output = engine_->step();
    ASSERT_TRUE(output.ok()) << output.status().message();
    for (const Event& e : output->events) {
      if (e.has_token) tokens_[e.id].push_back(e.token);
      if (e.finish != FinishReason::kNone) {
        EXPECT_EQ(finish_[e.id], FinishReason::kNone) << "request " << e.id << " ended twice";
        finish_[e.id] = e.finish;
      }
    }
  }
  void run() {
    for (int steps = 0; engine_->busy(); ++steps) {
      ASSERT_LT(steps, 10000);
      step();
    }
  }
  void expect_refused(Request r, const std::vector<std::string>& words) {
    const auto id = engine_->submit(std::move(r));
    ASSERT_FALSE(id.ok());
    for (const std::string& w : words)
      EXPECT_NE(id.status().message().find(w), std::string::npos) << id.status().message();
  }
  // The request afresh, and once more over what `kept` left: the same tokens.
  void expect_reuse(Request r, RequestId kept, int64_t reused_tokens) {
    const RequestId fresh = submit(r);
    run();
    r.reuse = kept;
    const RequestId reused = submit(r);
    run();
    EXPECT_EQ(tokens_[reused], tokens_[fresh]);
    EXPECT_EQ(engine_->stats().reused_tokens, reused_tokens);
  }
  void expect_all_blocks_free() {
    for (size_t g = 0; g < engine_->kv().groups(); ++g)
      EXPECT_EQ(engine_->kv().pool(g).free(), engine_->kv().pool(g).size()) << "group " << g;
  }

  LoadedCase case_;
  std::vector<int32_t> ids_;
  std::unique_ptr<Engine> engine_;
  std::map<RequestId, std::vector<int32_t>> tokens_;
  std::map<RequestId, FinishReason> finish_;
};

TEST_F(EngineTest, RefusesWhatCanNeverRunAndSaysBothNumbers) {
  make({.kv_tokens = 64});
  expect_refused({}, {"no tokens"});
  Request outside = request(1);
  outside.prompt[3] = 320;
  expect_refused(outside, {"prompt[3]", "320"});
  expect_refused(request(46), {"20", "46", "64"});
  expect_refused(request(5000), {"5000", "4096"});
  expect_refused(request(-1), {"-1"});
  Request cold = request(1);
  cold.sampling.temperature = -1;
  expect_refused(cold, {"temperature"});
  Request scored = request(0);
  scored.score_prompt = true;
  expect_refused(scored, {"scoring"});
  EXPECT_FALSE(engine_->busy());
  submit(request(45));  // 20 + 45 tokens, the last of which is never fed back: exactly 64
  run();
  EXPECT_EQ(finish_[1], FinishReason::kLength);
}

TEST_F(EngineTest, RefusesMoreThanItsQueueHolds) {
  make({.max_queue = 2, .kv_tokens = 64});
  submit(request(1));
  submit(request(1));
  const auto third = engine_->submit(request(1));
  EXPECT_EQ(third.status().code(), StatusCode::kResourceExhausted);
  run();
  expect_all_blocks_free();
}

TEST_F(EngineTest, RefusesOptionsThatMakeNoSense) {
  for (const EngineOptions& o : {EngineOptions{.max_batch_tokens = 0}, EngineOptions{.chunk = -1},
                                 EngineOptions{.max_sequences = 0}, EngineOptions{.max_queue = 0}})
    EXPECT_EQ(Engine::create(*case_.runtime, *case_.model, o).status().code(),
              StatusCode::kInvalidArgument);
}

TEST_F(EngineTest, EndsAtAStopIdButNotBeforeTheMinimum) {
  make({.kv_tokens = 256});
  const RequestId free = submit(request(12));
  run();
  const std::vector<int32_t> all = tokens_[free];
  ASSERT_EQ(all.size(), 12u);
  const int32_t stop = all[5];
  const auto first = std::find(all.begin(), all.end(), stop) - all.begin();
  Request stopped = request(12);
  stopped.stop_ids = {stop};
  const RequestId ends = submit(stopped);
  stopped.min_new_tokens = 8;
  const RequestId later = submit(stopped);
  run();
  EXPECT_EQ(finish_[ends], FinishReason::kStop);
  EXPECT_EQ(tokens_[ends], std::vector<int32_t>(all.begin(), all.begin() + first + 1));
  ASSERT_GE(tokens_[later].size(), 8u);
  for (size_t i = 0; i < 8; ++i) EXPECT_NE(tokens_[later][i], stop) << i;
  expect_all_blocks_free();
}

TEST_F(EngineTest, EndsAtTheModelsEosUnlessToldOtherwise) {
  make({.kv_tokens = 256});
  ASSERT_FALSE(engine_->eos_ids().empty());
  Request r = request(6);
  r.ignore_eos = false;
  r.sampling.logit_bias = {{engine_->eos_ids()[0], 100.0f}};  // the likeliest token by far
  const RequestId ends = submit(r);
  r.ignore_eos = true;
  const RequestId goes_on = submit(r);
  run();
  EXPECT_EQ(tokens_[ends], (std::vector<int32_t>{engine_->eos_ids()[0]}));
  EXPECT_EQ(finish_[ends], FinishReason::kStop);
  EXPECT_EQ(tokens_[goes_on].size(), 6u);
  EXPECT_EQ(finish_[goes_on], FinishReason::kLength);
}

TEST_F(EngineTest, CancelsWaitingAndRunningRequests) {
  make({.max_sequences = 1, .kv_tokens = 256});
  const RequestId running = submit(request(50)), waiting = submit(request(50));
  const RequestId last = submit(request(3));
  step();
  step();
  EXPECT_TRUE(engine_->cancel(running).ok());
  EXPECT_TRUE(engine_->cancel(waiting).ok());
  EXPECT_EQ(engine_->cancel(running).code(), StatusCode::kNotFound);
  run();
  EXPECT_EQ(finish_[running], FinishReason::kCancelled);
  EXPECT_EQ(tokens_[running].size(), 2u);
  EXPECT_EQ(finish_[waiting], FinishReason::kCancelled);
  EXPECT_EQ(tokens_[waiting].size(), 0u);
  EXPECT_EQ(tokens_[last].size(), 3u);
  expect_all_blocks_free();
}

TEST_F(EngineTest, AFollowingTurnReusesTheKeptPrefixWithTheSameResult) {
  for (const char* name : {"qwen3moe-a", "gemma4-a", "gptoss-b"}) {
    SCOPED_TRACE(name);
    open(name);
    if (IsSkipped()) return;
    make({.kv_tokens = 512});
    tokens_.clear(), finish_.clear();
    Request first = request(6, 30);
    first.keep = true;
    const RequestId one = submit(first);
    run();
    // The conversation goes on: prompt, answer, new tokens.
    Request second = request(6, 30);
    second.prompt.insert(second.prompt.end(), tokens_[one].begin(), tokens_[one].end());
    second.prompt.insert(second.prompt.end(), ids_.begin() + 40, ids_.begin() + 50);
    expect_reuse(second, one, 35);
    expect_all_blocks_free();
  }
}

TEST_F(EngineTest, APromptThatDiffersReusesWhatAgrees) {
  make({.kv_tokens = 512});
  Request first = request(6, 30);
  first.keep = true;
  const RequestId one = submit(first);
  run();
  Request second = request(6, 30);
  second.prompt[17] = (second.prompt[17] + 1) % 300;
  expect_reuse(second, one, 17);
}

TEST_F(EngineTest, KeptBlocksGiveWayToRunningRequests) {
  make({.kv_tokens = 64});
  Request first = request(6, 30);
  first.keep = true;
  const RequestId one = submit(first);
  run();
  EXPECT_LT(engine_->kv().pool(0).free(), engine_->kv().pool(0).size());
  const RequestId big = submit(request(5, 60));
  run();
  EXPECT_EQ(tokens_[big].size(), 5u);
  expect_all_blocks_free();
  Request second = request(6, 30);
  second.reuse = one;  // gone: computed afresh
  const RequestId again = submit(second);
  run();
  EXPECT_EQ(tokens_[again], tokens_[one]);
  EXPECT_EQ(engine_->stats().reused_tokens, 0);
}

TEST_F(EngineTest, ADrawDoesNotDependOnTheBatch) {
  Request r = request(16);
  r.sampling = {.temperature = 1.2f, .top_k = 40, .top_p = 0.9f, .seed = 11};
  make({.kv_tokens = 64});
  const RequestId alone = submit(r);
  run();
  const std::vector<int32_t> expected = tokens_[alone];
  tokens_.clear(), finish_.clear();
  make({.max_batch_tokens = 9, .chunk = 4, .max_sequences = 5, .kv_tokens = 96});
  submit(request(30, 25));
  const RequestId crowded = submit(r);
  r.sampling.seed = 12;
  const RequestId other = submit(r);
  submit(request(30, 7));
  run();
  EXPECT_EQ(tokens_[crowded], expected);
  EXPECT_NE(tokens_[other], expected);
  EXPECT_GT(engine_->stats().preemptions, 0);
}

TEST_F(EngineTest, SlidingGroupsStaySmall) {
  open("gemma4-a");
  if (IsSkipped()) return;
  make({.max_batch_tokens = 16, .max_sequences = 1, .kv_tokens = 2048});
  // Window 8, one block of slack, chunks of 16: a handful of blocks whatever the length.
  int64_t smallest = engine_->kv().pool(0).size();
  for (size_t g = 1; g < engine_->kv().groups(); ++g)
    smallest = std::min(smallest, engine_->kv().pool(g).size());
  EXPECT_LE(smallest, 5);
  submit(request(400));
  run();
  EXPECT_EQ(finish_[1], FinishReason::kLength);
  expect_all_blocks_free();
}

TEST_F(EngineTest, CountsEveryRoutedPair) {
  make({.kv_tokens = 64});
  submit(request(5));
  run();
  const int64_t rows = 20 + 4;  // the last token drawn is not computed
  const std::vector<std::vector<int64_t>> counts = engine_->expert_counts();
  for (size_t l = 0; l < counts.size(); ++l) {
    int64_t pairs = 0;
    for (const int64_t c : counts[l]) pairs += c;
    const auto& moe = case_.model->spec.layers[l].moe;
    EXPECT_EQ(pairs, moe ? rows * moe->k : 0);
  }
}

TEST_F(EngineTest, GivesLogprobsOfTheModelsDistribution) {
  make({.kv_tokens = 64});
  Request r = request(3);
  r.sampling.logprobs = 4;
  submit(r);
  int tokens = 0;
  while (engine_->busy()) {
    const auto output = engine_->step();
    ASSERT_TRUE(output.ok());
    for (const Event& e : output->events) {
      if (!e.has_token) continue;
      ++tokens;
      ASSERT_EQ(e.top.size(), 4u);
      EXPECT_EQ(e.top[0].id, e.token);  // greedy
      EXPECT_FLOAT_EQ(e.top[0].logprob, e.logprob);
      EXPECT_LE(e.logprob, 0.0f);
      EXPECT_GE(e.top[2].logprob, e.top[3].logprob);
    }
  }
  EXPECT_EQ(tokens, 3);
}

}  // namespace
}  // namespace sluice::test
