// Where PanelProduct::prepared holds the rows of arith `int`: the same order for every ISA.
//
// Rows are cut into row blocks of 16 (the last one lower). A row block of h rows is, for each 64 k,
// a tile [h][64] of codes, zero past K: an AMX tile as it lies, and 4 codes of neighbouring rows 64
// bytes apart for dot products. Behind the codes of all rows come, row block by row block again,
//   corrections  int32 [c][h]: int4 two for each group of 32 k, int8 one for each block of k; what
//                an accumulator starts with so that codes may be multiplied as unsigned bytes
//   scales       f32 [blocks][h]
#pragma once

#include "ops/matmul/panels.h"
#include "weights/int_panels.h"

namespace sluice {

inline constexpr int64_t kIntRowBlock = 16;

struct IntRows {
  int64_t rows = 0, steps = 0, corrections_each = 0, blocks = 0;
  int8_t* codes = nullptr;
  int32_t* corrections = nullptr;
  float* scales = nullptr;
};

static inline IntRows int_rows(const PanelProduct& product, WeightFormat format) {
  const int64_t groups = int_groups(product.k);
  IntRows r;
  r.rows = product.row_count;
  r.steps = (groups + 1) / 2;
  r.blocks = (product.k + product.block - 1) / product.block;
  r.corrections_each = format == WeightFormat::kInt4 ? 2 * groups : r.blocks;
  r.codes = reinterpret_cast<int8_t*>(product.prepared);
  r.corrections = reinterpret_cast<int32_t*>(r.codes + r.rows * r.steps * 64);
  r.scales = reinterpret_cast<float*>(r.corrections + r.rows * r.corrections_each);
  return r;
}

// One row of a row block: its parts are `height` rows apart.
struct IntRow {
  int64_t height = 0;
  int8_t* codes = nullptr;         // of step s at s * height * 64
  int32_t* corrections = nullptr;  // c at c * height; int4: pairs, both of group g at 2 g * height
  float* scales = nullptr;         // b at b * height
};

static inline IntRow int_row(const IntRows& rows, int64_t row) {
  const int64_t first = row / kIntRowBlock * kIntRowBlock, r = row - first;
  const int64_t left = rows.rows - first;
  IntRow out;
  out.height = left < kIntRowBlock ? left : kIntRowBlock;
  out.codes = rows.codes + first * rows.steps * 64 + r * 64;
  out.corrections = rows.corrections + first * rows.corrections_each + r;
  out.scales = rows.scales + first * rows.blocks + r;
  return out;
}

}  // namespace sluice
