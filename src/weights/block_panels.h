// The formats whose scales are given (GGUF's), one row of traits each: how their panels lie
// (weights/packed.h draws them), what a code means and how GGUF stores them. Kernels, packing and
// tests read this table, so that a format is described once. Static functions of plain numbers:
// kernels of any ISA may include this.
#pragma once

#include <cstddef>
#include <cstdint>

#include "weights/packed.h"

namespace sluice {

inline constexpr int64_t kGroupK = 32;      // k per scale, and per integer sum of arith a8g32
inline constexpr int64_t kBlockGroups = 8;  // groups per block of a panel: 256 k
inline constexpr int64_t kMinAt = 32;       // in a line of scales: the 16 minima

enum class GroupScales : uint8_t {
  kF16,     // an f16 scale per group
  kF16Min,  // and an f16 minimum, which is added
  kSix,     // per block an f16 scale and an f16 minimum (subtracted), per group 6 bits times each
  kInt8,    // per block an f16 scale, for each 16 k eight signed bits times it
  kE8M0,    // MXFP4 in arith a8g32: an exponent per group, of doubled values
};

// The values of 16 codes, if there are any. (A flag beside the pointer: under a sanitizer GCC 12
// does not take the comparison of an address with null for a constant.)
struct Levels {
  constexpr Levels() = default;
  constexpr Levels(std::nullptr_t) {}
  constexpr Levels(const uint8_t (&values)[16]) : value(values), given(true) {}
  constexpr int operator[](int64_t code) const { return value[code]; }
  const uint8_t* value = nullptr;
  bool given = false;
};

// value = level[code] - zero, or code - zero where there are no levels.
struct BlockTraits {
  int bits = 0;  // of a code; 0: not a format of this kind
  int zero = 0;
  Levels level;
  GroupScales scales = GroupScales::kF16;
  int64_t stored_k = 0, stored_bytes = 0;  // of a block in GGUF
};

// MXFP4's values twice, plus 12: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and the same below zero.
inline constexpr uint8_t kMxfp4Levels[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                             12, 11, 10, 9,  8,  6,  4,  0};

// IQ4_NL's values plus 128: -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89,
// 113.
inline constexpr uint8_t kIq4NlLevels[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                             129, 141, 153, 166, 181, 197, 217, 241};

static constexpr BlockTraits block_traits(WeightFormat format) {
  switch (format) {
    case WeightFormat::kQ8_0:
      return {8, 128, nullptr, GroupScales::kF16, 32, 34};
    case WeightFormat::kQ4_0:
      return {4, 8, nullptr, GroupScales::kF16, 32, 18};
    case WeightFormat::kQ5_0:
      return {5, 16, nullptr, GroupScales::kF16, 32, 22};
    case WeightFormat::kQ5_1:
      return {5, 0, nullptr, GroupScales::kF16Min, 32, 24};
    case WeightFormat::kQ4_K:
      return {4, 0, nullptr, GroupScales::kSix, 256, 144};
    case WeightFormat::kQ5_K:
      return {5, 0, nullptr, GroupScales::kSix, 256, 176};
    case WeightFormat::kQ6_K:
      return {6, 32, nullptr, GroupScales::kInt8, 256, 210};
    case WeightFormat::kIQ4_NL:
      return {4, 128, kIq4NlLevels, GroupScales::kF16, 32, 18};
    case WeightFormat::kMXFP4:
      return {4, 12, kMxfp4Levels, GroupScales::kE8M0, 0, 0};
    default:
      return {};
  }
}

// Bytes in front of the codes of a block of `groups` groups.
static constexpr int64_t block_header_bytes(BlockTraits t, int64_t groups) {
  switch (t.scales) {
    case GroupScales::kF16:
      return (groups + 1) / 2 * 64;
    case GroupScales::kF16Min:
      return groups * 64;
    case GroupScales::kSix:
      return 64 + 3 * 64;
    case GroupScales::kInt8:
      return 64 + 4 * 64;
    case GroupScales::kE8M0:
      return 0;
  }
  return 0;
}
// 16 columns of 32 codes; MXFP4's scales lie in front of each group.
static constexpr int64_t block_group_bytes(BlockTraits t) {
  return 64 * t.bits + (t.scales == GroupScales::kE8M0 ? 16 : 0);
}
static constexpr int64_t block_bytes(BlockTraits t, int64_t groups) {
  return block_header_bytes(t, groups) + groups * block_group_bytes(t);
}
static constexpr int64_t block_groups(int64_t k) {
  return (k + kGroupK - 1) / kGroupK;
}
static constexpr int64_t block_panel_bytes(BlockTraits t, int64_t k) {
  const int64_t groups = block_groups(k), rest = groups % kBlockGroups;
  return groups / kBlockGroups * block_bytes(t, kBlockGroups) +
         (rest > 0 ? block_bytes(t, rest) : 0);
}

}  // namespace sluice
