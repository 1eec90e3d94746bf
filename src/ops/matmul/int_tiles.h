// The panel kernels of ariths `int` and `int16` over tiles: 16 columns x 64 k of int8 at a time
// (simd/amx.h). `Machine` names the tiles and the vector steps around them, so that the whole
// kernel also runs emulated.
//
// A block of rows is two row tiles (or three); of 16-bit codes one, whose high and low halves take
// the places of the two. int8 panels are tiles as they lie. int4 panels are multiplied out, code
// times multiplier, a few steps ahead of their use; the f32 scaling of a block's sums waits for the
// steps of the next block. Both are spread over the steps of 64 k, so that the vector units work
// while the tile unit multiplies: two panels' step of 32 rows takes the tile unit 64 cycles.
//
// Include only from *_amx.cc and *_emulated.cc.
#pragma once

#include "ops/matmul/int_panel_tiles.h"
#include "simd/amx.h"

namespace sluice::simd {

// Blocks of rows that share a pass over the panels: their accumulators stay in the first-level
// cache beside two blocks of multiplied-out weights.
static constexpr int64_t int_group_blocks(WeightFormat format) {
  return 4 * int_halves(format);
}

static constexpr int64_t int_group_rows(WeightFormat format) {
  return int_group_blocks(format) * 32 / int_halves(format);
}

// Sums of one block of k on their way into the accumulators of one block of rows.
struct IntPending {
  const int32_t* sums = nullptr;
  float* acc = nullptr;
  int64_t rows = 0, panels = 0;
  int64_t done = 0;                      // rows scaled
  int64_t handed = 0;                    // rows that the epilogue has had
  const float* scales = nullptr;         // of the next row
  const int32_t* corrections = nullptr;  // int8
  int64_t height = 0, in_tile = 0;       // of the row tiles; the next row's place in its own
  int64_t next_tile = 0;                 // scales from a row tile's end to the next one's beginning
  const std::byte* weight_scales = nullptr;  // of the first panel
  int64_t panel_bytes = 0;
  bool first = false, last = false;  // block of k
  int64_t row = 0, panel = 0;        // of the tile that the epilogue gets
};

template <class Machine, WeightFormat format>
class IntTileProduct {
 public:
  using Tiles = typename Machine::Tiles;
  using Panels = IntPanelTiles<Machine, format>;
  using Cursor = typename Panels::Cursor;

  explicit IntTileProduct(const PanelProduct& product)
      : product_(product), rows_(int_rows(product, format)) {}

  void run() {
    TileConfig config;
    for (int t = 0; t < 7; ++t) config.set(t, rows_.height, 64);
    config.set(7, 16, 64);
    if (!three()) config.set(6, 16, 64);
    Tiles tiles(config);
    const int64_t blocks = three() ? 1 : (rows_.tiles + kTilesOfBlock - 1) / kTilesOfBlock;
    for (int64_t block = 0; block < blocks; block += kGroup) {
      first_ = block;
      blocks_ = blocks - block < kGroup ? blocks - block : kGroup;
      Panels panels(product_, blocks_);
      IntPending pending;
      for (int64_t p = product_.panel_begin; p < product_.panel_end; p += 2) {
        if (product_.panel_end - p > 1)
          multiply_pair<2>(tiles, panels, pending, p);
        else
          multiply_pair<1>(tiles, panels, pending, p);
      }
      scale(pending, pending.rows);
    }
  }

 private:
  static constexpr bool kHalves = int_halves(format) == 2;
  static constexpr int64_t kGroup = int_group_blocks(format), kTilesOfBlock = kHalves ? 1 : 2;
  static constexpr int64_t kHandRows = 8;  // that the epilogue gets, or what is left
  static constexpr int64_t kAccumulators = kTilesOfBlock * 16 * 2 * 16;  // of a block of rows

  // `pending` are the last sums of the panels before, in turn of these.
  template <int Count>
  void multiply_pair(Tiles& tiles, Panels& panels, IntPending& pending, int64_t panel) {
    const int64_t all = int_groups(product_.k), whole = product_.block / kIntGroup;
    const std::byte* block = product_.panels + static_cast<size_t>(panel) * product_.panel_bytes;
    Cursor cursor = panels.cursor();
    IntPending before = pending;
    for (int64_t b = 0, first = 0; first < all; first += whole, ++b) {
      const int64_t groups = all - first < whole ? all - first : whole;
      panels.begin(cursor, block, groups, Count);
      const Block here{block, panel, b, first / 2, (groups + 1) / 2};
      for (int64_t r = 0; r < blocks_; ++r) {
        if constexpr (!kHalves) {
          if (three()) {
            multiply_block<3, Count>(tiles, panels, cursor, before, here, r);
            continue;
          }
          if ((first_ + r) * 2 + 1 == rows_.tiles) {
            multiply_block<1, Count>(tiles, panels, cursor, before, here, r);
            continue;
          }
        }
        multiply_block<2, Count>(tiles, panels, cursor, before, here, r);
      }
      block += format == WeightFormat::kInt4 ? int4_block_bytes(groups) : int8_block_bytes(groups);
    }
    pending = before;
    panels.keep(cursor);
  }

