// What packing a matrix loses, and what GGUF's plain format of that width would have lost.
#pragma once

#include <optional>

#include "weights/packed.h"

namespace sluice {

// Sums of squares over all elements: of the difference, of the reference, and of the difference
// that q4_0 or q8_0 would have made (0 where none is asked for).
struct PackLoss {
  double error = 0, signal = 0, beside = 0;
  void add(const PackLoss& other);
};

// Beside a format that we choose: q4_0 for those of four bits, q8_0 for int8.
std::optional<WeightFormat> format_beside(WeightFormat format);

// `packed` and `reference` (f32, bf16 or mxfp4 as stored) have the same panels. `beside` is
// computed by ggml's rule from the reference, along k in groups of 32; the last one is filled up
// with zeros. A scale that f16 cannot hold leaves it 0.
PackLoss pack_loss(const PackedMatrix& packed, const PackedMatrix& reference,
                   std::optional<WeightFormat> beside);

}  // namespace sluice
