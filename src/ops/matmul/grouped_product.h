// What a CUDA row of matmul and grouped_matmul does in one launch: rows of x, in the segments of
// their experts, times the experts' panels, with what follows the product. Every pointer is the
// device's; counts that only the device knows (starts) are read there, so that the launch is sized
// by what the host knows: the most rows there can be.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/host_device.h"
#include "ops/elementwise/activation.h"
#include "tensor/view.h"

namespace sluice {

class Stream;  // device/device.h

struct GroupedProduct {
  // Slot s takes row (rows != null ? rows[s] : s) of x and writes row s of out.
  const float* x = nullptr;
  int64_t x_stride = 0;
  int64_t x_rows = 0;
  const int32_t* rows = nullptr;
  int64_t row_count = 0;            // most slots
  const int32_t* starts = nullptr;  // [experts + 1] slots of each expert; null: one has them all
  int64_t experts = 1;
  // [experts] data pointers, null for an expert that is not here; or null: `panels` is the only
  // matrix.
  const std::byte* const* expert_panels = nullptr;
  const std::byte* panels = nullptr;
  size_t panel_bytes = 0;
  int64_t panel_count = 0;
  int64_t block = 0;              // k per scale: int4, int8
  std::byte* prepared = nullptr;  // int, int16: prepared_floats(row_count, k) for the rows' codes
  int64_t n = 0, k = 0;
  bool glu_layout = false;  // even panels hold gate columns, odd panels up columns
  const float* const* expert_bias = nullptr;  // [experts], or null: `bias`, which may be null
  const float* bias = nullptr;
  bool glu = false;  // out = act(gate, up)
  Activation activation;
  float* out = nullptr;
  int64_t out_stride = 0;
  Stream* stream = nullptr;
};
using GroupedLaunch = void(const GroupedProduct& product);

// Most tiles of `tile` rows that the segments of so many experts can have: each of as many experts
// as possible takes one row, the rest fill up tiles.
SLUICE_HD inline int64_t most_tiles(int64_t rows, int64_t experts, int64_t tile) {
  const int64_t used = rows < experts ? rows : experts;
  return used + (rows - used) / tile;
}

}  // namespace sluice
