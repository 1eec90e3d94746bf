// The kernels of arith fp8_row over the vector vocabulary V: codes become f32 on the way, a block
// of R rows reads each line of a panel once. Rows are prepared as f32. Include only from one ISA's
// files.
#pragma once

#include "ops/quant_matmul/cpu.h"

namespace sluice::simd {

// Rows of a block, by the registers of V: two chains of each.
template <class V>
inline constexpr int kFp8Rows = V::kRegisters / 4;

// 256 times the values of 16 codes of x, NaN included: what load_e4m3_256th leaves of the weights
// makes up for it, exactly.
template <class V>
SLUICE_SIMD_INLINE typename V::F fp8_values(const void* codes) {
  const auto v = V::mul(V::load_e4m3_256th(codes), V::set1(65536.0f));
  const auto magnitude = V::from_bits(V::andi(V::bits_of(v), V::seti(0x7fffffff)));
  return V::select(V::equal(magnitude, V::set1(480.0f * 256.0f)), V::set1(__builtin_nanf("")), v);
}

// The sums of one group: 32 k at a time.
template <class V, int R>
SLUICE_SIMD_INLINE void fp8_sums(const float* x, int64_t stride, const std::byte* codes,
                                 int64_t padded, typename V::F* sum) {
  using F = typename V::F;
  for (int64_t k = 0; k < padded; k += 32, codes += 512) {
    F even[R], odd[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) even[r] = odd[r] = V::zero();
    for (int64_t line = 0; line < 512; line += 64) V::prefetch(codes + line + kQuantPrefetch);
#pragma GCC unroll 4
    for (int64_t j = 0; j < 32; j += 2) {
      const F first = V::load_e4m3_256th(codes + 16 * j);
      const F second = V::load_e4m3_256th(codes + 16 * j + 16);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        even[r] = V::fma(V::set1(x[r * stride + k + j]), first, even[r]);
        odd[r] = V::fma(V::set1(x[r * stride + k + j + 1]), second, odd[r]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sum[r] = V::add(sum[r], V::add(even[r], odd[r]));
  }
}

template <class V, int R>
void fp8_tile(const QuantTile& t) {
  using F = typename V::F;
  alignas(64) float acc[R * 16];
  for (int r = 0; r < R; ++r) V::store(acc + 16 * r, V::set1(-0.0f));  // -0 + term is the term
  const int64_t stride = t.stride / 4;
  const auto* x = reinterpret_cast<const float*>(t.x);
  const std::byte* line = t.panel;
  const int64_t groups = quant_groups(t.k, t.group);
  for (int64_t g = 0; g < groups; ++g) {
    const F scale = V::load(reinterpret_cast<const float*>(line));
    const int64_t padded = quant_padded(QuantCodes::kFp8, quant_group_k(t.k, t.group, g));
    F sum[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sum[r] = V::zero();
    fp8_sums<V, R>(x, stride, line + 64, padded, sum);
    line += 64 + padded * 16;
    x += padded;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const float x_scale = t.x_scale.data[r * t.x_scale.row_stride + g * t.x_scale.group_stride];
      const F term = V::mul(V::mul(sum[r], V::set1(x_scale)), scale);
      V::store(acc + 16 * r, V::add(V::load(acc + 16 * r), term));
    }
  }
  for (int r = 0; r < R; ++r)
    V::store_n(t.out + r * t.out_stride, rounded<V>(t.round, V::load(acc + 16 * r)), t.columns);
}

// The next block of at most R rows, in one of R, R / 2, ..., 1.
template <class V, int R>
int64_t fp8_block(const QuantTile& t, int64_t left) {
  if constexpr (R > 1) {
    if (left < R) return fp8_block<V, R / 2>(t, left);
  }
  fp8_tile<V, R>(t);
  return R;
}

template <class V>
void multiply_fp8(const QuantProduct& p) {
  QuantTile t;
  t.stride = quant_row_bytes(QuantCodes::kFp8, p.k, p.group);
  t.k = p.k;
  t.group = p.group;
  t.round = p.round;
  t.out_stride = p.out_stride;
  for (int64_t panel = p.panel_begin; panel < p.panel_end; ++panel) {
    t.panel = p.panels + static_cast<size_t>(panel) * p.panel_bytes;
    t.columns = p.n - panel * 16 < 16 ? p.n - panel * 16 : 16;
    for (int64_t row = 0; row < p.rows;) {
      t.x = p.prepared + row * t.stride;
      t.x_scale = p.x_scale;
      t.x_scale.data += row * p.x_scale.row_stride;
      t.out = p.out + row * p.out_stride + panel * 16;
      row += fp8_block<V, kFp8Rows<V>>(t, p.rows - row);
    }
  }
}

template <class V>
void prepare_fp8(const QuantProduct& p, int64_t begin, int64_t end) {
  const int64_t stride = quant_row_bytes(QuantCodes::kFp8, p.k, p.group);
  for (int64_t r = begin; r < end; ++r) {
    const int8_t* x = p.x + r * p.x_stride;
    auto* to = reinterpret_cast<float*>(p.prepared + r * stride);
    for (int64_t g = 0; g < quant_groups(p.k, p.group); ++g, x += p.group) {
      const int64_t count = quant_group_k(p.k, p.group, g);
      const int64_t padded = quant_padded(QuantCodes::kFp8, count);
      for (int64_t k = 0; k < padded; k += 16, to += 16) {
        int8_t tail[16] = {};
        for (int64_t i = 0; k + 16 > count && k + i < count; ++i) tail[i] = x[k + i];
        V::store(to, fp8_values<V>(k + 16 <= count ? x + k : tail));
      }
    }
  }
}

template <class V>
inline constexpr QuantKernel kFp8Kernel = {prepare_fp8<V>, multiply_fp8<V>};

}  // namespace sluice::simd
