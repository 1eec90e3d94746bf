// The panel kernels over tiles: arith bf16_tile with the machine's own instruction for a step of 32
// k (simd/amx.h). `Machine` names the tiles and the few vector steps around them, so that the whole
// kernel also runs emulated.
//
// Rows are prepared as bf16 tiles of equal size (panels.h:RowTiles), so one configuration serves a
// call. A block of two row tiles (or three) and two panels keeps its sums in registers; A and B
// tiles come from memory in the order in which they lie there. bf16 panels are B tiles already.
// MXFP4 panels are expanded exactly, fp8 panels rounded once, a piece of kPieceSteps steps ahead of
// its use: the vector units expand while the tile unit multiplies. When an expert has more rows
// than a block, all blocks of a group use a piece while it is in the first-level cache, and their
// sums wait in memory. One row tile has a loop of its own (expanded_stream.h).
//
// Include only from *_amx.cc and *_emulated.cc.
#pragma once

#include "ops/matmul/expanded_stream.h"
#include "ops/matmul/panels.h"
#include "simd/amx.h"
#include "simd/math.h"

namespace sluice::simd {

inline constexpr int64_t kTileStepK = 32;
inline constexpr int64_t kTileBytes = 1024;
inline constexpr int64_t kGroupBlocks = 4;  // blocks of rows that share a pass over the panels
inline constexpr int64_t kPieceSteps = 4;

// What every Machine over a vocabulary with tiles has; each adds how it expands panels.
template <class V>
struct TileMachine {
  using Tiles = typename V::Tiles;
  // Inlined by force: V::prefetch says what GCC 12 makes of it otherwise.
  SLUICE_SIMD_INLINE static void prefetch(const std::byte* p) { V::prefetch(p); }
  SLUICE_SIMD_INLINE static void prefetch_l2(const std::byte* p) { V::prefetch_l2(p); }
  SLUICE_SIMD_INLINE static void prefetch_lines(const std::byte* tile) {
#pragma GCC unroll 16
    for (int line = 0; line < 16; ++line) V::prefetch(tile + line * 64);
  }
  // 32 values as bf16, zeros from `count` on.
  static void round_step(const float* x, int64_t count, uint16_t* out) {
    V::store_bf16(out, V::load_n(x, count));
    V::store_bf16(out + 16, V::load_n(x + 16, count - 16));
  }
};

// Tiles 0 to 3 hold the sums (row tile + 2 * panel), 4 and 5 rows, 6 and 7 panels.
template <class Tiles, int Rows, int Panels, int64_t kPanelStride>
SLUICE_SIMD_INLINE void tile_step(Tiles& tiles, const std::byte* a, int64_t a_next,
                                  const std::byte* b, int64_t b_next) {
  tiles.template load<6>(b, kPanelStride);
  tiles.template load<4>(a, 64);
  tiles.template dp_bf16<0, 4, 6>();
  if constexpr (Rows > 1) {
    tiles.template load<5>(a + a_next, 64);
    tiles.template dp_bf16<1, 5, 6>();
  }
  if constexpr (Panels > 1) {
    tiles.template load<7>(b + b_next, kPanelStride);
    tiles.template dp_bf16<2, 4, 7>();
    if constexpr (Rows > 1) tiles.template dp_bf16<3, 5, 7>();
  }
}

// 33 to 48 rows: sums in tiles 0 to 5 (row tile + 3 * panel), rows in 6, panels in 7.
template <class Tiles, int Panels, int64_t kPanelStride>
SLUICE_SIMD_INLINE void tile_step_of_three(Tiles& tiles, const std::byte* a, int64_t a_next,
                                           const std::byte* b, int64_t b_next) {
  tiles.template load<7>(b, kPanelStride);
  tiles.template load<6>(a, 64);
  tiles.template dp_bf16<0, 6, 7>();
  tiles.template load<6>(a + a_next, 64);
  tiles.template dp_bf16<1, 6, 7>();
  tiles.template load<6>(a + 2 * a_next, 64);
  tiles.template dp_bf16<2, 6, 7>();
  if constexpr (Panels > 1) {
    tiles.template load<7>(b + b_next, kPanelStride);
    tiles.template dp_bf16<5, 6, 7>();
    tiles.template load<6>(a + a_next, 64);
    tiles.template dp_bf16<4, 6, 7>();
    tiles.template load<6>(a, 64);
    tiles.template dp_bf16<3, 6, 7>();
  }
}

// The sums of a block in memory: row r of panel p at sums + (r * Panels + p) * 16.
template <class Tiles, int Rows, int Panels>
SLUICE_SIMD_INLINE void store_sums(Tiles& tiles, float* sums, int64_t tile_rows) {
  constexpr int64_t kStride = Panels * 64;
  constexpr int kUp = Rows == 3 ? 3 : 2;
  tiles.template store<0>(sums, kStride);
  if constexpr (Panels > 1) tiles.template store<kUp>(sums + 16, kStride);
  if constexpr (Rows > 1) {
    float* second = sums + tile_rows * Panels * 16;
    tiles.template store<1>(second, kStride);
    if constexpr (Panels > 1) tiles.template store<kUp + 1>(second + 16, kStride);
  }
  if constexpr (Rows > 2) {
    float* third = sums + 2 * tile_rows * Panels * 16;
    tiles.template store<2>(third, kStride);
    if constexpr (Panels > 1) tiles.template store<5>(third + 16, kStride);
  }
}
template <class Tiles, int Rows, int Panels>
SLUICE_SIMD_INLINE void load_sums(Tiles& tiles, const float* sums, int64_t tile_rows) {
  constexpr int64_t kStride = Panels * 64;
  tiles.template load<0>(sums, kStride);
  if constexpr (Panels > 1) tiles.template load<2>(sums + 16, kStride);
  if constexpr (Rows > 1) {
    const float* second = sums + tile_rows * Panels * 16;
    tiles.template load<1>(second, kStride);
    if constexpr (Panels > 1) tiles.template load<3>(second + 16, kStride);
  }
}
template <class Tiles, int Rows>
SLUICE_SIMD_INLINE void zero_sums(Tiles& tiles) {
  tiles.template zero<0>();
  tiles.template zero<1>();
  tiles.template zero<2>();
  tiles.template zero<3>();
  if constexpr (Rows > 2) {
    tiles.template zero<4>();
    tiles.template zero<5>();
  }
}

// Panels that are tiles as they lie in memory. One block of rows asks for each tile one tile ahead,
// no more: the second-level cache's own prefetcher then streams as fast as a plain read. On a Xeon
// with AMX, Qwen3's layer at M = 1, 64 and 512: 2.23, 36.6 and 44.0 ms; from two tiles ahead at 512
// 50.3; asking for nothing 2.6, 42.6 and 54.7. Further blocks find the panels in the second-level
// cache, and the memory would wait meanwhile: so all blocks together ask for the next pair.
template <class Machine, WeightFormat format>
class PanelTiles {
 public:
  static constexpr int64_t kStride = 64;  // bytes between a tile's rows

