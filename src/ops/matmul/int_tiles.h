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

#include "ops/matmul/int_rows.h"
#include "simd/amx.h"
#include "simd/math.h"

namespace sluice::simd {

inline constexpr int64_t kIntStepK = 64;
inline constexpr int64_t kIntTileBytes = 1024;
// Blocks of rows that share a pass over the panels: their accumulators stay in the first-level
// cache beside two blocks of multiplied-out weights.
static constexpr int64_t int_group_blocks(WeightFormat format) {
  return 4 * int_halves(format);
}

// Sums of one block of k on their way into the accumulators of one block of rows.
struct IntPending {
  const int32_t* sums = nullptr;
  float* acc = nullptr;
  int64_t rows = 0, done = 0, panels = 0, height = 0;
  const float* scales[3] = {};         // of the row tiles
  const int32_t* corrections[3] = {};  // int8
  const std::byte* weight_scales[2] = {};
  bool first = false, last = false;  // block of k
  int64_t row = 0, panel = 0;        // of the tile that the epilogue gets
};

// Walks the steps of pairs of panels in the order in which they are multiplied.
template <WeightFormat format>
class IntSteps {
 public:
  explicit IntSteps(const PanelProduct& product)
      : product_(product), groups_(int_groups(product.k)), whole_(product.block / kIntGroup) {
    open(product.panel_begin);
  }
  bool done() const { return panels_ == 0; }
  int64_t panels() const { return panels_; }
  int64_t step() const { return step_; }
  int64_t groups() const { return groups_here_; }  // of the block
  const std::byte* block(int64_t p) const {
    return at_ + static_cast<size_t>(p) * product_.panel_bytes;
  }
  // From a line of this step to the one that a panel's stream reaches `bytes` later: behind a panel
  // comes the one after the next.
  int64_t ahead(int64_t bytes) const {
    const auto panel = static_cast<int64_t>(product_.panel_bytes);
    return at_ - start_ + step_ * 2 * kInt4GroupBytes + bytes < panel ? bytes : bytes + panel;
  }
  static constexpr int64_t block_bytes(int64_t groups) {
    return format == WeightFormat::kInt4 ? int4_block_bytes(groups) : int8_block_bytes(groups);
  }
  SLUICE_SIMD_INLINE void next() {
    if (++step_ * 2 < groups_here_) return;
    next_block();
  }

 private:
  void next_block() {
    step_ = 0;
    at_ += block_bytes(groups_here_);
    first_ += whole_;
    if (first_ < groups_)
      groups_here_ = groups_ - first_ < whole_ ? groups_ - first_ : whole_;
    else
      open(panel_ + 2);
  }
  void open(int64_t panel) {
    panel_ = panel;
    const int64_t left = product_.panel_end - panel;
    panels_ = left < 0 ? 0 : left < 2 ? left : 2;
    at_ = product_.panels + static_cast<size_t>(panel) * product_.panel_bytes;
    start_ = at_;
    first_ = 0;
    groups_here_ = groups_ < whole_ ? groups_ : whole_;
  }
  const PanelProduct& product_;
  const int64_t groups_, whole_;
  int64_t panel_ = 0, panels_ = 0, first_ = 0, groups_here_ = 0, step_ = 0;
  const std::byte* start_ = nullptr;
  const std::byte* at_ = nullptr;
};

// The tiles of one or two panels, block of k after block of k: begin() opens a block, tile() is
// good for its steps; work() is called 2 * Count times, `part` ascending, for each step of each
// block of rows and Count panels.
template <class Machine, WeightFormat format>
class IntPanelTiles;

// int8: tiles as they lie. The steps of all blocks of rows together ask for what the next block of
// k will want, evenly: in bursts the requests would wait for each other.
// On a Xeon with AMX, Qwen3's layer at M = 512 on one thread: 71.5 ms; with none asked for 77.4,
// from 8 KiB ahead 72.1.
template <class Machine>
class IntPanelTiles<Machine, WeightFormat::kInt8> {
 public:
  IntPanelTiles(const PanelProduct& product, int64_t row_blocks)
      : product_(product), each_((kInt8GroupBytes / 64 + row_blocks - 1) / row_blocks * 64) {}
  void begin(const std::byte* block, int64_t groups, int64_t panels) {
    codes_ = block + kInt8CodesAt;
    ahead_ = codes_ + kAhead;
    half_ = groups % 2 != 0 ? groups / 2 : -1;
    if (half_ < 0) return;
    // A last half step may lie at the very end: a whole tile would reach beyond.
    for (int64_t p = 0; p < panels; ++p)
      Machine::copy_half(codes_ + p * panel() + half_ * kIntTileBytes, half_tile_[p]);
  }
  const std::byte* tile(int p, int64_t s) const {
    return s == half_ ? half_tile_[p] : codes_ + p * panel() + s * kIntTileBytes;
  }
  template <int part, int Count>
  SLUICE_SIMD_INLINE void work() {
    const std::byte* at = ahead_ + part / 2 * panel() + part % 2 * each_;
    for (int64_t line = 0; line < each_; line += 64) Machine::prefetch(at + line);
    if (part == 2 * Count - 1) ahead_ += 2 * each_;
  }

