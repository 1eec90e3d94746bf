// The weights of ariths `int` and `int16` as int8 tiles of 64 k x 16 columns, pair of panels after
// pair, block of k after block of k: what int_tiles.h multiplies rows with.
//
// IntPanelTiles<Machine, format>: begin() opens a block, tile() is good for its steps; work() is
// called 2 * Count times, `part` ascending, for each step of each block of rows and Count panels,
// loaded() after each tile's load by blocks of two row tiles.
// What these change is a Cursor, which the caller keeps in a variable of its own while it
// multiplies: a member would be read again after each store of bytes, which may alias it.
//
// Include only from *_amx.cc and *_emulated.cc.
#pragma once

#include "ops/matmul/int_rows.h"
#include "simd/math.h"

namespace sluice::simd {

inline constexpr int64_t kIntTileBytes = 1024;

template <class Machine, WeightFormat format>
class IntPanelTiles;

// int8: tiles as they lie. The steps of all blocks of rows together ask the second-level cache for
// what the next block of k will want, evenly: in bursts the requests would wait for each other.
// From there each tile is asked for one tile ahead. On a Xeon with AMX, Qwen3's layer at M = 512:
// 32.1 ms; without the second 33.3, without the first 34.6.
template <class Machine>
class IntPanelTiles<Machine, WeightFormat::kInt8> {
 public:
  struct Cursor {
    const std::byte* codes = nullptr;
    const std::byte* ahead = nullptr;
    const std::byte* half_tiles = nullptr;
    int64_t half = -1;  // the step that half_tiles hold
    int64_t panel = 0;  // bytes from a panel to the next
    int64_t each = 0;   // bytes that one call of work() asks for
  };

  IntPanelTiles(const PanelProduct& product, int64_t row_blocks) {
    cursor_.panel = static_cast<int64_t>(product.panel_bytes);
    cursor_.each = (kInt8GroupBytes / 64 + row_blocks - 1) / row_blocks * 64;
    cursor_.half_tiles = half_tile_[0];
  }
  Cursor cursor() const { return cursor_; }
  void keep(const Cursor& cursor) { cursor_ = cursor; }

  SLUICE_SIMD_INLINE void begin(Cursor& c, const std::byte* block, int64_t groups, int64_t panels) {
    c.codes = block + kInt8CodesAt;
    c.ahead = c.codes + kAhead;
    c.half = groups % 2 != 0 ? groups / 2 : -1;
    if (c.half < 0) return;
    // A last half step may lie at the very end: a whole tile would reach beyond.
    for (int64_t p = 0; p < panels; ++p)
      Machine::copy_half(c.codes + p * c.panel + c.half * kIntTileBytes, half_tile_[p]);
  }
  SLUICE_SIMD_INLINE static const std::byte* tile(const Cursor& c, int p, int64_t s) {
    return s == c.half ? c.half_tiles + p * kIntTileBytes
                       : c.codes + p * c.panel + s * kIntTileBytes;
  }
  template <int part, int Count>
  SLUICE_SIMD_INLINE void work(Cursor& c) {
    const std::byte* at = c.ahead + part / 2 * c.panel + part % 2 * c.each;
    for (int64_t line = 0; line < c.each; line += 64) Machine::prefetch_l2(at + line);
    if (part == 2 * Count - 1) c.ahead += 2 * c.each;
  }
  SLUICE_SIMD_INLINE static void loaded(const std::byte* tile) {
    Machine::prefetch_lines(tile + kIntTileBytes);
  }

 private:
  static constexpr int64_t kAhead = 8192;  // a block of 512 k
  Cursor cursor_;
  alignas(64) std::byte half_tile_[2][kIntTileBytes];
};

// int4: a ring of multiplied-out steps. With one block of rows each step is used once, and a ring
// of four leaves the first-level cache to the rest; several blocks of rows use the steps of a block
// of k in turns, while the next one is being made.
template <class Machine>
class IntPanelTiles<Machine, WeightFormat::kInt4> {
 public:
  // The next step to multiply out, of the pair of panels that begins with `panel`.
  struct Cursor {
    const std::byte* block = nullptr;  // its block of k in the pair's first panel
    const std::byte* codes = nullptr;  // its codes there
    const std::byte* end = nullptr;    // of that panel
    std::byte* slots = nullptr;
    int64_t g = 0, groups = 0;  // first group of the step, groups of the block
    int64_t panels = 0;         // of the pair; 0: nothing is left
    int64_t stride = 0;         // bytes from a panel to the next
    int64_t ahead = 0;          // from a line to the one that is asked for
    int64_t made = 0;           // steps
    int64_t base = 0;           // the first of the block that begin() opened
    int64_t turn = 0, row_blocks = 0, mask = 0;
    int64_t panel = 0, first = 0;  // first: group of the block
    bool working = false;
  };

