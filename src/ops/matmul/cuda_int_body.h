// The CUDA kernels of ariths `int` and `int16`: x is quantised once, by a launch of its own, then
// multiplied by int4 or int8 panels on the tensor cores.
//
// A panel's 16 columns are the rows of the instruction's A (device/mma.h), 8 rows of x its B, and
// the 32 k of one instruction are one group of the weights: int4's multiplier takes the sum of its
// group, as the panel's zero point takes the codes. Integer sums are exact, so that any order of k
// gives the arith's bits; the two f32 roundings of a block of k come in the arith's order.
// The high and the low halves of codes of 16 bits are multiplied one after the other.
//
// FewIntRows (decode) shares every 512 k among its four warps and adds their integers up.
// ManyIntRows (prefill) gives a warp 32 rows of one panel over the whole of k.
#pragma once

#include "ops/matmul/cuda_panels.h"
#include "weights/int_panels.h"

namespace sluice::cuda {

// Where the quantised rows lie in GroupedProduct::prepared: the codes of each row, K padded to a
// group, of int16 all the high halves, then all the low ones; then the scales.
struct QuantizedRows {
  bool gathered;  // quantised row s is slot s; else it is row s of x, which many slots may share
  int64_t count, padded_k, blocks;
  int8_t* codes;  // [count][halves][padded_k]
  float* scales;  // [count][blocks]
};
// Bytes of a code of x beside weights of the format.
template <WeightFormat format>
inline constexpr int kHalves = format == WeightFormat::kInt4 ? 1 : 2;

template <WeightFormat format>
SLUICE_HD inline QuantizedRows quantized_rows(const GroupedProduct& a) {
  QuantizedRows q;
  q.gathered = a.rows != nullptr && a.row_count < a.x_rows;
  q.count = a.rows == nullptr || q.gathered ? a.row_count : a.x_rows;
  q.padded_k = int_groups(a.k) * kIntGroup;
  q.blocks = ceil_div(a.k, a.block);
  q.codes = reinterpret_cast<int8_t*>(a.prepared);
  q.scales = reinterpret_cast<float*>(q.codes + q.count * q.padded_k * kHalves<format>);
  return q;
}
// The quantised row of a tile's row r; past the tile's rows, one that exists.
SLUICE_HD inline int64_t quantized_row(const GroupedProduct& a, const QuantizedRows& q,
                                       const SlotTile& tile, int r) {
  const int64_t slot = tile.slot + (r < tile.rows ? r : 0);
  return a.rows != nullptr && !q.gathered ? a.rows[slot] : slot;
}

// A warp for each block of k of each row.
template <WeightFormat format>
struct QuantizeRowsBody {
  static constexpr int kThreads = 128, kWarps = kThreads / kWarp;
  static constexpr int kValues = static_cast<int>(kIntBlock) / kWarp;  // of a lane

  GroupedProduct a;

  static int64_t blocks(const GroupedProduct& a) {
    const QuantizedRows q = quantized_rows<format>(a);
    return ceil_div(q.count * q.blocks, kWarps);
  }
  struct Values {
    float v[kValues];
  };

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const QuantizedRows q = quantized_rows<format>(a);
    typename Block::template PerThread<Values> values(block);
    typename Block::template PerThread<float> amax(block);
    block.each([&](int t) {
      const int64_t item = block.index() * kWarps + t / kWarp;
      amax[t] = read(q, item, t % kWarp, values[t]);
    });
    block.warp_fold(amax, [](float low, float high) { return larger(low, high); });
    block.each([&](int t) {
      const int64_t item = block.index() * kWarps + t / kWarp;
      write(q, item, t % kWarp, values[t], amax[t]);
    });
  }

