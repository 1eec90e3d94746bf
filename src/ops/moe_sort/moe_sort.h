// moe_sort: one stable counting sort of (token, k) pairs by expert, seen two ways.
//
// Flat pair f = t * K + k. Pairs are ordered by local expert, then f ascending. Which experts are
// here: all of them, those of an expert map (local id = map[id], negative: not here), or those of a
// 0/1 mask (local id = ones before it). Ids outside [0, global E) are dropped and counted; pairs of
// experts that are not here are left out. Duplicate ids in one row are two pairs.
// Tokens t >= *live_tokens (read when the op runs, clamped to [0, T]) take no part.
//
// CSR view (grouped GEMM; MAX moe_create_indices); every array but starts is optional:
//   starts     [E+1] i32  slots of expert e: [starts[e], starts[e+1]); empty experts keep theirs
//   source     [T*K] i32  token row of each slot
//   order      [T*K] i32  flat pair of each slot (MAX token_expert_order)
//   inverse    [T*K] i32  slot of pair f, or -1 if it is left out (MAX restore_token_order)
//   local_ids  [T*K] i32  local expert of pair f, or -1
//   counts     [E]   i32  pairs of each expert
//   totals     [E]   i64  pairs of each expert, added to what is there
//   expert_ids [E]   i32  the lowest global id that is local expert e, or -1
// Block view (AITER moe_sorting, vLLM moe_align_block_size), when block_size > 0:
//   sorted_pairs   [capacity]       i32  each expert's pairs, padded to block_size
//       kFlat    f; padding T*K
//       kPacked  token | slot << 24; padding K << 24 | live tokens; T < 2^24
//   sorted_weights [capacity]       f32  weights[f], padding 0; optional
//   block_experts  [capacity/block] i32  local expert of each block; empty experts take none
//   padded_rows, live_count         i32  entries of sorted_pairs in use; tokens that took part
// The live pairs number starts[E]. What lies behind the entries in use is left alone; debug builds
// (fill_tails) fill it with kSortPoison, weights with NaN.
// capacity = moe_sort_capacity(): tight for any routing; with distinct_ids the caller promises that
// no row names an expert twice and the tight bound is moe_sort_distinct_capacity(); a broken
// promise that does not fit is an error, never a write out of bounds.
// On CUDA devices every array is the device's, stats and the counts included; values are trusted to
// be what is said here, and a broken distinct_ids leaves the block view alone, padded_rows apart.
// Errors: shapes, E, K, T or the padded size out of range, capacity too small.
#pragma once

#include <span>

#include "device/device.h"
#include "ops/moe_sort/pairs.h"

namespace sluice {

#ifdef NDEBUG
inline constexpr bool kFillSortTails = false;
#else
inline constexpr bool kFillSortTails = true;
#endif

struct MoeSortArgs {
  std::span<const int32_t> ids;  // [T, K]
  int64_t k = 0;
  int64_t experts = 0;                  // E: local experts (entries of starts less one)
  std::span<const int32_t> expert_map;  // empty: identity
  std::span<int32_t> starts, source, inverse;
  int64_t block_size = 0;
  std::span<int32_t> sorted_pairs, block_experts;
  int32_t* padded_rows = nullptr;
  SortStats* stats = nullptr;  // overwritten
  std::span<const int32_t> expert_mask;
  const int32_t* live_tokens = nullptr;
  std::span<int32_t> order, local_ids, counts, expert_ids;
  PairForm form = PairForm::kFlat;
  std::span<const float> weights;  // [T, K]
  std::span<float> sorted_weights;
  int32_t* live_count = nullptr;
  std::span<int64_t> totals;
  bool distinct_ids = false;
  bool fill_tails = kFillSortTails;
};
// Entries of sorted_pairs that any routing of so many pairs needs; 0 without blocks.
int64_t moe_sort_capacity(int64_t pairs, int64_t experts, int64_t block_size);
// The same when a row's ids are distinct: at most min(K, E) of a token's pairs are here.
int64_t moe_sort_distinct_capacity(int64_t tokens, int64_t k, int64_t experts, int64_t block_size);
Status moe_sort(const ExecContext& context, const MoeSortArgs& args);

}  // namespace sluice