 private:
  static constexpr int64_t kAhead = 4096;
  int64_t panel() const { return static_cast<int64_t>(product_.panel_bytes); }
  const PanelProduct& product_;
  const int64_t each_;  // bytes that one call of work() asks for
  const std::byte* codes_ = nullptr;
  const std::byte* ahead_ = nullptr;
  int64_t half_ = -1;
  alignas(64) std::byte half_tile_[2][kIntTileBytes];
};

// int4: a ring of multiplied-out steps. With one block of rows each step is used once, and a ring
// of four leaves the first-level cache to the rest; several blocks of rows use the steps of a block
// of k in turns, while the next one is being made.
template <class Machine>
class IntPanelTiles<Machine, WeightFormat::kInt4> {
 public:
  IntPanelTiles(const PanelProduct& product, int64_t row_blocks)
      : steps_(product), row_blocks_(row_blocks), mask_(row_blocks == 1 ? 3 : kRing - 1) {
    if (row_blocks == 1)
      for (int i = 0; i < 2; ++i) expand();
  }
  void begin(const std::byte*, int64_t groups, int64_t) {
    base_ = next_base_;
    next_base_ += (groups + 1) / 2;
    if (row_blocks_ > 1)
      while (made_ < next_base_) expand();
  }
  const std::byte* tile(int p, int64_t s) const { return slots_[(base_ + s) & mask_][p]; }
  template <int part, int Count>
  SLUICE_SIMD_INLINE void work() {
    if (part == 0) {
      turn_ = turn_ + 1 < row_blocks_ ? turn_ + 1 : 0;
      ahead_ = steps_.ahead(kAhead);
      working_ = turn_ == 0 && !steps_.done() && (row_blocks_ == 1 || made_ < base_ + kRing);
    }
    if (!working_) return;
    expand_group(part / 2, part % 2);
    if (part == 2 * Count - 1) next(Count);
  }

 private:
  static constexpr int64_t kRing = 16;  // two blocks of 512 k
  static constexpr int64_t kAhead = 4096;
  // Half of a step of one panel.
  SLUICE_SIMD_INLINE void expand_group(int64_t p, int64_t half) {
    const int64_t groups = steps_.groups(), g = 2 * steps_.step() + half;
    // Rows behind a last half step keep what they had: x is zero there.
    if (g >= groups || p >= steps_.panels()) return;
    const std::byte* block = steps_.block(p);
    const std::byte* codes = block + int4_codes_at(groups) + g * kInt4GroupBytes;
    for (int64_t line = 0; line < kInt4GroupBytes; line += 64)
      Machine::prefetch(codes + line + ahead_);
    Machine::expand_int4(block, g, codes, slots_[made_ & mask_][p] + half * 512);
  }
  // Ends the step, of whose panels `done` are made.
  SLUICE_SIMD_INLINE void next(int64_t done) {
    for (int64_t p = done; p < steps_.panels(); ++p)
      for (int64_t half = 0; half < 2; ++half) expand_group(p, half);
    ++made_;
    steps_.next();
  }
  void expand() {
    if (!steps_.done()) next(0);
  }

