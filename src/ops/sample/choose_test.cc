// sample's choice: every kernel row against a sort-based oracle of the rules in sample.h, and the
// passes against the reference's.
#include "ops/sample/choose.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/float_env.h"
#include "ops/sample/gpu.h"
#include "ops/sample/kernels.h"
#include "ops/sample/mass.h"
#include "ops/test_data.h"
#include "simd/scalar.h"

namespace sluice {
namespace {

using test::Random;

// The rules of sample.h word for word, over a sort of the whole row.
struct Oracle {
  struct Token {
    float d;
    int64_t id;
    uint64_t mass;
  };
  std::vector<Token> kept;
  uint64_t mass = 0;

  Oracle(const std::vector<float>& logits, const ChoiceRule& rule) {
    const ScopedFloatEnv env;
    float max = -INFINITY;
    for (const float l : logits)
      if (l > max) max = l;
    std::vector<Token> all;
    uint64_t total = 0;
    const float inverse = 1.0f / rule.temperature;
    for (size_t j = 0; j < logits.size(); ++j) {
      const float d = (max - logits[j]) * inverse;
      if (!(d < INFINITY)) continue;
      const uint64_t q = static_cast<uint64_t>(scalar::exp(-d) * kMassUnit);
      all.push_back({d, static_cast<int64_t>(j), q});
      total += q;
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const Token& a, const Token& b) { return a.d < b.d; });
    const uint64_t limit =
        static_cast<uint64_t>(static_cast<double>(rule.top_p) * static_cast<double>(total));
    const float far = rule.min_p > 0 ? static_cast<float>(-std::log(double{rule.min_p})) : INFINITY;
    for (const Token& t : all) {
      if (rule.top_k > 0 && static_cast<int64_t>(kept.size()) >= rule.top_k) break;
      if (rule.top_p < 1 && mass > limit) break;
      if (t.d > far || t.mass == 0) break;
      kept.push_back(t);
      mass += t.mass;
    }
  }
  int64_t draw(uint32_t random24) const {
    const uint64_t target =
        static_cast<uint64_t>((static_cast<__uint128_t>(mass) * random24) >> 24);
    uint64_t end = 0;
    for (const Token& t : kept) {
      end += t.mass;
      if (end > target) return t.id;
    }
    return -1;
  }
};

struct Kind {
  const char* name;
  float (*fill)(Random&, int64_t i);
};
const Kind kKinds[] = {
    {"language", [](Random& r, int64_t) { return 3.0f * r.normal(); }},
    {"flat", [](Random& r, int64_t) { return 0.05f * r.normal(); }},
    {"equal", [](Random&, int64_t) { return -7.25f; }},
    {"ties", [](Random& r, int64_t) { return static_cast<float>(r.below(3)); }},
    {"peaked", [](Random& r, int64_t i) { return i == 17 ? 40.0f : r.normal(); }},
    {"masked", [](Random& r, int64_t) { return r.chance(0.9) ? -INFINITY : r.normal(); }},
    {"holes", [](Random& r, int64_t) { return r.chance(0.3) ? NAN : 2 * r.normal(); }},
    {"wide", [](Random& r, int64_t) { return 3000.0f * r.normal(); }},
    {"near zero", [](Random& r, int64_t) { return r.rough() * 1e-30f; }},
    {"zeros", [](Random& r, int64_t) { return r.chance(0.5) ? 0.0f : -0.0f; }},
};

const ChoiceRule kRules[] = {
    {1.0f, 0, 1.0f, 0.0f},  {0.7f, 0, 0.95f, 0.0f},   {1.0f, 20, 0.95f, 0.0f},
    {0.6f, 20, 1.0f, 0.0f}, {1.5f, 0, 0.3f, 0.05f},   {1.0f, 1500, 1.0f, 0.0f},
    {1.0f, 0, 1.0f, 0.1f},  {2.0f, 1500, 0.9f, 0.0f}, {1.0f, 50, 0.999f, 0.02f},
    {1.0f, 0, 1e-9f, 0.0f}, {0.01f, 0, 0.99f, 0.0f},  {100.0f, 0, 0.5f, 1.0f},
    {1.0f, 2, 1.0f, 0.0f},  {1.0f, 1024, 0.5f, 0.0f}, {1.0f, 1025, 0.99f, 1e-3f},
};

using Row = Kernel<const SampleKernel>;

// One row's choice on any path.
int64_t choose_on(const Row& row, const float* logits, int64_t n, const ChoiceRule& rule,
                  Kept* kept) {
  if (row.run->draw == nullptr) return choose(*row.run, logits, n, rule, kept);
  const test::Context context(row.isa);
  const SampleSizes sizes{1, n, 0, 0, 0, 0};
  test::Scratch scratch(lay_out(sizes, nullptr).bytes);
  SampleBatch batch = lay_out(sizes, scratch.workspace().data);
  batch.rules[0] = device_rule(rule, n);
  batch.draws.logits = logits;
  batch.draws.stride = n;
  batch.draws.draws = !batch.rules[0].greedy;
  batch.draws.bounded = batch.rules[0].bounded;
  batch.draws.stream = context.exec.stream;
  row.run->draw(batch.draws);
  EXPECT_TRUE(context.finish(ok_status()).ok());
  const SampleResult& result = batch.draws.results[0];
  if (kept != nullptr) *kept = {static_cast<int64_t>(result.kept_count), result.kept_mass};
  return result.token;
}

std::vector<Row> rows_with_passes() {
  std::vector<Row> rows = test::all_rows(sample_kernels());
  std::erase_if(rows, [](const Row& row) { return row.run->draw != nullptr; });
  return rows;
}

class ChooseRow : public ::testing::TestWithParam<Row> {};

TEST_P(ChooseRow, ChoosesWhatASortWouldChoose) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  Random random(8);
  for (const Kind& kind : kKinds) {
    for (const int64_t n : {1, 2, 16, 33, 1000, 4099}) {
      std::vector<float> logits(static_cast<size_t>(n) + 1);  // at an odd address
      for (int64_t i = 0; i < n; ++i) logits[static_cast<size_t>(i) + 1] = kind.fill(random, i);
      const std::vector<float> row(logits.begin() + 1, logits.end());
      for (ChoiceRule rule : kRules) {
        const Oracle oracle(row, rule);
        if (oracle.kept.empty()) continue;  // nothing finite: Degenerate below
        for (const uint32_t u :
             {0u, 1u, 8388608u, 16777215u, static_cast<uint32_t>(random.below(1 << 24))}) {
          rule.random24 = u;
          Kept kept;
          const ScopedFloatEnv env;
          const int64_t got = choose_on(GetParam(), logits.data() + 1, n, rule, &kept);
          const std::string what =
              fmt::format("{}, V = {}, T = {}, k = {}, p = {}, min_p = {}, u = {}", kind.name, n,
                          rule.temperature, rule.top_k, rule.top_p, rule.min_p, u);
          ASSERT_EQ(kept.mass, oracle.mass) << what;
          if (kept.count >= 0) {
            ASSERT_EQ(kept.count, static_cast<int64_t>(oracle.kept.size())) << what;
          }
          ASSERT_EQ(got, oracle.draw(u)) << what;
        }
      }
    }
  }
}

