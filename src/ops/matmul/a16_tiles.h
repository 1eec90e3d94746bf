// Low-bit panels as bf16 tiles: a piece of kPieceSteps steps of two panels is expanded before its
// use. Simple: mode a16 is the accuracy option of formats whose default is an arith of integers.
//
// Include only from *_amx.cc and *_emulated.cc.
#pragma once

#include "ops/matmul/tiles.h"

namespace sluice::simd {

template <class Machine, WeightFormat format>
requires(is_int_format(format) || is_block_format(format)) class PanelTiles<Machine, format> {
 public:
  static constexpr int64_t kStride = 64;

  explicit PanelTiles(const PanelProduct& product)
      : product_(product), steps_((product.k + kTileStepK - 1) / kTileStepK) {}
  static constexpr int64_t piece_steps(int64_t) { return kPieceSteps; }
  void begin(int64_t panel, int64_t step, int64_t) {
    const int64_t left = product_.panel_end - panel, panels = left < 2 ? left : 2;
    for (int64_t p = 0; p < panels; ++p) {
      const std::byte* at = product_.panels + static_cast<size_t>(panel + p) * product_.panel_bytes;
      for (int64_t s = 0; s < kPieceSteps && step + s < steps_; ++s)
        Machine::template expand<format>(at, product_.k, product_.block, step + s, slots_[p][s]);
    }
  }
  const std::byte* data() const { return slots_[0][0]; }
  int64_t next_panel() const { return kPieceSteps * kTileBytes; }
  template <int Panels>
  SLUICE_SIMD_INLINE void work(const std::byte*) {}

 private:
  const PanelProduct& product_;
  int64_t steps_;
  alignas(64) std::byte slots_[2][kPieceSteps][kTileBytes];
};

}  // namespace sluice::simd
