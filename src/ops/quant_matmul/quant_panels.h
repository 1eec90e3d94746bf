// Where the parts of a panel of quant_weights.h lie. Static functions of plain numbers, so that
// kernels of any ISA may include this.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice {

inline constexpr int64_t kQuantPad = 8;  // k that every group is padded to

static inline int64_t quant_padded(int64_t k) {
  return (k + kQuantPad - 1) / kQuantPad * kQuantPad;
}
static inline int64_t quant_groups(int64_t k, int64_t group) {
  return (k + group - 1) / group;
}
// k of group g, and of all of them, padded.
static inline int64_t quant_group_k(int64_t k, int64_t group, int64_t g) {
  return k - g * group < group ? k - g * group : group;
}
static inline int64_t quant_padded_k(int64_t k, int64_t group) {
  const int64_t last = quant_groups(k, group) - 1;
  return last * quant_padded(group) + quant_padded(k - last * group);
}
// Bytes of `padded` k of 16 columns.
static inline size_t quant_code_bytes(int bits, int64_t padded) {
  return static_cast<size_t>(padded) * 16 * static_cast<size_t>(bits) / 8;
}
// Where group g of a panel begins.
static inline size_t quant_group_at(int bits, int64_t group, int64_t g) {
  return static_cast<size_t>(g) * (64 + quant_code_bytes(bits, quant_padded(group)));
}
static inline size_t quant_panel_bytes(int bits, int64_t k, int64_t group) {
  return static_cast<size_t>(quant_groups(k, group)) * 64 +
         quant_code_bytes(bits, quant_padded_k(k, group));
}

}  // namespace sluice
