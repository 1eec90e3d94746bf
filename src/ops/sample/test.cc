// sample: the op on every path: the draw against its own probabilities, Philox against the
// published vectors, batches, penalties, logprobs, degenerate rows, errors.
#include "ops/sample/sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "ops/sample/kernels.h"
#include "ops/sample/philox.h"
#include "ops/test_data.h"

namespace sluice {
namespace {

using test::Context;
using test::Matrix;
using test::Random;

using Row = Kernel<const SampleKernel>;
class SampleKernelRow : public ::testing::TestWithParam<Row> {};

// Draws of many positions fall on the tokens as their probabilities say: chi-square over 32 cells.
TEST_P(SampleKernelRow, DrawFollowsTheDistribution) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  const Context context(GetParam().isa);
  Random random(10);
  constexpr int kCells = 32, kDraws = 20000;
  Matrix logits(1, kCells);
  logits.fill(random);
  SamplingParams params;
  params.temperature = 0.8f;
  params.seed = 1234;
  double total = 0;
  std::vector<double> p(kCells);
  for (int i = 0; i < kCells; ++i)
    total += p[static_cast<size_t>(i)] = std::exp(logits.at(0, i) / 0.8);
  std::vector<int> seen(kCells);
  for (int i = 0; i < kDraws; ++i) {
    SampleRow row;
    row.params = &params;
    row.position = i;
    ASSERT_TRUE(sample(context.exec, {logits.view(), {&row, 1}}).ok());
    ++seen[static_cast<size_t>(row.token)];
  }
  double chi = 0;
  for (size_t i = 0; i < kCells; ++i) {
    const double expected = kDraws * p[i] / total;
    chi += (seen[i] - expected) * (seen[i] - expected) / expected;
  }
  EXPECT_LT(chi, 61.1);  // 31 degrees of freedom: one seed in a thousand would exceed it
}

// One batch of different rules, alone or together, with or without workers: the same tokens.
TEST_P(SampleKernelRow, BatchAndWorkersChangeNothing) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  constexpr int64_t kRows = 9, kV = 700;
  Random random(11);
  Matrix logits(kRows, kV, 5, 1);
  logits.fill(random);
  std::vector<SamplingParams> params(kRows);
  std::vector<int32_t> history = {5, 6, 7, 7, 7, 690};
  std::vector<SampleRow> rows(kRows);
  const auto reset = [&] {
    for (size_t r = 0; r < kRows; ++r) {
      params[r].top_p = 0.5f + 0.05f * static_cast<float>(r);
      params[r].top_k = r % 3 == 0 ? 40 : 0;
      params[r].repetition_penalty = r % 2 == 0 ? 1.3f : 1.0f;
      params[r].presence_penalty = r % 4 == 0 ? 0.5f : 0.0f;
      params[r].logprobs = 3;
      params[r].seed = r;
      rows[r] = {};
      rows[r].params = &params[r];
      rows[r].position = static_cast<int64_t>(100 + r);
      rows[r].prompt = history;
      rows[r].output = history;
    }
  };
  reset();
  const Context alone(Isa::kReference);
  for (int64_t r = 0; r < kRows; ++r)
    ASSERT_TRUE(
        sample(alone.exec, {{&logits.at(r, 0), 1, kV}, {&rows[static_cast<size_t>(r)], 1}}).ok());
  const std::vector<SampleRow> want = rows;
  for (const int threads : {0, 1, 2, 3}) {
    reset();
    const Context context(GetParam().isa, threads);
    test::Scratch scratch(sample_workspace_bytes(3, kV));
    ASSERT_TRUE(sample(context.exec, {logits.view(), rows},
                       threads == 2 ? Workspace{} : scratch.workspace())
                    .ok());
    for (size_t r = 0; r < kRows; ++r) {
      EXPECT_EQ(rows[r].token, want[r].token);
      EXPECT_EQ(f32_to_bits(rows[r].logprob), f32_to_bits(want[r].logprob));
      ASSERT_EQ(rows[r].top.size(), 3u);
      for (size_t i = 0; i < 3; ++i) {
        EXPECT_EQ(rows[r].top[i].id, want[r].top[i].id);
        EXPECT_EQ(f32_to_bits(rows[r].top[i].logprob), f32_to_bits(want[r].top[i].logprob));
      }
    }
  }
}

