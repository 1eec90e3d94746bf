// Panels of MXFP4 and fp8 times one tile of rows: decode, and experts of few rows. Every expanded
// tile is used once, so expanding is what there is to do; everything else has to fit beside it.
// Four panels at a time, each with sums of its own, because a product waits for the one before it
// into the same sums; two steps of each are expanded while the two before them are multiplied, tile
// by tile.
//
// Include only from tiles.h.
#pragma once

#include "ops/matmul/panels.h"
#include "simd/amx.h"
#include "simd/math.h"
#include "weights/fp8_panels.h"

namespace sluice::simd {

// Formats whose steps of 32 k become tiles just before their use.
constexpr bool is_expanded(WeightFormat format) {
  return format == WeightFormat::kMXFP4 || format == WeightFormat::kFP8;
}
// Where the codes of a step begin in a panel, how many bytes follow, and their tile. Steps of a
// panel are expanded in their order: `Block` is what the machine keeps of one from step to step.
template <WeightFormat format>
struct ExpandedSteps;
template <>
struct ExpandedSteps<WeightFormat::kMXFP4> {
  static constexpr int64_t kBytes = 16 * 17;
  SLUICE_SIMD_INLINE static int64_t at(int64_t step) { return step * kBytes; }
  template <class Machine>
  struct Block {};
  template <class Machine>
  SLUICE_SIMD_INLINE static void expand(const std::byte* codes, int64_t, Block<Machine>&,
                                        std::byte* tile) {
    Machine::expand_mxfp4(codes, tile);
  }
};
template <>
struct ExpandedSteps<WeightFormat::kFP8> {
  static constexpr int64_t kBytes = 32 * 16;
  SLUICE_SIMD_INLINE static int64_t at(int64_t step) { return fp8_codes_at(32 * step); }
  template <class Machine>
  using Block = typename Machine::Fp8Block;
  template <class Machine>
  SLUICE_SIMD_INLINE static void expand(const std::byte* codes, int64_t step, Block<Machine>& block,
                                        std::byte* tile) {
    if (step % (kFp8Block / 32) == 0) Machine::begin_fp8(codes - kFp8ScaleBytes, &block);
    Machine::expand_fp8(codes, block, tile);
  }
};

template <class Machine, WeightFormat format>
class ExpandedStream {
 public:
  using Tiles = typename Machine::Tiles;
  using Steps = ExpandedSteps<format>;

  ExpandedStream(const PanelProduct& product, int64_t tile_rows)
      : product_(product), steps_((product.k + 31) / 32), a_step_(tile_rows * 64) {}
  // Tile 4 holds rows, 5 to 7 panels in turns.
  static void configure(TileConfig* config) {
    for (int t = 5; t < 8; ++t) config->set(t, 16, 64);
  }

  void run(Tiles& tiles) {
    Piece made = piece(product_.panel_begin, 0);
    for (int64_t t = 0; t < made.steps; ++t)
      for (int64_t p = 0; p < made.panels; ++p) expand(made, p, t, 0);
    for (int turn = 0; made.panels > 0; turn ^= 1) {
      const Piece used = made;
      made = used.step + kSteps < steps_ ? piece(used.panel, used.step + kSteps)
                                         : piece(used.panel + kPanels, 0);
      if (used.step == 0) zero(tiles);
      if (used.tiles() == kSteps * kPanels && made.tiles() == kSteps * kPanels)
        multiply<true>(tiles, used, made, turn);
      else
        multiply<false>(tiles, used, made, turn);
      if (used.step + kSteps >= steps_) finish(tiles, used);
    }
  }

 private:
  static constexpr int64_t kPanels = 4, kSteps = 2;
  // Of each panel. gpt-oss-20b's layer at M = 1 on two cores: 2.36 ms, from 4 KiB ahead 2.54, from
  // 6 KiB 2.46.
  static constexpr int64_t kAhead = 2048;
  // The two pieces alternate line by line in memory: a tile load whose address agrees in the low 12
  // bits with a store that is still under way waits for it, and the stores under way cover more
  // than 4 KiB.
  static constexpr int64_t kTileRoom = 2048;

