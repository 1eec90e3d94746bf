// The CUDA kernels of moe_sort: the reference's counting sort, by one block for the pairs of a
// decode step (SortBody), by three launches for any number (Count, Offset, Place). In both, every
// expert's pairs are walked in ascending order by one thread or one block, which is what makes the
// sort stable; no atomics.
#pragma once

#include "base/fp.h"
#include "device/block.h"
#include "ops/moe_sort/kernels.h"
#include "ops/moe_sort/pairs.h"
#include "tensor/view.h"

namespace sluice::cuda {

// Shared memory of every body: scratch of scans, then the map of a mask, then the body's own.
inline constexpr size_t kSortMap = 512;
inline size_t sort_shared(const MoeSortTask& task, int64_t words) {
  return kSortMap + static_cast<size_t>((task.mask != nullptr ? task.global : 0) + words) * 4;
}

// What a body works on: the task, the map of its mask, the pairs that count.
struct Sort {
  MoeSortTask task;
  const int32_t* map;
  int64_t live, pairs;  // tokens, live tokens * K
  int32_t* own;         // the body's shared memory

  SLUICE_HD int32_t local(int64_t f) const {
    return f < pairs ? local_expert(map, task.global, task.ids[f]) : kNotHere;
  }
  SLUICE_HD int32_t count(int64_t e) const { return task.starts[e + 1] - task.starts[e]; }
};

template <class Block>
SLUICE_HD Sort begin_sort(Block& block, const MoeSortTask& task) {
  Sort s{task, task.map, live_rows(task.live_tokens, task.tokens), 0,
         block.template shared<int32_t>(kSortMap)};
  s.pairs = s.live * task.k;
  if (task.mask == nullptr) return s;
  int32_t* map = s.own;
  s.map = map;
  s.own += task.global;
  const int64_t share = ceil_div(task.global, block.threads());
  typename Block::template PerThread<int32_t> ones(block);
  const auto each_of = [&](int t, const auto& f) {
    for (int64_t e = t * share; e < (t + 1) * share && e < task.global; ++e) f(e);
  };
  block.each([&](int t) { each_of(t, [&](int64_t e) { ones[t] += task.mask[e] != 0 ? 1 : 0; }); });
  block.exclusive_scan(ones, block.template shared<int32_t>());
  block.each([&](int t) {
    each_of(t, [&](int64_t e) { map[e] = task.mask[e] != 0 ? ones[t]++ : kNotHere; });
  });
  return s;
}

// Pairs that nothing sorts, and the local ids: threads `thread`, + threads ...
SLUICE_HD inline void mark_pairs(const Sort& s, int64_t thread, int64_t threads) {
  for (int64_t f = thread; f < s.task.tokens * s.task.k; f += threads) {
    const int32_t e = s.local(f);
    if (s.task.local_ids != nullptr) s.task.local_ids[f] = e < 0 ? -1 : e;
    if (s.task.inverse != nullptr && e < 0) s.task.inverse[f] = -1;
  }
}

// From starts[e + 1] = pairs of expert e to the starts, and all that describes the experts.
template <class Block>
SLUICE_HD void lay_out(Block& block, const Sort& s) {
  const MoeSortTask& task = s.task;
  const int64_t share = ceil_div(task.experts, block.threads());
  auto* scratch = block.template shared<int64_t>();
  typename Block::template PerThread<int64_t> pairs(block), rows(block), used(block), odd(block);
  typename Block::template PerThread<int64_t> most(block);
  const auto each_of = [&](int t, const auto& f) {
    for (int64_t e = t * share; e < (t + 1) * share && e < task.experts; ++e) f(e);
  };
  block.each([&](int t) {
    each_of(t, [&](int64_t e) {
      const int64_t count = task.starts[e + 1];
      pairs[t] += count;
      used[t] += count > 0 ? 1 : 0;
      if (count > most[t]) most[t] = count;
      if (task.block_size > 0) rows[t] += padded_to(count, task.block_size);
    });
    for (int64_t f = t; f < s.pairs; f += block.threads())
      odd[t] += local_expert(nullptr, task.global, task.ids[f]) == kNoExpert ? 1 : 0;
  });
  const int64_t live_pairs = block.exclusive_scan(pairs, scratch);
  const int64_t padded = block.exclusive_scan(rows, scratch);
  const int64_t used_experts = block.exclusive_scan(used, scratch);
  const int64_t dropped = block.exclusive_scan(odd, scratch);
  block.warp_fold(most, [](int64_t a, int64_t b) { return a > b ? a : b; });
  block.each([&](int t) {
    if (t % kWarp == 0) scratch[t / kWarp] = most[t];
    int64_t start = pairs[t];
    each_of(t, [&](int64_t e) {
      const int32_t count = task.starts[e + 1];
      if (task.counts != nullptr) task.counts[e] = count;
      if (task.totals != nullptr) task.totals[e] += count;
      start += count;
      task.starts[e + 1] = static_cast<int32_t>(start);
      if (task.expert_ids != nullptr) task.expert_ids[e] = -1;
    });
  });
  block.each([&](int t) {
    if (t != 0) return;
    task.starts[0] = 0;
    SortStats stats{dropped, live_pairs, 0, used_experts};
    for (int w = 0; w < block.threads() / kWarp; ++w)
      if (scratch[w] > stats.largest_group) stats.largest_group = scratch[w];
    if (task.stats != nullptr) *task.stats = stats;
    if (task.live_count != nullptr) *task.live_count = static_cast<int32_t>(s.live);
    if (task.padded_rows != nullptr) *task.padded_rows = static_cast<int32_t>(padded);
    if (task.expert_ids == nullptr) return;
    for (int64_t id = task.global - 1; id >= 0; --id) {
      const int32_t e = local_expert(s.map, task.global, static_cast<int32_t>(id));
      if (e >= 0) task.expert_ids[e] = static_cast<int32_t>(id);
    }
  });
}

SLUICE_HD inline void place_pair(const Sort& s, int64_t f, int32_t slot, int64_t place) {
  const MoeSortTask& task = s.task;
  const auto token = static_cast<uint32_t>(f) / static_cast<uint32_t>(task.k);
  if (task.source != nullptr) task.source[slot] = static_cast<int32_t>(token);
  if (task.order != nullptr) task.order[slot] = static_cast<int32_t>(f);
  if (task.inverse != nullptr) task.inverse[f] = slot;
  if (place < 0) return;
  task.sorted_pairs[place] = task.form == PairForm::kPacked ? packed_pair(token, f - token * task.k)
                                                            : static_cast<int32_t>(f);
  if (task.sorted_weights != nullptr) task.sorted_weights[place] = task.weights[f];
}

// The block of an entry of sorted_pairs, which has fewer than 2^31: 64-bit divisions are calls.
SLUICE_HD inline uint32_t block_of(const MoeSortTask& task, int64_t entry) {
  return static_cast<uint32_t>(entry) / static_cast<uint32_t>(task.block_size);
}

// The blocks of an expert that start at `begin` of sorted_pairs: their ids and what fills them up.
SLUICE_HD inline void pad_blocks(const Sort& s, int64_t e, int64_t begin, int thread, int threads) {
  const MoeSortTask& task = s.task;
  const int64_t count = s.count(e), end = begin + padded_to(count, task.block_size);
  const int32_t padding = task.form == PairForm::kPacked
                              ? packed_pair(s.live, task.k)
                              : static_cast<int32_t>(task.tokens * task.k);
  for (int64_t i = begin + thread; i < end; i += threads) {
    if (static_cast<uint32_t>(i - begin) % static_cast<uint32_t>(task.block_size) == 0)
      task.block_experts[block_of(task, i)] = static_cast<int32_t>(e);
    if (i < begin + count) continue;
    task.sorted_pairs[i] = padding;
    if (task.sorted_weights != nullptr) task.sorted_weights[i] = 0.0f;
  }
}

SLUICE_HD inline void fill_tails(const Sort& s, int64_t padded, int thread, int threads) {
  const MoeSortTask& task = s.task;
  const auto fill = [&](auto* array, int64_t from, int64_t to, auto value) {
    if (array == nullptr) return;
    for (int64_t i = from + thread; i < to; i += threads) array[i] = value;
  };
  fill(task.source, task.starts[task.experts], task.tokens * task.k, kSortPoison);
  fill(task.order, task.starts[task.experts], task.tokens * task.k, kSortPoison);
  if (task.block_size == 0) return;
  fill(task.sorted_pairs, padded, task.sorted_room, kSortPoison);
  fill(task.sorted_weights, padded, task.weights_room, bits_to_f32(0x7fc00000u));
  fill(task.block_experts, int64_t{block_of(task, padded)}, task.blocks_room, kSortPoison);
}

// Where the blocks of the experts [0, e) end in sorted_pairs; with e = E: all of them.
SLUICE_HD inline int64_t padded_before(const Sort& s, int64_t e, int64_t thread, int64_t threads) {
  int64_t rows = 0;
  if (s.task.block_size > 0)
    for (int64_t i = thread; i < e; i += threads) rows += padded_to(s.count(i), s.task.block_size);
  return rows;
}

// Everything in one launch: one thread walks the pairs of an expert.
struct SortBody {
  static constexpr int kThreads = 256;
  static constexpr bool kAlone = true;
  MoeSortTask task;