  IntSteps<WeightFormat::kInt4> steps_;
  const int64_t row_blocks_, mask_;
  int64_t base_ = 0, next_base_ = 0, made_ = 0, turn_ = 0;
  int64_t ahead_ = kAhead;
  bool working_ = false;
  alignas(64) std::byte slots_[kRing][2][kIntTileBytes];
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
    for (int t = 0; t < 7; ++t) config.set(t, rows_.height, 64);
    config.set(7, 16, 64);
    if (!three()) config.set(6, 16, 64);
    Tiles tiles(config);
    const int64_t blocks = three() ? 1 : (rows_.tiles + kTilesOfBlock - 1) / kTilesOfBlock;
    for (int64_t block = 0; block < blocks; block += kGroup) {
      first_ = block;
      blocks_ = blocks - block < kGroup ? blocks - block : kGroup;
      Panels panels(product_, blocks_);
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
  static constexpr bool kHalves = int_halves(format) == 2;
  static constexpr int64_t kGroup = int_group_blocks(format), kTilesOfBlock = kHalves ? 1 : 2;
  static constexpr int64_t kAccumulators = kTilesOfBlock * 16 * 2 * 16;  // of a block of rows

  template <int Count>
  void multiply_pair(Tiles& tiles, Panels& panels, int64_t panel) {
    const int64_t all = int_groups(product_.k), whole = product_.block / kIntGroup;
    const std::byte* block = product_.panels + static_cast<size_t>(panel) * product_.panel_bytes;
    for (int64_t b = 0, first = 0; first < all; first += whole, ++b) {
      const int64_t groups = all - first < whole ? all - first : whole;
      panels.begin(block, groups, Count);
      const Block here{block, panel, b, first / 2, (groups + 1) / 2};
      for (int64_t r = 0; r < blocks_; ++r) {
        if constexpr (kHalves)
          multiply_block<2, Count>(tiles, panels, here, r);
        else if (three())
          multiply_block<3, Count>(tiles, panels, here, r);
        else if ((first_ + r) * 2 + 1 < rows_.tiles)
          multiply_block<2, Count>(tiles, panels, here, r);
        else
          multiply_block<1, Count>(tiles, panels, here, r);
      }
      block += IntSteps<format>::block_bytes(groups);
    }
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
  SLUICE_SIMD_INLINE void step_of_two(Tiles& tiles, Panels& panels, const int8_t* a, int64_t a_next,
                                      int64_t s) {
    tiles.template load<6>(panels.tile(0, s), 64);
    tiles.template load<4>(a, 64);
    dot<0, 4, 6>(tiles);
    panels.template work<0, Count>();
    if constexpr (Rows > 1) {
      tiles.template load<5>(a + a_next, 64);
      dot<1, 5, 6>(tiles);
    }
    panels.template work<1, Count>();
    if constexpr (Count > 1) {
      tiles.template load<7>(panels.tile(1, s), 64);
      dot<2, 4, 7>(tiles);
      panels.template work<2, Count>();
      if constexpr (Rows > 1) dot<3, 5, 7>(tiles);
      panels.template work<3, Count>();
    }
  }
  // Sums in tiles 0 to 5 (row tile + 3 * panel), rows in 6, weights in 7.
  template <int Count>
  SLUICE_SIMD_INLINE void step_of_three(Tiles& tiles, Panels& panels, const int8_t* a,
                                        int64_t a_next, int64_t s) {
    tiles.template load<7>(panels.tile(0, s), 64);
    tiles.template load<6>(a, 64);
    dot<0, 6, 7>(tiles);
    panels.template work<0, Count>();
    tiles.template load<6>(a + a_next, 64);
    dot<1, 6, 7>(tiles);
    panels.template work<1, Count>();
    tiles.template load<6>(a + 2 * a_next, 64);
    dot<2, 6, 7>(tiles);
    if constexpr (Count > 1) {
      tiles.template load<7>(panels.tile(1, s), 64);
      dot<5, 6, 7>(tiles);
      panels.template work<2, Count>();
      tiles.template load<6>(a + a_next, 64);
      dot<4, 6, 7>(tiles);
      panels.template work<3, Count>();
      tiles.template load<6>(a, 64);
      dot<3, 6, 7>(tiles);
    }
  }

  // One block of k of one block of rows, and meanwhile the work for others.
  template <int Rows, int Count>
  SLUICE_SIMD_INLINE void multiply_block(Tiles& tiles, Panels& panels, const Block& block,
                                         int64_t r) {
    const int64_t height = rows_.height, a_step = height * rows_.halves * 64;
    const int64_t a_tile = rows_.steps * a_step, a_next = kHalves ? height * 64 : a_tile;
    const int64_t tile = (first_ + r) * kTilesOfBlock;
    const int64_t each = (pending_.rows + block.steps - 1) / block.steps;
    const int8_t* a = rows_.codes + tile * a_tile + block.step * a_step;
    tiles.template zero<0>();
    tiles.template zero<1>();
    tiles.template zero<2>();
    tiles.template zero<3>();
    if constexpr (Rows == 3) {
      tiles.template zero<4>();
      tiles.template zero<5>();
    }
    for (int64_t s = 0; s < block.steps; ++s, a += a_step) {
      if constexpr (Rows == 3)
        step_of_three<Count>(tiles, panels, a, a_next, s);
      else
        step_of_two<Rows, Count>(tiles, panels, a, a_next, s);
      scale(each);
    }
    finish();
    int32_t* sums = sums_[turn_ ^= 1];
    store<Rows, Count>(tiles, sums);
    const int64_t row = tile * height, left = product_.row_count - row;
    pending_ = {};
    pending_.sums = sums;
    constexpr int64_t kRowTiles = kHalves ? 1 : Rows;
    pending_.acc = acc_ + r * kAccumulators;
    pending_.rows = left < kRowTiles * height ? left : kRowTiles * height;
    pending_.panels = Count;
    pending_.height = height;
    for (int t = 0; t < kRowTiles; ++t) {
      const int64_t at = ((tile + t) * rows_.blocks + block.index) * height;
      pending_.scales[t] = rows_.scales + at;
      pending_.corrections[t] = rows_.corrections + at;
    }
    for (int p = 0; p < Count; ++p)
      pending_.weight_scales[p] = block.data + static_cast<size_t>(p) * product_.panel_bytes;
    pending_.first = block.index == 0;
    pending_.last = block.index + 1 == rows_.blocks;
    pending_.row = row;
    pending_.panel = block.panel;
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
  SLUICE_SIMD_INLINE void scale(int64_t count) {
    IntPending& p = pending_;
    while (count > 0 && p.done < p.rows) {
      const int64_t t = p.done < p.height ? 0 : p.done < 2 * p.height ? 1 : 2;
      const int64_t r = p.done - t * p.height, end = (t + 1) * p.height;
      const int64_t left = (end < p.rows ? end : p.rows) - p.done;
      const int64_t rows = count < left ? count : left;
      const int64_t at = p.done * p.panels * 16;
      for (int64_t panel = 0; panel < p.panels; ++panel)
        Machine::template add_rows<format>(p.sums + at + panel * 16, p.height * p.panels * 16,
                                           p.panels * 16, rows, p.corrections[t] + r,
                                           p.scales[t] + r, p.weight_scales[panel], p.first,
                                           p.acc + at + panel * 16);
      if (p.last)
        product_.epilogue({&product_, p.acc + at, p.row + p.done, rows, p.panel, p.panels});
      p.done += rows;
      count -= rows;
    }
  }
  void finish() {
    scale(pending_.rows);
    pending_ = {};
  }

  const PanelProduct& product_;
  const IntRows rows_;
  int64_t first_ = 0, blocks_ = 0;  // the group's blocks of rows
  IntPending pending_;
  int turn_ = 0;
  alignas(64) int32_t sums_[2][48 * 2 * 16];
  alignas(64) float acc_[kGroup * kAccumulators];
};

template <class Machine, WeightFormat format>
void multiply_int_tiles(const PanelProduct& product) {
  IntTileProduct<Machine, format>(product).run();
}

}  // namespace sluice::simd
