// The panel kernels of ariths `int` and `int16` over a vocabulary W of 16 columns: 16 lanes of
// int32 with dot products of four bytes, beside its float vocabulary W::V. Weights are multiplied
// as they lie; a tile of R rows reads each line of a panel once. Include only from one ISA's files.
#pragma once

#include "ops/matmul/cpu.h"
#include "ops/matmul/int_rows.h"

namespace sluice::simd {

// How far ahead of its use a line of weights is asked for. On a Xeon with AMX, Qwen3's int4 layer
// at M = 1, in us of one run: 1 KiB 708, 2 KiB 686, 3 KiB 693; 4 KiB, the same set of the
// first-level cache, 8 % more than 3.
inline constexpr int64_t kIntPrefetch = 2048;

// The rows of a tile and where their sums go: acc[r * stride].
struct IntTile {
  IntRow row;
  const std::byte* panel = nullptr;
  int64_t k = 0, block = 0;
  float* acc = nullptr;
  int64_t stride = 0;
};

// Adds a block's integer sums to the rows' accumulators: acc = fma(f32(S) * scale, w, acc).
template <class W, int R>
SLUICE_SIMD_INLINE void add_block(const IntTile& t, int64_t b, const typename W::I* sums,
                                  typename W::V::F weight_scale, typename W::V::F* acc) {
  using V = typename W::V;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const auto scaled = V::mul(W::to_float(sums[r]), V::set1(t.row.scales[b * t.row.height + r]));
    acc[r] = V::fma(scaled, weight_scale, acc[r]);
  }
}

template <class W, int R>
SLUICE_SIMD_INLINE void store_rows(const IntTile& t, const typename W::V::F* acc) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) W::V::store(t.acc + r * t.stride, acc[r]);
}

template <class W, int R>
void tile_int4(const IntTile& t) {
  using V = typename W::V;
  typename V::F acc[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) acc[r] = V::zero();
  const int64_t height = t.row.height, all = int_groups(t.k), whole = t.block / kIntGroup;
  const std::byte* block = t.panel;
  for (int64_t first = 0, b = 0; first < all; first += whole, ++b) {
    const int64_t groups = all - first < whole ? all - first : whole;
    const std::byte* line = block + int4_codes_at(groups);
    const auto scale = V::load_bf16(reinterpret_cast<const uint16_t*>(block));
    typename W::I total[R], multipliers = W::zero();
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) total[r] = W::zero();
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t at = first + g;
      if (g % 8 == 0) multipliers = W::load(block + kInt4MultiplierAt + g / 8 * 64);
      const int8_t* x = t.row.codes + at / 2 * t.row.step + at % 2 * 32;
      const int32_t* correction = t.row.corrections + at * 2 * height;
      const auto zeros = W::zero_points(block + kInt4ZeroAt + g * 2);
      typename W::Dots dots[R];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
        dots[r] = W::first_dots(zeros, correction + r, correction + height + r);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j, line += 64) {
        V::prefetch(line + kIntPrefetch);
        const auto codes = W::load(line);
        const auto low = W::low(codes), high = W::high(codes);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          dots[r] = W::dot4(dots[r], low, x + r * 64 + j * 8);
          dots[r] = W::dot4(dots[r], high, x + r * 64 + j * 8 + 4);
        }
      }
      const auto multiplier = W::multiplier(multipliers);
      multipliers = W::next_multiplier(multipliers);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) total[r] = W::add_group(total[r], dots[r], multiplier);
    }
    add_block<W, R>(t, b, total, scale, acc);
    block = line;
  }
  store_rows<W, R>(t, acc);
}

template <class W, int R>
void tile_int8(const IntTile& t) {
  using V = typename W::V;
  typename V::F acc[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) acc[r] = V::zero();
  const int64_t height = t.row.height, all = int_groups(t.k), whole = t.block / kIntGroup;
  const std::byte* line = t.panel;
  for (int64_t first = 0, b = 0; first < all; first += whole, ++b) {
    const int64_t groups = all - first < whole ? all - first : whole;
    const auto scale = V::load(reinterpret_cast<const float*>(line));
    line += kInt8CodesAt;
    typename W::Sums sums[R];
    typename W::I total[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sums[r] = W::first_sums(t.row.corrections + b * height + r);
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t at = first + g;
      const int8_t* x = t.row.codes + at / 2 * t.row.step + at % 2 * 32;
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j, line += 64) {
        V::prefetch(line + kIntPrefetch);
        const auto codes = W::int8_codes(W::load(line));
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
          sums[r] = W::dot8(sums[r], codes, x + r * 64 + j * 4, x + (height + r) * 64 + j * 4);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) total[r] = W::total_of(sums[r]);
    add_block<W, R>(t, b, total, scale, acc);
  }
  store_rows<W, R>(t, acc);
}