 private:
  // NaN wins.
  SLUICE_HD static float larger(float low, float high) {
    return low != low || low >= high ? low : high;
  }
  SLUICE_HD bool is_there(const QuantizedRows& q, int64_t item) const {
    const int64_t row = item / q.blocks;
    if (row >= q.count) return false;
    // Slots that no expert has may name any row.
    return !q.gathered || a.starts == nullptr || row < a.starts[a.experts];
  }
  // A lane's values of an item and their largest magnitude, or NaN where one is not finite.
  SLUICE_HD float read(const QuantizedRows& q, int64_t item, int lane, Values& c) const {
    float most = 0;
    if (!is_there(q, item)) return most;
    const int64_t row = item / q.blocks, first = item % q.blocks * a.block;
    const int64_t left = a.k - first, count = left < a.block ? left : a.block;
    const float* x = a.x + (q.gathered ? a.rows[row] : row) * a.x_stride + first;
    SLUICE_UNROLL
    for (int i = 0; i < kValues; ++i) {
      const int k = lane + i * kWarp;
      c.v[i] = k < count ? x[k] : 0.0f;
      const float v = bits_to_f32(f32_to_bits(c.v[i]) & 0x7fffffffu);
      most = larger(most, v - v == 0.0f ? v : bits_to_f32(0x7fc00000u));
    }
    return most;
  }
  SLUICE_HD void write(const QuantizedRows& q, int64_t item, int lane, const Values& c,
                       float most) const {
    if (!is_there(q, item)) return;
    const int64_t row = item / q.blocks, first = item % q.blocks * a.block;
    const int64_t left = q.padded_k - first, padded = left < a.block ? left : a.block;
    const bool finite = most == most;
    constexpr bool wide = kHalves<format> == 2;
    const float least = (most > 1e-12f ? most : 1e-12f) / (wide ? 32639.0f : 127.0f);
    const float scale = !wide && least < 1e-6f ? 1.0f : least;
    if (lane == 0) q.scales[item] = finite ? scale : most;
    int8_t* codes = q.codes + row * q.padded_k * kHalves<format> + first;
    constexpr float kMagic = 12582912.0f;  // adding it rounds to an integer, ties to even
    SLUICE_UNROLL
    for (int i = 0; i < kValues; ++i) {
      const int k = lane + i * kWarp;
      if (k >= padded) continue;
      const uint32_t code =
          finite ? f32_to_bits(c.v[i] / scale + kMagic) - f32_to_bits(kMagic) : 0u;
      // The low byte as a signed number, and what is left, a multiple of 256.
      codes[wide ? q.padded_k + k : k] = static_cast<int8_t>(code);
      if constexpr (wide) codes[k] = static_cast<int8_t>((code + 128u) >> 8);
    }
  }
};

// The block of k that a group belongs to, in one panel.
struct IntBlockAt {
  int64_t number, group, groups;  // of all blocks; of the block's groups
  int64_t bytes;                  // from the panel's start to the block's
};
template <WeightFormat format>
SLUICE_HD IntBlockAt int_block_at(const GroupedProduct& a, int64_t group) {
  const int64_t all = int_groups(a.k), whole = a.block / kIntGroup;
  IntBlockAt at;
  at.number = group / whole;
  at.group = group % whole;
  const int64_t left = all - at.number * whole;
  at.groups = left < whole ? left : whole;
  at.bytes = at.number *
             (format == WeightFormat::kInt4 ? int4_block_bytes(whole) : int8_block_bytes(whole));
  return at;
}

// What a lane holds of one group: 8 k of columns lane / 4 and + 8 of a panel. The order of k
// is not the instruction's: lane % 4 has k = 8 (lane % 4) .. + 7 in both registers of a column, and
// of x in both registers of B.
template <WeightFormat format>
struct LaneGroup {
  static constexpr int kWords = format == WeightFormat::kInt4 ? 2 : 4;
  uint32_t words[kWords];

