// What the CUDA kernels of matmul share: readers of panels, the tiles of a launch, the stores.
#pragma once

#include "base/fp.h"
#include "device/block.h"
#include "ops/elementwise/activate.h"
#include "ops/matmul/grouped_product.h"
#include "ops/matmul/panels.h"

namespace sluice::cuda {

inline constexpr int kStepK = 32;  // k per step of bf16_tile and per block of MXFP4

struct alignas(16) Quad {
  float v[4];
};
struct alignas(16) Words {
  uint32_t v[4];
};
struct alignas(8) Pair {
  float even, odd;
};

SLUICE_HD inline Pair of_bf16(uint32_t word) {
  return {bits_to_f32(word << 16), bits_to_f32(word & 0xffff0000u)};
}
SLUICE_HD inline Pair of_mxfp4(uint32_t byte, uint32_t scale) {
  const float s = e8m0_to_f32(static_cast<uint8_t>(scale));
  return {e2m1_to_f32(static_cast<uint8_t>(byte & 15u)) * s,
          e2m1_to_f32(static_cast<uint8_t>(byte >> 4)) * s};
}

// A step of a panel: 32 k of its 16 columns (weights/packed.h), widened exactly.
template <WeightFormat format>
struct PanelStep {
  static constexpr int kBytes = format == WeightFormat::kF32    ? kStepK * 64
                                : format == WeightFormat::kBF16 ? kStepK * 32
                                                                : 16 * 17;
  // Weights of column c at k = 2 j and 2 j + 1.
  SLUICE_HD static Pair pair(const std::byte* step, int j, int c) {
    if constexpr (format == WeightFormat::kF32)
      return {load_as<float>(step + (2 * j * 16 + c) * 4),
              load_as<float>(step + (2 * j * 16 + 16 + c) * 4)};
    else if constexpr (format == WeightFormat::kBF16)
      return of_bf16(load_as<uint32_t>(step + (j * 16 + c) * 4));
    else
      return of_mxfp4(load_as<uint8_t>(step + 16 + j * 16 + c), load_as<uint8_t>(step + c));
  }
};

// The weights of four neighbouring columns at k = 2 j and 2 j + 1 as they are stored.
template <WeightFormat format>
struct StoredPairs;
template <>
struct StoredPairs<WeightFormat::kF32> {
  Quad even{}, odd{};
  SLUICE_HD void read(const std::byte* step, int j, int c, int left) {
    even = odd = Quad{};
    if (2 * j < left) even = load_as<Quad>(step + (2 * j * 16 + c) * 4);
    if (2 * j + 1 < left) odd = load_as<Quad>(step + (2 * j * 16 + 16 + c) * 4);
  }
  SLUICE_HD Pair pair(int i) const { return {even.v[i], odd.v[i]}; }
};
template <>
struct StoredPairs<WeightFormat::kBF16> {
  Words words{};
  SLUICE_HD void read(const std::byte* step, int j, int c, int) {
    words = load_as<Words>(step + (j * 16 + c) * 4);
  }
  SLUICE_HD Pair pair(int i) const { return of_bf16(words.v[i]); }
};
template <>
struct StoredPairs<WeightFormat::kMXFP4> {
  uint32_t bytes = 0, scales = 0;
  SLUICE_HD void read(const std::byte* step, int j, int c, int) {
    bytes = load_as<uint32_t>(step + 16 + j * 16 + c);
    scales = load_as<uint32_t>(step + c);
  }
  SLUICE_HD Pair pair(int i) const {
    return of_mxfp4((bytes >> (8 * i)) & 255u, (scales >> (8 * i)) & 255u);
  }
};

// A tile of a segment: slots [slot, slot + rows) of an expert. rows == 0: there is nothing to do.
struct SlotTile {
  int32_t expert, slot, rows;
};
inline constexpr int kHeader = 256;  // bytes of shared memory: find_tile()'s, then FewRows' rows

SLUICE_HD inline int32_t slots_before(const GroupedProduct& a, int64_t e) {
  const int32_t s = a.starts[e];
  return s < a.row_count ? s : static_cast<int32_t>(a.row_count);
}

// Tile number `wanted` in the order of experts, then slots. Every thread receives it.
template <int kRows, class Block>
SLUICE_HD SlotTile find_tile(Block& block, const GroupedProduct& a, int64_t wanted) {
  if (a.starts == nullptr) {
    const int64_t slot = wanted * kRows, left = a.row_count - slot;
    return {0, static_cast<int32_t>(slot), static_cast<int32_t>(left < kRows ? left : kRows)};
  }
  auto* found = block.template shared<SlotTile>();
  const int64_t share = ceil_div(a.experts, block.threads());
  const auto tiles_of = [&](int64_t e) {
    return e < a.experts ? (slots_before(a, e + 1) - slots_before(a, e) + kRows - 1) / kRows : 0;
  };
  typename Block::template PerThread<int32_t> before(block);
  block.each([&](int t) {
    if (t == 0) *found = {0, 0, 0};
    int32_t tiles = 0;
    for (int64_t e = t * share; e < (t + 1) * share; ++e) tiles += tiles_of(e);
    before[t] = tiles;
  });
  block.exclusive_scan(before, block.template shared<int32_t>(16));
  block.each([&](int t) {
    int64_t first = before[t];
    for (int64_t e = t * share; e < (t + 1) * share; ++e) {
      const int32_t tiles = tiles_of(e);
      if (wanted >= first && wanted < first + tiles) {
        const int32_t slot = slots_before(a, e) + static_cast<int32_t>(wanted - first) * kRows;
        const int32_t left = slots_before(a, e + 1) - slot;
        *found = {static_cast<int32_t>(e), slot, left < kRows ? left : kRows};
      }
      first += tiles;
    }
  });
  return *found;
}

// Stores kColumns / 16 panels from panel p on of a tile of finished sums,
// acc[row * stride + column].
template <int kColumns>
SLUICE_HD void store_outputs(const GroupedProduct& a, const SlotTile& tile, int64_t p,
                             const float* acc, int stride, int thread, int threads) {
  const float* bias = a.expert_bias != nullptr ? a.expert_bias[tile.expert] : a.bias;
  const int outputs = a.glu ? kColumns / 2 : kColumns;
  for (int i = thread; i < tile.rows * outputs; i += threads) {
    const int row = i / outputs, c = i % outputs;
    const int panel = a.glu ? c / 16 * 2 : c / 16;
    if (p + panel >= a.panel_count) continue;
    const PanelColumns columns = panel_columns(a.n, a.glu_layout, p + panel);
    if (c % 16 >= columns.count) continue;
    const int64_t at = columns.first + c % 16;
    float v = acc[row * stride + panel * 16 + c % 16];
    if (bias != nullptr) v = v + bias[at];
    if (a.glu) {
      float up = acc[row * stride + panel * 16 + 16 + c % 16];
      if (bias != nullptr) up = up + bias[a.n / 2 + at];
      v = activate(a.activation, v, up);
    }
    a.out[(tile.slot + row) * a.out_stride + at] = v;
  }
}

template <Arith arith>
SLUICE_HD float rounded(float x) {
  return arith == Arith::kBf16Tile ? round_to_bf16(x) : x;
}

// What the bodies share: where the tile's rows and panels lie.
struct Operands {
  SlotTile tile;
  int64_t panel;  // the block's first
  const std::byte* panels;
  int64_t steps;  // of 32 k
};

template <int kRows, int kPanels, class Block>
SLUICE_HD Operands operands(Block& block, const GroupedProduct& a) {
  const int64_t tiles = most_tiles(a.row_count, a.experts, kRows);
  Operands o;
  o.tile = find_tile<kRows>(block, a, block.index() % tiles);
  o.panel = block.index() / tiles * kPanels;
  o.panels = a.expert_panels != nullptr ? a.expert_panels[o.tile.expert] : a.panels;
  if (o.panels == nullptr) o.tile.rows = 0;
  o.steps = ceil_div(a.k, kStepK);
  return o;
}
template <int kRows, int kPanels>
int64_t blocks_of(const GroupedProduct& a) {
  return most_tiles(a.row_count, a.experts, kRows) * ceil_div(a.panel_count, kPanels);
}

// From about so many rows per expert on, tiles of 64 rows beat tiles of 8.
inline bool has_few_rows(const GroupedProduct& a) {
  return a.row_count <= 16 * a.experts;
}

// Row r of a tile starts at x + row_offset(...).
SLUICE_HD inline int64_t row_offset(const GroupedProduct& a, const SlotTile& tile, int r) {
  const int64_t slot = tile.slot + (r < tile.rows ? r : 0);
  return (a.rows != nullptr ? a.rows[slot] : slot) * a.x_stride;
}

}  // namespace sluice::cuda
