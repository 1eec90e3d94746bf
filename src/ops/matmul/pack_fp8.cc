#include "ops/matmul/pack_fp8.h"

#include <cmath>
#include <cstring>

#include "base/float_env.h"
#include "base/fp.h"
#include "weights/fp8_panels.h"

namespace sluice {
namespace {

constexpr float kLeastScale = 0x1p-100f, kMostScale = 0x1p100f;

void put_scale(std::byte* panel, int64_t k0, int64_t c, float scale) {
  std::memcpy(panel + fp8_scales_at(k0) + 4 * c, &scale, 4);
}
std::byte& code_at(std::byte* panel, int64_t k, int64_t c) {
  return panel[fp8_codes_at(k / 32 * 32) + k % 32 * 16 + c];
}

Status keep_column(const StoredMatrix& m, int64_t n, int64_t c, std::byte* out) {
  const std::byte* row = m.data + n * m.stride_n;
  for (int64_t k0 = 0; k0 < m.k; k0 += kFp8Block) {
    float scale = 1.0f;
    if (m.scale != nullptr)
      scale = m.scale[(n / m.scale_block_n) * m.scale_cols + k0 / m.scale_block_k];
    const float magnitude = std::fabs(scale);
    if (scale != 0 && !(magnitude >= kLeastScale && magnitude <= kMostScale))
      return data_loss(
          "pack: fp8: the scale of row N = {}, K = {}: expected 0 or from 2^-100 to "
          "2^100, got {}",
          n, k0, scale);
    put_scale(out, k0, c, scale);
    const int64_t end = m.k - k0 < kFp8Block ? m.k : k0 + kFp8Block;
    for (int64_t k = k0; k < end; ++k) {
      const std::byte code = row[k * m.stride_k];
      if ((code & std::byte{0x7f}) == std::byte{0x7f})
        return data_loss("pack: fp8: element (N, K) = ({}, {}) is NaN", n, k);
      code_at(out, k, c) = code;
    }
  }
  return ok_status();
}

Status quantize_column(const StoredMatrix& m, int64_t n, int64_t c, std::byte* out) {
  for (int64_t k0 = 0; k0 < m.k; k0 += kFp8Block) {
    const int64_t count = m.k - k0 < kFp8Block ? m.k - k0 : kFp8Block;
    float w[kFp8Block];
    read_stored_row(m, n, k0, count, w);
    float amax = 0;
    for (int64_t i = 0; i < count; ++i) {
      if (!std::isfinite(w[i]))
        return data_loss("pack: fp8: element (N, K) = ({}, {}) is {}", n, k0 + i, w[i]);
      amax = std::fabs(w[i]) > amax ? std::fabs(w[i]) : amax;
    }
    float scale = amax / 448.0f;
    if (scale > kMostScale)
      return data_loss("pack: fp8: row N = {}, K = {}: magnitudes up to {} are too large", n, k0,
                       amax);
    if (scale < kLeastScale) scale = 0;
    put_scale(out, k0, c, scale);
    for (int64_t i = 0; scale != 0 && i < count; ++i)
      code_at(out, k0 + i, c) = std::byte{f32_to_e4m3(w[i] / scale)};
  }
  return ok_status();
}

}  // namespace

bool keeps_fp8_codes(const StoredMatrix& m) {
  return m.dtype == DType::kF8E4M3 &&
         (m.scale == nullptr || m.scale_block_k % kFp8Block == 0 || m.scale_block_k >= m.k);
}

Status pack_fp8_panel(const StoredMatrix& m, int64_t first, int64_t count, std::byte* out) {
  const ScopedFloatEnv env;  // the same codes whether a pool's worker calls or not
  const bool keep = keeps_fp8_codes(m);
  for (int64_t c = 0; c < count; ++c)
    SLUICE_RETURN_IF_ERROR(keep ? keep_column(m, first + c, c, out)
                                : quantize_column(m, first + c, c, out));
  return ok_status();
}

float fp8_element(const std::byte* panel, int64_t c, int64_t k) {
  float scale;
  std::memcpy(&scale, panel + fp8_scales_at(k) + 4 * c, 4);
  const std::byte code = panel[fp8_codes_at(k / 32 * 32) + k % 32 * 16 + c];
  return e4m3_to_f32(static_cast<uint8_t>(code)) * scale;
}

}  // namespace sluice
