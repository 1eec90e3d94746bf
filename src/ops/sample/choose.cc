// Exact top-k, top-p and min-p without a sort of the vocabulary.
//
// Tokens are ordered by (distance, id); masses are integers, so "the token at which the sum of
// masses passes X" is found by histograms over the bits of the distance, coarse to fine, wherever
// the masses stand in memory. The finest level holds one distance; tokens there differ by id only
// and have equal masses, so the rest is a division. What a rule keeps is a prefix of the order, and
// so the draw, too, is "where the sum passes u * (mass kept)", whatever the rule.
#include "ops/sample/choose.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "ops/sample/mass.h"
#include "ops/topk/kernels.h"

namespace sluice {
namespace {

// exp(-d) * 2^30 is below 1 from here on: ln(2^30), and a little.
constexpr double kNoMass = 20.7945;
// Covers exp's error of 2 ulp, so that a bound on distances is one on masses, too.
constexpr double kSlack = 1e-4;

// Levels of the search: 12 + 10 + 9 = 31 bits of a distance that is never negative.
constexpr int kShift[3] = {19, 9, 0};
constexpr int kBins[3] = {4096, 1024, 512};

uint32_t bits_of(float f) {
  return std::bit_cast<uint32_t>(f);
}

// A token's place in the order.
struct Place {
  float distance = 0.0f;
  int64_t index = 0;         // among the tokens of this distance
  int64_t rank = 0;          // tokens before it
  uint64_t mass_before = 0;  // of those
  uint64_t mass = 0;         // its own
  uint64_t end() const { return mass_before + mass; }
};

class Search {
 public:
  Search(const SampleKernel& kernel, const SampleView& view) : kernel_(kernel), view_(view) {}

  // Fills the coarsest level with every token up to the distance `reach`.
  void start(float reach) {
    std::fill_n(coarse_, kBins[0], SampleBin{});
    const int bins = std::min<int>(kBins[0], static_cast<int>(bits_of(reach) >> kShift[0]) + 1);
    kernel_.histogram(view_, {0, bins, kShift[0]}, coarse_);
    tokens_ = 0;
    for (int b = 0; b < bins; ++b) tokens_ += coarse_[b].count;
  }
  int64_t tokens() const { return tokens_; }

  // The token whose masses reach over `target`: mass_before <= target < end().
  Place by_mass(uint64_t target) {
    return find([target](const SampleBin& before,
                         const SampleBin& bin) { return target < before.mass + bin.mass; },
                [target](const SampleBin& before, uint64_t each) {
                  return static_cast<int64_t>((target - before.mass) / std::max<uint64_t>(each, 1));
                });
  }
  // The token of this rank, rank < tokens().
  Place by_rank(int64_t rank) {
    return find([rank](const SampleBin& before,
                       const SampleBin& bin) { return rank < before.count + bin.count; },
                [rank](const SampleBin& before, uint64_t) { return rank - before.count; });
  }

 private:
  // inside(before, bin): the token sought is in this bin. index(before, each): its place in the
  // last bin, whose tokens have mass `each`.
  template <class Inside, class Index>
  Place find(Inside inside, Index index) {
    SampleBin before;
    uint32_t low = 0;
    const SampleBin* bins = coarse_;
    for (int level = 0;; ++level) {
      int b = 0;
      while (b + 1 < kBins[level] && !inside(before, bins[b])) {
        before.mass += bins[b].mass;
        before.count += bins[b].count;
        ++b;
      }
      low += static_cast<uint32_t>(b) << kShift[level];
      if (level == 2) return place(before, bins[b], low, index);
      std::fill_n(fine_, kBins[level + 1], SampleBin{});
      kernel_.histogram(view_, {low, kBins[level + 1], kShift[level + 1]}, fine_);
      bins = fine_;
    }
  }
  template <class Index>
  static Place place(const SampleBin& before, const SampleBin& bin, uint32_t low, Index index) {
    Place p;
    p.distance = std::bit_cast<float>(low);
    p.mass = bin.count > 0 ? bin.mass / static_cast<uint64_t>(bin.count) : 0;
    p.index = index(before, p.mass);
    p.rank = before.count + p.index;
    p.mass_before = before.mass + static_cast<uint64_t>(p.index) * p.mass;
    return p;
  }

