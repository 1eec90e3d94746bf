// The panel kernels of arith `int` over tiles: 16 columns x 64 k of int8 at a time (simd/amx.h).
// `Machine` names the tiles and the vector steps around them, so that the whole kernel also runs
// emulated.
//
// int8 panels are tiles as they lie. int4 panels are multiplied out, code times multiplier, one
// block of k ahead of their use; the f32 scaling of a block's sums waits for the steps of the next
// block. Both are spread over the steps of 64 k, so that the vector units work while the tile unit
// multiplies: at 32 rows a step takes the tile unit 64 cycles and the vector units about 90, which
// is still 40 GB/s of int4 weights for each core.
//
// Include only from *_amx.cc and *_emulated.cc.
#pragma once

#include "ops/matmul/int_rows.h"
#include "simd/amx.h"
#include "simd/math.h"

namespace sluice::simd {

inline constexpr int64_t kIntStepK = 64;
inline constexpr int64_t kIntTileBytes = 1024;
inline constexpr int64_t kIntMostSteps = 8;  // of a block of 512 k
// Blocks of two row tiles that share a pass over the panels: their sums stay in the first-level
// cache beside two blocks of multiplied-out weights.
inline constexpr int64_t kIntGroupBlocks = 4;

// Sums of one block of k on their way into the accumulators of one block of rows.
struct IntPending {
  const int32_t* sums = nullptr;
  float* acc = nullptr;
  int64_t rows = 0, done = 0, panels = 0, height = 0;
  const float* scales[2] = {};         // of the two row tiles
  const int32_t* corrections[2] = {};  // int8
  const std::byte* weight_scales[2] = {};
  bool first = false, last = false;  // block of k
  int64_t row = 0, panel = 0;        // of the tile that the epilogue gets
};

// Where the tiles of two panels come from, block of k after block of k.
template <class Machine, WeightFormat format>
class IntPanelTiles {
 public:
  explicit IntPanelTiles(const PanelProduct& product)
      : product_(product), groups_(int_groups(product.k)), whole_(product.block / kIntGroup) {
    open(product.panel_begin, 0);
    for (int64_t i = 0; i < pieces_; ++i) work_piece(i);
    done_ = pieces_;
  }

  // Makes the block that was being expanded the one in use, and starts the one after it.
  void next() {
    for (; done_ < pieces_; ++done_) work_piece(done_);
    current_ = filling_;
    filling_ ^= 1;
    for (int p = 0; p < 2; ++p) block_[p] = next_block_[p];
    groups_now_ = next_groups_;
    const int64_t after = first_ + whole_;
    if (after < groups_)
      open(panel_, after);
    else
      open(panel_ + 2, 0);
  }
  int64_t steps() const { return (groups_now_ + 1) / 2; }
  const std::byte* block(int p) const { return block_[p]; }
  // The tile of step s of panel p of the block in use.
  const std::byte* tile(int p, int64_t s) const {
    if constexpr (format == WeightFormat::kInt4) return slots_[current_][p][s];
    const bool half = 2 * s + 1 == groups_now_;
    return half ? slots_[current_][p][0] : block_[p] + kInt8CodesAt + s * kIntTileBytes;
  }
  // Part i of n of the work for the next block.
  SLUICE_SIMD_INLINE void work(int64_t i, int64_t n) {
    for (const int64_t end = (i + 1) * pieces_ / n; done_ < end; ++done_) work_piece(done_);
  }

