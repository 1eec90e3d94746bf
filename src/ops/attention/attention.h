// attention: extend attention over the paged cache for a ragged batch (prefill chunks and decode
// rows).
//
// Query row t of sequence s at absolute position p sees keys j with max(0, p - W + 1) <= j <= p
// (W = window, 0 = no limit; W counts the query itself). For query head h, kv head g = h / (H/G):
//   z_j = scale * (FMA chain over c ascending of q[c] * k_j[c]);  softcap: z = cap * tanh(z / cap)
// Keys are taken in splits of kAttentionSplit absolute positions (split i = [i*S, (i+1)*S)), so the
// order does not depend on chunks, pages, window start or batch. Per split, over its visible keys:
//   m_i = max z_j;  e_j = exp(z_j - m_i);  l_i = sum32 of e_j with index j mod 32
//   a_i[c] = FMA chain over visible j ascending of e_j * v_j[c]
// and splits are merged in ascending order into (m, l, a), which starts at (-inf, 0, 0), or with a
// sink s_h at (s_h, 1, 0):
//   m' = max(m, m_i);  x = exp(m - m');  y = exp(m_i - m')         (exp(-inf - m') = 0)
//   l = fma(l, x, l_i * y);  a[c] = fma(a[c], x, a_i[c] * y);  m = m'
//   out[c] = a[c] / l;  a row that sees no key and has no sink gives zeros.
// f32 throughout; keys and values are widened from the cache's dtype.
//
// Rows from query_starts[S] on belong to no sequence and give zeros, whatever their positions: so a
// batch may be padded to a fixed T and S.
//
// tensor       | shape           | dtype | layout
// q            | [T, H*C]        | f32   | row stride
// cache        | paged           |       | kv_cache.h; the new tokens are already written
// query_starts | [S+1]           | i32   | ascending from 0 to at most T: rows of sequence s are
//              |                 |       | [query_starts[s], query_starts[s+1])
// positions    | [T]             | i32   | absolute position of each query row
// block_tables | [S, max_blocks] | i32   | block of absolute positions [16 b, 16 b + 16); entries
//              |                 |       | behind the window may be anything: they are never read
// sinks        | [H]             | f32   | optional, logit units
// out          | [T, H*C]        | f32   | row stride; must not alias q
// Batch-, chunk-, thread-invariant; every ISA the same bits. Any C that is a multiple of 16 up to
// 512 in SIMD, any C elsewhere. Errors: H % G, shapes; where the host can read them, query_starts,
// and positions beyond the block table.
#pragma once

#include <span>

#include "device/device.h"
#include "ops/kv_write/kv_cache.h"
#include "tensor/view.h"

namespace sluice {

struct AttentionArgs {
  ConstMatrixF32 q;
  KvCacheView cache;
  int64_t heads = 0;  // H
  float scale = 1.0f;
  int64_t window = 0;
  float softcap = 0.0f;  // 0: none
  const float* sinks = nullptr;
  std::span<const int32_t> query_starts;
  std::span<const int32_t> positions;
  MatrixView<const int32_t> block_tables;
  MatrixF32 out;
};
size_t attention_workspace_bytes(int threads, int64_t max_heads, int64_t max_head_size);
// On a GPU any workspace will do, none too; this one lets `rows` rows share `splits` splits of each
// out to blocks of their own, in one round.
size_t attention_split_workspace_bytes(int64_t rows, int64_t heads, int64_t head_size,
                                       int64_t splits);
Status attention(const ExecContext& context, const AttentionArgs& args, Workspace workspace);

}  // namespace sluice