  SLUICE_HD void read(const std::byte* block, const IntBlockAt& at, int64_t group, int lane) {
    const int column = lane / 4, part = lane % 4;
    if constexpr (format == WeightFormat::kInt4) {
      const std::byte* line =
          block + int4_codes_at(at.groups) + group * kInt4GroupBytes + part * 64 + column * 4;
      words[0] = load_as<uint32_t>(line), words[1] = load_as<uint32_t>(line + 32);
    } else {
      const std::byte* line =
          block + kInt8CodesAt + group * kInt8GroupBytes + part * 128 + column * 4;
      words[0] = load_as<uint32_t>(line), words[1] = load_as<uint32_t>(line + 32);
      words[2] = load_as<uint32_t>(line + 64), words[3] = load_as<uint32_t>(line + 96);
    }
  }
  // `zeros`: bit i says that column lane / 4 + 8 i has the zero point 7; int4 only.
  SLUICE_HD void operand(uint32_t zeros, uint32_t (&a)[4]) const {
    if constexpr (format == WeightFormat::kInt4) {
      SLUICE_UNROLL
      for (int i = 0; i < 2; ++i) {
        // Bytes below 16 minus 7 or 8, none borrowing from the next.
        const uint32_t zero = 0x08080808u - ((zeros >> i) & 1u) * 0x01010101u;
        const auto minus = [zero](uint32_t codes) {
          return ((codes & 0x0f0f0f0fu) + 0x80808080u - zero) ^ 0x80808080u;
        };
        a[i] = minus(words[i]), a[i + 2] = minus(words[i] >> 4);
      }
    } else {
      SLUICE_UNROLL
      for (int i = 0; i < 4; ++i) a[i] = words[i] ^ 0x80808080u;
    }
  }
};

// The f32 scale of column c of a block.
template <WeightFormat format>
SLUICE_HD float int_weight_scale(const std::byte* block, int c) {
  if constexpr (format == WeightFormat::kInt4)
    return bits_to_f32(static_cast<uint32_t>(load_as<uint16_t>(block + 2 * c)) << 16);
  else
    return load_as<float>(block + 4 * c);
}
// int4: the zero points of columns lane / 4 and + 8 in a group of a block, as LaneGroup takes them.
SLUICE_HD inline uint32_t int4_zeros(const std::byte* block, int64_t group, int lane) {
  const auto bits =
      static_cast<uint32_t>(load_as<uint16_t>(block + kInt4ZeroAt + 2 * group)) >> (lane / 4);
  return (bits & 1u) | ((bits >> 7) & 2u);
}
// int4: the multipliers of column c for the eight groups around `group`.
SLUICE_HD inline uint32_t int4_multipliers(const std::byte* block, int64_t group, int c) {
  return load_as<uint32_t>(block + kInt4MultiplierAt + group / 8 * 64 + 4 * c);
}
SLUICE_HD inline int32_t multiplier_of(uint32_t eight, int64_t group) {
  return static_cast<int32_t>((eight >> (group % 8 * 4)) & 15u);
}

template <WeightFormat format, int kPanels>
struct FewIntRowsBody {
  static constexpr int kThreads = 128, kWarps = kThreads / kWarp;
  static constexpr int kRows = kMmaColumns, kColumns = 16 * kPanels;
  static constexpr int kGroups = 4;  // of a warp: a part of 128 k, which lies within one block
  static constexpr int kStride = kColumns + 4;

  static constexpr int kParts = kHeader;  // int32 [warp][row][column]
  static constexpr int kScales = kParts + kWarps * kRows * kStride * 4;  // [warp][column]
  static constexpr int kXScales = kScales + kWarps * kColumns * 4;       // [warp][row]
  static constexpr int kShared = kXScales + kWarps * kRows * 4;

  GroupedProduct a;

  static int64_t blocks(const GroupedProduct& a) { return blocks_of<kRows, kPanels>(a); }