 private:
  static constexpr int64_t block_bytes(int64_t groups) {
    return format == WeightFormat::kInt4 ? int4_block_bytes(groups) : int8_block_bytes(groups);
  }
  // Pieces are groups of the first panel and the second in turns.
  void open(int64_t panel, int64_t first) {
    panel_ = panel;
    first_ = first;
    done_ = 0;
    const int64_t left = product_.panel_end - panel;
    panels_ = left < 0 ? 0 : left < 2 ? left : 2;
    next_groups_ = groups_ - first < whole_ ? groups_ - first : whole_;
    pieces_ = panels_ * next_groups_;
    const int64_t at = first / whole_ * block_bytes(whole_);
    for (int64_t p = 0; p < panels_; ++p)
      next_block_[p] = product_.panels + static_cast<size_t>(panel + p) * product_.panel_bytes + at;
  }
  SLUICE_SIMD_INLINE void work_piece(int64_t i) {
    const int64_t p = panels_ == 2 ? i & 1 : 0, g = panels_ == 2 ? i >> 1 : i;
    const std::byte* block = next_block_[p];
    if constexpr (format == WeightFormat::kInt4) {
      const std::byte* codes = block + int4_codes_at(next_groups_) + g * kInt4GroupBytes;
      for (int64_t line = 0; line < kInt4GroupBytes; line += 64)
        Machine::prefetch(codes + line + kAhead);
      Machine::expand_int4(block, g, codes, slots_[filling_][p][g / 2] + g % 2 * 512);
    } else {
      const std::byte* codes = block + kInt8CodesAt + g * kInt8GroupBytes;
      for (int64_t line = 0; line < kInt8GroupBytes; line += 64)
        Machine::prefetch(codes + line + kAhead);
      // A last half step lies at the end of the panel: a whole tile would reach beyond.
      if (g % 2 == 0 && g + 1 == next_groups_) Machine::copy_half(codes, slots_[filling_][p][0]);
    }
  }

  static constexpr int64_t kAhead = 4096;
  const PanelProduct& product_;
  const int64_t groups_, whole_;
  int64_t panel_ = 0, panels_ = 0, first_ = 0, next_groups_ = 0, pieces_ = 0, done_ = 0;
  int64_t groups_now_ = 0;
  const std::byte* next_block_[2] = {};
  const std::byte* block_[2] = {};
  int filling_ = 0, current_ = 0;
  // [two blocks][panels][steps]; rows behind a last half step keep what they had: x is zero there.
  alignas(
      64) std::byte slots_[2][2][format == WeightFormat::kInt4 ? kIntMostSteps : 1][kIntTileBytes];
};

template <class Machine, WeightFormat format>
class IntTileProduct {
 public:
  using Tiles = typename Machine::Tiles;
  using Panels = IntPanelTiles<Machine, format>;

  explicit IntTileProduct(const PanelProduct& product)
      : product_(product), rows_(int_rows(product, format)) {}

  void run() {
    TileConfig config;
    for (int t = 0; t < 6; ++t) config.set(t, rows_.height, 64);
    config.set(6, 16, 64);
    config.set(7, 16, 64);
    Tiles tiles(config);
    const int64_t blocks = (rows_.tiles + 1) / 2;
    for (int64_t block = 0; block < blocks; block += kIntGroupBlocks) {
      first_ = block;
      blocks_ = blocks - block < kIntGroupBlocks ? blocks - block : kIntGroupBlocks;
      Panels panels(product_);
      for (int64_t p = product_.panel_begin; p < product_.panel_end; p += 2) {
        if (product_.panel_end - p > 1)
          multiply_pair<2>(tiles, panels, p);
        else
          multiply_pair<1>(tiles, panels, p);
      }
      finish();
    }
  }

 private:
  template <int Count>
  void multiply_pair(Tiles& tiles, Panels& panels, int64_t panel) {
    int64_t step = 0;
    for (int64_t b = 0; b < rows_.blocks; ++b) {
      panels.next();
      for (int64_t r = 0; r < blocks_; ++r) {
        if ((first_ + r) * 2 + 1 < rows_.tiles)
          multiply_block<2, Count>(tiles, panels, panel, r, b, step);
        else
          multiply_block<1, Count>(tiles, panels, panel, r, b, step);
      }
      step += panels.steps();
    }
  }