// Bias and penalties over a vocabulary of several chunks, with ids that repeat: the reference's
// tokens and logprobs.
TEST_P(SampleKernelRow, AdjustedRowsEqualTheReference) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  const Context context(GetParam().isa), reference(Isa::kReference);
  constexpr int64_t kRows = 12, kV = 9001;
  Random random(14);
  Matrix logits(kRows, kV, 3, 1);
  logits.fill(random);
  std::vector<SamplingParams> params(kRows);
  std::vector<std::vector<int32_t>> histories(2 * kRows);
  std::vector<SampleRow> got(kRows);
  for (auto& ids : histories)
    for (int i = 0; i < 300; ++i) ids.push_back(static_cast<int32_t>(random.below(kV / 30) * 30));
  for (size_t r = 0; r < kRows; ++r) {
    SamplingParams& p = params[r];
    p.seed = r;
    p.temperature = r % 5 == 4 ? 0.0f : 0.3f;
    p.top_k = r % 3 == 1 ? 50 : 0;
    p.logprobs = r % 2 == 0 ? static_cast<int32_t>(r) : -1;
    if (r % 4 != 0) p.repetition_penalty = 0.5f + 0.1f * static_cast<float>(r);
    if (r % 3 != 0) p.frequency_penalty = -0.7f;
    if (r % 3 == 2) p.presence_penalty = 1.1f;
    for (int i = 0; i < 40 && r % 2 == 1; ++i)
      p.logit_bias.emplace_back(static_cast<int32_t>(random.below(20) * 450),
                                3.0f * random.normal());
    got[r].params = &p;
    got[r].position = static_cast<int64_t>(7 * r);
    got[r].prompt = histories[2 * r];
    got[r].output = histories[2 * r + 1];
  }
  std::vector<SampleRow> want = got;
  ASSERT_TRUE(sample(reference.exec, {logits.view(), want}).ok());
  ASSERT_TRUE(sample(context.exec, {logits.view(), got}).ok());
  for (size_t r = 0; r < kRows; ++r) {
    EXPECT_EQ(got[r].token, want[r].token) << "row " << r;
    EXPECT_EQ(f32_to_bits(got[r].logprob), f32_to_bits(want[r].logprob)) << "row " << r;
    ASSERT_EQ(got[r].top.size(), want[r].top.size());
    for (size_t i = 0; i < got[r].top.size(); ++i) EXPECT_EQ(got[r].top[i].id, want[r].top[i].id);
  }
}

