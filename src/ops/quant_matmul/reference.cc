#include <cstring>

#include "base/fp.h"
#include "ops/quant_matmul/kernels.h"
#include "ops/quant_matmul/quant_panels.h"

namespace sluice {
namespace {

float rounded(RoundTo to, float v) {
  if (to == RoundTo::kBF16) return round_to_bf16(v);
  return to == RoundTo::kF16 ? f16_to_f32(f32_to_f16(v)) : v;
}

template <int bits>
int32_t code_at(const std::byte* codes, int64_t k, int64_t c) {
  if constexpr (bits == 8) return static_cast<int32_t>(codes[k / 4 * 64 + 4 * c + k % 4]) - 128;
  const auto byte = static_cast<int32_t>(codes[k / 8 * 64 + 4 * c + k % 4]);
  return (k % 8 < 4 ? byte & 15 : byte >> 4) - 8;
}

template <int bits>
float product_at(const QuantProduct& p, int64_t t, int64_t n) {
  const std::byte* panel = p.panels + static_cast<size_t>(n / 16) * p.panel_bytes;
  const int8_t* x = p.x + t * p.x_stride;
  float y = 0;
  for (int64_t g = 0; g < quant_groups(p.k, p.group); ++g) {
    const std::byte* group = panel + quant_group_at(bits, p.group, g);
    float scale;
    std::memcpy(&scale, group + 4 * (n % 16), 4);
    int32_t sum = 0;
    for (int64_t k = 0; k < quant_group_k(p.k, p.group, g); ++k)
      sum += x[g * p.group + k] * code_at<bits>(group + 64, k, n % 16);
    const float term = (static_cast<float>(sum) * scale) * p.x_scale[t];
    y = g == 0 ? term : y + term;
  }
  return y;
}

void prepare(const QuantProduct&, int64_t, int64_t) {}

template <int bits>
void multiply(const QuantProduct& p) {
  const int64_t end = p.panel_end * 16 < p.n ? p.panel_end * 16 : p.n;
  for (int64_t t = 0; t < p.rows; ++t)
    for (int64_t n = p.panel_begin * 16; n < end; ++n)
      p.out[t * p.out_stride + n] = rounded(p.round, product_at<bits>(p, t, n));
}

}  // namespace

const QuantKernel quant_matmul_int8_int8_reference = {prepare, multiply<8>};
const QuantKernel quant_matmul_int8_int4_reference = {prepare, multiply<4>};

}  // namespace sluice
