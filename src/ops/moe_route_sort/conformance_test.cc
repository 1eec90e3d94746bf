// Sorting, and routing and sorting in one call, against what tools/goldens/make_route_goldens.py
// computes from the definitions of AITER (moe_sorting, the fused kernel of #3526), vLLM and SGLang
// (moe_align_block_size) and MAX (moe_create_indices): ids, offsets and padding exactly.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>

#include "ops/moe_route_sort/golden_cases.h"
#include "ops/moe_route_sort/moe_route_sort.h"
#include "ops/moe_sort/sort_runs.h"

namespace sluice {
namespace {

using test::Context;
using test::expect_routed;
using test::Golden;
using test::load_case;
using test::Logits;
using test::Random;
using test::RouteCase;
using test::Routed;
using test::run_sort;
using test::Sorted;
using test::SortProblem;
using test::tiled;

uint64_t digest(std::span<const int32_t> values) {
  Random weight(0x5eed);
  uint64_t sum = 0;
  for (const int32_t v : values) sum += (uint64_t{static_cast<uint32_t>(v)} + 1) * weight.next();
  return sum;
}

// One row of the script's entry().
struct SortEntry {
  int64_t e, k, t, block, kind, seed, mask_seed, live, packed;
  int64_t padded, pairs, blocks, order, starts, inverse;
};

std::vector<SortEntry> entries(const char* name) {
  const std::vector<int64_t> words = Golden("sort.safetensors").read<int64_t>(name);
  std::vector<SortEntry> out(words.size() * sizeof(int64_t) / sizeof(SortEntry));
  std::memcpy(out.data(), words.data(), out.size() * sizeof(SortEntry));
  return out;
}

SortProblem problem_of(const SortEntry& in) {
  SortProblem p;
  p.k = in.k;
  p.experts = in.e;
  p.block = in.block;
  p.form = in.packed != 0 ? PairForm::kPacked : PairForm::kFlat;
  p.live = static_cast<int32_t>(in.live);
  Random random(static_cast<uint64_t>(in.seed));
  for (int64_t t = 0; t < in.t; ++t) {
    int64_t first = 0;
    for (int64_t k = 0; k < in.k; ++k) {
      const uint64_t word = random.next();
      if (k == 0) first = static_cast<int64_t>(word % static_cast<uint64_t>(in.e));
      int64_t id = (first + k) % in.e;
      if (in.kind == 1 && (word >> 40) % 4 == 0) id = -1;
      if (in.kind == 2) id = in.seed % in.e;
      p.ids.push_back(static_cast<int32_t>(id));
    }
  }
  if (in.mask_seed < 0) return p;
  Random bits(static_cast<uint64_t>(in.mask_seed));
  p.experts = 0;
  for (int64_t e = 0; e < in.e; ++e) {
    const auto bit = static_cast<int32_t>(bits.next() % 2);
    p.mask.push_back(e == 0 ? 1 : bit);
    p.experts += p.mask.back();
  }
  return p;
}

uint64_t first_of(const std::vector<int32_t>& v, int64_t n) {
  return digest(std::span(v).first(static_cast<size_t>(n)));
}

void expect_entries(const char* name, size_t count, Isa isa) {
  const std::vector<SortEntry> all = entries(name);
  EXPECT_EQ(all.size(), count);
  for (const SortEntry& in : all) {
    if (isa == Isa::kCudaHost && in.t * in.k > 4096) continue;  // slow, loop by loop
    SortProblem p = problem_of(in);
    p.isa = isa;
    const Sorted s = run_sort(p);
    ASSERT_TRUE(s.status.ok()) << s.status.message();
    const std::string where = fmt::format("E = {}, K = {}, T = {}, block {}, kind {}", in.e, in.k,
                                          in.t, in.block, in.kind);
    ASSERT_EQ(s.padded_rows, in.padded) << where;
    const auto same = [](uint64_t got, int64_t want) { return got == static_cast<uint64_t>(want); };
    EXPECT_TRUE(same(first_of(s.sorted_pairs, in.padded), in.pairs)) << where;
    EXPECT_TRUE(same(first_of(s.block_experts, in.padded / in.block), in.blocks)) << where;
    EXPECT_TRUE(same(first_of(s.order, s.stats.live_pairs), in.order)) << where;
    EXPECT_TRUE(same(digest(s.starts), in.starts)) << where;
    EXPECT_TRUE(same(digest(s.inverse), in.inverse)) << where;
    EXPECT_EQ(s.live_count, in.live < 0 ? in.t : in.live) << where;
    ASSERT_FALSE(::testing::Test::HasFailure());
  }
}

class SortConformance : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!test::runnable(GetParam())) GTEST_SKIP() << "no " << isa_name(GetParam()) << " here";
  }
};
TEST_P(SortConformance, AlignBlockSize) {
  expect_entries("align", 480, GetParam());
}
TEST_P(SortConformance, MoeSortingWithMasksAndLiveCounts) {
  expect_entries("moe_sorting", 96, GetParam());
}
TEST_P(SortConformance, CreateIndices) {
  expect_entries("create_indices", 6, GetParam());
}
INSTANTIATE_TEST_SUITE_P(Isas, SortConformance,
                         ::testing::Values(Isa::kReference, Isa::kCudaHost, Isa::kCuda),
                         [](const auto& i) { return std::string(isa_name(i.param)); });