  static size_t shared_bytes(const MoeSortTask& task) {
    return sort_shared(task, task.tokens * task.k);
  }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const Sort s = begin_sort(block, task);
    int32_t* local = s.own;  // [pairs]
    const int64_t share = ceil_div(task.experts, kThreads);
    const auto each_of = [&](int t, const auto& f) {
      for (int64_t e = t * share; e < (t + 1) * share && e < task.experts; ++e) f(e);
    };
    block.each([&](int t) {
      for (int64_t f = t; f < s.pairs; f += kThreads) local[f] = s.local(f);
      mark_pairs(s, t, kThreads);
    });
    block.each([&](int t) {
      each_of(t, [&](int64_t e) {
        int32_t count = 0;
        for (int64_t f = 0; f < s.pairs; ++f) count += local[f] == e ? 1 : 0;
        task.starts[e + 1] = count;
      });
    });
    lay_out(block, s);
    typename Block::template PerThread<int64_t> rows(block);
    block.each([&](int t) {
      each_of(t, [&](int64_t e) {
        if (task.block_size > 0) rows[t] += padded_to(s.count(e), task.block_size);
      });
    });
    const int64_t padded = block.exclusive_scan(rows, block.template shared<int64_t>());
    const bool blocks = task.block_size > 0 && padded <= task.sorted_room;
    block.each([&](int t) {
      each_of(t, [&](int64_t e) {
        const int64_t shift = blocks ? rows[t] - task.starts[e] : -task.tokens * task.k - 1;
        int32_t slot = task.starts[e];
        for (int64_t f = 0; f < s.pairs; ++f)
          if (local[f] == e) place_pair(s, f, slot, slot + shift), ++slot;
        if (blocks) pad_blocks(s, e, rows[t], 0, 1);
        if (blocks) rows[t] += padded_to(s.count(e), task.block_size);
      });
      if (task.fill_tails) fill_tails(s, blocks ? padded : task.sorted_room, t, kThreads);
    });
  }
};