  // A warp's part of 512 k, from memory.
  struct Part {
    LaneGroup<format> w[kPanels][kGroups];
    uint32_t zeros[kPanels][kGroups], multipliers[kPanels][2];  // int4
    float scale[kPanels][2];                                    // of columns lane / 4 and + 8
    uint32_t x[kHalves<format>][kGroups][2];
    float x_scale;
  };
  struct Totals {
    int32_t v[kPanels][4];
  };
  struct Sums {
    float v[kPanels];
  };

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const Operands o = operands<kRows, kPanels>(block, a);
    if (o.tile.rows == 0) return;
    const QuantizedRows q = quantized_rows<format>(a);
    typename Block::template PerThread<Part> part(block);
    typename Block::template PerThread<Totals> totals(block);
    typename Block::template PerThread<Sums> sums(block);
    auto* row_at = block.template shared<int64_t>(kHeader - 8 * kRows);
    block.each([&](int t) {
      if (t < kRows) row_at[t] = quantized_row(a, q, o.tile, t);
    });
    for (int64_t first = 0; first < o.steps; first += kWarps * kGroups) {
      block.each([&](int t) {
        fetch(o, q, row_at[t % kWarp / 4], first + t / kWarp * kGroups, t % kWarp, part[t]);
        totals[t] = Totals{};
      });
      SLUICE_UNROLL
      for (int g = 0; g < kGroups; ++g) {
        SLUICE_UNROLL
        for (int p = 0; p < kPanels; ++p) SLUICE_UNROLL
        for (int half = 0; half < kHalves<format>; ++half)
          block.warp_mma(
              [&](int t) { return operands_of(part[t], p, g, half); },
              [&](int t, const MmaSums& d) { add_group(part[t], p, g, half, d, totals[t]); });
      }
      block.each([&](int t) { put(t, part[t], totals[t], block); });
      block.each([&](int t) { add_blocks(o, first, t, block, sums[t]); });
    }
    auto* out = block.template shared<float>(kParts);
    block.each([&](int t) {
      SLUICE_UNROLL
      for (int p = 0; p < kPanels; ++p) out[t / 16 * kStride + p * 16 + t % 16] = sums[t].v[p];
    });
    block.each(
        [&](int t) { store_outputs<kColumns>(a, o.tile, o.panel, out, kStride, t, kThreads); });
  }

 private:
  // Groups [first, first + 4) of the lane's columns and row; zeros past the last group.
  SLUICE_HD void fetch(const Operands& o, const QuantizedRows& q, int64_t row, int64_t first,
                       int lane, Part& c) const {
    c = Part{};
    if (first >= o.steps) return;
    const IntBlockAt at = int_block_at<format>(a, first);
    c.x_scale = q.scales[row * q.blocks + at.number];
    const int8_t* x =
        q.codes + row * q.padded_k * kHalves<format> + first * kIntGroup + lane % 4 * 8;
    SLUICE_UNROLL
    for (int half = 0; half < kHalves<format>; ++half, x += q.padded_k) {
      SLUICE_UNROLL
      for (int g = 0; g < kGroups; ++g) {
        if (first + g >= o.steps) continue;
        c.x[half][g][0] = load_as<uint32_t>(x + g * kIntGroup);
        c.x[half][g][1] = load_as<uint32_t>(x + g * kIntGroup + 4);
      }
    }
    SLUICE_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      const int64_t panel = o.panel + p < a.panel_count ? o.panel + p : o.panel;
      const std::byte* block = o.panels + panel * static_cast<int64_t>(a.panel_bytes) + at.bytes;
      SLUICE_UNROLL
      for (int i = 0; i < 2; ++i) {
        c.scale[p][i] = int_weight_scale<format>(block, lane / 4 + 8 * i);
        if constexpr (format == WeightFormat::kInt4)
          c.multipliers[p][i] =
              int4_multipliers(block, at.group, lane / 4 + 8 * i) >> (at.group % 8 * 4);
      }
      SLUICE_UNROLL
      for (int g = 0; g < kGroups; ++g) {
        if (first + g >= o.steps) continue;
        c.w[p][g].read(block, at, at.group + g, lane);
        if constexpr (format == WeightFormat::kInt4)
          c.zeros[p][g] = int4_zeros(block, at.group + g, lane);
      }
    }
  }
  SLUICE_HD static MmaOperands operands_of(const Part& c, int p, int g, int half) {
    MmaOperands o;
    c.w[p][g].operand(c.zeros[p][g], o.a);
    o.b[0] = c.x[half][g][0], o.b[1] = c.x[half][g][1];
    return o;
  }
  SLUICE_HD static void add_group(const Part& c, int p, int g, int half, const MmaSums& d,
                                  Totals& totals) {
    SLUICE_UNROLL
    for (int i = 0; i < 4; ++i) {
      if constexpr (format == WeightFormat::kInt4)
        totals.v[p][i] += multiplier_of(c.multipliers[p][i / 2], g) * d.d[i];
      else
        totals.v[p][i] += half == 0 ? 256 * d.d[i] : d.d[i];
    }
  }
  template <class Block>
  SLUICE_HD static void put(int t, const Part& c, const Totals& totals, Block& block) {
    const int warp = t / kWarp, lane = t % kWarp;
    auto* parts = block.template shared<int32_t>(kParts) + warp * kRows * kStride;
    auto* scales = block.template shared<float>(kScales) + warp * kColumns;
    SLUICE_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      SLUICE_UNROLL
      for (int i = 0; i < 4; ++i) {
        const MmaPlace at = mma_d_place(lane, i);
        parts[at.column * kStride + p * 16 + at.row] = totals.v[p][i];
      }
      // Not c.scale[p][lane % 4]: an index of the lane's would put all of c into memory.
      if (lane % 4 == 0) scales[p * 16 + lane / 4] = c.scale[p][0];
      if (lane % 4 == 1) scales[p * 16 + lane / 4 + 8] = c.scale[p][1];
    }
    if (lane % 4 == 0) block.template shared<float>(kXScales)[warp * kRows + lane / 4] = c.x_scale;
  }
  // Row t / 16, column t % 16 of each panel: the blocks of these 512 k, ascending.
  template <class Block>
  SLUICE_HD void add_blocks(const Operands& o, int64_t first, int t, Block& block,
                            Sums& sums) const {
    const auto* parts = block.template shared<int32_t>(kParts) + t / 16 * kStride;
    const auto* scales = block.template shared<float>(kScales);
    const auto* x_scales = block.template shared<float>(kXScales) + t / 16;
    const int each = static_cast<int>(a.block) / (kGroups * static_cast<int>(kIntGroup));
    for (int from = 0; from < kWarps && first + from * kGroups < o.steps; from += each) {
      SLUICE_UNROLL
      for (int p = 0; p < kPanels; ++p) {
        const int column = p * 16 + t % 16;
        int32_t total = 0;
        for (int w = from; w < from + each; ++w) total += parts[w * kRows * kStride + column];
        const float scaled = static_cast<float>(total) * x_scales[from * kRows];
        sums.v[p] = scalar::fma(scaled, scales[from * kColumns + column], sums.v[p]);
      }
    }
  }
};

