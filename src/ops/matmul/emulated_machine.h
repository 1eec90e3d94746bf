// The machine of the kernels over emulated tiles, but for how it expands panels: what
// tiles.h:TileMachine is to a machine with tiles. Include only from *_amx_emulated.cc.
#pragma once

#include "base/fp.h"
#include "ops/matmul/tiles.h"

namespace sluice {

struct EmulatedMachine {
  using Tiles = simd::EmulatedTiles;
  static void prefetch(const std::byte*) {}
  static void prefetch_l2(const std::byte*) {}
  static void prefetch_lines(const std::byte*) {}
  static void round_step(const float* x, int64_t count, uint16_t* out) {
    for (int64_t i = 0; i < 32; ++i) out[i] = i < count ? bf16(x[i]).bits : 0;
  }
};

}  // namespace sluice