TEST(Conformance, CreateIndicesHasItsUpstreamProperties) {
  // MAX's own property tests: one expert per group, starts monotone, restore inverts order.
  for (const SortEntry& in : entries("create_indices")) {
    const SortProblem p = problem_of(in);
    const Sorted s = run_sort(p);
    for (size_t e = 0; e < 256; ++e) {
      ASSERT_LE(s.starts[e], s.starts[e + 1]);
      ASSERT_EQ(s.counts[e], s.starts[e + 1] - s.starts[e]);
      ASSERT_EQ(s.expert_ids[e], static_cast<int32_t>(e));
      for (int32_t i = s.starts[e]; i < s.starts[e + 1]; ++i) {
        const auto f = static_cast<size_t>(s.order[static_cast<size_t>(i)]);
        ASSERT_EQ(p.ids[f], static_cast<int32_t>(e));
        ASSERT_EQ(s.inverse[f], i);
      }
    }
    EXPECT_EQ(s.stats.largest_group, *std::max_element(s.counts.begin(), s.counts.end()));
  }
}

TEST(Conformance, TheWorkedExampleOfMoeSorting) {
  SortProblem p;
  p.ids = {0, 2, 2, 0, 3, 0}, p.k = 2, p.experts = 4, p.block = 4, p.form = PairForm::kPacked;
  p.weights = {1, 2, 3, 4, 5, 6};
  const Sorted s = run_sort(p);
  constexpr int32_t kPad = 2 << 24 | 3, kSlot1 = 1 << 24;
  EXPECT_EQ(std::vector<int32_t>(s.sorted_pairs.begin(), s.sorted_pairs.begin() + 12),
            (std::vector<int32_t>{0, 1 | kSlot1, 2 | kSlot1, kPad, 0 | kSlot1, 1, kPad, kPad, 2,
                                  kPad, kPad, kPad}));
  EXPECT_EQ(std::vector<float>(s.sorted_weights.begin(), s.sorted_weights.begin() + 12),
            (std::vector<float>{1, 4, 6, 0, 2, 3, 0, 0, 5, 0, 0, 0}));
  EXPECT_EQ(std::vector<int32_t>(s.block_experts.begin(), s.block_experts.begin() + 3),
            (std::vector<int32_t>{0, 2, 3}));
  EXPECT_EQ(s.padded_rows, 12);
  EXPECT_EQ(s.live_count, 3);
}

TEST(Conformance, TheMaskExampleOfMoeSorting) {
  SortProblem p;
  p.ids = {0, 1, 5, 2, 4, 3, 5, 0, 2}, p.k = 3, p.experts = 3, p.block = 8;
  p.mask = {0, 1, 1, 0, 1, 0};
  EXPECT_EQ(run_sort(p).local_ids, (std::vector<int32_t>{-1, 0, -1, 1, 2, -1, -1, -1, 1}));
}

// ---- both in one call ---------------------------------------------------------------------------

struct FusedOut {
  Routed routed;
  Sorted sorted;
  RouteSortStats stats;
  Status status;
};