  explicit PanelTiles(const PanelProduct& product) : product_(product) {}
  static constexpr int64_t piece_steps(int64_t steps) { return steps; }
  void begin(int64_t panel, int64_t, int64_t blocks) {
    const auto bytes = static_cast<int64_t>(product_.panel_bytes);
    at_ = product_.panels + panel * bytes;
    ahead_ = at_ + 2 * bytes;
    const int64_t left = product_.panel_end - panel - 2;
    one_block_ = blocks == 1;
    ahead_end_ = one_block_ || left <= 0 ? ahead_ : ahead_ + (left < 2 ? left : 2) * bytes;
    share_ = (2 * kTileBytes / 64 + blocks - 1) / blocks * 64;
  }
  const std::byte* data() const { return at_; }
  int64_t next_panel() const { return static_cast<int64_t>(product_.panel_bytes); }
  template <int Panels>
  SLUICE_SIMD_INLINE void work(const std::byte* b) {
    if (one_block_) {
      Machine::prefetch_lines(b + kTileBytes);
      if constexpr (Panels > 1) Machine::prefetch_lines(b + kTileBytes + product_.panel_bytes);
      return;
    }
    const std::byte* end = ahead_ + share_ < ahead_end_ ? ahead_ + share_ : ahead_end_;
    for (; ahead_ < end; ahead_ += 64) Machine::prefetch_l2(ahead_);
  }

