#include "ops/matmul/quantize_mxfp4.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/fp.h"
#include "ops/matmul/pack.h"

namespace sluice {
namespace {

constexpr int64_t kBlock = 32, kColumns = kPanelColumns;
constexpr float kMagnitudes[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};

// The nearest code of |v|; ties to the even one.
uint8_t nearest_magnitude(float v) {
  uint8_t code = 0;
  while (code < 7) {
    const float middle = (kMagnitudes[code] + kMagnitudes[code + 1]) / 2;
    if (v < middle || (v == middle && code % 2 == 0)) break;
    ++code;
  }
  return code;
}

double quantize_at(const float* w, int exponent, Mxfp4Block* out) {
  out->scale = static_cast<uint8_t>(exponent + 127);
  const double scale = std::ldexp(1.0, exponent), inverse = std::ldexp(1.0, -exponent);
  double error = 0;
  for (int64_t i = 0; i < kBlock; ++i) {
    const auto magnitude = std::fabs(static_cast<double>(w[i])) * inverse;
    // A saturated value needs no digits; what is left fits f32.
    const uint8_t code = nearest_magnitude(static_cast<float>(std::min(magnitude, 8.0)));
    out->code[i] = code != 0 && w[i] < 0 ? code | 8 : code;
    const double lost = (magnitude - kMagnitudes[code]) * scale;
    error += lost * lost;
  }
  return error;
}

}  // namespace

Mxfp4Block quantize_mxfp4(const float* w, bool search) {
  float most = 0;
  for (int64_t i = 0; i < kBlock; ++i) most = std::max(most, std::fabs(w[i]));
  Mxfp4Block best;
  if (most == 0) return best;
  int exponent = 0;
  std::frexp(most, &exponent);  // most = f * 2^exponent, f in [0.5, 1)
  const int plain = std::clamp(exponent - 1 - 2, -127, 127);
  double least = quantize_at(w, plain, &best);
  if (!search) return best;
  for (const int other : {plain + 1, plain - 1}) {
    if (other < -127 || other > 127) continue;
    Mxfp4Block block;
    const double error = quantize_at(w, other, &block);
    if (error < least || (error == least && block.scale < best.scale)) {
      least = error;
      best = block;
    }
  }
  return best;
}

Status requantize_mxfp4(const PackedMatrix& exact, bool search, std::byte* out) {
  if (exact.format != WeightFormat::kF32 || exact.layout == WeightLayout::kRowMajor)
    return invalid_argument("quantize: mxfp4: expected panels of f32, got {} of {}",
                            weight_layout_name(exact.layout), weight_format_name(exact.format));
  if (exact.k % kBlock != 0)
    return invalid_argument("quantize: mxfp4: K: expected a multiple of 32, got {}", exact.k);
  std::vector<float> values(static_cast<size_t>(exact.k * kColumns));
  for (int64_t p = 0; p < exact.panels(); ++p) {
    unpack_panel(exact, p, values.data());
    for (int64_t k0 = 0; k0 < exact.k; k0 += kBlock, out += kColumns * 17) {
      for (int64_t c = 0; c < kColumns; ++c) {
        float w[kBlock];
        for (int64_t i = 0; i < kBlock; ++i) {
          w[i] = values[static_cast<size_t>((k0 + i) * kColumns + c)];
          if (!std::isfinite(w[i]))
            return data_loss("quantize: mxfp4: panel {}, column {}, K = {} is {}", p, c, k0 + i,
                             w[i]);
        }
        const Mxfp4Block block = quantize_mxfp4(w, search);
        out[c] = std::byte{block.scale};
        for (int64_t j = 0; j < kBlock / 2; ++j)
          out[kColumns + j * kColumns + c] =
              static_cast<std::byte>(block.code[2 * j] | block.code[2 * j + 1] << 4);
      }
    }
  }
  return ok_status();
}

}  // namespace sluice
