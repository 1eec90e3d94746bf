// Choosing MXFP4 codes (weights/packed.h) for weights that have none: blocks of 32 k, one power of
// two each.
#pragma once

#include <cstddef>
#include <cstdint>

#include "weights/packed.h"

namespace sluice {

struct Mxfp4Block {
  uint8_t scale = 127;    // E8M0: 2^(scale - 127)
  uint8_t code[32] = {};  // E2M1, never -0
};
// Of 32 finite values. Plain: the scale is 2^(floor(log2 max|w|) - 2), the codes are nearest, ties
// to even, and saturate at 6. Search: the scale of the plain rule, half or twice of it, whichever
// has the least squared error (the smaller one if two have).
Mxfp4Block quantize_mxfp4(const float* w, bool search);

// Of a panel (weights/packed.h): 16 scales, then 16 x 16 bytes of nibbles for each 32 k.
inline constexpr int64_t kMxfp4K = 32;
inline constexpr int64_t kMxfp4BlockBytes = kPanelColumns * 17;
// A block as column c of those 32 k.
void write_mxfp4(const Mxfp4Block& block, int64_t c, std::byte* out);

}  // namespace sluice
