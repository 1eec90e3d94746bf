// Choosing the codes of int4 and int8 weights (weights/packed.h) for one column and one block of k.
// Plain f32 in a fixed order: the same codes on every machine and thread.
#pragma once

#include <cstdint>

namespace sluice {

enum class IntRounding : uint8_t {
  kNearest,  // scales from the largest magnitudes, every weight to its nearest code
  kSearch,   // int4, GGUF's: scales, multipliers and codes of less squared error, by search
};

inline constexpr int64_t kMostIntBlock = 512;
inline constexpr int64_t kMostIntGroups = kMostIntBlock / 32;

// v(k) = scale * multiplier[k / 32] * (code[k] - zero[k / 32]); scale is exact in bf16.
struct Int4Column {
  float scale = 0;
  uint8_t multiplier[kMostIntGroups] = {};
  uint8_t zero[kMostIntGroups] = {};
  uint8_t code[kMostIntBlock] = {};
};
// w: 32 * groups finite values.
void quantize_int4(const float* w, int64_t groups, IntRounding rounding, Int4Column* out);

// v(k) = scale * code[k], codes -127..127, scale = amax / 127.
// Relative error of a Qwen3-shaped expert layer on Gaussian data: with x in int16 blocks of 512,
// 256 and 128 k give 0.0130, 0.0123, 0.0113, with x in int8 0.0238, 0.0221, 0.0197; Q8_0 has
// 0.0150. A search of 33 scales would take 2 % off the first: not worth the time.
struct Int8Column {
  float scale = 0;
  int8_t code[kMostIntBlock] = {};
};
void quantize_int8(const float* w, int64_t groups, Int8Column* out);

}  // namespace sluice