template <class W, WeightFormat format, int R>
SLUICE_SIMD_INLINE void int_tile(const IntTile& t) {
  if constexpr (format == WeightFormat::kInt4)
    tile_int4<W, R>(t);
  else
    tile_int8<W, R>(t);
}

// Rows of a tile when `left` of a row tile are to do.
template <class W>
SLUICE_SIMD_INLINE int64_t next_int_rows(int64_t left) {
  if (left >= W::kMaxRows) return W::kMaxRows;
  return left >= 4 ? 4 : left;
}

// Rows [row, row + rows), at most 16 and of one row tile, times the panels [panel, panel +
// panels); acc[(r * panels + p) * 16].
template <class W, WeightFormat format>
void int_row_tile(const PanelProduct& product, const IntRows& all, int64_t row, int64_t rows,
                  int64_t panel, int64_t panels, float* acc) {
  for (int64_t p = 0; p < panels; ++p) {
    IntTile t;
    t.panel = product.panels + static_cast<size_t>(panel + p) * product.panel_bytes;
    t.k = product.k;
    t.block = product.block;
    t.stride = panels * 16;
    for (int64_t r = 0, count = 0; r < rows; r += count) {
      count = next_int_rows<W>(rows - r);
      t.row = int_row(all, row + r);
      t.acc = acc + (r * panels + p) * 16;
      switch (count) {
        case 1:
          int_tile<W, format, 1>(t);
          break;
        case 2:
          int_tile<W, format, 2>(t);
          break;
        case 3:
          int_tile<W, format, 3>(t);
          break;
        case 4:
          int_tile<W, format, 4>(t);
          break;
        default:
          int_tile<W, format, W::kMaxRows>(t);
          break;
      }
    }
  }
}

template <class W, WeightFormat format>
void multiply_int(const PanelProduct& product) {
  const IntRows all = int_rows(product, format);
  alignas(64) float acc[16 * 2 * 16];
  for (int64_t p0 = product.panel_begin; p0 < product.panel_end; p0 += 2) {
    const int64_t panels = product.panel_end - p0 < 2 ? 1 : 2;
    for (int64_t row = 0; row < product.row_count; row += all.height) {
      const int64_t left = product.row_count - row;
      const int64_t rows = left < all.height ? left : all.height;
      int_row_tile<W, format>(product, all, row, rows, p0, panels, acc);
      product.epilogue({&product, acc, row, rows, p0, panels});
    }
  }
}

// The scale of one block of a row: 1 / scale never takes part, the rule divides.
template <class V, WeightFormat format>
float int_scale(const float* x, int64_t count) {
  const auto magnitude = V::seti(0x7fffffff);
  auto amax = V::set1(1e-12f), poison = V::zero();
  for (int64_t k = 0; k < count; k += 16) {
    const auto v = k + 16 <= count ? V::load(x + k) : V::load_n(x + k, count - k);
    amax = V::max(V::from_bits(V::andi(V::bits_of(v), magnitude)), amax);
    poison = V::fma(v, V::zero(), poison);  // NaN where v is not finite
  }
  if (V::bits(V::is_nan(poison)) != 0) return __builtin_nanf("");
  if constexpr (int_halves(format) == 2) return V::reduce_max(amax) / 32639.0f;
  const float scale = V::reduce_max(amax) / 127.0f;
  return scale < 1e-6f ? 1.0f : scale;
}

// v / divisor, rounded once, in five operations: a division of 16 lanes takes 16 cycles, these two
// and a half. `inverse` is 1 / divisor, rounded to nearest. The first correction leaves less
// than one unit in the last place, from where the second one gives the nearest (Markstein 1990),
// but for quotients so small that the remainder underflows: those round to code 0 either way.
template <class V>
typename V::F quotient(typename V::F v, typename V::F divisor, typename V::F inverse) {
  auto q = V::mul(v, inverse);
  const auto minus = V::sub(V::zero(), divisor);
  q = V::fma(V::fma(minus, q, v), inverse, q);
  return V::fma(V::fma(minus, q, v), inverse, q);
}

