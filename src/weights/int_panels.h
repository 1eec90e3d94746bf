// Where the parts of an int4 or int8 panel lie (weights/packed.h draws them). Static functions of
// plain numbers, so that kernels of any ISA may include this.
#pragma once

#include <cstdint>

namespace sluice {

inline constexpr int64_t kIntGroup = 32;         // k per multiplier of int4; both pad K to it
inline constexpr int64_t kInt4GroupBytes = 256;  // 16 columns of 32 codes
inline constexpr int64_t kInt8GroupBytes = 512;
inline constexpr int64_t kInt4ZeroAt = 32;        // in a block's first line: the zero points
inline constexpr int64_t kInt4MultiplierAt = 64;  // the second line
inline constexpr int64_t kInt8CodesAt = 64;

static constexpr int64_t int_groups(int64_t k) {
  return (k + kIntGroup - 1) / kIntGroup;
}
// Bytes in front of the codes of a block of `groups` groups.
static constexpr int64_t int4_codes_at(int64_t groups) {
  return kInt4MultiplierAt + (groups + 7) / 8 * 64;
}
static constexpr int64_t int4_block_bytes(int64_t groups) {
  return int4_codes_at(groups) + groups * kInt4GroupBytes;
}
static constexpr int64_t int8_block_bytes(int64_t groups) {
  return kInt8CodesAt + groups * kInt8GroupBytes;
}
static constexpr int64_t int4_panel_bytes(int64_t k, int64_t block) {
  const int64_t groups = int_groups(k), each = block / kIntGroup, rest = groups % each;
  return groups / each * int4_block_bytes(each) + (rest > 0 ? int4_block_bytes(rest) : 0);
}
static constexpr int64_t int8_panel_bytes(int64_t k, int64_t block) {
  const int64_t groups = int_groups(k), each = block / kIntGroup;
  return (groups + each - 1) / each * kInt8CodesAt + groups * kInt8GroupBytes;
}

}  // namespace sluice
