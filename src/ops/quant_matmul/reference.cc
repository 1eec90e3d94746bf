#include <cmath>
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

float x_scale(const QuantProduct& p, int64_t t, int64_t g) {
  return p.x_scale.data[t * p.x_scale.row_stride + g * p.x_scale.group_stride];
}

template <int bits>
float product_at(const QuantProduct& p, int64_t t, int64_t n) {
  const std::byte* panel = p.panels + static_cast<size_t>(n / 16) * p.panel_bytes;
  const int8_t* x = p.x + t * p.x_stride;
  constexpr QuantCodes codes = bits == 8 ? QuantCodes::kInt8 : QuantCodes::kInt4;
  float y = 0;
  for (int64_t g = 0; g < quant_groups(p.k, p.group); ++g) {
    const std::byte* group = panel + quant_group_at(codes, p.group, g);
    float scale;
    std::memcpy(&scale, group + 4 * (n % 16), 4);
    int32_t sum = 0;
    for (int64_t k = 0; k < quant_group_k(p.k, p.group, g); ++k)
      sum += x[g * p.group + k] * code_at<bits>(group + 64, k, n % 16);
    const float term = (static_cast<float>(sum) * scale) * x_scale(p, t, g);
    y = g == 0 ? term : y + term;
  }
  return y;
}

float fp8_product_at(const QuantProduct& p, int64_t t, int64_t n) {
  const std::byte* panel = p.panels + static_cast<size_t>(n / 16) * p.panel_bytes;
  const auto* x = reinterpret_cast<const uint8_t*>(p.x + t * p.x_stride);
  float y = 0;
  for (int64_t g = 0; g < quant_groups(p.k, p.group); ++g) {
    const std::byte* group = panel + quant_group_at(QuantCodes::kFp8, p.group, g);
    float scale, sum = 0;
    std::memcpy(&scale, group + 4 * (n % 16), 4);
    const int64_t count = quant_group_k(p.k, p.group, g);
    for (int64_t k0 = 0; k0 < count; k0 += 32) {
      float part[2] = {0, 0};  // over even k, over odd k
      for (int64_t k = k0; k < count && k < k0 + 32; ++k)
        part[k % 2] =
            std::fma(e4m3_to_f32(x[g * p.group + k]),
                     e4m3_to_f32(static_cast<uint8_t>(group[64 + 16 * k + n % 16])), part[k % 2]);
      sum = sum + (part[0] + part[1]);
    }
    const float term = (sum * x_scale(p, t, g)) * scale;
    y = g == 0 ? term : y + term;
  }
  return y;
}

void prepare(const QuantProduct&, int64_t, int64_t) {}

template <auto product>
void multiply(const QuantProduct& p) {
  const int64_t end = p.panel_end * 16 < p.n ? p.panel_end * 16 : p.n;
  for (int64_t t = 0; t < p.rows; ++t)
    for (int64_t n = p.panel_begin * 16; n < end; ++n)
      p.out[t * p.out_stride + n] = rounded(p.round, product(p, t, n));
}

}  // namespace

const QuantKernel quant_matmul_int8_int8_reference = {prepare, multiply<product_at<8>>};
const QuantKernel quant_matmul_int8_int4_reference = {prepare, multiply<product_at<4>>};
const QuantKernel quant_matmul_fp8_fp8_reference = {prepare, multiply<fp8_product_at>};

}  // namespace sluice