// Codes of one block: k in [k0, k0 + count) of the row, zeros up to k0 + padded.
template <class W, WeightFormat format>
void int_codes(const float* x, int64_t count, int64_t padded, float scale, const IntRow& row,
               int64_t k0) {
  using V = typename W::V;
  const bool finite = scale == scale;
  const auto divisor = V::set1(finite ? scale : 1.0f), magic = V::set1(12582912.0f);
  const auto inverse = V::div(V::set1(1.0f), divisor);
  for (int64_t k = 0; k < padded; k += 16) {
    const int64_t left = finite ? count - k : 0;
    const auto v = left >= 16 ? V::load(x + k) : left > 0 ? V::load_n(x + k, left) : V::zero();
    const auto rounded = V::add(quotient<V>(v, divisor, inverse), magic);
    const auto codes = V::subi(V::bits_of(rounded), V::bits_of(magic));
    int8_t* out = row.codes + (k0 + k) / 64 * row.step + (k0 + k) % 64;
    if constexpr (int_halves(format) == 2) {
      const auto high = V::template sar<8>(V::addi(codes, V::seti(128)));
      W::store_bytes(out + row.height * 64, V::subi(codes, V::template shl<8>(high)));
      W::store_bytes(out, high);
    } else {
      W::store_bytes(out, codes);
    }
  }
}

template <class W, WeightFormat format>
void prepare_int(const PanelProduct& product, int64_t begin, int64_t end) {
  using V = typename W::V;
  const IntRows all = int_rows(product, format);
  const int64_t padded_k = all.steps * 64, groups = int_groups(product.k);
  for (int64_t r = begin; r < end; ++r) {
    const float* x = product.x + (product.rows != nullptr ? product.rows[r] : r) * product.x_stride;
    const IntRow row = int_row(all, r);
    for (int64_t k0 = 0, b = 0; k0 < product.k; k0 += product.block, ++b) {
      const int64_t left = product.k - k0;
      const int64_t count = left < product.block ? left : product.block;
      const int64_t padded = left <= product.block ? padded_k - k0 : product.block;
      row.scales[b * row.height] = int_scale<V, format>(x + k0, count);
      int_codes<W, format>(x + k0, count, padded, row.scales[b * row.height], row, k0);
    }
    if constexpr (format == WeightFormat::kInt4) {
      for (int64_t g = 0; g < groups; ++g)
        W::group_corrections(row.codes + g / 2 * row.step + g % 2 * 32,
                             row.corrections + 2 * g * row.height, row.height);
    } else {
      for (int64_t b = 0; b < all.blocks; ++b) {
        int32_t high = 0, low = 0;
        const int64_t first = b * product.block / kIntGroup, whole = product.block / kIntGroup;
        for (int64_t g = first; g < groups && g < first + whole; ++g) {
          const int8_t* codes = row.codes + g / 2 * row.step + g % 2 * 32;
          high += W::sum32(codes);
          low += W::sum32(codes + row.height * 64);
        }
        row.corrections[b * row.height] = -128 * (256 * high + low);
      }
    }
  }
}

template <class W, WeightFormat format>
void gather_int(const PanelProduct& from, const PanelProduct& to, int64_t begin, int64_t end) {
  const IntRows sources = int_rows(from, format), all = int_rows(to, format);
  for (int64_t r = begin; r < end; ++r) {
    const IntRow source = int_row(sources, to.rows != nullptr ? to.rows[r] : r);
    const IntRow row = int_row(all, r);
    for (int64_t s = 0; s < all.steps; ++s)
      for (int64_t half = 0; half < all.halves; ++half)
        W::copy_line(source.codes + s * source.step + half * source.height * 64,
                     row.codes + s * row.step + half * row.height * 64);
    // Tiles of int4 hold signed weights, which need none.
    const bool corrected = format == WeightFormat::kInt8 || to.row_count <= W::kMostDotRows;
    for (int64_t c = 0; corrected && c < all.corrections_each; ++c)
      row.corrections[c * row.height] = source.corrections[c * source.height];
    for (int64_t b = 0; b < all.blocks; ++b)
      row.scales[b * row.height] = source.scales[b * source.height];
  }
}

template <class W, WeightFormat format>
inline constexpr PanelKernel kIntKernel = {prepare_int<W, format>, multiply_int<W, format>,
                                           store<typename W::V>, gather_int<W, format>};

}  // namespace sluice::simd
