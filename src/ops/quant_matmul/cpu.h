// The kernels of arith int8_row over a vocabulary W of 16 columns: 16 lanes of int32 with dot
// products of four bytes, beside its float vocabulary W::V. A tile of R rows reads each line of a
// panel once. Include only from one ISA's files.
#pragma once

#include "ops/quant_matmul/kernels.h"
#include "ops/quant_matmul/quant_panels.h"
#include "simd/math.h"

namespace sluice::simd {

// How far ahead of its use a line of weights is asked for.
inline constexpr int64_t kQuantPrefetch = 4096;

// Rows of one tile: row r begins at x + r * stride.
struct QuantTile {
  const std::byte* x = nullptr;
  int64_t stride = 0, codes_at = 0;
  RowScales x_scale;
  const std::byte* panel = nullptr;
  int64_t k = 0, group = 0;
  RoundTo round = RoundTo::kF32;
  float* out = nullptr;
  int64_t out_stride = 0, columns = 0;
};

template <class V>
SLUICE_SIMD_INLINE typename V::F rounded(RoundTo to, typename V::F v) {
  if (to == RoundTo::kBF16) return round_bf16<V>(v);
  return to == RoundTo::kF16 ? V::round_f16(v) : v;
}

template <class W, QuantCodes codes, int R>
void quant_tile(const QuantTile& t) {
  using V = typename W::V;
  constexpr int bits = quant_bits(codes);
  typename V::F acc[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) acc[r] = V::set1(-0.0f);  // -0 + term is the term, whatever its sign
  const std::byte* line = t.panel;
  const std::byte* x = t.x + t.codes_at;
  const int64_t groups = quant_groups(t.k, t.group);
  for (int64_t g = 0; g < groups; ++g) {
    const auto scale = V::load(reinterpret_cast<const float*>(line));
    line += 64;
    typename W::I sum[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sum[r] = W::first(t.x + r * t.stride + g * 4);
    const int64_t padded = quant_padded(codes, quant_group_k(t.k, t.group, g));
    for (int64_t k = 0; k < padded; k += 32 / bits, line += 64) {
      V::prefetch(line + kQuantPrefetch);
      const auto loaded = W::load(line);
      if constexpr (bits == 8) {
        const auto w = W::weights8(loaded);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sum[r] = W::dot(sum[r], w, x + r * t.stride);
        x += W::kFour;
      } else {
        const auto low = W::weights4(W::low(loaded)), high = W::weights4(W::high(loaded));
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          sum[r] = W::dot(sum[r], low, x + r * t.stride);
          sum[r] = W::dot(sum[r], high, x + r * t.stride + W::kFour);
        }
        x += 2 * W::kFour;
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const float x_scale = t.x_scale.data[r * t.x_scale.row_stride + g * t.x_scale.group_stride];
      const auto term = V::mul(V::mul(W::to_float(sum[r]), scale), V::set1(x_scale));
      acc[r] = V::add(acc[r], term);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
    V::store_n(t.out + r * t.out_stride, rounded<V>(t.round, acc[r]), t.columns);
}

template <class W, QuantCodes codes>
void multiply_quant(const QuantProduct& p) {
  const int64_t groups = quant_groups(p.k, p.group);
  QuantTile t;
  t.codes_at = quant_corrections_bytes(codes, groups);
  t.stride = quant_row_bytes(codes, p.k, p.group);
  t.k = p.k;
  t.group = p.group;
  t.round = p.round;
  t.out_stride = p.out_stride;
  for (int64_t panel = p.panel_begin; panel < p.panel_end; ++panel) {
    t.panel = p.panels + static_cast<size_t>(panel) * p.panel_bytes;
    t.columns = p.n - panel * 16 < 16 ? p.n - panel * 16 : 16;
    for (int64_t row = 0, rows = 0; row < p.rows; row += rows) {
      const int64_t left = p.rows - row;
      rows = left >= W::kMaxRows ? W::kMaxRows : left >= 4 ? 4 : left;
      t.x = p.prepared + row * t.stride;
      t.x_scale = p.x_scale;
      t.x_scale.data += row * p.x_scale.row_stride;
      t.out = p.out + row * p.out_stride + panel * 16;
      switch (rows) {
        case 1:
          quant_tile<W, codes, 1>(t);
          break;
        case 2:
          quant_tile<W, codes, 2>(t);
          break;
        case 3:
          quant_tile<W, codes, 3>(t);
          break;
        case 4:
          quant_tile<W, codes, 4>(t);
          break;
        default:
          quant_tile<W, codes, W::kMaxRows>(t);
          break;
      }
    }
  }
}

template <class W, QuantCodes codes>
void prepare_quant(const QuantProduct& p, int64_t begin, int64_t end) {
  const int64_t groups = quant_groups(p.k, p.group);
  const int64_t codes_at = quant_corrections_bytes(codes, groups);
  const int64_t stride = quant_row_bytes(codes, p.k, p.group);
  for (int64_t r = begin; r < end; ++r) {
    const int8_t* x = p.x + r * p.x_stride;
    std::byte* row = p.prepared + r * stride;
    std::byte* to = row + codes_at;
    auto* corrections = reinterpret_cast<int32_t*>(row);
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t count = quant_group_k(p.k, p.group, g), padded = quant_padded(codes, count);
      const int32_t sum = W::arrange(x + g * p.group, count, padded, to);
      corrections[g] = (codes == QuantCodes::kInt8 ? -128 : -8) * sum;
      to += padded / 4 * W::kFour;
    }
  }
}

template <class W, QuantCodes codes>
inline constexpr QuantKernel kQuantKernel = {prepare_quant<W, codes>, multiply_quant<W, codes>};

}  // namespace sluice::simd