template <WeightFormat format>
struct ManyIntRowsBody {
  static constexpr int kThreads = 256;
  static constexpr int kRows = 64, kPanels = 4, kColumns = 64;
  static constexpr int kTiles = 4;  // of 8 rows, of a warp
  static constexpr int kStride = kColumns + 4;

  static constexpr int kRowAt = kHeader;
  static constexpr int kOut = kRowAt + kRows * 8;
  static constexpr int kShared = kOut + kRows * kStride * 4;

  GroupedProduct a;

  static int64_t blocks(const GroupedProduct& a) { return blocks_of<kRows, kPanels>(a); }

  struct Weights {
    LaneGroup<format> w;
    uint32_t a[4];
    uint32_t multipliers[2];
    float scale[2];
  };
  struct Sums {
    int32_t total[kTiles][4];
    float v[kTiles][4];
  };

  // Warp w has panel w % 4 and of the tile's rows those of w / 4, + 2, + 4, + 6 times 8.
  SLUICE_HD static int tile_of(int t, int i) { return (t / kWarp / kPanels + 2 * i) * kMmaColumns; }

  template <class Block>
  SLUICE_HD void operator()(Block& block) const {
    const Operands o = operands<kRows, kPanels>(block, a);
    if (o.tile.rows == 0) return;
    const QuantizedRows q = quantized_rows<format>(a);
    typename Block::template PerThread<Weights> weights(block);
    typename Block::template PerThread<Sums> sums(block);
    auto* row_at = block.template shared<int64_t>(kRowAt);
    block.each([&](int t) {
      if (t < kRows) row_at[t] = quantized_row(a, q, o.tile, t);
    });
    const int64_t whole = a.block / kIntGroup;
    for (int64_t first = 0; first < o.steps; first += whole) {
      const IntBlockAt at = int_block_at<format>(a, first);
      for (int64_t g = 0; g < at.groups; ++g) {
        SLUICE_UNROLL
        for (int i = 0; i < kTiles; ++i) {
          if (2 * i * kMmaColumns >= o.tile.rows) continue;
          SLUICE_UNROLL
          for (int half = 0; half < kHalves<format>; ++half)
            block.warp_mma(
                [&](int t) {
                  if (i == 0 && half == 0) fetch(o, at, g, t, weights[t]);
                  const int64_t k = (first + g) * kIntGroup + half * q.padded_k;
                  return operands_of(q, row_at, k, t, i, weights[t]);
                },
                [&](int t, const MmaSums& d) {
                  add_group(g, half, d, weights[t], sums[t].total[i]);
                  if (g + 1 == at.groups && half + 1 == kHalves<format>)
                    add_block(q, row_at, at, t, i, weights[t], sums[t]);
                });
        }
      }
    }
    auto* out = block.template shared<float>(kOut);
    block.each([&](int t) {
      SLUICE_UNROLL
      for (int i = 0; i < kTiles; ++i) SLUICE_UNROLL
      for (int j = 0; j < 4; ++j) {
        const MmaPlace at = mma_d_place(t % kWarp, j);
        out[(tile_of(t, i) + at.column) * kStride + t / kWarp % kPanels * 16 + at.row] =
            sums[t].v[i][j];
      }
    });
    block.each(
        [&](int t) { store_outputs<kColumns>(a, o.tile, o.panel, out, kStride, t, kThreads); });
  }