  IntPanelTiles(const PanelProduct& product, int64_t row_blocks)
      : product_(product), groups_(int_groups(product.k)), whole_(product.block / kIntGroup) {
    Cursor c;
    c.slots = slots_[0][0];
    c.stride = static_cast<int64_t>(product.panel_bytes);
    c.row_blocks = row_blocks;
    c.mask = row_blocks == 1 ? 3 : kRing - 1;
    c = open(c, product.panel_begin);
    if (row_blocks == 1)
      for (int i = 0; i < 2; ++i) expand(c);
    cursor_ = c;
  }
  Cursor cursor() const { return cursor_; }
  void keep(const Cursor& cursor) { cursor_ = cursor; }

  SLUICE_SIMD_INLINE void begin(Cursor& c, const std::byte*, int64_t groups, int64_t) {
    c.base = next_base_;
    next_base_ += (groups + 1) / 2;
    if (c.row_blocks > 1)
      while (c.made < next_base_) expand(c);
  }
  SLUICE_SIMD_INLINE static const std::byte* tile(const Cursor& c, int p, int64_t s) {
    return slot(c, c.base + s) + p * kIntTileBytes;
  }
  SLUICE_SIMD_INLINE static void loaded(const std::byte*) {}
  template <int part, int Count>
  SLUICE_SIMD_INLINE void work(Cursor& c) {
    if constexpr (part == 0) {
      c.turn = c.turn + 1 < c.row_blocks ? c.turn + 1 : 0;
      c.working = c.turn == 0 && c.panels > 0 && (c.row_blocks == 1 || c.made < c.base + kRing);
      // Behind a panel comes, in its stream, the one after the next.
      c.ahead = c.end - c.codes > kAhead ? kAhead : kAhead + c.stride;
    }
    if (!c.working) return;
    expand_half<part % 2>(c, part / 2);
    if constexpr (part == 2 * Count - 1) next(c, Count);
  }

 private:
  static constexpr int64_t kRing = 16;  // two blocks of 512 k
  static constexpr int64_t kAhead = 2048;

  SLUICE_SIMD_INLINE static std::byte* slot(const Cursor& c, int64_t step) {
    return c.slots + (step & c.mask) * (2 * kIntTileBytes);
  }
  // Half of a step of one panel.
  template <int half>
  SLUICE_SIMD_INLINE static void expand_half(const Cursor& c, int64_t p) {
    // Rows behind a last half step keep what they had: x is zero there.
    if (c.g + half >= c.groups || p >= c.panels) return;
    const std::byte* codes = c.codes + p * c.stride + half * kInt4GroupBytes;
    for (int64_t line = 0; line < kInt4GroupBytes; line += 64)
      Machine::prefetch(codes + line + c.ahead);
    Machine::template expand_int4<half>(c.block + p * c.stride, c.g, codes,
                                        slot(c, c.made) + p * kIntTileBytes + half * 512);
  }
  // Ends the step, of whose panels `done` are made.
  SLUICE_SIMD_INLINE void next(Cursor& c, int64_t done) {
    for (int64_t p = done; p < c.panels; ++p) expand_half<0>(c, p), expand_half<1>(c, p);
    ++c.made;
    c.g += 2;
    c.codes += 2 * kInt4GroupBytes;
    if (c.g >= c.groups) [[unlikely]]
      c = next_block(c);
  }
  SLUICE_SIMD_INLINE void expand(Cursor& c) {
    if (c.panels > 0) next(c, 0);
  }
  // Cursors go by value: an address would keep the caller's in memory.
  [[gnu::noinline]] Cursor next_block(Cursor c) const {
    if (c.first + whole_ >= groups_) return open(c, c.panel + 2);
    c.first += whole_;
    return in_block(c, c.block + int4_block_bytes(c.groups));
  }
  Cursor open(Cursor c, int64_t panel) const {
    const int64_t left = product_.panel_end - panel;
    const std::byte* start = product_.panels + panel * c.stride;
    c.panel = panel;
    c.panels = left < 0 ? 0 : left < 2 ? left : 2;
    c.end = start + c.stride;
    c.first = 0;
    return in_block(c, start);
  }
  Cursor in_block(Cursor c, const std::byte* block) const {
    c.block = block;
    c.groups = groups_ - c.first < whole_ ? groups_ - c.first : whole_;
    c.codes = block + int4_codes_at(c.groups);
    c.g = 0;
    return c;
  }

  const PanelProduct& product_;
  const int64_t groups_, whole_;
  Cursor cursor_;
  int64_t next_base_ = 0;
  alignas(64) std::byte slots_[kRing][2][kIntTileBytes];
};

}  // namespace sluice::simd