// starts[e + 1] = pairs of expert e; a block for each.
struct SortCountBody {
  static constexpr int kThreads = 256;
  MoeSortTask task;

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const Sort s = begin_sort(block, task);
    typename Block::template PerThread<int32_t> count(block);
    block.each([&](int t) {
      for (int64_t f = t; f < s.pairs; f += kThreads)
        count[t] += s.local(f) == block.index() ? 1 : 0;
      mark_pairs(s, block.index() * kThreads + t, task.experts * kThreads);
    });
    const int32_t total = block.exclusive_scan(count, block.template shared<int32_t>());
    block.each([&](int t) {
      if (t == 0) task.starts[block.index() + 1] = total;
    });
  }
};

struct SortOffsetBody {
  static constexpr int kThreads = 512;
  MoeSortTask task;

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    lay_out(block, begin_sort(block, task));
  }
};

// The pairs of an expert, kPairs neighbours per thread and round.
struct SortPlaceBody {
  static constexpr int kThreads = 256;
  static constexpr int64_t kPairs = 8;
  MoeSortTask task;

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const Sort s = begin_sort(block, task);
    const int64_t e = block.index();
    typename Block::template PerThread<int64_t> before(block), all(block);
    block.each([&](int t) {
      before[t] = padded_before(s, e, t, kThreads);
      all[t] = padded_before(s, task.experts, t, kThreads);
    });
    auto* scratch = block.template shared<int64_t>();
    const int64_t begin = block.exclusive_scan(before, scratch);
    const int64_t padded = block.exclusive_scan(all, scratch);
    const bool blocks = task.block_size > 0 && padded <= task.sorted_room;
    const int64_t shift = blocks ? begin - task.starts[e] : -task.tokens * task.k - 1;
    int32_t slot = task.starts[e];
    typename Block::template PerThread<int32_t> found(block);
    for (int64_t first = 0; first < s.pairs; first += kThreads * kPairs) {
      block.each([&](int t) {
        found[t] = 0;
        for (int64_t f = first + t * kPairs; f < first + (t + 1) * kPairs; ++f)
          found[t] += s.local(f) == e ? 1 : 0;
      });
      const int32_t total = block.exclusive_scan(found, block.template shared<int32_t>());
      block.each([&](int t) {
        int32_t at = slot + found[t];
        for (int64_t f = first + t * kPairs; f < first + (t + 1) * kPairs; ++f)
          if (s.local(f) == e) place_pair(s, f, at, at + shift), ++at;
      });
      slot += total;
    }
    block.each([&](int t) {
      if (blocks) pad_blocks(s, e, begin, t, kThreads);
      if (e == 0 && task.fill_tails) fill_tails(s, blocks ? padded : task.sorted_room, t, kThreads);
    });
  }
};

// Runs what the task needs: run(blocks, body, shared bytes).
template <class Run>
void sort_with(const MoeSortTask& task, const Run& run) {
  if (task.tokens * task.k <= kSortOneLaunchPairs)
    return run(int64_t{1}, SortBody{task}, SortBody::shared_bytes(task));
  run(task.experts, SortCountBody{task}, sort_shared(task, 0));
  run(int64_t{1}, SortOffsetBody{task}, sort_shared(task, 0));
  run(task.experts, SortPlaceBody{task}, sort_shared(task, 0));
}

}  // namespace sluice::cuda
