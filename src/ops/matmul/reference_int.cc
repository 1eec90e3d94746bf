// Scalar truth of ariths `int` and `int16`, from x and the panels as they are.
#include <cmath>

#include "base/fp.h"
#include "device/block.h"
#include "ops/matmul/int_reference.h"
#include "ops/matmul/reference_loop.h"
#include "weights/int_panels.h"

namespace sluice {
namespace {

// Column c of a block: the integers and the scale.
struct ColumnBlock {
  int32_t value[kIntBlock] = {};
  float scale = 0;
};

template <WeightFormat format>
ColumnBlock read(const std::byte* block, int64_t c, int64_t groups) {
  ColumnBlock out;
  if constexpr (format == WeightFormat::kInt8) {
    out.scale = load_as<float>(block + 4 * c);
    const std::byte* codes = block + kInt8CodesAt;
    for (int64_t k = 0; k < groups * kIntGroup; ++k)
      out.value[k] = static_cast<int32_t>(codes[k / 4 * 64 + 4 * c + k % 4]) - 128;
  } else {
    out.scale = static_cast<float>(bf16::from_bits(load_as<uint16_t>(block + 2 * c)));
    const std::byte* codes = block + int4_codes_at(groups);
    for (int64_t k = 0; k < groups * kIntGroup; ++k) {
      const int64_t g = k / kIntGroup;
      const auto zeros = load_as<uint16_t>(block + kInt4ZeroAt + 2 * g);
      const auto eight = load_as<uint32_t>(block + kInt4MultiplierAt + g / 8 * 64 + 4 * c);
      const auto byte = static_cast<int32_t>(codes[k / 8 * 64 + 4 * c + k % 4]);
      const int32_t code = k % 8 < 4 ? byte & 15 : byte >> 4;
      const auto multiplier = static_cast<int32_t>(eight >> (g % 8 * 4) & 15);
      out.value[k] = multiplier * (code - ((zeros >> c & 1) != 0 ? 7 : 8));
    }
  }
  return out;
}

template <WeightFormat format>
float dot_int(const PanelProduct& product, const float* x, const std::byte* panel, int64_t c) {
  float acc = 0;
  for (int64_t k0 = 0; k0 < product.k; k0 += product.block) {
    const int64_t count = product.k - k0 < product.block ? product.k - k0 : product.block;
    const int64_t groups = int_groups(count);
    const IntRowBlock row = quantize_row<format == WeightFormat::kInt8>(x + k0, count);
    const ColumnBlock column = read<format>(panel, c, groups);
    int32_t sum = 0;
    for (int64_t k = 0; k < count; ++k) sum += row.code[k] * column.value[k];
    const float scaled = static_cast<float>(sum) * row.scale;
    acc = std::fma(scaled, column.scale, acc);
    panel += format == WeightFormat::kInt4 ? int4_block_bytes(groups) : int8_block_bytes(groups);
  }
  return acc;
}

}  // namespace

const PanelKernel matmul_int8_int4_reference = kReferenceKernel<dot_int<WeightFormat::kInt4>>;
const PanelKernel matmul_int16_int8_reference = kReferenceKernel<dot_int<WeightFormat::kInt8>>;

}  // namespace sluice
