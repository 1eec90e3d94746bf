// The panel kernels of arith a8g32 over a vocabulary W of 16 columns: 16 lanes of int32 with dot
// products of four bytes, beside its float vocabulary W::V. One template for every format of
// weights/block_panels.h: what differs is how four codes become four bytes (GroupCodes), and what
// scales the sums (GroupScaling). Integer products are taken in f32 where they are exact there.
// A tile of R rows reads each line of a panel once. Include only from one ISA's files.
#pragma once

#include "ops/matmul/cpu.h"
#include "ops/matmul/group_rows.h"

namespace sluice::simd {

// How far ahead of its use a line of weights is asked for. On a Xeon with AMX, Qwen3's q4_0 layer
// at M = 16, in ms of one run: 8.03; from 1 KiB ahead 8.40, from 3 KiB 8.43.
inline constexpr int64_t kGroupPrefetch = 2048;

// Values outside a signed byte's positive half: W may have to take them with their sign.
constexpr bool wide_levels(WeightFormat format) {
  return block_traits(format).zero == 128;
}

// The codes of a group: get<t>() gives k = 4 t .. 4 t + 3 of each column as four bytes (MXFP4: even
// k of eight for even t, odd k for odd t), unsigned, or signed where W wants wide levels so.
template <class W, WeightFormat format>
struct GroupCodes {
  using C = typename W::I;
  static constexpr BlockTraits kTraits = block_traits(format);
  const std::byte* at;
  C high[2];

  SLUICE_SIMD_INLINE explicit GroupCodes(const std::byte* codes) : at(codes) {
    if constexpr (kTraits.bits == 5 || kTraits.bits == 6) high[0] = W::load(at + 256);
    if constexpr (kTraits.bits == 6) high[1] = W::load(at + 320);
  }
  template <int t>
  SLUICE_SIMD_INLINE C get() const {
    if constexpr (kTraits.bits == 8) {
      return W::wide_codes(W::load(at + 64 * t));
    } else {
      C line;
      if constexpr (kTraits.scales == GroupScales::kE8M0)
        line = W::quads(at + 16 + t / 2 * 64);
      else
        line = W::load(at + t / 2 * 64);
      C code = t % 2 == 0 ? W::low(line) : W::high(line);
      if constexpr (kTraits.bits == 5) code = W::or_bits(code, W::template bit_to_4<t>(high[0]));
      if constexpr (kTraits.bits == 6)
        code = W::or_bits(code, W::template pair_to_4<t % 4>(high[t / 4]));
      if constexpr (kTraits.level.given)
        code = W::template look_up<wide_levels(format)>(code, kTraits.level.value);
      return code;
    }
  }
};

// The scales of a block. begin(g) takes group g; then acc += what the integer sums are worth.
template <class W, WeightFormat format>
struct GroupScaling {
  using V = typename W::V;
  using F = typename V::F;
  static constexpr BlockTraits kTraits = block_traits(format);
  static constexpr bool kHalves = kTraits.scales == GroupScales::kInt8;
  static constexpr bool kMin =
      kTraits.scales == GroupScales::kF16Min || kTraits.scales == GroupScales::kSix;
  const std::byte* block;
  F scale, minus_min, multiplier[2], min_multiplier;

