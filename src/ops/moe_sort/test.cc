// moe_sort: every output against std::stable_sort, over random routings; maps, masks, live counts,
// both pair forms; capacity; tails; errors.
#include "ops/moe_sort/moe_sort.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "ops/moe_sort/kernels.h"
#include "ops/moe_sort/pairs.h"
#include "ops/moe_sort/sort_runs.h"
#include "tensor/view.h"

namespace sluice {
namespace {

using test::check_sort;
using test::Context;
using test::kUntouched;
using test::Random;
using test::run_sort;
using test::Sorted;
using test::SortProblem;

// Rows of distinct ids, or any; skewed to few experts; some ids that no expert has.
void draw_ids(SortProblem& p, int64_t t, int64_t global, Random& random) {
  p.distinct = p.k <= global && random.chance(0.4);
  const bool skewed = random.chance(0.3), odd = random.chance(0.4);
  std::vector<int32_t> row(static_cast<size_t>(global));
  for (int64_t i = 0; i < t; ++i) {
    for (size_t e = 0; e < row.size(); ++e) row[e] = static_cast<int32_t>(e);
    for (int64_t k = 0; k < p.k; ++k) {
      auto id = static_cast<int32_t>(
          random.below(skewed && !p.distinct ? std::min<int64_t>(global, 3) : global));
      if (p.distinct) {  // the next of a shuffle
        std::swap(row[static_cast<size_t>(k)],
                  row[static_cast<size_t>(k + random.below(global - k))]);
        id = row[static_cast<size_t>(k)];
      }
      if (odd && random.chance(0.1))
        id = random.chance(0.1) ? INT32_MIN
                                : static_cast<int32_t>(random.between(global, global + 2));
      if (odd && random.chance(0.1)) id = -1;
      p.ids.push_back(id);
      p.weights.push_back(random.normal());
    }
  }
  if (random.chance(0.3)) p.weights.clear();
}

SortProblem draw(Random& random) {
  SortProblem p;
  const int64_t global = random.between(1, random.chance(0.1) ? 600 : 40);
  p.k = random.between(1, std::min<int64_t>(global, random.chance(0.1) ? 64 : 10));
  const int64_t t = random.between(0, random.chance(0.1) ? 200 : 40);
  p.experts = global;
  if (random.chance(0.3)) {
    p.experts = random.between(1, global);
    for (int64_t e = 0; e < global; ++e)
      p.map.push_back(e < p.experts ? static_cast<int32_t>(p.experts - 1 - e) : -1);
    for (size_t e = p.map.size(); e > 1; --e)
      std::swap(p.map[e - 1], p.map[static_cast<size_t>(random.below(static_cast<int64_t>(e)))]);
  } else if (random.chance(0.3)) {
    p.experts = 0;
    for (int64_t e = 0; e < global; ++e) p.mask.push_back(random.chance(0.5) ? 1 : 0);
    p.mask[static_cast<size_t>(random.below(global))] = 1;
    for (const int32_t m : p.mask) p.experts += m;
  }
  draw_ids(p, t, global, random);
  constexpr int64_t kBlocks[] = {0, 1, 4, 7, 16, 32, 64};
  p.block = kBlocks[random.below(7)];
  p.form = random.chance(0.5) ? PairForm::kFlat : PairForm::kPacked;
  if (random.chance(0.3)) p.live = static_cast<int32_t>(random.between(0, t + 2));
  return p;
}

using Row = Kernel<MoeSortKernel>;
class MoeSortRow : public ::testing::TestWithParam<Row> {
 protected:
  void SetUp() override { SLUICE_SKIP_UNLESS_RUNNABLE(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Kernels, MoeSortRow,
                         ::testing::ValuesIn(test::all_rows(moe_sort_kernels())), test::RowName());

TEST_P(MoeSortRow, RandomRoutingsEqualAStableSort) {
  Random random(31);
  for (int64_t i = 0; i < test::property_runs(600); ++i) {
    SortProblem p = draw(random);
    p.isa = GetParam().isa;
    check_sort(p, random.chance(0.5));
    ASSERT_FALSE(::testing::Test::HasFailure()) << "configuration " << i;
  }
}

TEST_P(MoeSortRow, ManyPairsEqualAStableSort) {
  Random random(32);
  for (int64_t i = 0; i < test::property_runs(6); ++i) {
    SortProblem p;
    p.isa = GetParam().isa;
    p.experts = random.between(1, 40);
    p.k = random.between(2, 8);
    p.block = random.chance(0.5) ? 16 : 0;
    draw_ids(p, random.between(2100 / p.k, 6000 / p.k), p.experts, random);
    if (random.chance(0.5)) p.live = static_cast<int32_t>(random.between(0, p.tokens()));
    check_sort(p, random.chance(0.5));
    ASSERT_FALSE(::testing::Test::HasFailure()) << "configuration " << i;
  }
}

TEST_P(MoeSortRow, DuplicatesInARowStayTwoPairs) {
  SortProblem p;
  p.isa = GetParam().isa;
  p.ids = {1, 1, 0, 1}, p.k = 2, p.experts = 2, p.block = 4;
  const Sorted s = run_sort(p);
  EXPECT_EQ(s.starts, (std::vector<int32_t>{0, 1, 4}));
  EXPECT_EQ(s.source, (std::vector<int32_t>{1, 0, 0, 1}));
  EXPECT_EQ(s.inverse, (std::vector<int32_t>{1, 2, 0, 3}));
  EXPECT_EQ(s.padded_rows, 8);
  EXPECT_EQ(s.sorted_pairs, (std::vector<int32_t>{2, 4, 4, 4, 0, 1, 3, 4}));
  EXPECT_EQ(s.block_experts, (std::vector<int32_t>{0, 1}));
}

TEST_P(MoeSortRow, ABrokenPromiseOfDistinctIdsNeverWritesOutOfBounds) {
  SortProblem p;  // one token: at most 2 of its 4 pairs could be here, if they were distinct
  p.isa = GetParam().isa;
  p.ids = {0, 0, 0, 1}, p.k = 4, p.experts = 2, p.block = 1, p.distinct = true;
  const Sorted s = run_sort(p);
  if (is_cuda(p.isa)) {
    EXPECT_EQ(s.padded_rows, 4);
  } else {
    EXPECT_EQ(s.status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(s.status.message().find("distinct_ids"), std::string::npos) << s.status.message();
  }
  EXPECT_EQ(s.sorted_pairs, (std::vector<int32_t>{kUntouched, kUntouched}));
}

TEST(MoeSort, CapacityIsTight) {
  // Every split of the pairs over the experts needs at most the capacity, and one needs it all.
  for (const int64_t block : {1, 3, 4})
    for (int64_t pairs = 1; pairs <= 9; ++pairs) {
      int64_t most = 0;
      for (int64_t a = 0; a <= pairs; ++a)
        for (int64_t b = 0; a + b <= pairs; ++b)
          most = std::max(
              most,
              (ceil_div(a, block) + ceil_div(b, block) + ceil_div(pairs - a - b, block)) * block);
      EXPECT_EQ(moe_sort_capacity(pairs, 3, block), most) << pairs << " pairs, block " << block;
    }
  // One token of 8 among 256 experts: 8 blocks, not one per expert.
  EXPECT_EQ(moe_sort_capacity(8, 256, 32), 256);
  EXPECT_EQ(moe_sort_distinct_capacity(1, 8, 256, 32), 256);
  // A rank with 2 of 256 experts holds at most 2 of the 8 pairs of each of 100 tokens.
  EXPECT_EQ(moe_sort_distinct_capacity(100, 8, 2, 32), (200 + 2 * 31) / 32 * 32);
  EXPECT_EQ(moe_sort_capacity(int64_t{1} << 40, 4096, 256),
            (int64_t{1} << 40) / 256 * 256 + 4080 * 256);
  EXPECT_EQ(moe_sort_capacity(0, 8, 4), 0);
  EXPECT_EQ(moe_sort_capacity(8, 8, 0), 0);
}

TEST(MoeSort, DistinctCapacityIsTight) {
  // Every table of distinct rows over 3 experts, 2 tokens of 2: the worst needs it all.
  for (const int64_t block : {1, 2, 3, 5}) {
    int64_t most = 0;
    constexpr int32_t kRows[3][2] = {{0, 1}, {0, 2}, {1, 2}};
    for (const auto& a : kRows)
      for (const auto& b : kRows) {
        int64_t counts[3] = {};
        for (const int32_t e : {a[0], a[1], b[0], b[1]}) ++counts[e];
        int64_t rows = 0;
        for (const int64_t c : counts) rows += round_up(c, block);
        most = std::max(most, rows);
      }
    EXPECT_EQ(moe_sort_distinct_capacity(2, 2, 3, block), most) << block;
  }
}

TEST_P(MoeSortRow, ALiveCountIsReadWhenTheOpRuns) {
  SortProblem p;
  p.isa = GetParam().isa;
  p.ids = {0, 1, 1, 0, 0, 1}, p.k = 2, p.experts = 2, p.block = 2, p.form = PairForm::kPacked;
  for (const int32_t live : {0, 1, 2, 3, 99}) {
    p.live = live;
    check_sort(p);
    EXPECT_EQ(run_sort(p).live_count, std::min(live, 3));
  }
}

TEST_P(MoeSortRow, TheDebugBuildFillsTails) {
#ifdef NDEBUG
  EXPECT_FALSE(MoeSortArgs().fill_tails);
#else
  EXPECT_TRUE(MoeSortArgs().fill_tails);
#endif
  SortProblem p;
  p.isa = GetParam().isa;
  p.ids = {3, -1, 3, 3}, p.k = 2, p.experts = 4, p.block = 4, p.weights = {1, 2, 3, 4};
  check_sort(p, true);
  const Sorted s = run_sort(p, true);
  EXPECT_EQ(s.block_experts, (std::vector<int32_t>{3, kSortPoison, kSortPoison, kSortPoison}));
}

TEST(MoeSort, RefusesWrongShapes) {
  Context context(detect_isa());
  std::vector<int32_t> ids = {0, 1, 1, 0}, starts(3), source(4), inverse(4), few(3), map = {0, 2};
  std::vector<float> weights(4);
  MoeSortArgs good;
  good.ids = ids;
  good.k = 2;
  good.experts = 2;
  good.starts = starts;
  good.source = source;
  good.inverse = inverse;
  EXPECT_TRUE(moe_sort(context.exec, good).ok());
  const auto refused = [&](const MoeSortArgs& args, std::string_view word) {
    const Status s = moe_sort(context.exec, args);
    EXPECT_NE(s.message().find(word), std::string::npos) << s.message();
    return s.code() == StatusCode::kInvalidArgument;
  };
  MoeSortArgs bad = good;
  bad.k = 3;
  EXPECT_TRUE(refused(bad, "K = 3"));
  bad = good, bad.k = 128;
  EXPECT_TRUE(refused(bad, "K in [1, 127]"));
  bad = good, bad.experts = 5000;
  EXPECT_TRUE(refused(bad, "E: expected in [1, 4096]"));
  bad = good, bad.starts = source;
  EXPECT_TRUE(refused(bad, "starts: expected [E+1] = [3]"));
  bad = good, bad.inverse = few;
  EXPECT_TRUE(refused(bad, "inverse: expected [T*K] = [4] or none, got [3]"));
  bad = good, bad.counts = few;
  EXPECT_TRUE(refused(bad, "counts: expected [E] = [2]"));
  bad = good, bad.expert_map = map;
  EXPECT_TRUE(refused(bad, "expert_map"));
  bad = good, bad.expert_mask = few;
  EXPECT_TRUE(refused(bad, "expert_mask: expected E = 2 experts, got 0"));
  bad.expert_map = map;
  EXPECT_TRUE(refused(bad, "expected one of them"));
  bad = good, bad.block_size = 8, bad.sorted_pairs = few;
  EXPECT_TRUE(refused(bad, "sorted_pairs, block_experts: expected room for 16 and 2, got 3 and 0"));
  bad = good, bad.block_size = 1, bad.sorted_pairs = source, bad.block_experts = inverse;
  bad.sorted_weights = weights;
  EXPECT_TRUE(refused(bad, "weights: expected [T, K] = [4] values, got [0]"));
  bad.weights = weights, bad.sorted_weights = std::span(weights).first(3);
  EXPECT_TRUE(refused(bad, "sorted_weights: expected room as sorted_pairs, 4, got 3"));
  bad = good, bad.block_size = -1;
  EXPECT_TRUE(refused(bad, "block_size"));
}

TEST(MoeSort, SaysTheLimitsOfItsIntegers) {
  // The limits are checked before anything is read: the spans lie about what is behind them.
  Context context(detect_isa());
  std::vector<int32_t> starts(2), word(1);
  MoeSortArgs args;
  args.k = 1;
  args.experts = 1;
  args.starts = starts;
  args.block_size = 16;
  args.form = PairForm::kPacked;
  args.ids = {word.data(), size_t{1} << 24};
  EXPECT_NE(moe_sort(context.exec, args).message().find("24 bits: expected at most 16777215"),
            std::string::npos);
  args.form = PairForm::kFlat;  // no such limit, but the buffers are too small
  EXPECT_NE(moe_sort(context.exec, args).message().find("expected room for 16777216"),
            std::string::npos);
  args.ids = {word.data(), size_t{1} << 31};
  EXPECT_NE(moe_sort(context.exec, args).message().find("T * K: expected below 2^31"),
            std::string::npos);
  std::vector<int32_t> many(4097);
  args.starts = many;
  args.experts = 4096;
  args.block_size = int64_t{1} << 20;
  args.ids = {word.data(), 5000};
  EXPECT_NE(moe_sort(context.exec, args).message().find("capacity: expected below 2^31"),
            std::string::npos);
}

}  // namespace
}  // namespace sluice
