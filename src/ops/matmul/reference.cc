// Scalar truth: the float ariths in their written order, from x and the panels as they are.
#include <cmath>
#include <cstring>

#include "base/fp.h"
#include "ops/matmul/reference_loop.h"
#include "weights/fp8_panels.h"

namespace sluice {
namespace {

constexpr int64_t kBlock = 32;

float load_f32(const std::byte* p) {
  float v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

// Column c of block b of a panel, widened exactly (fp8: code times scale, rounded to f32); k past K
// is zero where the panel is padded.
template <WeightFormat format>
void read_weights(const std::byte* panel, int64_t c, int64_t b, int64_t count, float* w) {
  if constexpr (format == WeightFormat::kF32) {
    for (int64_t i = 0; i < count; ++i) w[i] = load_f32(panel + ((b * kBlock + i) * 16 + c) * 4);
  } else if constexpr (format == WeightFormat::kBF16) {
    for (int64_t i = 0; i < count; ++i) {
      uint16_t bits;
      std::memcpy(&bits, panel + (((b * kBlock + i) / 2 * 16 + c) * 2 + (i & 1)) * 2, 2);
      w[i] = static_cast<float>(bf16::from_bits(bits));
    }
  } else if constexpr (format == WeightFormat::kFP8) {
    const std::byte* codes = panel + fp8_codes_at(b * kBlock);
    const float scale = load_f32(panel + fp8_scales_at(b * kBlock) + 4 * c);
    for (int64_t i = 0; i < count; ++i)
      w[i] = e4m3_to_f32(static_cast<uint8_t>(codes[i * 16 + c])) * scale;
  } else {
    const std::byte* block = panel + b * 16 * 17;
    const float scale = e8m0_to_f32(static_cast<uint8_t>(block[c]));
    for (int64_t i = 0; i < count; ++i) {
      const auto pair = static_cast<uint8_t>(block[16 + i / 2 * 16 + c]);
      w[i] = e2m1_to_f32((i & 1) != 0 ? pair >> 4 : pair & 15) * scale;
    }
  }
}

template <WeightFormat format>
float dot_f32_fma(const PanelProduct& product, const float* x, const std::byte* panel, int64_t c) {
  const int64_t k = product.k;
  float acc = 0, w[kBlock];
  for (int64_t k0 = 0; k0 < k; k0 += kBlock) {
    const int64_t count = k - k0 < kBlock ? k - k0 : kBlock;
    read_weights<format>(panel, c, k0 / kBlock, count, w);
    for (int64_t i = 0; i < count; ++i) acc = std::fma(x[k0 + i], w[i], acc);
  }
  return acc;
}

template <WeightFormat format>
float dot_bf16_tile(const PanelProduct& product, const float* x, const std::byte* panel,
                    int64_t c) {
  const int64_t k = product.k;
  float acc = 0, w[kBlock];
  for (int64_t k0 = 0; k0 < k; k0 += kBlock) {
    read_weights<format>(panel, c, k0 / kBlock, kBlock, w);
    if constexpr (format == WeightFormat::kFP8)
      for (float& v : w) v = round_to_bf16(v);
    float e = 0, o = 0;
    for (int64_t i = 0; i < kBlock; i += 2) {
      const float xe = k0 + i < k ? round_to_bf16(x[k0 + i]) : 0.0f;
      const float xo = k0 + i + 1 < k ? round_to_bf16(x[k0 + i + 1]) : 0.0f;
      e = std::fma(xe, w[i], e);
      o = std::fma(xo, w[i + 1], o);
    }
    acc = acc + (e + o);
  }
  return acc;
}

template <WeightFormat format>
float dot_bf16_dot(const PanelProduct& product, const float* x, const std::byte* panel, int64_t c) {
  const int64_t k = product.k;
  float acc = 0, w[kBlock];
  for (int64_t k0 = 0; k0 < k; k0 += kBlock) {
    read_weights<format>(panel, c, k0 / kBlock, kBlock, w);
    for (int64_t i = 0; i < kBlock; i += 2) {
      const float xe = k0 + i < k ? round_to_bf16(x[k0 + i]) : 0.0f;
      const float xo = k0 + i + 1 < k ? round_to_bf16(x[k0 + i + 1]) : 0.0f;
      acc = std::fma(xe, w[i], std::fma(xo, w[i + 1], acc));
    }
  }
  return acc;
}

}  // namespace

void store_tile_reference(const PanelTile& tile) {
  const PanelProduct& product = *tile.product;
  for (int64_t r = 0; r < tile.rows; ++r)
    for (int64_t p = 0; p < tile.panels; ++p) {
      const PanelColumns columns = panel_columns(product, tile.panel + p);
      const float* acc = tile.acc + (r * tile.panels + p) * 16;
      float* out = product.out + (tile.row + r) * product.out_stride + columns.first;
      for (int64_t c = 0; c < columns.count; ++c)
        out[c] = product.bias != nullptr ? acc[c] + product.bias[columns.first + c] : acc[c];
    }
}

using enum WeightFormat;
using enum Arith;
const PanelKernel matmul_f32_f32_reference = kReferenceKernel<dot_f32_fma<kF32>>;
const PanelKernel matmul_f32_bf16_reference = kReferenceKernel<dot_f32_fma<kBF16>>;
const PanelKernel matmul_f32_mxfp4_reference = kReferenceKernel<dot_f32_fma<kMXFP4>>;
const PanelKernel matmul_f32_fp8_reference = kReferenceKernel<dot_f32_fma<kFP8>>;
const PanelKernel matmul_bf16_fp8_reference = kReferenceKernel<dot_bf16_tile<kFP8>>;
const PanelKernel matmul_bf16_bf16_reference = kReferenceKernel<dot_bf16_tile<kBF16>>;
const PanelKernel matmul_bf16_mxfp4_reference = kReferenceKernel<dot_bf16_tile<kMXFP4>>;
const PanelKernel matmul_bf16_bf16_dot_reference = kReferenceKernel<dot_bf16_dot<kBF16>>;
const PanelKernel matmul_bf16_mxfp4_dot_reference = kReferenceKernel<dot_bf16_dot<kMXFP4>>;

}  // namespace sluice
