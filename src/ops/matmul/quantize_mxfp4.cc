#include "ops/matmul/quantize_mxfp4.h"

#include <algorithm>
#include <cmath>

namespace sluice {
namespace {

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
  for (int64_t i = 0; i < kMxfp4K; ++i) {
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
  for (int64_t i = 0; i < kMxfp4K; ++i) most = std::max(most, std::fabs(w[i]));
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

void write_mxfp4(const Mxfp4Block& block, int64_t c, std::byte* out) {
  out[c] = std::byte{block.scale};
  for (int64_t j = 0; j < kMxfp4K / 2; ++j)
    out[kPanelColumns * (j + 1) + c] =
        static_cast<std::byte>(block.code[2 * j] | block.code[2 * j + 1] << 4);
}

}  // namespace sluice
