// What the bytes of low-bit panels mean, scalar: the definition for packing, references and tests.
#pragma once

#include <cstddef>
#include <cstdint>

#include "weights/packed.h"

namespace sluice {

// Column c, k in [32 g, 32 g + 32) of a panel: weight(k) = scale * multiplier * value, and
// min * min_multiplier less where the format has a minimum (q5_1: min is what it adds, negated).
struct GroupColumn {
  int32_t value[32] = {};
  int32_t multiplier[2] = {1, 1};  // of the first and the last 16 k
  float scale = 0;
  bool has_min = false;
  int32_t min_multiplier = 0;
  float min = 0;

  // Widened: (scale * multiplier) * value, exact but for int8's f32 scales; with a minimum
  // fma(scale * multiplier, value, -(min * min_multiplier)), rounded once.
  float weight(int64_t i) const;
};

// int4, int8, the block formats, and MXFP4 as arith a8g32 takes it: doubled values, half the scale.
GroupColumn read_group(WeightFormat format, const std::byte* panel, int64_t k, int64_t block,
                       int64_t c, int64_t g);

}  // namespace sluice
