// Where the parts of an fp8 panel lie (weights/packed.h draws them). Static functions of plain
// numbers, so that kernels of any ISA may include this.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice {

inline constexpr int64_t kFp8Block = 128;      // k per scale
inline constexpr int64_t kFp8ScaleBytes = 64;  // 16 columns' of a block, in front of its codes

// The codes of k, a multiple of 32, and the scales of its block.
static constexpr int64_t fp8_codes_at(int64_t k) {
  return (k / kFp8Block + 1) * kFp8ScaleBytes + k * 16;
}
static constexpr int64_t fp8_scales_at(int64_t k) {
  return k / kFp8Block * (kFp8ScaleBytes + kFp8Block * 16);
}
static constexpr int64_t fp8_panel_bytes(int64_t k) {
  return (k + kFp8Block - 1) / kFp8Block * kFp8ScaleBytes + (k + 31) / 32 * 512;
}

}  // namespace sluice