  const SampleKernel& kernel_;
  const SampleView& view_;
  int64_t tokens_ = 0;
  SampleBin coarse_[kBins[0]];
  SampleBin fine_[std::max(kBins[1], kBins[2])];
};

// A distance that the token of mass position `target` does not exceed: the masses beyond it sum to
// less than total - target, since there are at most n of them.
float reach_of(uint64_t target, uint64_t total, int64_t n) {
  const uint64_t each = (total - target - 1) / static_cast<uint64_t>(n);
  if (each == 0) return static_cast<float>(kNoMass + kSlack);
  return static_cast<float>(-std::log(static_cast<double>(each) / double{kMassUnit}) + kSlack);
}

// For small k: the k nearest tokens, sorted; everything else follows by walking along them.
int64_t choose_among_few(const SampleKernel& kernel, const SampleView& view, const ChoiceRule& rule,
                         uint64_t limit, Kept* kept) {
  constexpr int64_t kRoom = 256;
  uint64_t keys[4 * kTopkMost + kRoom];
  keys[0] = 0;  // always replaced: the top token's distance is 0
  SampleCandidates c;
  c.keys = keys;
  c.capacity = 4 * rule.top_k + kRoom;
  c.limit = INFINITY;
  const auto compact = [&] {
    if (c.count <= rule.top_k) return;
    std::nth_element(keys, keys + rule.top_k - 1, keys + c.count);
    c.count = rule.top_k;
    // Later tokens at the same distance have higher ids: only nearer ones may still enter.
    c.limit = std::bit_cast<float>(static_cast<uint32_t>(keys[rule.top_k - 1] >> 32));
  };
  for (int64_t j = 0; j < view.n;) {
    j = kernel.collect(view, j, c);
    if (j < view.n) compact();
  }
  compact();
  std::sort(keys, keys + c.count);
  const float farthest = min_p_distance(rule.min_p);
  const auto mass_at = [&](int64_t r) {
    const float d = std::bit_cast<float>(static_cast<uint32_t>(keys[r] >> 32));
    return d <= farthest ? uint64_t{sample_mass(d)} : 0;
  };
  uint64_t sum = 0;
  int64_t count = 0;
  for (uint64_t mass = 0; count < c.count && sum <= limit; ++count, sum += mass) {
    mass = mass_at(count);
    if (mass == 0) break;
  }
  if (kept != nullptr) *kept = {count, sum};
  const uint64_t target = scaled_mass(sum, rule.random24);
  int64_t r = 0;
  for (uint64_t end = mass_at(0); end <= target; end += mass_at(++r)) {
  }
  return static_cast<int64_t>(keys[r] & 0xffffffffu);
}

int64_t choose_among_all(const SampleKernel& kernel, const SampleView& view, const ChoiceRule& rule,
                         uint64_t total, uint64_t limit, Kept* kept) {
  Search search(kernel, view);
  const bool all_mass = limit >= total;
  uint64_t mass = total;
  int64_t count = -1;  // not known, not needed
  if (!all_mass || rule.top_k > 0) {
    search.start(all_mass ? static_cast<float>(kNoMass + kSlack) : reach_of(limit, total, view.n));
    Place last;
    last.rank = std::numeric_limits<int64_t>::max();
    if (!all_mass) last = search.by_mass(limit);
    if (rule.top_k > 0 && rule.top_k <= std::min(last.rank, search.tokens()))
      last = search.by_rank(rule.top_k - 1);
    if (last.rank != std::numeric_limits<int64_t>::max()) {
      mass = last.end();
      count = last.rank + 1;
    }
  }
  if (rule.min_p > 0) {
    const uint64_t near = kernel.mass(view, min_p_distance(rule.min_p));
    if (near < mass) mass = near, count = -1;
  }
  if (kept != nullptr) *kept = {count, mass};
  const uint64_t target = scaled_mass(mass, rule.random24);
  if (all_mass && rule.top_k == 0) search.start(reach_of(target, total, view.n));
  const Place p = search.by_mass(target);
  return kernel.nth_at(view, p.distance, p.index);
}

}  // namespace

float min_p_distance(float min_p) {
  return min_p > 0 ? static_cast<float>(-std::log(static_cast<double>(min_p))) : INFINITY;
}

int64_t arg_max(const SampleKernel& kernel, const float* logits, int64_t n) {
  const int64_t at = kernel.first_equal(logits, n, kernel.max(logits, n));
  return at < n ? at : 0;
}

int64_t choose(const SampleKernel& kernel, const float* logits, int64_t n, const ChoiceRule& rule,
               Kept* kept) {
  // Adding +0 makes a maximum of -0 +0, so that no distance is -0.
  SampleView view{logits, n, kernel.max(logits, n) + 0.0f, 1.0f / rule.temperature};
  const bool greedy = rule.temperature <= 0 || rule.top_p <= 0 || rule.top_k == 1;
  if (greedy || !std::isfinite(view.max) || !std::isfinite(view.inverse_temperature)) {
    if (kept != nullptr) *kept = {1, 0};
    const int64_t at = kernel.first_equal(logits, n, view.max);
    return at < n ? at : 0;
  }
  const int64_t top_k = rule.top_k >= n ? 0 : rule.top_k;
  ChoiceRule bounded = rule;
  bounded.top_k = top_k;
  const bool few = top_k > 0 && top_k <= kTopkMost;
  const uint64_t total = few && rule.top_p >= 1.0f ? 0 : kernel.mass(view, INFINITY);
  const uint64_t limit = mass_limit(rule.top_p, total);
  return few ? choose_among_few(kernel, view, bounded, limit, kept)
             : choose_among_all(kernel, view, bounded, total, limit, kept);
}

}  // namespace sluice