// What sample_gpu_bytes promises is enough: the device allocates nothing.
TEST(Sample, GpuMemoryIsEnough) {
  const Context context(Isa::kCudaHost);
  constexpr int64_t kV = 5000;
  const std::vector<int32_t> history = {3, 4, 4999, 4};
  Matrix logits(3, kV);
  SamplingParams p;
  p.logprobs = 20;
  p.repetition_penalty = 1.2f;
  p.presence_penalty = 0.3f;
  p.logit_bias = {{7, 1.0f}, {7, 2.0f}};
  std::vector<SampleRow> rows(3);
  for (SampleRow& row : rows) {
    row.params = &p;
    row.prompt = row.output = history;
  }
  const SampleMemory need = sample_gpu_bytes(3, kV, 3, 3 * (2 + 2 * 4));
  test::Scratch scratch(need.workspace), staging(need.staging);
  ASSERT_TRUE(
      sample(context.exec, {logits.view(), rows, staging.workspace()}, scratch.workspace()).ok());
  EXPECT_EQ(context.device->peak_bytes(), 0u);
  ASSERT_TRUE(sample(context.exec, {logits.view(), rows}).ok());
  EXPECT_GT(context.device->peak_bytes(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Kernels, SampleKernelRow,
                         ::testing::ValuesIn(test::all_rows(sample_kernels())), test::RowName());

// One row through the op, on every path that the machine has; all must agree.
SampleRow draw(std::vector<float> logits, const SamplingParams& params,
               std::vector<int32_t> prompt = {}, std::vector<int32_t> output = {}) {
  SampleRow first;
  bool have = false;
  for (const Isa isa : {Isa::kReference, Isa::kAvx2, Isa::kAvx512, Isa::kCudaHost, Isa::kCuda}) {
    if (!test::runnable(isa)) continue;
    SampleRow row;
    row.params = &params;
    row.prompt = prompt;
    row.output = output;
    const ConstMatrixF32 view(logits.data(), 1, static_cast<int64_t>(logits.size()));
    const Status s = sample(Context(isa).exec, {view, {&row, 1}});
    EXPECT_TRUE(s.ok()) << s.message();
    if (have) {
      EXPECT_EQ(row.token, first.token) << isa_name(isa);
      EXPECT_EQ(f32_to_bits(row.logprob), f32_to_bits(first.logprob)) << isa_name(isa);
    }
    first = row;
    have = true;
  }
  return first;
}

TEST(Sample, PhiloxGivesThePublishedVectors) {
  // Random123's known answers for philox4x32-10.
  using Four = std::array<uint32_t, 4>;
  const uint32_t ones = 0xffffffffu;
  EXPECT_EQ(philox4x32_10({0, 0, 0, 0}, {0, 0}),
            (Four{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  EXPECT_EQ(philox4x32_10({ones, ones, ones, ones}, {ones, ones}),
            (Four{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
  EXPECT_EQ(philox4x32_10({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u},
                          {0xa4093822u, 0x299f31d0u}),
            (Four{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
  EXPECT_EQ(philox_uniform(0, 0), static_cast<float>(0x6627e8u) * 0x1p-24f);
  EXPECT_LT(philox_uniform(~uint64_t{0}, ~uint64_t{0}), 1.0f);
}

TEST(Sample, GreedyTakesTheLowestIdOfTheLargest) {
  for (int kind = 0; kind < 3; ++kind) {
    SamplingParams p;
    if (kind == 0) p.temperature = 0;
    if (kind == 1) p.top_p = 0;
    if (kind == 2) p.top_k = 1;
    EXPECT_EQ(draw({1, 3, 2, 3, NAN}, p).token, 1);
    EXPECT_EQ(draw({NAN, NAN, -5}, p).token, 2);
    EXPECT_EQ(draw({-1, -0.0f, 0.0f}, p).token, 1);
  }
}

TEST(Sample, DegenerateRowsHaveADefinedResult) {
  for (const float temperature : {0.0f, 1e-44f, 1e-9f, 1.0f}) {
    SamplingParams p;
    p.temperature = temperature;
    p.top_p = 0.9f;
    p.logprobs = 2;
    const std::pair<std::vector<float>, int32_t> cases[] = {
        {{NAN, NAN, NAN}, 0},
        {{-INFINITY, -INFINITY}, 0},
        {{NAN, -INFINITY, -INFINITY}, 1},
        {{1, INFINITY, NAN, INFINITY}, 1},
        {{NAN, -3}, 1},
        {{5}, 0},
    };
    for (const auto& [logits, id] : cases) {
      const SampleRow row = draw(logits, p);
      EXPECT_EQ(row.token, id);
      EXPECT_TRUE(row.logprob >= -9999.0f && row.logprob <= 0.0f) << row.logprob;
      EXPECT_EQ(row.top.size(), std::min<size_t>(2, logits.size()));
      for (const TokenLogprob& t : row.top)
        EXPECT_TRUE(t.logprob >= -9999.0f && t.logprob <= 0.0f) << t.logprob;
    }
  }
}

// transformers: a positive logit of a token that stands in prompt or output is divided by the
// repetition penalty, another multiplied; once, however often it stands there.
TEST(Sample, PenaltiesInTheirOrder) {
  SamplingParams p;
  p.temperature = 0;
  p.repetition_penalty = 2;
  EXPECT_EQ(draw({4, 3, 1}, p).token, 0);
  EXPECT_EQ(draw({4, 3, 1}, p, {0}).token, 1);             // 2 3 1
  EXPECT_EQ(draw({4, 2.5f, 1}, p, {0, 0}).token, 1);       // 2 2.5 1
  EXPECT_EQ(draw({4, 1.5f, 1}, p, {0, 0}, {0}).token, 0);  // 2 1.5 1: once
  EXPECT_EQ(draw({-1, -1.5f}, p, {}, {0}).token, 1);       // -2 -1.5
  p = {};
  p.temperature = 0;
  p.presence_penalty = 1;
  EXPECT_EQ(draw({4, 3.5f}, p, {0}, {}).token, 0);     // the prompt does not count
  EXPECT_EQ(draw({4, 3.5f}, p, {}, {0}).token, 1);     // 3 3.5
  EXPECT_EQ(draw({4, 2.5f}, p, {}, {0, 0}).token, 0);  // 3 2.5: once
  p.presence_penalty = 0;
  p.frequency_penalty = 1;
  EXPECT_EQ(draw({4, 2.5f}, p, {}, {0, 0}).token, 1);  // 2 2.5
  p.frequency_penalty = -1;
  EXPECT_EQ(draw({4, 3, 3}, p, {}, {2, 2}).token, 2);  // a negative penalty rewards
  p = {};
  p.temperature = 0;
  p.logit_bias = {{1, 100.0f}, {1, -50.0f}, {0, -100.0f}};
  EXPECT_EQ(draw({90, 10, 1}, p).token, 1);
  p.repetition_penalty = 10;  // after the bias: (10 + 50) / 10
  EXPECT_EQ(draw({90, 10, 7}, p, {1}).token, 2);
}

TEST(Sample, LogprobsAreTheModelsOwn) {
  Random random(12);
  std::vector<float> logits(500);
  for (float& l : logits) l = 4 * random.normal();
  logits[7] = -INFINITY;
  double total = 0, max = -INFINITY;
  for (const float l : logits) max = std::max(max, double{l});
  for (const float l : logits) total += std::exp(l - max);
  SamplingParams p;
  p.temperature = 3;
  p.logit_bias = {{7, 100.0f}};
  p.logprobs = 20;
  const SampleRow row = draw(logits, p);
  const auto exact = [&](int32_t id) {
    return std::max(-9999.0, logits[static_cast<size_t>(id)] - max - std::log(total));
  };
  // exp within 2 ulp, 500 additions in 32 chains, the logarithm, two subtractions of about 20.
  const double bound = 0x1p-24 * (2 * 2 + 16 + 6 + 2 * 64);
  EXPECT_NEAR(row.logprob, exact(row.token), bound);
  ASSERT_EQ(row.top.size(), 20u);
  std::set<int32_t> ids;
  for (size_t i = 0; i < 20; ++i) {
    EXPECT_NEAR(row.top[i].logprob, exact(row.top[i].id), bound);
    EXPECT_LE(row.top[i].logprob, row.top[i > 0 ? i - 1 : 0].logprob);
    ids.insert(row.top[i].id);
  }
  EXPECT_EQ(ids.size(), 20u);
  p.logprobs = -1;
  EXPECT_TRUE(draw(logits, p).top.empty());
  p.temperature = 0;
  p.logprobs = 0;
  EXPECT_TRUE(draw(logits, p).top.empty());
}

TEST(Sample, SaysWhatIsWrong) {
  const auto failure = [](auto change) {
    SamplingParams p;
    change(p);
    const Status s = validate_sampling(p, 10);
    return s.ok() ? std::string() : s.message();
  };
  EXPECT_EQ(failure([](SamplingParams&) {}), "");
  EXPECT_EQ(failure([](SamplingParams& p) { p.top_k = -1; }), "");
  const std::pair<const char*, std::string> cases[] = {
      {"temperature: expected 0 to 100, got -1",
       failure([](SamplingParams& p) { p.temperature = -1; })},
      {"temperature", failure([](SamplingParams& p) { p.temperature = NAN; })},
      {"top_k", failure([](SamplingParams& p) { p.top_k = -2; })},
      {"top_p", failure([](SamplingParams& p) { p.top_p = 1.0000001f; })},
      {"min_p", failure([](SamplingParams& p) { p.min_p = 2; })},
      {"repetition_penalty", failure([](SamplingParams& p) { p.repetition_penalty = 0; })},
      {"repetition_penalty", failure([](SamplingParams& p) { p.repetition_penalty = NAN; })},
      {"presence_penalty", failure([](SamplingParams& p) { p.presence_penalty = -3; })},
      {"frequency_penalty", failure([](SamplingParams& p) { p.frequency_penalty = 3; })},
      {"logprobs", failure([](SamplingParams& p) { p.logprobs = 21; })},
      {"[0, 10), got 10", failure([](SamplingParams& p) {
         p.logit_bias = {{10, 0.0f}};
       })},
      {"got 101", failure([](SamplingParams& p) {
         p.logit_bias = {{1, 101.0f}};
       })},
  };
  for (const auto& [part, message] : cases)
    EXPECT_NE(message.find(part), std::string::npos) << part << " | " << message;
  // Ids of the history matter only where penalties read them.
  Matrix logits(1, 10);
  SamplingParams p;
  SampleRow row;
  row.params = &p;
  const int32_t outside[] = {10};
  row.output = outside;
  const Context context(Isa::kReference);
  EXPECT_TRUE(sample(context.exec, {logits.view(), {&row, 1}}).ok());
  p.frequency_penalty = 1;
  const Status s = sample(context.exec, {logits.view(), {&row, 1}});
  EXPECT_NE(s.message().find("output: expected V in [0, 10), got 10"), std::string::npos);
  EXPECT_FALSE(sample(context.exec, {logits.view(), {}}).ok());
}

}  // namespace
}  // namespace sluice
