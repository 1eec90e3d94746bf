// The rows of kernels.inc and what they take: moe_sort.h's arrays as pointers, null when absent.
#pragma once

#include <cstdint>
#include <span>

namespace sluice {

class Stream;  // device/device.h
struct SortStats;
enum class PairForm;

// Pairs up to which the CUDA rows take one launch.
inline constexpr int64_t kSortOneLaunchPairs = 2048;

struct MoeSortTask {
  const int32_t* ids = nullptr;
  int64_t tokens = 0, k = 0, experts = 0;
  const int32_t* map = nullptr;   // [global]
  const int32_t* mask = nullptr;  // [global]
  int64_t global = 0;
  const int32_t* live_tokens = nullptr;
  int32_t* starts = nullptr;
  int32_t* source = nullptr;
  int32_t* order = nullptr;
  int32_t* inverse = nullptr;
  int32_t* local_ids = nullptr;
  int32_t* counts = nullptr;
  int64_t* totals = nullptr;
  int32_t* expert_ids = nullptr;
  int64_t block_size = 0;  // 0: no blocks
  PairForm form{};
  const float* weights = nullptr;
  int32_t* sorted_pairs = nullptr;
  float* sorted_weights = nullptr;
  int32_t* block_experts = nullptr;
  int64_t sorted_room = 0, weights_room = 0, blocks_room = 0;  // entries that the buffers hold
  int32_t* padded_rows = nullptr;
  int32_t* live_count = nullptr;
  SortStats* stats = nullptr;
  bool fill_tails = false;
  Stream* stream = nullptr;  // CUDA only
};
// False when the blocks do not fit (only after a broken distinct_ids): nothing was placed. A CUDA
// kernel cannot say so: it leaves the block view alone.
using MoeSortKernel = bool(const MoeSortTask& task);
template <class Fn>
struct Kernel;  // ops/kernel_table.h
std::span<const Kernel<MoeSortKernel>> moe_sort_kernels();

#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) MoeSortKernel name;
#include "ops/moe_sort/kernels.inc"
#undef SLUICE_KERNEL

}  // namespace sluice