 private:
  SLUICE_HD void fetch(const Operands& o, const IntBlockAt& at, int64_t g, int t,
                       Weights& c) const {
    const int lane = t % kWarp;
    const int64_t wanted = o.panel + t / kWarp % kPanels;
    const int64_t panel = wanted < a.panel_count ? wanted : o.panel;
    const std::byte* block = o.panels + panel * static_cast<int64_t>(a.panel_bytes) + at.bytes;
    c.w.read(block, at, g, lane);
    uint32_t zeros = 0;
    if constexpr (format == WeightFormat::kInt4) zeros = int4_zeros(block, g, lane);
    c.w.operand(zeros, c.a);
    SLUICE_UNROLL
    for (int i = 0; i < 2; ++i) {
      if (g == 0) c.scale[i] = int_weight_scale<format>(block, lane / 4 + 8 * i);
      if constexpr (format == WeightFormat::kInt4) {
        if (g % 8 == 0) c.multipliers[i] = int4_multipliers(block, g, lane / 4 + 8 * i);
      }
    }
  }
  SLUICE_HD static MmaOperands operands_of(const QuantizedRows& q, const int64_t* row_at, int64_t k,
                                           int t, int i, const Weights& c) {
    const int lane = t % kWarp;
    const int8_t* x = q.codes + row_at[tile_of(t, i) + lane / 4] * q.padded_k * kHalves<format> +
                      k + lane % 4 * 8;
    MmaOperands o;
    SLUICE_UNROLL
    for (int j = 0; j < 4; ++j) o.a[j] = c.a[j];
    o.b[0] = load_as<uint32_t>(x), o.b[1] = load_as<uint32_t>(x + 4);
    return o;
  }
  SLUICE_HD static void add_group(int64_t g, int half, const MmaSums& d, const Weights& c,
                                  int32_t (&total)[4]) {
    SLUICE_UNROLL
    for (int j = 0; j < 4; ++j) {
      if constexpr (format == WeightFormat::kInt4)
        total[j] += multiplier_of(c.multipliers[j / 2], g) * d.d[j];
      else
        total[j] += half == 0 ? 256 * d.d[j] : d.d[j];
    }
  }
  SLUICE_HD static void add_block(const QuantizedRows& q, const int64_t* row_at,
                                  const IntBlockAt& at, int t, int i, const Weights& c,
                                  Sums& sums) {
    SLUICE_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int row = tile_of(t, i) + mma_d_place(t % kWarp, j).column;
      const float scaled =
          static_cast<float>(sums.total[i][j]) * q.scales[row_at[row] * q.blocks + at.number];
      sums.v[i][j] = scalar::fma(scaled, c.scale[j / 2], sums.v[i][j]);
      sums.total[i][j] = 0;
    }
  }
};

// Runs what a product needs: run(body, shared bytes).
template <WeightFormat format, class Run>
void with_int_body(const GroupedProduct& a, const Run& run) {
  if (!has_few_rows(a))
    run(ManyIntRowsBody<format>{a}, ManyIntRowsBody<format>::kShared);
  else if (a.glu)
    run(FewIntRowsBody<format, 2>{a}, FewIntRowsBody<format, 2>::kShared);
  else
    run(FewIntRowsBody<format, 1>{a}, FewIntRowsBody<format, 1>::kShared);
}

}  // namespace sluice::cuda
