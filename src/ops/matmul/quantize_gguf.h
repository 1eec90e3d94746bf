// Choosing the codes of GGUF's formats (weights/packed.h) for one column and one block of a panel.
// Plain f32 in a fixed order: the same codes on every machine and thread.
//
//   q8_0, q4_0     ggml's rule, code for code (ops/matmul/stored_blocks.h)
//   q5_0, iq4_nl   a scale per 32 weights, signed so that the largest magnitude has the farther end
//                  of the levels
//   q5_1           a scale and a minimum per 32
//   q4_k, q5_k     the same, of which 6 bits each are kept, times two f16 of the block
//   q6_k           a scale per 16, of which 8 bits are kept, times an f16 of the block
//
// kNearest: scales that span the weights, every weight to its nearest level. kSearch tries a few
// of them and keeps the one of the least squared error after a least-squares fit to its codes; the
// multipliers of the block's scale are those of the least error among the neighbours of the
// nearest. Codes are chosen last, by the scales as they are stored.
//
// Relative RMS error of 2^20 Gaussian weights (and of a Laplace distribution): the search, nearest,
// and ggml's quantisers of llama.cpp without an importance matrix:
//   q5_0    0.0401 (0.0513)   0.0426 (0.0534)   ggml 0.0426 (0.0534)
//   q5_1    0.0347 (0.0408)   0.0378 (0.0444)   ggml 0.0378 (0.0444)
//   q4_k    0.0708 (0.0835)   0.0783 (0.0919)   ggml 0.0713 (0.0846)
//   q5_k    0.0350 (0.0413)   0.0381 (0.0449)   ggml 0.0361 (0.0428)
//   q6_k    0.0167 (0.0205)   0.0188 (0.0225)   ggml 0.0177 (0.0217)
//   iq4_nl  0.0745 (0.0860)   0.0799 (0.0908)   ggml 0.0761 (0.0880)
#pragma once

#include <cstdint>

#include "base/status.h"
#include "ops/matmul/quantize_int.h"
#include "ops/matmul/stored_blocks.h"
#include "weights/packed.h"

namespace sluice {

// w: 32 * groups finite values, up to 256. A scale that f16 cannot hold is refused.
Status quantize_block_column(WeightFormat format, const float* w, int64_t groups,
                             IntRounding rounding, BlockColumn* out);

}  // namespace sluice
