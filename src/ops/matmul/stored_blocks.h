// GGUF's block formats: their bytes as they are stored, and the columns of panels made from them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/status.h"
#include "weights/packed.h"

namespace sluice {

// One column of a block of a panel (up to 256 k), as the bits that the panel keeps.
struct BlockColumn {
  uint8_t code[256] = {};
  uint16_t scale[8] = {}, min[8] = {};  // f16 bits: per group, or [0] for the block
  uint8_t multiplier[8] = {}, min_multiplier[8] = {};
  int8_t half_multiplier[16] = {};
};

// Bytes of a row of k weights in GGUF; k is a multiple of the format's block.
size_t stored_row_bytes(WeightFormat format, int64_t k);

// k in [256 b, 256 b + 32 groups) of a stored row.
BlockColumn read_stored_blocks(WeightFormat format, const std::byte* row, int64_t b,
                               int64_t groups);
// Writes the column's bits into a zero-filled block of a panel.
void write_block_column(WeightFormat format, const BlockColumn& column, int64_t c, int64_t groups,
                        std::byte* block);

// False where a scale or minimum that the panel would keep is NaN or infinite.
bool finite_scales(WeightFormat format, const BlockColumn& column, int64_t groups);

// q8_0 and q4_0: `groups` times 32 weights as stored blocks, by ggml's rule (quantize_row_*_ref):
//   q8_0  d = amax / 127, code = w * (1 / d), halves away from zero
//   q4_0  d = m / -8 with m the first weight of the largest magnitude, code = w * (1 / d) + 8.5,
//         truncated, at most 15
// d is stored as f16, but the codes come from the f32 one. A column whose scale overflows f16 is
// refused.
Status quantize_blocks(WeightFormat format, const float* w, int64_t groups, std::byte* out);

}  // namespace sluice
