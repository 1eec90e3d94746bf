// The memory that packing writes to.
#pragma once

#include <memory>

#include "base/status.h"
#include "device/device.h"
#include "weights/packed.h"

namespace sluice {

inline constexpr int64_t kMaxPackedElements = int64_t{1} << 48;  // bounds every product of sizes

// A zero-filled matrix of the wanted shape that owns its memory, and where to write it.
struct Target {
  PackedMatrix matrix;
  std::byte* data = nullptr;
};
inline Result<Target> allocate_panels(Device& device, WeightFormat format, WeightLayout layout,
                                      int64_t n, int64_t k, int64_t block = kIntBlock) {
  Target t;
  t.matrix.format = format;
  t.matrix.layout = layout;
  t.matrix.n = n;
  t.matrix.k = k;
  t.matrix.block = block;
  t.matrix.bytes = packed_bytes(format, layout, n, k, block);
  SLUICE_ASSIGN_OR_RETURN(Buffer buffer, device.allocate(t.matrix.bytes, "packed weights"));
  t.data = buffer.data();
  t.matrix.data = t.data;
  t.matrix.owner = std::make_shared<const Buffer>(std::move(buffer));
  return t;
}

inline int64_t panel_rows(int64_t n, int64_t panel) {
  const int64_t left = n - panel * kPanelColumns;
  return left < kPanelColumns ? left : kPanelColumns;
}

}  // namespace sluice
