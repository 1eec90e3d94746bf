// attention's kernels: what each is given, and the declaration of every row of kernels.inc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace sluice {

class Stream;  // device/device.h

// What all tasks of a call share.
struct AttentionShape {
  const float* q = nullptr;
  int64_t q_stride = 0;
  const void* cache = nullptr;
  int64_t heads = 0, kv_heads = 0, head_size = 0;  // H, G, C
  float scale = 1.0f, softcap = 0.0f;
  int64_t window = 0;
  const float* sinks = nullptr;
  const int32_t* positions = nullptr;  // [T]
  float* out = nullptr;
  int64_t out_stride = 0;
  // CUDA only: a launch finds each row's sequence by itself.
  int64_t rows = 0, sequences = 0;        // T, S
  const int32_t* query_starts = nullptr;  // [S + 1]
  const int32_t* block_tables = nullptr;  // [S, ...]
  int64_t table_stride = 0;
  Stream* stream = nullptr;
};

// One task: rows [row_begin, row_end) of one sequence, the query heads of one kv head.
//   kWhole    everything, from q to out
//   kPartial  one row; only split `split`: (a, m, l) of each query head goes to `partial`
//   kMerge    one row; `splits` partials that kPartial left, merged in order into the state that
//             `state` keeps from call to call; the last call writes out
// A task of a CUDA row is all rows and kv heads of the call. kPartial computes, and kMerge merges,
// `splits` splits of every row, from its own `split`-th visible one on (a row may have fewer):
// partial is [T][splits][H][C + 2], state [T][H][C + 2], both (a, m, l).
struct AttentionTask {
  enum class Phase { kWhole, kPartial, kMerge };
  Phase phase = Phase::kWhole;
  int64_t row_begin = 0, row_end = 0;
  int64_t kv_head = 0;               // g
  const int32_t* blocks = nullptr;   // the sequence's row of the block table
  float* scratch = nullptr;          // attention_scratch_floats()
  int64_t split = 0;                 // kPartial
  float* partial = nullptr;          // [splits][H / G][C + 2]
  int64_t partial_stride = 0;        // kMerge: floats from one split to the next
  float* state = nullptr;            // kMerge: [H / G][C + 2]
  int64_t splits = 0;                // kMerge
  bool first = false, last = false;  // kMerge
};
using AttentionKernel = void(const AttentionShape&, const AttentionTask&);

// Query rows (tokens times heads of one kv head) that a kWhole task of several tokens may hold.
inline constexpr int64_t kAttentionTaskRows = 128;
// Query rows that a kernel scores at a time, and floats of scratch that it wants for a task of
// `rows` query rows: (m, l, a) of every row, scores and partial sums of one tile of rows.
inline constexpr int64_t kAttentionTile = 8;
constexpr int64_t attention_scratch_floats(int64_t rows, int64_t c) {
  return rows * (c + 32) + kAttentionTile * (128 + c + 16);
}

#define SLUICE_KERNEL(isa, name, in, weight, arith, flags) AttentionKernel name;
#include "ops/attention/kernels.inc"
#undef SLUICE_KERNEL

template <class Fn>
struct Kernel;  // ops/kernel_table.h
std::span<const Kernel<AttentionKernel>> attention_kernels();

}  // namespace sluice