void expect_oracle(const Row& kernel, const std::vector<float>& row, ChoiceRule rule,
                   const std::string& what) {
  const Oracle oracle(row, rule);
  Kept kept;
  const ScopedFloatEnv env;
  const int64_t got = choose_on(kernel, row.data(), std::ssize(row), rule, &kept);
  EXPECT_EQ(kept.mass, oracle.mass) << what;
  if (kept.count >= 0) {
    EXPECT_EQ(kept.count, std::ssize(oracle.kept)) << what;
  }
  EXPECT_EQ(got, oracle.draw(rule.random24)) << what;
}

// Among equal tokens the mass before a token reaches p * Z exactly: it is kept, the next one not;
// and k may end at it, just before it or just after.
TEST_P(ChooseRow, WhereTwoRulesMeet) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  for (const int64_t at : {500, 1500}) {
    const std::vector<float> row(4096, 0.5f);
    ChoiceRule rule;
    rule.top_p = static_cast<float>(at) / 4096.0f;
    for (const int64_t k : {int64_t{0}, at - 1, at, at + 1, at + 2}) {
      rule.top_k = k;
      const Oracle oracle(row, rule);
      ASSERT_EQ(std::ssize(oracle.kept), k == 0 ? at + 1 : std::min(k, at + 1));
      for (const uint32_t u : {0u, 8388608u, 16777215u}) {
        rule.random24 = u;
        expect_oracle(GetParam(), row, rule, fmt::format("k = {}, u = {}", k, u));
      }
    }
  }
}