  // One block of k of one block of rows, and meanwhile the work for others.
  template <int Rows, int Count>
  SLUICE_SIMD_INLINE void multiply_block(Tiles& tiles, Panels& panels, int64_t panel, int64_t r,
                                         int64_t b, int64_t step) {
    const int64_t height = rows_.height, a_step = height * 64, a_next = rows_.steps * a_step;
    const int64_t steps = panels.steps(), tile = (first_ + r) * 2;
    const int8_t* a = rows_.codes + tile * a_next + step * a_step;
    tiles.template zero<0>();
    tiles.template zero<1>();
    tiles.template zero<2>();
    tiles.template zero<3>();
    for (int64_t s = 0; s < steps; ++s, a += a_step) {
      tiles.template load<6>(panels.tile(0, s), 64);
      tiles.template load<4>(a, 64);
      dot<0, 4, 6>(tiles);
      if constexpr (Rows > 1) {
        tiles.template load<5>(a + a_next, 64);
        dot<1, 5, 6>(tiles);
      }
      if constexpr (Count > 1) {
        tiles.template load<7>(panels.tile(1, s), 64);
        dot<2, 4, 7>(tiles);
        if constexpr (Rows > 1) dot<3, 5, 7>(tiles);
      }
      panels.work(r * steps + s, blocks_ * steps);
      scale(pending_.rows * (s + 1) / steps);
    }
    finish();
    int32_t* sums = sums_[turn_ ^= 1];
    store<Rows, Count>(tiles, sums);
    pending_.sums = sums;
    pending_.acc = acc_[r];
    pending_.panels = Count;
    pending_.height = height;
    pending_.row = tile * height;
    pending_.panel = panel;
    const int64_t left = product_.row_count - pending_.row;
    pending_.rows = left < Rows * height ? left : Rows * height;
    pending_.done = 0;
    pending_.first = b == 0;
    pending_.last = b + 1 == rows_.blocks;
    for (int t = 0; t < Rows; ++t) {
      pending_.scales[t] = rows_.scales + ((tile + t) * rows_.blocks + b) * height;
      pending_.corrections[t] = rows_.corrections + ((tile + t) * rows_.blocks + b) * height;
    }
    for (int p = 0; p < Count; ++p) pending_.weight_scales[p] = panels.block(p);
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
    tiles.template store<0>(sums, kStride);
    if constexpr (Count > 1) tiles.template store<2>(sums + 16, kStride);
    if constexpr (Rows > 1) {
      int32_t* second = sums + rows_.height * Count * 16;
      tiles.template store<1>(second, kStride);
      if constexpr (Count > 1) tiles.template store<3>(second + 16, kStride);
    }
  }

  // Scales the pending rows below `end`.
  SLUICE_SIMD_INLINE void scale(int64_t end) {
    for (; pending_.done < end; ++pending_.done) {
      const int64_t row = pending_.done, t = row >= pending_.height ? 1 : 0;
      const int64_t r = t != 0 ? row - pending_.height : row;
      const float x_scale = pending_.scales[t][r];
      const int32_t correction = format == WeightFormat::kInt8 ? pending_.corrections[t][r] : 0;
      for (int64_t p = 0; p < pending_.panels; ++p) {
        const int64_t at = (row * pending_.panels + p) * 16;
        Machine::template add_block<format>(pending_.sums + at, correction, x_scale,
                                            pending_.weight_scales[p], pending_.first,
                                            pending_.acc + at);
      }
    }
  }
  // Scales what is left, and hands rows that are complete to the epilogue.
  void finish() {
    scale(pending_.rows);
    if (pending_.last)
      product_.epilogue(
          {&product_, pending_.acc, pending_.row, pending_.rows, pending_.panel, pending_.panels});
    pending_.rows = pending_.done = 0;
    pending_.last = false;
  }

  const PanelProduct& product_;
  const IntRows rows_;
  int64_t first_ = 0, blocks_ = 0;  // the group's blocks of rows
  IntPending pending_;
  int turn_ = 0;
  alignas(64) int32_t sums_[2][32 * 2 * 16];
  alignas(64) float acc_[kIntGroupBlocks][32 * 2 * 16];
};

template <class Machine, WeightFormat format>
void multiply_int_tiles(const PanelProduct& product) {
  IntTileProduct<Machine, format>(product).run();
}

}  // namespace sluice::simd
