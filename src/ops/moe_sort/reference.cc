// A stable counting sort: count, prefix sums, place. Integers only, T * K of them; scalar code on
// one thread is the fastest form at every size that a step has, so this is the only row.
#include "ops/moe_sort/kernels.h"

namespace sluice {
namespace {

constexpr int64_t kMaxExperts = 4096;

// Local expert of a pair, or -1 when it is dropped; `outside` tells an id that no expert has.
int32_t local_expert(const MoeSortArgs& args, int32_t id, bool* outside) {
  const auto mapped = static_cast<int64_t>(args.expert_map.size());
  *outside = id < 0 || id >= (mapped > 0 ? mapped : args.experts);
  if (*outside) return -1;
  return mapped > 0 ? args.expert_map[static_cast<size_t>(id)] : id;
}

// starts[e] = number of pairs of experts below e; returns how many ids lay outside.
int64_t count_pairs(const MoeSortArgs& args) {
  int64_t outside_count = 0;
  for (int32_t& s : args.starts) s = 0;
  for (const int32_t id : args.ids) {
    bool outside = false;
    const int32_t e = local_expert(args, id, &outside);
    outside_count += outside ? 1 : 0;
    if (e >= 0) ++args.starts[static_cast<size_t>(e) + 1];
  }
  for (size_t e = 1; e < args.starts.size(); ++e) args.starts[e] += args.starts[e - 1];
  return outside_count;
}

// Fills source and inverse in one ascending walk over the pairs: that is what makes it stable.
void place_pairs(const MoeSortArgs& args) {
  for (size_t f = 0; f < args.ids.size(); ++f) {
    bool outside = false;
    const int32_t e = local_expert(args, args.ids[f], &outside);
    args.inverse[f] = -1;
    if (e < 0) continue;
    const int32_t slot = args.starts[static_cast<size_t>(e)]++;
    args.source[static_cast<size_t>(slot)] = static_cast<int32_t>(f / static_cast<size_t>(args.k));
    args.inverse[f] = slot;
  }
  // Each start has become its expert's end, which is the next expert's start.
  for (size_t e = args.starts.size() - 1; e > 0; --e) args.starts[e] = args.starts[e - 1];
  args.starts[0] = 0;
}

void write_blocks(const MoeSortArgs& args) {
  const auto pairs = static_cast<int32_t>(args.ids.size());
  const int64_t block = args.block_size;
  int32_t shift[kMaxExperts];  // place in sorted_pairs less slot, per expert
  int64_t at = 0;
  for (int64_t e = 0; e < args.experts; ++e) {
    const int64_t live = args.starts[e + 1] - args.starts[e];
    const int64_t padded = (live + block - 1) / block * block;
    shift[e] = static_cast<int32_t>(at) - args.starts[e];
    for (int64_t i = 0; i < padded; i += block)
      args.block_experts[(at + i) / block] = static_cast<int32_t>(e);
    for (int64_t i = live; i < padded; ++i) args.sorted_pairs[at + i] = pairs;
    at += padded;
  }
  for (size_t f = 0; f < args.ids.size(); ++f) {
    bool outside = false;
    const int32_t e = local_expert(args, args.ids[f], &outside);
    if (e < 0 || e >= args.experts) continue;
    const int64_t place = int64_t{args.inverse[f]} + shift[e];
    args.sorted_pairs[static_cast<size_t>(place)] = static_cast<int32_t>(f);
  }
  if (args.padded_rows != nullptr) *args.padded_rows = static_cast<int32_t>(at);
}

}  // namespace

void moe_sort_i32_reference(const MoeSortArgs& args) {
  const int64_t outside = count_pairs(args);
  place_pairs(args);
  if (args.dropped != nullptr) *args.dropped = outside;
  if (args.block_size > 0) write_blocks(args);
}

}  // namespace sluice