  // A block of k of two panels.
  struct Block {
    const std::byte* data;
    int64_t panel, index, step, steps;
  };

  // 33 to 48 rows: a block of their own, which needs each step of the weights only once.
  bool three() const { return !kHalves && rows_.tiles == 3; }

  // Sums in tiles 0 to 3 (row tile + 2 * panel), rows in 4 and 5, weights in 6 and 7.
  template <int Rows, int Count>
  SLUICE_SIMD_INLINE void step_of_two(Tiles& tiles, Panels& panels, Cursor& cursor, const int8_t* a,
                                      int64_t a_next, int64_t s) {
    const std::byte* tile = Panels::tile(cursor, 0, s);
    tiles.template load<6>(tile, 64);
    Panels::loaded(tile);
    tiles.template load<4>(a, 64);
    dot<0, 4, 6>(tiles);
    panels.template work<0, Count>(cursor);
    if constexpr (Rows > 1) {
      tiles.template load<5>(a + a_next, 64);
      dot<1, 5, 6>(tiles);
    }
    panels.template work<1, Count>(cursor);
    if constexpr (Count > 1) {
      tile = Panels::tile(cursor, 1, s);
      tiles.template load<7>(tile, 64);
      Panels::loaded(tile);
      dot<2, 4, 7>(tiles);
      panels.template work<2, Count>(cursor);
      if constexpr (Rows > 1) dot<3, 5, 7>(tiles);
      panels.template work<3, Count>(cursor);
    }
  }
  // Sums in tiles 0 to 5 (row tile + 3 * panel), rows in 6, weights in 7.
  template <int Count>
  SLUICE_SIMD_INLINE void step_of_three(Tiles& tiles, Panels& panels, Cursor& cursor,
                                        const int8_t* a, int64_t a_next, int64_t s) {
    tiles.template load<7>(Panels::tile(cursor, 0, s), 64);
    tiles.template load<6>(a, 64);
    dot<0, 6, 7>(tiles);
    panels.template work<0, Count>(cursor);
    tiles.template load<6>(a + a_next, 64);
    dot<1, 6, 7>(tiles);
    panels.template work<1, Count>(cursor);
    tiles.template load<6>(a + 2 * a_next, 64);
    dot<2, 6, 7>(tiles);
    if constexpr (Count > 1) {
      tiles.template load<7>(Panels::tile(cursor, 1, s), 64);
      dot<5, 6, 7>(tiles);
      panels.template work<2, Count>(cursor);
      tiles.template load<6>(a + a_next, 64);
      dot<4, 6, 7>(tiles);
      panels.template work<3, Count>(cursor);
      tiles.template load<6>(a, 64);
      dot<3, 6, 7>(tiles);
    }
  }

