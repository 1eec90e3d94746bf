// moe_sort: both views against std::stable_sort, over random routings; capacity; errors.
#include "ops/moe_sort/moe_sort.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "ops/moe_sort/kernels.h"
#include "ops/test_data.h"

namespace sluice {
namespace {

using test::Context;
using test::Random;

struct Sorted {
  std::vector<int32_t> starts, source, inverse, sorted_pairs, block_experts;
  int32_t padded_rows = -1;
  int64_t dropped = -1;
  Status status;
};

Sorted run(const std::vector<int32_t>& ids, int64_t k, int64_t experts, int64_t block,
           const std::vector<int32_t>& map = {}) {
  Context context(detect_isa());
  const auto pairs = static_cast<int64_t>(ids.size());
  const int64_t capacity = moe_sort_capacity(pairs, experts, block);
  Sorted s;
  s.starts.assign(static_cast<size_t>(experts + 1), -7);
  s.source.assign(ids.size(), -7);
  s.inverse.assign(ids.size(), -7);
  s.sorted_pairs.assign(static_cast<size_t>(capacity), -7);
  s.block_experts.assign(static_cast<size_t>(block > 0 ? capacity / block : 0), -7);
  MoeSortArgs args;
  args.ids = ids;
  args.k = k;
  args.experts = experts;
  args.expert_map = map;
  args.starts = s.starts;
  args.source = s.source;
  args.inverse = s.inverse;
  args.block_size = block;
  args.sorted_pairs = s.sorted_pairs;
  args.block_experts = s.block_experts;
  args.padded_rows = &s.padded_rows;
  args.dropped = &s.dropped;
  s.status = moe_sort(context.exec, args);
  return s;
}

// The pairs in order, with their local experts, by a library sort.
std::vector<std::pair<int32_t, int32_t>> naive(const std::vector<int32_t>& ids, int64_t experts,
                                               const std::vector<int32_t>& map) {
  std::vector<std::pair<int32_t, int32_t>> pairs;  // expert, f
  const auto outside =
      static_cast<int32_t>(map.empty() ? static_cast<size_t>(experts) : map.size());
  for (size_t f = 0; f < ids.size(); ++f) {
    if (ids[f] < 0 || ids[f] >= outside) continue;
    const int32_t e = map.empty() ? ids[f] : map[static_cast<size_t>(ids[f])];
    if (e >= 0) pairs.emplace_back(e, static_cast<int32_t>(f));
  }
  std::stable_sort(pairs.begin(), pairs.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  return pairs;
}

void check(const std::vector<int32_t>& ids, int64_t k, int64_t experts, int64_t block,
           const std::vector<int32_t>& map) {
  const Sorted s = run(ids, k, experts, block, map);
  ASSERT_TRUE(s.status.ok()) << s.status.message();
  const auto want = naive(ids, experts, map);
  ASSERT_EQ(s.starts.front(), 0);
  ASSERT_EQ(s.starts.back(), static_cast<int32_t>(want.size()));
  std::vector<int32_t> inverse(ids.size(), -1);
  for (size_t i = 0; i < want.size(); ++i) {
    const auto [e, f] = want[i];
    EXPECT_GE(static_cast<int32_t>(i), s.starts[static_cast<size_t>(e)]);
    EXPECT_LT(static_cast<int32_t>(i), s.starts[static_cast<size_t>(e) + 1]);
    EXPECT_EQ(s.source[i], f / k);
    inverse[static_cast<size_t>(f)] = static_cast<int32_t>(i);
  }
  EXPECT_EQ(s.inverse, inverse);
  const auto bound = static_cast<int32_t>(map.empty() ? static_cast<size_t>(experts) : map.size());
  EXPECT_EQ(s.dropped, std::count_if(ids.begin(), ids.end(),
                                     [&](int32_t id) { return id < 0 || id >= bound; }));
  if (block == 0) return;
  std::vector<int32_t> sorted_pairs, block_experts;
  std::map<int32_t, std::vector<int32_t>> by_expert;
  for (const auto& [e, f] : want) by_expert[e].push_back(f);
  for (auto& [e, list] : by_expert) {
    while (list.size() % static_cast<size_t>(block) != 0)
      list.push_back(static_cast<int32_t>(ids.size()));
    sorted_pairs.insert(sorted_pairs.end(), list.begin(), list.end());
    block_experts.insert(block_experts.end(), list.size() / static_cast<size_t>(block), e);
  }
  ASSERT_EQ(s.padded_rows, static_cast<int32_t>(sorted_pairs.size()));
  ASSERT_LE(sorted_pairs.size(), s.sorted_pairs.size());
  EXPECT_TRUE(std::equal(sorted_pairs.begin(), sorted_pairs.end(), s.sorted_pairs.begin()));
  EXPECT_TRUE(std::equal(block_experts.begin(), block_experts.end(), s.block_experts.begin()));
}

TEST(MoeSort, RandomRoutingsEqualAStableSort) {
  Random random(31);
  for (int64_t i = 0; i < test::property_runs(300); ++i) {
    const int64_t global = random.between(1, random.chance(0.1) ? 600 : 40);
    const int64_t k = random.between(1, std::min<int64_t>(global, 10)), t = random.between(0, 60);
    std::vector<int32_t> ids(static_cast<size_t>(t * k)), map;
    const bool skewed = random.chance(0.3);
    for (int32_t& id : ids) {
      id = static_cast<int32_t>(random.below(skewed ? std::min<int64_t>(global, 3) : global));
      if (random.chance(0.02)) id = static_cast<int32_t>(random.between(-2, global + 2));
    }
    int64_t local = global;
    if (random.chance(0.5)) {
      local = random.between(1, global);
      for (int64_t e = 0; e < global; ++e)
        map.push_back(e < local ? static_cast<int32_t>(local - 1 - e) : -1);
      for (size_t e = map.size(); e > 1; --e)
        std::swap(map[e - 1], map[static_cast<size_t>(random.below(static_cast<int64_t>(e)))]);
    }
    constexpr int64_t kBlocks[] = {0, 1, 4, 16, 64};
    check(ids, k, local, kBlocks[random.below(5)], map);
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(MoeSort, DuplicatesInARowStayTwoPairs) {
  const Sorted s = run({1, 1, 0, 1}, 2, 2, 4);
  EXPECT_EQ(s.starts, (std::vector<int32_t>{0, 1, 4}));
  EXPECT_EQ(s.source, (std::vector<int32_t>{1, 0, 0, 1}));
  EXPECT_EQ(s.inverse, (std::vector<int32_t>{1, 2, 0, 3}));
  EXPECT_EQ(s.padded_rows, 8);
  EXPECT_EQ(s.sorted_pairs, (std::vector<int32_t>{2, 4, 4, 4, 0, 1, 3, 4}));
  EXPECT_EQ(s.block_experts, (std::vector<int32_t>{0, 1}));
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
}

TEST(MoeSort, RefusesWrongShapes) {
  Context context(Isa::kReference);
  std::vector<int32_t> ids = {0, 1}, starts(3), source(2), inverse(2), few(1), map = {0, 2};
  MoeSortArgs good;
  good.ids = ids;
  good.k = 2;
  good.experts = 2;
  good.starts = starts;
  good.source = source;
  good.inverse = inverse;
  EXPECT_TRUE(moe_sort(context.exec, good).ok());
  const auto refused = [&](MoeSortArgs args, std::string_view word) {
    const Status s = moe_sort(context.exec, args);
    return s.code() == StatusCode::kInvalidArgument && s.message().find(word) != std::string::npos;
  };
  MoeSortArgs bad = good;
  bad.k = 3;
  EXPECT_TRUE(refused(bad, "K = 3"));
  bad = good, bad.experts = 5000;
  EXPECT_TRUE(refused(bad, "E: expected in [1, 4096]"));
  bad = good, bad.starts = source;
  EXPECT_TRUE(refused(bad, "starts: expected [E+1] = [3]"));
  bad = good, bad.inverse = few;
  EXPECT_TRUE(refused(bad, "inverse"));
  bad = good, bad.expert_map = map;
  EXPECT_TRUE(refused(bad, "expert_map"));
  bad = good, bad.block_size = 8, bad.sorted_pairs = few;
  EXPECT_TRUE(refused(bad, "sorted_pairs"));
}

}  // namespace
}  // namespace sluice
