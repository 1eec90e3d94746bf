// moe_sort: one stable counting sort of (token, k) pairs by expert, seen two ways.
//
// Flat pair f = t * K + k. Pairs are ordered by local expert, then f ascending. With an expert map,
// local id = map[id], negative = not here; ids outside [0, E) or unmapped pairs are dropped (an id
// outside is counted in *dropped). Duplicate ids in one row are two pairs.
//
// CSR view (grouped GEMM):
//   starts  [E+1]  i32   slots of expert e: [starts[e], starts[e+1])
//   source  [T*K]  i32   token row of each slot
//   inverse [T*K]  i32   slot of pair f, or -1 if dropped
// Block view (AITER, vLLM moe_align_block_size), optional (block_size > 0):
//   sorted_pairs  [capacity]           i32  flat f, padded per expert to block_size with T*K
//   block_experts [capacity/block]     i32  expert of each block
//   padded_rows                        i32  entries of sorted_pairs in use
// The live pairs number starts[E]; entries of source behind them are left alone.
// capacity = moe_sort_capacity(): tight for any routing. Empty experts take no block.
// Errors: shapes, E or K out of range, capacity too small.
#pragma once

#include <span>

#include "device/device.h"

namespace sluice {

struct MoeSortArgs {
  std::span<const int32_t> ids;  // [T, K]
  int64_t k = 0;
  int64_t experts = 0;                  // E: local experts (entries of starts less one)
  std::span<const int32_t> expert_map;  // empty: identity
  std::span<int32_t> starts, source, inverse;
  int64_t block_size = 0;
  std::span<int32_t> sorted_pairs, block_experts;
  int32_t* padded_rows = nullptr;
  int64_t* dropped = nullptr;
};
int64_t moe_sort_capacity(int64_t pairs, int64_t experts, int64_t block_size);
Status moe_sort(const ExecContext& context, const MoeSortArgs& args);

}  // namespace sluice