  // One block of k of one block of rows, and meanwhile the work for others. The sums before, just
  // stored, are left alone for a step: loads would wait for the stores. Every other step takes
  // some of them, which is fewer and longer loops.
  template <int Rows, int Count>
  SLUICE_SIMD_INLINE void multiply_block(Tiles& tiles, Panels& panels, Cursor& cursor,
                                         IntPending& pending, const Block& block, int64_t r) {
    const int64_t height = rows_.height, a_step = height * rows_.halves * 64;
    const int64_t a_tile = rows_.steps * a_step, a_next = kHalves ? height * 64 : a_tile;
    const int64_t tile = (first_ + r) * kTilesOfBlock, steps = block.steps;
    const int64_t turns = steps > 1 ? steps / 2 : 1;
    const int64_t each = (pending.rows + turns - 1) / turns;
    const int8_t* a = rows_.codes + tile * a_tile + block.step * a_step;
    tiles.template zero<0>();
    tiles.template zero<1>();
    tiles.template zero<2>();
    tiles.template zero<3>();
    if constexpr (Rows == 3) {
      tiles.template zero<4>();
      tiles.template zero<5>();
    }
    for (int64_t s = 0; s < steps; ++s, a += a_step) {
      if constexpr (Rows == 3)
        step_of_three<Count>(tiles, panels, cursor, a, a_next, s);
      else
        step_of_two<Rows, Count>(tiles, panels, cursor, a, a_next, s);
      if (s % 2 != 0) scale(pending, each);
    }
    scale(pending, pending.rows);
    store<Rows, Count>(tiles, sums_);
    const int64_t row = tile * height, left = product_.row_count - row;
    constexpr int64_t kRowTiles = Rows / int_halves(format);
    const int64_t at = (tile * rows_.blocks + block.index) * height;
    pending.sums = sums_;
    pending.acc = acc_ + r * kAccumulators;
    pending.rows = left < kRowTiles * height ? left : kRowTiles * height;
    pending.panels = Count;
    pending.done = pending.handed = pending.in_tile = 0;
    pending.scales = rows_.scales + at;
    pending.corrections = rows_.corrections + at;
    pending.height = height;
    pending.next_tile = (rows_.blocks - 1) * height;
    pending.weight_scales = block.data;
    pending.panel_bytes = static_cast<int64_t>(product_.panel_bytes);
    pending.first = block.index == 0;
    pending.last = block.index + 1 == rows_.blocks;
    pending.row = row;
    pending.panel = block.panel;
  }

  template <int sum, int left, int right>
  SLUICE_SIMD_INLINE static void dot(Tiles& tiles) {
    if constexpr (format == WeightFormat::kInt4)
      tiles.template dp_s8s8<sum, left, right>();
    else
      tiles.template dp_s8u8<sum, left, right>();
  }
  template <int Rows, int Count>
  SLUICE_SIMD_INLINE void store(Tiles& tiles, int32_t* sums) {
    constexpr int64_t kStride = Count * 64;
    constexpr int kUp = Rows == 3 ? 3 : 2;
    const int64_t next = rows_.height * Count * 16;
    tiles.template store<0>(sums, kStride);
    if constexpr (Count > 1) tiles.template store<kUp>(sums + 16, kStride);
    if constexpr (Rows > 1) tiles.template store<1>(sums + next, kStride);
    if constexpr (Rows > 1 && Count > 1) tiles.template store<kUp + 1>(sums + next + 16, kStride);
    if constexpr (Rows > 2) tiles.template store<2>(sums + 2 * next, kStride);
    if constexpr (Rows > 2 && Count > 1) tiles.template store<5>(sums + 2 * next + 16, kStride);
  }

  // Scales up to `count` of the pending rows; those that are complete go on to the epilogue.
  SLUICE_SIMD_INLINE void scale(IntPending& p, int64_t count) {
    while (count > 0 && p.done < p.rows) {
      const int64_t here = p.height - p.in_tile, left = p.rows - p.done;
      const int64_t most = here < left ? here : left, rows = count < most ? count : most;
      if (p.panels == 2)
        add_rows<2>(p, rows);
      else
        add_rows<1>(p, rows);
      p.done += rows;
      count -= rows;
      p.scales += rows;
      p.corrections += rows;
      p.in_tile += rows;
      if (p.in_tile == p.height) {
        p.in_tile = 0;
        p.scales += p.next_tile;
        p.corrections += p.next_tile;
      }
      if (p.last && (p.done - p.handed >= kHandRows || p.done == p.rows)) hand_on(p);
    }
  }
  template <int Count>
  SLUICE_SIMD_INLINE static void add_rows(const IntPending& p, int64_t rows) {
    const int64_t at = p.done * Count * 16;
    Machine::template add_rows<format, Count>(p.sums + at, p.height * Count * 16, rows,
                                              p.corrections, p.scales, p.weight_scales,
                                              p.panel_bytes, p.first, p.acc + at);
  }
  SLUICE_SIMD_INLINE void hand_on(IntPending& p) {
    product_.epilogue({&product_, p.acc + p.handed * p.panels * 16, p.row + p.handed,
                       p.done - p.handed, p.panel, p.panels});
    p.handed = p.done;
  }

  const PanelProduct& product_;
  const IntRows rows_;
  int64_t first_ = 0, blocks_ = 0;  // the group's blocks of rows
  alignas(64) int32_t sums_[48 * 2 * 16];
  alignas(64) float acc_[kGroup * kAccumulators];
};

template <class Machine, WeightFormat format>
void multiply_int_tiles(const PanelProduct& product) {
  IntTileProduct<Machine, format>(product).run();
}

}  // namespace sluice::simd
