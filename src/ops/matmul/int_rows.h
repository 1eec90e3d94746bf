// Where PanelProduct::prepared holds the rows of ariths `int` and `int16`: the same order for every
// ISA.
//
// Rows are cut into row tiles of one height h (panels.h:row_tiles). A row tile is, for each 64 k, a
// tile [h][64] of codes, zero past K: an AMX tile as it lies, and for dot products 4 codes of
// neighbouring rows 64 bytes apart. Codes of 16 bits are two such tiles, first their high halves,
// then the low ones: code = 256 * high + low, both signed. Behind the codes of all rows come, row
// tile by row tile again,
//   corrections  int32 [c][h]: int4 two for each group of 32 k, int8 one for each block of k; what
//                an accumulator starts with so that codes may be multiplied as unsigned bytes
//   scales       f32 [blocks][h]
// The last row tile may have rows past the last one: nobody reads what becomes of them.
#pragma once

#include "ops/matmul/panels.h"
#include "weights/int_panels.h"

namespace sluice {

struct IntRows {
  int64_t tiles = 0, height = 0;
  int64_t steps = 0, corrections_each = 0, blocks = 0;  // of a row
  int64_t halves = 1;                                   // bytes of a code
  int8_t* codes = nullptr;
  int32_t* corrections = nullptr;
  float* scales = nullptr;
};

// Bytes of a code of x beside weights of the format.
static constexpr int64_t int_halves(WeightFormat format) {
  return format == WeightFormat::kInt4 ? 1 : 2;
}

static inline IntRows int_rows(const PanelProduct& product, WeightFormat format) {
  const int64_t groups = int_groups(product.k);
  const RowTiles tiles = row_tiles(product.row_count);
  const int64_t rows = tiles.rows * tiles.count;
  IntRows r;
  r.tiles = tiles.count;
  r.height = tiles.rows;
  r.steps = (groups + 1) / 2;
  r.halves = int_halves(format);
  r.blocks = (product.k + product.block - 1) / product.block;
  r.corrections_each = format == WeightFormat::kInt4 ? 2 * groups : r.blocks;
  r.codes = reinterpret_cast<int8_t*>(product.prepared);
  r.corrections = reinterpret_cast<int32_t*>(r.codes + rows * r.steps * r.halves * 64);
  r.scales = reinterpret_cast<float*>(r.corrections + rows * r.corrections_each);
  return r;
}

// One row of a row tile: its parts are `height` rows apart.
struct IntRow {
  int64_t height = 0;
  int64_t step = 0;                // bytes from one step's codes to the next
  int8_t* codes = nullptr;         // of step s at s * step, low halves height * 64 behind
  int32_t* corrections = nullptr;  // c at c * height; int4: pairs, both of group g at 2 g * height
  float* scales = nullptr;         // b at b * height
};

static inline IntRow int_row(const IntRows& rows, int64_t row) {
  const int64_t first = row / rows.height * rows.height, r = row - first;
  const int64_t step = rows.height * rows.halves * 64;
  return {rows.height, step, rows.codes + first * rows.steps * rows.halves * 64 + r * 64,
          rows.corrections + first * rows.corrections_each + r,
          rows.scales + first * rows.blocks + r};
}

}  // namespace sluice