  // Up to kSteps steps of up to kPanels panels.
  struct Piece {
    int64_t panel, step, panels, steps;
    const std::byte* at;
    int64_t ahead;  // from a byte of a panel to the one that its stream reaches kAhead later
    int64_t tiles() const { return panels * steps; }
  };
  Piece piece(int64_t panel, int64_t step) const {
    const auto bytes = static_cast<int64_t>(product_.panel_bytes);
    const int64_t left = product_.panel_end - panel;
    Piece p;
    p.panel = panel;
    p.step = step;
    p.panels = left < 0 ? 0 : left < kPanels ? left : kPanels;
    p.steps = steps_ - step < kSteps ? steps_ - step : kSteps;
    p.at = product_.panels + panel * bytes + Steps::at(step);
    // Behind a panel comes the one kPanels later.
    p.ahead = Steps::at(step) + kAhead < bytes ? kAhead : kAhead + (kPanels - 1) * bytes;
    return p;
  }

  std::byte* slot(int64_t p, int64_t t, int turn) {
    return slots_ + (t * kPanels + p) * kTileRoom + turn * 64;
  }
  SLUICE_SIMD_INLINE void expand(const Piece& piece, int64_t p, int64_t t, int turn) {
    const std::byte* codes =
        piece.at + p * static_cast<int64_t>(product_.panel_bytes) + t * Steps::kBytes;
    for (int64_t line = 0; line < Steps::kBytes; line += 64)
      Machine::prefetch(codes + line + piece.ahead);
    Steps::template expand<Machine>(codes, piece.step + t, blocks_[p], slot(p, t, turn));
  }

  template <bool kWhole, int p>
  SLUICE_SIMD_INLINE void tile(Tiles& tiles, const Piece& used, const Piece& made, int64_t t,
                               int turn) {
    if (kWhole || (t < made.steps && p < made.panels)) expand(made, p, t, turn ^ 1);
    if (kWhole || (t < used.steps && p < used.panels)) {
      tiles.template load<5 + p % 3>(slot(p, t, turn), 2 * 64);
      tiles.template dp_bf16<p, 4, 5 + p % 3>();
    }
  }
  template <bool kWhole>
  SLUICE_SIMD_INLINE void multiply(Tiles& tiles, const Piece& used, const Piece& made, int turn) {
    const std::byte* a =
        reinterpret_cast<const std::byte*>(product_.prepared) + used.step * a_step_;
#pragma GCC unroll 2
    for (int64_t t = 0; t < kSteps; ++t) {
      if (kWhole || t < used.steps) tiles.template load<4>(a + t * a_step_, 64);
      tile<kWhole, 0>(tiles, used, made, t, turn);
      tile<kWhole, 1>(tiles, used, made, t, turn);
      tile<kWhole, 2>(tiles, used, made, t, turn);
      tile<kWhole, 3>(tiles, used, made, t, turn);
    }
  }

  static void zero(Tiles& tiles) {
    tiles.template zero<0>();
    tiles.template zero<1>();
    tiles.template zero<2>();
    tiles.template zero<3>();
  }
  void finish(Tiles& tiles, const Piece& used) {
    alignas(64) float sums[16 * kPanels * 16];
    const int64_t stride = used.panels * 64;
    tiles.template store<0>(sums, stride);
    if (used.panels > 1) tiles.template store<1>(sums + 16, stride);
    if (used.panels > 2) tiles.template store<2>(sums + 32, stride);
    if (used.panels > 3) tiles.template store<3>(sums + 48, stride);
    product_.epilogue({&product_, sums, 0, product_.row_count, used.panel, used.panels});
  }

  const PanelProduct& product_;
  const int64_t steps_, a_step_;
  typename Steps::template Block<Machine> blocks_[kPanels];
  alignas(64) std::byte slots_[kSteps * kPanels * kTileRoom];
};

}  // namespace sluice::simd