  SLUICE_SIMD_INLINE explicit GroupScaling(const std::byte* header) : block(header) {
    if constexpr (kTraits.scales == GroupScales::kSix || kTraits.scales == GroupScales::kInt8)
      scale = W::load_f16(block);
    if constexpr (kTraits.scales == GroupScales::kSix)
      minus_min = V::sub(V::zero(), W::load_f16(block + kMinAt));
  }
  SLUICE_SIMD_INLINE void begin(int64_t g, const std::byte* codes) {
    if constexpr (kTraits.scales == GroupScales::kF16) {
      scale = W::load_f16(block + 32 * g);
    } else if constexpr (kTraits.scales == GroupScales::kE8M0) {
      scale = W::half_e8m0(codes);
    } else if constexpr (kTraits.scales == GroupScales::kF16Min) {
      scale = W::load_f16(block + 64 * g);
      minus_min = W::load_f16(block + 64 * g + kMinAt);
    } else if constexpr (kTraits.scales == GroupScales::kSix) {
      const auto high = W::load(block + 192);
      multiplier[0] = W::six_bits(W::load(block + 64), 4 * g, high, 2 * g);
      min_multiplier = W::six_bits(W::load(block + 128), 4 * g, high, 16 + 2 * g);
    } else {
      const auto four = W::load(block + 64 + g / 2 * 64);
      multiplier[0] = W::signed_byte(four, g % 2 * 2);
      multiplier[1] = W::signed_byte(four, g % 2 * 2 + 1);
    }
  }
  // The sum of a group, or of its first half, times its multiplier: exact, below 2^24.
  SLUICE_SIMD_INLINE F first(typename W::I sum) const {
    const F f = W::to_float(sum);
    if constexpr (kTraits.scales == GroupScales::kSix || kHalves) return V::mul(f, multiplier[0]);
    return f;
  }
  SLUICE_SIMD_INLINE F second(F before, typename W::I sum) const {
    return V::fma(W::to_float(sum), multiplier[1], before);
  }
  SLUICE_SIMD_INLINE F add(F acc, F sum, F row_scale, const float* code_sum) const {
    acc = V::fma(V::mul(sum, row_scale), scale, acc);
    if constexpr (kMin) {
      F least = V::set1(*code_sum);
      if constexpr (kTraits.scales == GroupScales::kSix) least = V::mul(least, min_multiplier);
      acc = V::fma(V::mul(least, row_scale), minus_min, acc);
    }
    return acc;
  }
};

// dots[r] += the products of get<from>() .. get<to - 1>().
template <class W, WeightFormat format, int R, int from, int to>
SLUICE_SIMD_INLINE void add_group_dots(const GroupCodes<W, format>& codes, const int8_t* x,
                                       typename W::I* dots) {
  const auto c = codes.template get<from>();
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
    dots[r] = W::template dot<wide_levels(format)>(dots[r], c, x + r * 32 + 4 * from);
  if constexpr (from + 1 < to) add_group_dots<W, format, R, from + 1, to>(codes, x, dots);
}

// The rows of a tile and where their sums go: acc[r * stride].
struct GroupTile {
  GroupRow row;
  const std::byte* panel = nullptr;
  int64_t k = 0;
  float* acc = nullptr;
  int64_t stride = 0;
};

template <class W, WeightFormat format, int R>
void group_tile(const GroupTile& t) {
  using V = typename W::V;
  using Scaling = GroupScaling<W, format>;
  constexpr BlockTraits traits = block_traits(format);
  constexpr int64_t bytes = block_group_bytes(traits);
  typename V::F acc[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) acc[r] = V::zero();
  const int64_t all = block_groups(t.k);
  const std::byte* block = t.panel;
  for (int64_t first = 0; first < all; first += kBlockGroups) {
    const int64_t groups = all - first < kBlockGroups ? all - first : kBlockGroups;
    const std::byte* codes = block + block_header_bytes(traits, groups);
    for (const std::byte* line = block; line < codes; line += 64)
      V::prefetch(line + kGroupPrefetch);
    Scaling scaling(block);
    for (int64_t g = 0; g < groups; ++g, codes += bytes) {
      for (int64_t line = 0; line < bytes; line += 64) V::prefetch(codes + line + kGroupPrefetch);
      scaling.begin(g, codes);
      const GroupCodes<W, format> group(codes);
      const int8_t* x = group_codes(t.row, first + g);
      const float* scales = group_scales(t.row, first + g);
      const float* sums = group_sums(t.row, first + g);
      typename W::I dots[R];
      typename V::F sum[R];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
        dots[r] = W::template start<format>(group_corrections(t.row, first + g, 0) + r);
      constexpr int half = Scaling::kHalves ? 4 : 8;
      add_group_dots<W, format, R, 0, half>(group, x, dots);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) sum[r] = scaling.first(dots[r]);
      if constexpr (Scaling::kHalves) {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
          dots[r] = W::template start<format>(group_corrections(t.row, first + g, 1) + r);
        add_group_dots<W, format, R, half, 8>(group, x, dots);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sum[r] = scaling.second(sum[r], dots[r]);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
        acc[r] = scaling.add(acc[r], sum[r], V::set1(scales[r]), sums + r);
    }
    block = codes;
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) V::store(t.acc + r * t.stride, acc[r]);
}

// `count` rows of a row tile, one tile of R rows after the other, R halving at the end.
template <class W, WeightFormat format, int R>
void group_rows_of_panel(GroupTile t, int64_t count) {
  for (; count >= R; count -= R, t.row.row += R, t.acc += R * t.stride) group_tile<W, format, R>(t);
  if constexpr (R > 1) {
    if (count > 0) group_rows_of_panel<W, format, (R > 4 ? 4 : R - 1)>(t, count);
  }
}

template <class W, WeightFormat format>
void multiply_groups(const PanelProduct& product) {
  const GroupRows all = group_rows(product);
  alignas(64) float acc[16 * 2 * 16];
  for (int64_t p0 = product.panel_begin; p0 < product.panel_end; p0 += 2) {
    const int64_t panels = product.panel_end - p0 < 2 ? 1 : 2;
    for (int64_t row = 0; row < product.row_count; row += all.height) {
      const int64_t left = product.row_count - row;
      const int64_t rows = left < all.height ? left : all.height;
      for (int64_t p = 0; p < panels; ++p)
        group_rows_of_panel<W, format, W::kMaxRows>(
            {group_row(all, row),
             product.panels + static_cast<size_t>(p0 + p) * product.panel_bytes, product.k,
             acc + p * 16, panels * 16},
            rows);
      product.epilogue({&product, acc, row, rows, p0, panels});
    }
  }
}

// The scale of up to 32 values of a row: 1 / scale never takes part, the rule divides.
template <class V>
SLUICE_SIMD_INLINE float group_scale(typename V::F a, typename V::F b) {
  const auto magnitude = V::seti(0x7fffffff);
  auto amax = V::max(V::from_bits(V::andi(V::bits_of(a), magnitude)), V::set1(1e-12f));
  amax = V::max(V::from_bits(V::andi(V::bits_of(b), magnitude)), amax);
  // NaN where a value is not finite.
  const auto poison = V::fma(a, V::zero(), V::mul(b, V::zero()));
  if (V::bits(V::is_nan(poison)) != 0) return __builtin_nanf("");
  const float scale = V::reduce_max(amax) / 127.0f;
  return scale < 1e-6f ? 1.0f : scale;
}

template <class V>
SLUICE_SIMD_INLINE typename V::I group_code(typename V::F v, float scale) {
  const auto magic = V::set1(12582912.0f);
  const auto rounded = V::add(V::div(v, V::set1(scale)), magic);
  return V::subi(V::bits_of(rounded), V::bits_of(magic));
}

template <class W, WeightFormat format>
void prepare_groups(const PanelProduct& product, int64_t begin, int64_t end) {
  using V = typename W::V;
  constexpr int32_t zero = block_traits(format).zero;
  constexpr bool halves = GroupScaling<W, format>::kHalves;
  const GroupRows all = group_rows(product);
  for (int64_t r = begin; r < end; ++r) {
    const float* x = product.x + (product.rows != nullptr ? product.rows[r] : r) * product.x_stride;
    const GroupRow row = group_row(all, r);
    for (int64_t g = 0; g < all.groups; ++g, x += kGroupK) {
      const int64_t left = product.k - g * kGroupK;
      auto a = left >= 16 ? V::load(x) : V::load_n(x, left);
      auto b = left >= 32 ? V::load(x + 16) : left > 16 ? V::load_n(x + 16, left - 16) : V::zero();
      const float scale = group_scale<V>(a, b);
      const bool finite = scale == scale;
      if (!finite) a = b = V::zero();
      int8_t* codes = group_codes(row, g);
      W::template store_codes<format>(codes, group_code<V>(a, finite ? scale : 1.0f));
      W::template store_codes<format>(codes + 16, group_code<V>(b, finite ? scale : 1.0f));
      const int32_t low = W::sum16(codes), high = W::sum16(codes + 16);
      *group_scales(row, g) = scale;
      *group_corrections(row, g, 0) = -zero * (halves ? low : low + high);
      *group_corrections(row, g, 1) = -zero * high;
      *group_sums(row, g) = static_cast<float>(low + high);
    }
  }
}

template <class W, WeightFormat format>
void gather_groups(const PanelProduct& from, const PanelProduct& to, int64_t begin, int64_t end) {
  const GroupRows sources = group_rows(from), all = group_rows(to);
  for (int64_t r = begin; r < end; ++r) {
    const GroupRow source = group_row(sources, to.rows != nullptr ? to.rows[r] : r);
    const GroupRow row = group_row(all, r);
    for (int64_t g = 0; g < all.groups; ++g) {
      W::copy32(group_codes(source, g), group_codes(row, g));
      *group_scales(row, g) = *group_scales(source, g);
      *group_corrections(row, g, 0) = *group_corrections(source, g, 0);
      *group_corrections(row, g, 1) = *group_corrections(source, g, 1);
      *group_sums(row, g) = *group_sums(source, g);
    }
  }
}

template <class W, WeightFormat format>
inline constexpr PanelKernel kGroupKernel = {prepare_groups<W, format>, multiply_groups<W, format>,
                                             store<typename W::V>, gather_groups<W, format>};

}  // namespace sluice::simd
