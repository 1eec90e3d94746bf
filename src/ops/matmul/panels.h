// Panel kernels: what matmul and grouped_matmul share. A kernel multiplies rows of x with a range
// of 16-column panels (weights/packed.h) in the order of one arith, and hands every finished tile
// of accumulators to an epilogue that adds the bias, activates and stores.
//
// Kernels see plain pointers only: their translation units are compiled for one ISA and must not
// instantiate inline functions that other code shares.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/host_device.h"
#include "tensor/arith.h"
#include "weights/packed.h"

namespace sluice {

struct PanelTile;
struct GroupedProduct;  // ops/matmul/grouped_product.h
using PanelEpilogue = void(const PanelTile& tile);

// A segment of rows times a range of panels of one matrix.
struct PanelProduct {
  // Row r of x starts at x + (rows != null ? rows[r] : r) * x_stride.
  const float* x = nullptr;
  const int32_t* rows = nullptr;
  int64_t x_stride = 0;
  int64_t row_count = 0;
  int64_t k = 0;
  int64_t block = 0;  // k per scale: int4, int8
  // prepared_floats() that prepare() fills in the order that multiply() streams.
  float* prepared = nullptr;
  const std::byte* panels = nullptr;
  size_t panel_bytes = 0;
  int64_t panel_begin = 0, panel_end = 0;
  int64_t n = 0;            // outputs of the matrix; glu_layout: 2 I
  bool glu_layout = false;  // even panels hold gate columns, odd panels up columns
  const float* bias = nullptr;
  float* out = nullptr;
  int64_t out_stride = 0;
  // Nobody reads `out` before it has left the caches: whole lines may be stored around them. Who
  // sets it calls streamed_stores_end() (simd/streaming.h) before others read.
  bool out_streams = false;
  PanelEpilogue* epilogue = nullptr;
  const void* epilogue_data = nullptr;
};

// Accumulators of rows [row, row + rows) and panels [panel, panel + panels):
// acc[(r * panels + p) * 16 + column].
struct PanelTile {
  const PanelProduct* product = nullptr;
  const float* acc = nullptr;
  int64_t row = 0, rows = 0;
  int64_t panel = 0, panels = 0;
};

struct PanelKernel {
  // Rounds and rearranges rows [begin, end) of the segment; begin is a multiple of
  // kPanelRowGrain. Ranges may be prepared in parallel.
  void (*prepare)(const PanelProduct& product, int64_t begin, int64_t end);
  void (*multiply)(const PanelProduct& product);
  // Stores acc (+ bias): output columns 16 p .., or gate first, then up in a glu layout.
  PanelEpilogue* store;
  // May be null. Fills rows [begin, end) of `to` with those that prepare() made for `from`, whose
  // rows are all of x: what prepare(to, begin, end) would do, without rounding a row once more.
  void (*gather)(const PanelProduct& from, const PanelProduct& to, int64_t begin,
                 int64_t end) = nullptr;
  // Instead of all these in CUDA rows: the whole of one or many products, queued on a stream.
  void (*launch)(const GroupedProduct& product) = nullptr;
  // Bytes of panels in one call of multiply(), at most: what passes over them for each block of
  // rows wants them to stay in the second-level cache; what passes once wants few starts.
  size_t range_bytes = size_t{256} << 10;
  // So many rows share a pass: up to there a call may have all panels of a matrix.
  int64_t rows_of_pass = 0;
};
inline constexpr int64_t kPanelRowGrain = 24;

// How kernels over tiles cut a segment's rows: ceil(rows / 16) tiles of one size, because a product
// costs a tile's rows (9 at least) in cycles and another size another configuration. The last tile
// may have rows too many: they hold anything and are never stored. In `prepared`, a tile is
// [round_up(K, 32) / 32][rows][32] bf16: half of the room that there is, the surplus rows included.
struct RowTiles {
  int64_t rows = 1, count = 0;  // rows per tile, tiles
};
static inline RowTiles row_tiles(int64_t row_count) {
  const int64_t count = (row_count + 15) / 16;
  return count == 0 ? RowTiles() : RowTiles{(row_count + count - 1) / count, count};
}
// Where a row's first 32 k lie; step s follows 32 * s * tiles.rows elements later.
static inline uint16_t* row_in_tiles(float* prepared, RowTiles tiles, int64_t steps, int64_t row) {
  const int64_t tile = row / tiles.rows;
  return reinterpret_cast<uint16_t*>(prepared) +
         (tile * steps * tiles.rows + row - tile * tiles.rows) * 32;
}

// Where the 16 columns of a panel go: outputs [first, first + count).
struct PanelColumns {
  int64_t first, count;
};
SLUICE_HD static inline PanelColumns panel_columns(int64_t n, bool glu_layout, int64_t panel) {
  const int64_t outputs = glu_layout ? n / 2 : n;
  const int64_t first = (glu_layout ? panel / 2 : panel) * 16;
  const int64_t left = outputs - first;
  const bool up = glu_layout && (panel & 1) != 0;
  return {up ? outputs + first : first, left < 16 ? left : 16};
}
static inline PanelColumns panel_columns(const PanelProduct& product, int64_t panel) {
  return panel_columns(product.n, product.glu_layout, panel);
}

// All kernels of this build, best first, and the one for a product (null: there is none).
template <class Fn>
struct Kernel;   // ops/kernel_table.h
enum class Isa;  // simd/isa.h
std::span<const Kernel<const PanelKernel>> panel_kernels();
const Kernel<const PanelKernel>* select_panel_kernel(Isa isa, WeightFormat format, Arith arith);

// Whether a format leaves this choice. Others keep their default, so that a model of several
// formats may have any mode that one of them has.
constexpr bool has_mode(WeightFormat format, Mode mode) {
  const bool given = is_block_format(format) || format == WeightFormat::kMXFP4;
  switch (mode) {
    case Mode::kInt:
      return is_int_format(format);
    case Mode::kA8G32:
      return given;
    case Mode::kFp8:
      return format == WeightFormat::kFP8;
    default:
      return true;  // weights of floats are a16 as they are
  }
}
// The arith of a product with weights of the format: the one place where it is chosen, by format,
// mode and compute, never by row counts or the machine.
constexpr Arith panel_arith(WeightFormat format, Compute compute, Mode mode = Mode::kDefault) {
  if (mode == Mode::kA8G32 && has_mode(format, mode)) return Arith::kA8G32;
  if (mode == Mode::kFp8 && has_mode(format, mode)) return Arith::kFp8G128;
  if (mode != Mode::kA16 && is_int_format(format))
    return format == WeightFormat::kInt4 ? Arith::kInt : Arith::kInt16;
  if (mode != Mode::kA16 && is_block_format(format)) return Arith::kA8G32;
  return arith_of(compute);
}

// Floats of PanelProduct::prepared, and the arith that needs most.
int64_t prepared_floats(int64_t rows, int64_t k, Arith arith);
inline constexpr Arith kMostPrepared = Arith::kFp8G128;

}  // namespace sluice
