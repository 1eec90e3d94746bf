// A stable counting sort: count, prefix sums, place. Integers only, T * K of them; scalar code on
// one thread is the fastest form at every size that a step has, so this is the only row.
#include <cmath>

#include "ops/moe_sort/kernels.h"
#include "ops/moe_sort/moe_sort.h"
#include "ops/moe_sort/pairs.h"

namespace sluice {
namespace {

// The task, its map (the mask's, when it has one) and the pairs that count.
struct Sort {
  const MoeSortTask& task;
  const int32_t* map = nullptr;
  int32_t* shift = nullptr;  // place in sorted_pairs less slot, per expert
  int64_t live = 0;          // tokens
  int64_t dropped = 0, padded = 0;
};

// starts[e] = number of pairs of experts up to e: where expert e ends.
void count_pairs(Sort& s) {
  const MoeSortTask& task = s.task;
  for (int64_t e = 0; e <= task.experts; ++e) task.starts[e] = 0;
  const int64_t pairs = s.live * task.k;
  for (int64_t f = 0; f < pairs; ++f) {
    const int32_t e = local_expert(s.map, task.global, task.ids[f]);
    s.dropped += e == kNoExpert ? 1 : 0;
    if (e >= 0) ++task.starts[e];
    if (task.local_ids != nullptr) task.local_ids[f] = e < 0 ? -1 : e;
  }
  int32_t end = 0;
  for (int64_t e = 0; e < task.experts; ++e) task.starts[e] = end += task.starts[e];
  task.starts[task.experts] = end;
}

void lay_blocks(Sort& s) {
  int64_t at = 0;
  int32_t begin = 0;
  for (int64_t e = 0; e < s.task.experts; ++e) {
    const int32_t end = s.task.starts[e];
    s.shift[e] = static_cast<int32_t>(at) - begin;
    if (end > begin) at += padded_to(end - begin, s.task.block_size);
    begin = end;
  }
  s.padded = at;
}

// One descending walk over the pairs, from each expert's end down, fills every view: that is what
// makes all of them stable, and leaves starts where they belong.
void place_pairs(const Sort& s) {
  const MoeSortTask& task = s.task;
  const bool packed = task.form == PairForm::kPacked, blocks = task.block_size > 0;
  const int64_t live_pairs = s.live * task.k;
  for (int64_t f = live_pairs; f < task.tokens * task.k; ++f) {  // tokens that take no part
    if (task.inverse != nullptr) task.inverse[f] = -1;
    if (task.local_ids != nullptr) task.local_ids[f] = -1;
  }
  int64_t f = live_pairs;
  for (int64_t t = s.live - 1; t >= 0; --t)
    for (int64_t k = task.k - 1; k >= 0; --k) {
      --f;
      const int32_t e = local_expert(s.map, task.global, task.ids[f]);
      if (task.inverse != nullptr) task.inverse[f] = -1;
      if (e < 0) continue;
      const int32_t slot = --task.starts[e];
      if (task.source != nullptr) task.source[slot] = static_cast<int32_t>(t);
      if (task.order != nullptr) task.order[slot] = static_cast<int32_t>(f);
      if (task.inverse != nullptr) task.inverse[f] = slot;
      if (!blocks) continue;
      const int64_t place = int64_t{slot} + s.shift[e];
      task.sorted_pairs[place] = packed ? packed_pair(t, k) : static_cast<int32_t>(f);
      if (task.sorted_weights != nullptr) task.sorted_weights[place] = task.weights[f];
    }
}

void pad_blocks(const Sort& s) {
  const MoeSortTask& task = s.task;
  const int32_t padding = task.form == PairForm::kPacked
                              ? packed_pair(s.live, task.k)
                              : static_cast<int32_t>(task.tokens * task.k);
  for (int64_t e = 0; e < task.experts; ++e) {
    const int64_t begin = int64_t{task.starts[e]} + s.shift[e];
    const int64_t count = task.starts[e + 1] - task.starts[e];
    if (count == 0) continue;
    const int64_t padded = padded_to(count, task.block_size);
    for (int64_t i = begin; i < begin + padded; i += task.block_size)
      task.block_experts[i / task.block_size] = static_cast<int32_t>(e);
    for (int64_t i = begin + count; i < begin + padded; ++i) {
      task.sorted_pairs[i] = padding;
      if (task.sorted_weights != nullptr) task.sorted_weights[i] = 0.0f;
    }
  }
  if (task.padded_rows != nullptr) *task.padded_rows = static_cast<int32_t>(s.padded);
}

void describe_experts(const Sort& s) {
  const MoeSortTask& task = s.task;
  if (task.counts != nullptr)
    for (int64_t e = 0; e < task.experts; ++e) task.counts[e] = task.starts[e + 1] - task.starts[e];
  if (task.totals != nullptr)
    for (int64_t e = 0; e < task.experts; ++e)
      task.totals[e] += task.starts[e + 1] - task.starts[e];
  if (task.stats != nullptr) {
    SortStats stats{s.dropped, task.starts[task.experts]};
    for (int64_t e = 0; e < task.experts; ++e) {
      const int32_t count = task.starts[e + 1] - task.starts[e];
      stats.used_experts += count > 0 ? 1 : 0;
      if (count > stats.largest_group) stats.largest_group = count;
    }
    *task.stats = stats;
  }
  if (task.live_count != nullptr) *task.live_count = static_cast<int32_t>(s.live);
  if (task.expert_ids == nullptr) return;
  for (int64_t e = 0; e < task.experts; ++e) task.expert_ids[e] = -1;
  for (int64_t id = task.global - 1; id >= 0; --id) {
    const int32_t e = local_expert(s.map, task.global, static_cast<int32_t>(id));
    if (e >= 0) task.expert_ids[e] = static_cast<int32_t>(id);
  }
}

// Nobody may read behind the entries in use: a debug build makes it show.
void fill_tails(const Sort& s) {
  const MoeSortTask& task = s.task;
  for (int64_t i = task.starts[task.experts]; i < task.tokens * task.k; ++i) {
    if (task.source != nullptr) task.source[i] = kSortPoison;
    if (task.order != nullptr) task.order[i] = kSortPoison;
  }
  if (task.block_size == 0) return;
  for (int64_t i = s.padded; i < task.sorted_room; ++i) task.sorted_pairs[i] = kSortPoison;
  for (int64_t i = s.padded; i < task.weights_room; ++i) task.sorted_weights[i] = NAN;
  for (int64_t i = s.padded / task.block_size; i < task.blocks_room; ++i)
    task.block_experts[i] = kSortPoison;
}

}  // namespace

bool moe_sort_i32_reference(const MoeSortTask& task) {
  int32_t from_mask[kSortMostExperts], shift[kSortMostExperts];
  Sort s{.task = task, .map = task.map, .shift = shift};
  s.live = live_rows(task.live_tokens, task.tokens);
  if (task.mask != nullptr) {
    map_of_mask(task.mask, task.global, from_mask);
    s.map = from_mask;
  }
  count_pairs(s);
  if (task.block_size > 0) lay_blocks(s);
  if (s.padded > task.sorted_room) return false;
  place_pairs(s);
  if (task.block_size > 0) pad_blocks(s);
  describe_experts(s);
  if (task.fill_tails) fill_tails(s);
  return true;
}

}  // namespace sluice
