// How the tests of moe_sort call it, with every output asked for, and the same by a library sort.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>

#include "ops/moe_sort/moe_sort.h"
#include "ops/moe_sort/pairs.h"
#include "ops/test_data.h"

namespace sluice::test {

struct SortProblem {
  std::vector<int32_t> ids;
  int64_t k = 1, experts = 1, block = 0;
  std::vector<int32_t> map, mask;
  std::vector<float> weights;
  PairForm form = PairForm::kFlat;
  int32_t live = -1;  // tokens; negative: no live count
  bool distinct = false;
  Isa isa = Isa::kReference;
  int64_t tokens() const { return static_cast<int64_t>(ids.size()) / k; }
};

inline constexpr int32_t kUntouched = -7;
struct Sorted {
  std::vector<int32_t> starts, source, inverse, order, local_ids, counts, expert_ids;
  std::vector<int32_t> sorted_pairs, block_experts;
  std::vector<float> sorted_weights;
  std::vector<int64_t> totals;
  int32_t padded_rows = kUntouched, live_count = kUntouched;
  SortStats stats;
  Status status;
};

inline Sorted run_sort(const SortProblem& p, bool fill = false) {
  const Context context(p.isa);
  // On the heap, which a device can read.
  const auto live = std::make_unique<int32_t>(p.live);
  const auto sorted = std::make_unique<Sorted>();
  const int64_t capacity =
      p.distinct ? moe_sort_distinct_capacity(p.tokens(), p.k, p.experts, p.block)
                 : moe_sort_capacity(static_cast<int64_t>(p.ids.size()), p.experts, p.block);
  Sorted& s = *sorted;
  s.starts.assign(static_cast<size_t>(p.experts + 1), kUntouched);
  for (auto* v : {&s.source, &s.inverse, &s.order, &s.local_ids})
    v->assign(p.ids.size(), kUntouched);
  for (auto* v : {&s.counts, &s.expert_ids}) v->assign(static_cast<size_t>(p.experts), kUntouched);
  for (int64_t e = 0; e < p.experts; ++e) s.totals.push_back(e << 40);
  s.sorted_pairs.assign(static_cast<size_t>(capacity), kUntouched);
  s.sorted_weights.assign(static_cast<size_t>(p.weights.empty() ? 0 : capacity), kUntouched);
  s.block_experts.assign(static_cast<size_t>(p.block > 0 ? capacity / p.block : 0), kUntouched);
  MoeSortArgs args;
  args.ids = p.ids;
  args.k = p.k;
  args.experts = p.experts;
  args.expert_map = p.map;
  args.expert_mask = p.mask;
  args.live_tokens = p.live < 0 ? nullptr : live.get();
  args.starts = s.starts;
  args.source = s.source;
  args.inverse = s.inverse;
  args.order = s.order;
  args.local_ids = s.local_ids;
  args.counts = s.counts;
  args.totals = s.totals;
  args.expert_ids = s.expert_ids;
  args.block_size = p.block;
  args.form = p.form;
  args.weights = p.weights;
  args.sorted_pairs = s.sorted_pairs;
  args.sorted_weights = s.sorted_weights;
  args.block_experts = s.block_experts;
  args.padded_rows = &s.padded_rows;
  args.live_count = &s.live_count;
  args.stats = &s.stats;
  args.distinct_ids = p.distinct;
  args.fill_tails = fill;
  s.status = context.finish(moe_sort(context.exec, args));
  return std::move(s);
}

// What the contract's sentences say, by a library sort over records.
struct NaiveOrder {
  std::map<int32_t, int32_t> local;                 // global -> local, of the experts that are here
  std::vector<std::pair<int32_t, int32_t>> sorted;  // local expert, f
  int64_t global = 0, live = 0;
};

inline NaiveOrder naive_order(const SortProblem& p, Sorted& s) {
  NaiveOrder n;
  n.global = p.experts;
  n.live = p.live < 0 ? p.tokens() : std::min<int64_t>(p.live, p.tokens());
  if (!p.mask.empty()) {
    n.global = static_cast<int64_t>(p.mask.size());
    for (int32_t e = 0; e < n.global; ++e)
      if (p.mask[static_cast<size_t>(e)] != 0)
        n.local.emplace(e, static_cast<int32_t>(n.local.size()));
  } else if (!p.map.empty()) {
    n.global = static_cast<int64_t>(p.map.size());
    for (int32_t e = 0; e < n.global; ++e)
      if (p.map[static_cast<size_t>(e)] >= 0) n.local.emplace(e, p.map[static_cast<size_t>(e)]);
  } else {
    for (int32_t e = 0; e < n.global; ++e) n.local.emplace(e, e);
  }
  s.local_ids.assign(p.ids.size(), -1);
  s.inverse.assign(p.ids.size(), -1);
  for (int32_t f = 0; f < n.live * p.k; ++f) {
    const int32_t id = p.ids[static_cast<size_t>(f)];
    s.stats.dropped += id < 0 || id >= n.global ? 1 : 0;
    const auto at = n.local.find(id);
    if (at == n.local.end()) continue;
    s.local_ids[static_cast<size_t>(f)] = at->second;
    n.sorted.emplace_back(at->second, f);
  }
  std::stable_sort(n.sorted.begin(), n.sorted.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  s.stats.live_pairs = static_cast<int64_t>(n.sorted.size());
  return n;
}

inline Sorted naive_sort(const SortProblem& p) {
  Sorted s;
  const NaiveOrder n = naive_order(p, s);
  const bool flat = p.form == PairForm::kFlat;
  const auto padding =
      static_cast<int32_t>(flat ? static_cast<int64_t>(p.ids.size()) : p.k * 16777216 + n.live);
  s.starts.push_back(0);
  for (int32_t e = 0; e < p.experts; ++e) {
    int32_t count = 0;
    for (const auto& [expert, f] : n.sorted) {
      if (expert != e) continue;
      s.inverse[static_cast<size_t>(f)] = static_cast<int32_t>(s.order.size());
      s.order.push_back(f);
      s.source.push_back(static_cast<int32_t>(f / p.k));
      if (p.block > 0 && count % p.block == 0) s.block_experts.push_back(e);
      s.sorted_pairs.push_back(flat ? f : static_cast<int32_t>(f / p.k + (f % p.k) * 16777216));
      if (!p.weights.empty()) s.sorted_weights.push_back(p.weights[static_cast<size_t>(f)]);
      ++count;
    }
    while (p.block > 0 && s.sorted_pairs.size() % static_cast<size_t>(p.block) != 0) {
      s.sorted_pairs.push_back(padding);
      if (!p.weights.empty()) s.sorted_weights.push_back(0.0f);
    }
    s.starts.push_back(static_cast<int32_t>(s.order.size()));
    s.counts.push_back(count);
    s.totals.push_back((int64_t{e} << 40) + count);
    s.stats.largest_group = std::max<int64_t>(s.stats.largest_group, count);
    s.stats.used_experts += count > 0 ? 1 : 0;
    const auto id = std::find_if(n.local.begin(), n.local.end(),
                                 [e](const auto& pair) { return pair.second == e; });
    s.expert_ids.push_back(id == n.local.end() ? -1 : id->first);
  }
  s.padded_rows = static_cast<int32_t>(s.sorted_pairs.size());
  s.live_count = static_cast<int32_t>(n.live);
  return s;
}

template <class T>
void expect_prefix(const char* tensor, const std::vector<T>& got, const std::vector<T>& want,
                   const std::function<bool(T)>& is_tail) {
  ASSERT_LE(want.size(), got.size()) << tensor;
  EXPECT_TRUE(std::equal(want.begin(), want.end(), got.begin())) << tensor;
  EXPECT_TRUE(std::all_of(got.begin() + static_cast<int64_t>(want.size()), got.end(), is_tail))
      << tensor << ": tail";
}

inline void check_sort(const SortProblem& p, bool fill = false) {
  const Sorted s = run_sort(p, fill), want = naive_sort(p);
  ASSERT_TRUE(s.status.ok()) << s.status.message();
  EXPECT_EQ(s.starts, want.starts);
  EXPECT_EQ(s.inverse, want.inverse);
  EXPECT_EQ(s.local_ids, want.local_ids);
  EXPECT_EQ(s.counts, want.counts);
  EXPECT_EQ(s.totals, want.totals);
  EXPECT_EQ(s.expert_ids, want.expert_ids);
  EXPECT_EQ(s.live_count, want.live_count);
  EXPECT_EQ(s.stats.dropped, want.stats.dropped);
  EXPECT_EQ(s.stats.live_pairs, want.stats.live_pairs);
  EXPECT_EQ(s.stats.largest_group, want.stats.largest_group);
  EXPECT_EQ(s.stats.used_experts, want.stats.used_experts);
  const std::function<bool(int32_t)> tail = [fill](int32_t v) {
    return v == (fill ? kSortPoison : kUntouched);
  };
  const std::function<bool(float)> weight_tail = [fill](float v) {
    return fill ? std::isnan(v) : v == kUntouched;
  };
  expect_prefix("source", s.source, want.source, tail);
  expect_prefix("order", s.order, want.order, tail);
  if (p.block == 0) return;
  EXPECT_EQ(s.padded_rows, want.padded_rows);
  expect_prefix("sorted_pairs", s.sorted_pairs, want.sorted_pairs, tail);
  expect_prefix("block_experts", s.block_experts, want.block_experts, tail);
  expect_prefix("sorted_weights", s.sorted_weights, want.sorted_weights, weight_tail);
}

}  // namespace sluice::test
