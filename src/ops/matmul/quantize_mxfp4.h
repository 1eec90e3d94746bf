// Choosing MXFP4 codes (weights/packed.h) for weights that have none: blocks of 32 k, one power of
// two each.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/status.h"
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

// Panels of f32 as panels of MXFP4 of the same layout, into packed_bytes() bytes at `out`. Refuses
// K that is no multiple of 32, and NaN and infinity.
Status requantize_mxfp4(const PackedMatrix& exact, bool search, std::byte* out);

}  // namespace sluice