 private:
  const PanelProduct& product_;
  const std::byte* at_ = nullptr;
  bool one_block_ = false;
  const std::byte *ahead_ = nullptr, *ahead_end_ = nullptr;  // of the next pair
  int64_t share_ = 0;                                        // bytes per step and block
};

// Expanded panels: the piece in use, and the one after it, being expanded. The two alternate line
// by line in memory: a tile load whose address agrees in the low 12 bits with a store that is still
// under way waits for it, and the stores under way cover more than 4 KiB.
template <class Machine, WeightFormat format>
requires(is_expanded(format)) class PanelTiles<Machine, format> {
 public:
  using Steps = ExpandedSteps<format>;
  static constexpr int64_t kStride = 128;

  explicit PanelTiles(const PanelProduct& product)
      : product_(product), steps_((product.k + kTileStepK - 1) / kTileStepK) {
    start(product.panel_begin, 0);
  }
  static constexpr int64_t piece_steps(int64_t) { return kPieceSteps; }
  // Takes the piece that was being expanded (it is this one) and goes on with the next.
  void begin(int64_t, int64_t, int64_t blocks) {
    while (done_ < tiles_) expand();
    current_ = filling_;
    filling_ ^= 1;
    blocks_ = blocks;
    credit_ = 0;
    if (step_ + kPieceSteps < steps_)
      start(panel_, step_ + kPieceSteps);
    else
      start(panel_ + 2, 0);
  }
  const std::byte* data() const { return slots_[0][0] + current_ * 64; }
  int64_t next_panel() const { return kPieceSteps * 2 * kTileBytes; }
  template <int Panels>
  SLUICE_SIMD_INLINE void work(const std::byte*) {
    // As many tiles per piece as there are: Panels of them for each of its steps, over all blocks.
    for (credit_ += Panels; credit_ >= blocks_ && done_ < tiles_; credit_ -= blocks_) expand();
  }

 private:
  void start(int64_t panel, int64_t step) {
    panel_ = panel;
    step_ = step;
    done_ = 0;
    const int64_t panels = product_.panel_end - panel < 2 ? product_.panel_end - panel : 2;
    const int64_t steps = steps_ - step < kPieceSteps ? steps_ - step : kPieceSteps;
    panels_ = panels;
    tiles_ = panels < 1 ? 0 : panels * steps;
  }
  SLUICE_SIMD_INLINE void expand() {
    const int64_t p = panels_ == 2 ? done_ & 1 : 0, s = panels_ == 2 ? done_ >> 1 : done_;
    const std::byte* codes = product_.panels +
                             static_cast<size_t>(panel_ + p) * product_.panel_bytes +
                             Steps::at(step_ + s);
    for (int64_t line = 0; line < Steps::kBytes; line += 64)
      Machine::prefetch(codes + line + kAhead);
    Steps::template expand<Machine>(codes, step_ + s, of_[p], slots_[p][s] + filling_ * 64);
    ++done_;
  }

  static constexpr int64_t kAhead = 512;
  const PanelProduct& product_;
  int64_t steps_;
  int64_t panel_ = 0, step_ = 0, panels_ = 0;  // where the piece being expanded starts
  int64_t tiles_ = 0, done_ = 0;
  int64_t blocks_ = 1, credit_ = 0;
  int filling_ = 0, current_ = 0;
  typename Steps::template Block<Machine> of_[2];
  alignas(64) std::byte slots_[2][kPieceSteps][2 * kTileBytes];
};

template <class Machine, WeightFormat format>
class TileProduct {
 public:
  using Tiles = typename Machine::Tiles;
  using Panels = PanelTiles<Machine, format>;

  explicit TileProduct(const PanelProduct& product)
      : product_(product),
        rows_(row_tiles(product.row_count)),
        steps_((product.k + kTileStepK - 1) / kTileStepK) {}

  void run() {
    TileConfig config;
    for (int t = 0; t < 7; ++t) config.set(t, rows_.rows, 64);
    config.set(7, 16, 64);
    if (!three()) config.set(6, 16, 64);
    if constexpr (is_expanded(format)) {
      if (rows_.count == 1) {
        using Stream = ExpandedStream<Machine, format>;
        Stream::configure(&config);
        Tiles tiles(config);
        Stream stream(product_, rows_.rows);
        return stream.run(tiles);
      }
    }
    Tiles tiles(config);
    const int64_t blocks = three() ? 1 : (rows_.count + 1) / 2;
    for (int64_t block = 0; block < blocks; block += kGroupBlocks) {
      first_ = block;
      blocks_ = blocks - block < kGroupBlocks ? blocks - block : kGroupBlocks;
      Panels panels(product_);
      for (int64_t p = product_.panel_begin; p < product_.panel_end; p += 2) {
        if (product_.panel_end - p > 1)
          multiply_pair<2>(tiles, panels, p);
        else
          multiply_pair<1>(tiles, panels, p);
      }
    }
  }

