// Where the parts of a panel of quant_weights.h lie. Static functions of plain numbers, so that
// kernels of any ISA may include this.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice {

enum class QuantCodes { kInt8, kInt4, kFp8 };
// Bytes that may be read behind the last panel: a tile reaches past a group, where x is zero.
inline constexpr size_t kQuantSlack = 1024;

static constexpr int quant_bits(QuantCodes codes) {
  return codes == QuantCodes::kInt4 ? 4 : 8;
}
// Every group is padded to 8 k of integers, to 32 of fp8.
static inline int64_t quant_padded(QuantCodes codes, int64_t k) {
  const int64_t pad = codes == QuantCodes::kFp8 ? 32 : 8;
  return (k + pad - 1) / pad * pad;
}
static inline int64_t quant_groups(int64_t k, int64_t group) {
  return (k + group - 1) / group;
}
// k of group g, and of all of them, padded.
static inline int64_t quant_group_k(int64_t k, int64_t group, int64_t g) {
  return k - g * group < group ? k - g * group : group;
}
static inline int64_t quant_padded_k(QuantCodes codes, int64_t k, int64_t group) {
  const int64_t last = quant_groups(k, group) - 1;
  return last * quant_padded(codes, group) + quant_padded(codes, k - last * group);
}
// Bytes of `padded` k of 16 columns.
static inline size_t quant_code_bytes(QuantCodes codes, int64_t padded) {
  return static_cast<size_t>(padded) * 16 * static_cast<size_t>(quant_bits(codes)) / 8;
}
// Where group g of a panel begins.
static inline size_t quant_group_at(QuantCodes codes, int64_t group, int64_t g) {
  return static_cast<size_t>(g) * (64 + quant_code_bytes(codes, quant_padded(codes, group)));
}
static inline size_t quant_panel_bytes(QuantCodes codes, int64_t k, int64_t group) {
  return static_cast<size_t>(quant_groups(k, group)) * 64 +
         quant_code_bytes(codes, quant_padded_k(codes, k, group));
}

// What prepare() makes of a row of x begins with an int32 correction for each group of integers.
static inline int64_t quant_corrections_bytes(QuantCodes codes, int64_t groups) {
  return codes == QuantCodes::kFp8 ? 0 : (groups * 4 + 63) / 64 * 64;
}
// k that a group takes in rows of tiles.
static inline int64_t quant_tile_k(QuantCodes codes, int64_t k) {
  const int64_t step = codes == QuantCodes::kFp8 ? 32 : 64;
  return (k + step - 1) / step * step;
}
// From a prepared row to the next: room for its codes as any kernel arranges them (fp8 as f32,
// integers as pairs of bytes or in whole tiles), an odd number of lines, so that the 16 rows of a
// tile do not share a set of the first-level cache.
static inline int64_t quant_row_bytes(QuantCodes codes, int64_t k, int64_t group) {
  const int64_t groups = quant_groups(k, group), padded = quant_padded_k(codes, k, group);
  const int64_t tiles = groups * quant_tile_k(codes, group < k ? group : k);
  int64_t bytes = quant_corrections_bytes(codes, groups);
  if (codes == QuantCodes::kFp8)
    bytes += 4 * padded;
  else
    bytes += tiles > 2 * padded ? tiles : 2 * padded;
  return ((bytes + 63) / 64 | 1) * 64;
}

}  // namespace sluice
