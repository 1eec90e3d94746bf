// Scalar truth of arith a8g32, from x and the panels as they are.
#include <cmath>

#include "ops/matmul/block_values.h"
#include "ops/matmul/int_reference.h"
#include "ops/matmul/reference_loop.h"
#include "weights/block_panels.h"

namespace sluice {
namespace {

template <WeightFormat format>
float dot_a8g32(const PanelProduct& product, const float* x, const std::byte* panel, int64_t c) {
  float acc = 0;
  for (int64_t g = 0; g < block_groups(product.k); ++g) {
    const int64_t left = product.k - g * kGroupK, count = left < kGroupK ? left : kGroupK;
    const IntRowBlock row = quantize_row(x + g * kGroupK, count);
    const GroupColumn column = read_group(format, panel, product.k, product.block, c, g);
    int32_t sum = 0, codes = 0;
    for (int64_t i = 0; i < count; ++i) {
      sum += row.code[i] * column.value[i] * column.multiplier[i / 16];
      codes += row.code[i];
    }
    acc = std::fma(static_cast<float>(sum) * row.scale, column.scale, acc);
    if (!column.has_min) continue;
    const auto least = static_cast<float>(codes * column.min_multiplier);
    acc = std::fma(least * row.scale, -column.min, acc);
  }
  return acc;
}

}  // namespace

#define SLUICE_BLOCK_FORMAT(name, format)            \
  const PanelKernel matmul_int8_##name##_reference = \
      kReferenceKernel<dot_a8g32<WeightFormat::format>>;
#include "ops/matmul/block_formats.inc"
#undef SLUICE_BLOCK_FORMAT
const PanelKernel matmul_int8_mxfp4_reference = kReferenceKernel<dot_a8g32<WeightFormat::kMXFP4>>;

}  // namespace sluice