 private:
  // 33 to 48 rows: a block of their own, which takes each step of the panels once.
  bool three() const { return rows_.count == 3; }

  // All rows of the group times `Count` panels, piece after piece; then the epilogue.
  template <int Count>
  void multiply_pair(Tiles& tiles, Panels& panels, int64_t panel) {
    constexpr int64_t kSums = 32 * 2 * 16;  // of a block; one of three row tiles is alone
    alignas(64) float sums[kGroupBlocks * kSums];
    const int64_t piece = Panels::piece_steps(steps_);
    for (int64_t step = 0; step < steps_; step += piece) {
      const int64_t end = step + piece < steps_ ? step + piece : steps_;
      panels.begin(panel, step, blocks_);
      for (int64_t b = 0; b < blocks_; ++b) {
        if (three())
          multiply_block<3, Count>(tiles, panels, first_ + b, step, end, sums);
        else if ((first_ + b) * 2 + 1 < rows_.count)
          multiply_block<2, Count>(tiles, panels, first_ + b, step, end, sums + b * kSums);
        else
          multiply_block<1, Count>(tiles, panels, first_ + b, step, end, sums + b * kSums);
      }
    }
    for (int64_t b = 0; b < blocks_; ++b) {
      const int64_t row = (first_ + b) * 2 * rows_.rows, most = (three() ? 3 : 2) * rows_.rows;
      const int64_t left = product_.row_count - row;
      product_.epilogue(
          {&product_, sums + b * kSums, row, left < most ? left : most, panel, Count});
    }
  }

  template <int Rows, int Count>
  SLUICE_SIMD_INLINE void multiply_block(Tiles& tiles, Panels& panels, int64_t block, int64_t step,
                                         int64_t end, float* sums) {
    const int64_t tile_rows = rows_.rows, a_step = tile_rows * 64, a_next = steps_ * a_step;
    const std::byte* a =
        reinterpret_cast<const std::byte*>(product_.prepared) + block * 2 * a_next + step * a_step;
    const std::byte* b = panels.data();
    if (step == 0)
      zero_sums<Tiles, Rows>(tiles);
    else if (blocks_ > 1)
      load_sums<Tiles, Rows, Count>(tiles, sums, tile_rows);
    for (int64_t s = step; s < end; ++s, a += a_step, b += 16 * Panels::kStride) {
      if constexpr (Rows > 2)
        tile_step_of_three<Tiles, Count, Panels::kStride>(tiles, a, a_next, b, panels.next_panel());
      else
        tile_step<Tiles, Rows, Count, Panels::kStride>(tiles, a, a_next, b, panels.next_panel());
      panels.template work<Count>(b);
    }
    if (end == steps_ || blocks_ > 1) store_sums<Tiles, Rows, Count>(tiles, sums, tile_rows);
  }

  const PanelProduct& product_;
  const RowTiles rows_;
  const int64_t steps_;
  int64_t first_ = 0, blocks_ = 0;  // the group's blocks of rows
};

template <class Machine, WeightFormat format>
void multiply_tiles(const PanelProduct& product) {
  TileProduct<Machine, format>(product).run();
}

template <class Machine>
void prepare_tiles(const PanelProduct& product, int64_t begin, int64_t end) {
  const RowTiles tiles = row_tiles(product.row_count);
  const int64_t steps = (product.k + kTileStepK - 1) / kTileStepK;
  for (int64_t row = begin; row < end; ++row) {
    const float* x =
        product.x + (product.rows != nullptr ? product.rows[row] : row) * product.x_stride;
    uint16_t* out = row_in_tiles(product.prepared, tiles, steps, row);
    for (int64_t k = 0; k < product.k; k += kTileStepK, out += tiles.rows * kTileStepK)
      Machine::round_step(x + k, product.k - k, out);
  }
}

}  // namespace sluice::simd
