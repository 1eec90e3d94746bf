// Scalar truth of the float ariths over low-bit panels: f32_fma of the weights as f32, bf16_tile of
// the same rounded once to bf16.
#include <cmath>

#include "base/fp.h"
#include "ops/matmul/block_values.h"
#include "ops/matmul/reference_loop.h"

namespace sluice {
namespace {

template <WeightFormat format, Arith arith>
float dot(const PanelProduct& product, const float* x, const std::byte* panel, int64_t c) {
  float acc = 0;
  for (int64_t k0 = 0; k0 < product.k; k0 += 32) {
    const GroupColumn w = read_group(format, panel, product.k, product.block, c, k0 / 32);
    const int64_t count = product.k - k0 < 32 ? product.k - k0 : 32;
    if constexpr (arith == Arith::kF32Fma) {
      for (int64_t i = 0; i < count; ++i) acc = std::fma(x[k0 + i], w.weight(i), acc);
    } else {
      float sum[2] = {0, 0};  // over even k, over odd k
      for (int64_t i = 0; i < 32; ++i)
        sum[i % 2] = std::fma(i < count ? round_to_bf16(x[k0 + i]) : 0.0f,
                              round_to_bf16(w.weight(i)), sum[i % 2]);
      acc = acc + (sum[0] + sum[1]);
    }
  }
  return acc;
}

}  // namespace

#define SLUICE_BLOCK_FORMAT(name, format)                          \
  const PanelKernel matmul_f32_##name##_reference =                \
      kReferenceKernel<dot<WeightFormat::format, Arith::kF32Fma>>; \
  const PanelKernel matmul_bf16_##name##_reference =               \
      kReferenceKernel<dot<WeightFormat::format, Arith::kBf16Tile>>;
#include "ops/matmul/a16_formats.inc"
#undef SLUICE_BLOCK_FORMAT

}  // namespace sluice