FusedOut run_fused(const ExecContext& context, const RouteCase& c, LogitsView logits,
                   int64_t budget) {
  FusedOut out;
  const auto pairs = static_cast<size_t>(logits.rows * c.problem.k);
  const auto room =
      static_cast<size_t>(moe_sort_distinct_capacity(logits.rows, c.problem.k, c.experts, 32));
  out.routed.ids.resize(pairs);
  out.routed.weights.resize(pairs);
  out.sorted.starts.resize(static_cast<size_t>(c.experts + 1));
  out.sorted.sorted_pairs.resize(room);
  out.sorted.sorted_weights.resize(room);
  out.sorted.block_experts.resize(room / 32);
  MoeRouteSortArgs a;
  a.route.logits = logits;
  a.route.rule = c.problem.rule;
  a.route.k = c.problem.k;
  a.route.ids = out.routed.ids;
  a.route.weights = out.routed.weights;
  a.sort.experts = c.experts;
  a.sort.starts = out.sorted.starts;
  a.sort.block_size = 32;
  a.sort.form = PairForm::kPacked;
  a.sort.sorted_pairs = out.sorted.sorted_pairs;
  a.sort.sorted_weights = out.sorted.sorted_weights;
  a.sort.block_experts = out.sorted.block_experts;
  a.sort.padded_rows = &out.sorted.padded_rows;
  a.sort.live_count = &out.sorted.live_count;
  a.sort.distinct_ids = true;
  a.token_budget = budget;
  a.stats = &out.stats;
  out.status = moe_route_sort(context, a);
  return out;
}

// Each row of the fused table: dtype, E, M, padded, pairs, blocks.
using FusedRow = std::array<int64_t, 6>;

void expect_fused(const RouteCase& c, const FusedRow& row, const FusedOut& out) {
  const int64_t m = row[2];
  ASSERT_TRUE(out.status.ok()) << out.status.message();
  expect_routed(c, out.routed, m);
  ASSERT_EQ(out.sorted.padded_rows, row[3]);
  EXPECT_EQ(out.sorted.live_count, m);
  EXPECT_EQ(first_of(out.sorted.sorted_pairs, row[3]), static_cast<uint64_t>(row[4]));
  EXPECT_EQ(first_of(out.sorted.block_experts, row[3] / 32), static_cast<uint64_t>(row[5]));
  for (int64_t i = 0; i < row[3]; ++i) {
    const auto word = static_cast<uint32_t>(out.sorted.sorted_pairs[static_cast<size_t>(i)]);
    const int64_t token = word & 0xffffffu, slot = word >> 24;
    const float want =
        token < m ? out.routed.weights[static_cast<size_t>(token * c.problem.k + slot)] : 0.0f;
    ASSERT_EQ(out.sorted.sorted_weights[static_cast<size_t>(i)], want);
  }
}

// The 60 configurations of AITER #3526 are {f32, bf16, f16} x {renormalised or not} x ten row
// counts; here every row count up to the upstream limits (122 and 60) and past them.
TEST(Conformance, FusedRouteAndSortAtEveryRowCount) {
  const Golden golden("route.safetensors");
  const std::vector<int64_t> words = Golden("sort.safetensors").read<int64_t>("fused");
  std::vector<FusedRow> rows(words.size() / 6);
  std::memcpy(rows.data(), words.data(), words.size() * sizeof(int64_t));
  const Context context(detect_isa(), 2);
  constexpr const char* kTypes[] = {"f32", "bf16", "f16"};
  std::map<std::string, RouteCase> cases;
  int64_t configurations = 0;
  for (const FusedRow& row : rows) {
    const int64_t e = row[1], m = row[2], limit = e == 128 ? 122 : 60;
    for (const char* rule : {"selected", "all"}) {
      const std::string name = fmt::format("aiter.{}.e{}.{}", kTypes[row[0]], e, rule);
      if (!cases.contains(name)) cases.emplace(name, load_case(golden, name));
      const RouteCase& c = cases.at(name);
      const Logits logits = tiled(c, m, m % 3 == 0 ? 10 : 0);
      const FusedOut out = run_fused(context.exec, c, logits.view(), limit);
      // Both rules choose alike when their cases' rows do; only the sorted ids of one are stored.
      if (rule == std::string_view("selected"))
        expect_fused(c, row, out);
      else
        expect_routed(c, out.routed, m);
      EXPECT_EQ(out.stats.fused_calls, m <= limit ? 1 : 0);
      EXPECT_EQ(out.stats.chained_calls, m <= limit ? 0 : 1);
      ASSERT_FALSE(::testing::Test::HasFailure()) << name << ", M = " << m;
      ++configurations;
    }
  }
  EXPECT_EQ(configurations, 3 * 2 * (124 + 62));
}

}  // namespace
}  // namespace sluice