// One token that weighs as much as all the others, which are equal: the draw at u = 1/2 is the
// first of those, and the bound on how far to look is as tight as it can be.
TEST_P(ChooseRow, WhereTheBoundIsTight) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  // ln(4916) = 8.5002 lies just past the edge of a bin of the search.
  for (const int64_t n : {2, 33, 1000, 4917, 30000}) {
    for (const float nudge : {-1e-2f, -1e-4f, -1e-6f, 0.0f, 1e-6f, 1e-4f, 1e-2f}) {
      std::vector<float> row(static_cast<size_t>(n), 0.0f);
      row[static_cast<size_t>(n / 2)] = std::log(static_cast<float>(n - 1)) + nudge;
      ChoiceRule rule;
      for (const float p : {1.0f, 0.5f}) {
        rule.top_p = p;
        rule.random24 = 8388608;
        expect_oracle(GetParam(), row, rule, fmt::format("V = {}, p = {}, {}", n, p, nudge));
      }
    }
  }
}

class SamplePassesRow : public ChooseRow {};

TEST_P(SamplePassesRow, EqualTheReference) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  const SampleKernel &k = *GetParam().run, &want = sample_f32_reference;
  Random random(9);
  const ScopedFloatEnv env;
  for (const Kind& kind : kKinds) {
    for (const int64_t n : {1, 15, 16, 17, 31, 32, 33, 47, 48, 49, 64, 1023}) {
      std::vector<float> x(static_cast<size_t>(n));
      for (int64_t i = 0; i < n; ++i) x[static_cast<size_t>(i)] = kind.fill(random, i);
      const float max = want.max(x.data(), n);
      ASSERT_EQ(k.max(x.data(), n), max) << kind.name;
      ASSERT_EQ(k.first_equal(x.data(), n, max), want.first_equal(x.data(), n, max));
      ASSERT_EQ(f32_to_bits(k.exp_sum(x.data(), n, max)),
                f32_to_bits(want.exp_sum(x.data(), n, max)))
          << kind.name << ", V = " << n;
      const SampleView view{x.data(), n, max + 0.0f, 0.75f};
      for (const float limit : {0.0f, 1.0f, 20.0f, INFINITY})
        ASSERT_EQ(k.mass(view, limit), want.mass(view, limit)) << kind.name << ", V = " << n;
    }
  }
}

TEST_P(ChooseRow, LargestVocabularyHoldsItsMass) {
  SLUICE_SKIP_UNLESS_RUNNABLE(GetParam());
  constexpr int64_t kN = int64_t{1} << 20;
  const std::vector<float> x(static_cast<size_t>(kN), 1.0f);
  const ScopedFloatEnv env;
  ChoiceRule rule;
  rule.min_p = 0.5f;
  Kept kept;
  for (const uint32_t u : {0u, 4095u, 16777215u}) {
    rule.random24 = u;
    EXPECT_EQ(choose_on(GetParam(), x.data(), kN, rule, &kept), int64_t{u} >> 4);
    EXPECT_EQ(kept.mass, uint64_t{1} << 50);
  }
}

// The coarse bins of the CUDA rows end behind the last distance that has a mass.
TEST(SampleDraws, CoarseBinsHoldEveryMass) {
  const ScopedFloatEnv env;
  float d = 0.0f;
  for (uint32_t bits = 0; bits < 0x42000000u; bits += 64)
    if (sample_mass(bits_to_f32(bits)) > 0) d = std::max(d, bits_to_f32(bits));
  EXPECT_GT(d, 20.79f);
  EXPECT_LT(static_cast<int>((f32_to_bits(d) + 64) >> 19), kSampleCoarse - 1);
}

INSTANTIATE_TEST_SUITE_P(Kernels, SamplePassesRow, ::testing::ValuesIn(rows_with_passes()),
                         test::RowName());
INSTANTIATE_TEST_SUITE_P(Kernels, ChooseRow, ::testing::ValuesIn(test::all_rows(sample_kernels())),
                         test::RowName());

}  // namespace
}  // namespace sluice
