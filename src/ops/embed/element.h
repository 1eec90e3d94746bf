// One element of the embedding table, scalar: the definition that every form repeats.
#pragma once

#include <cstring>

#include "base/fp.h"
#include "ops/embed/kernels.h"

namespace sluice {

SLUICE_HD inline uint16_t read_u16(const std::byte* p) {
  uint16_t v = 0;
  std::memcpy(&v, p, 2);
  return v;
}
SLUICE_HD inline float read_f32(const std::byte* p) {
  float v = 0;
  std::memcpy(&v, p, 4);
  return v;
}

// Element k of token id, at any alignment, widened exactly.
SLUICE_HD inline float embed_element(const EmbedRows& a, int64_t id, int64_t k) {
  const std::byte* row = a.table + static_cast<size_t>(id) * a.group_bytes;
  const std::byte* panel = a.table + static_cast<size_t>(id / 16) * a.group_bytes;
  const int64_t column = id % 16;
  switch (a.form) {
    case EmbedForm::kRowF32:
      return read_f32(row + 4 * k);
    case EmbedForm::kRowF16:
      return f16_to_f32(read_u16(row + 2 * k));
    case EmbedForm::kRowBF16:
      return static_cast<float>(bf16::from_bits(read_u16(row + 2 * k)));
    case EmbedForm::kPanelF32:
      return read_f32(panel + (k * 16 + column) * 4);
    case EmbedForm::kPanelBF16:
      break;
  }
  const int64_t at = (k / 2 * 16 + column) * 2 + k % 2;
  return static_cast<float>(bf16::from_bits(read_u16(panel + 2 * at)));
}

}  // namespace sluice
