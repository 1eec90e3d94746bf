// Where PanelProduct::prepared holds the rows of arith fp8_g128, the same for every ISA: those of
// quant_matmul, row_bytes apart, then scales f32 [rows][scales_each]. A row's codes end where it
// ends: whoever widens them in place writes from its begin on and never reaches a code unread.
#pragma once

#include "ops/matmul/panels.h"
#include "ops/quant_matmul/quant_panels.h"
#include "weights/fp8_panels.h"

namespace sluice {

struct Fp8Rows {
  int64_t row_bytes = 0, codes_at = 0;
  int64_t groups = 0, scales_each = 0;
  std::byte* data = nullptr;
  float* scales = nullptr;
};

static inline int64_t fp8_row_bytes(int64_t k) {
  return quant_row_bytes(QuantCodes::kFp8, k, kFp8Block);
}
// Whole lines.
static inline int64_t fp8_scales_each(int64_t k) {
  return (quant_groups(k, kFp8Block) + 15) / 16 * 16;
}
static inline int64_t fp8_row_floats(int64_t k) {
  return fp8_row_bytes(k) / 4 + fp8_scales_each(k);
}

static inline Fp8Rows fp8_rows(const PanelProduct& product) {
  Fp8Rows r;
  r.row_bytes = fp8_row_bytes(product.k);
  r.codes_at = r.row_bytes - (product.k + 63) / 64 * 64;
  r.groups = quant_groups(product.k, kFp8Block);
  r.scales_each = fp8_scales_each(product.k);
  r.data = reinterpret_cast<std::byte*>(product.prepared);
  r.scales = reinterpret_cast<float*>(r.data + product.row_count * r.row_bytes);
  return r;
}

}  // namespace sluice
