// Where PanelProduct::prepared holds the rows of arith a8g32: the same order for every ISA.
//
// Rows are cut into row tiles of one height h (panels.h:row_tiles). A row tile is a record of 48 h
// bytes for each group of 32 k, zero past K, each part for all h rows:
//   codes        int8 [h][32]; MXFP4 panels lie so that of every eight k those of even number come
//                first
//   scales       f32 [h]
//   corrections  int32 [2][h]: -zero times the sum of the codes, of the first 16 k and of the last
//                (formats without multipliers for 16 k: of all, and unused)
//   sums         f32 [h]: the sum of the codes, for minima
// The last row tile may have rows past the last one: nobody reads what becomes of them.
#pragma once

#include "ops/matmul/panels.h"
#include "weights/block_panels.h"

namespace sluice {

inline constexpr int64_t kGroupRowBytes = 48;
struct GroupRows {
  int64_t height = 0, groups = 0;
  std::byte* data = nullptr;
};
static inline GroupRows group_rows(const PanelProduct& product) {
  return {row_tiles(product.row_count).rows, block_groups(product.k),
          reinterpret_cast<std::byte*>(product.prepared)};
}

// Row `row` of a row tile and those after it: its parts in the record of group g.
struct GroupRow {
  int64_t height = 0, row = 0;
  std::byte* data = nullptr;  // of the row tile
};
static inline std::byte* group_record(const GroupRow& r, int64_t g) {
  return r.data + g * r.height * kGroupRowBytes;
}
static inline int8_t* group_codes(const GroupRow& r, int64_t g) {
  return reinterpret_cast<int8_t*>(group_record(r, g)) + r.row * 32;
}
static inline float* group_scales(const GroupRow& r, int64_t g) {
  return reinterpret_cast<float*>(group_record(r, g) + r.height * 32) + r.row;
}
static inline int32_t* group_corrections(const GroupRow& r, int64_t g, int64_t half) {
  return reinterpret_cast<int32_t*>(group_record(r, g) + r.height * (36 + 4 * half)) + r.row;
}
static inline float* group_sums(const GroupRow& r, int64_t g) {
  return reinterpret_cast<float*>(group_record(r, g) + r.height * 44) + r.row;
}
static inline GroupRow group_row(const GroupRows& rows, int64_t row) {
  const int64_t first = row / rows.height * rows.height;
  return {rows.height, row - first, rows.data + first * rows.groups * kGroupRowBytes};
}

}  // namespace sluice
