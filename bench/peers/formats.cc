#include "formats.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "ops/matmul/pack.h"

namespace peers {
namespace {

using namespace sluice;

StoredMatrix stored(const float* w, int64_t n, int64_t k) {
  StoredMatrix m;
  m.data = reinterpret_cast<const std::byte*>(w);
  m.n = n;
  m.k = k;
  m.stride_n = k;
  return m;
}
template <WeightFormat format>
Result<PackedMatrix> pack_as(Device& device, const float* w, int64_t n, int64_t k) {
  return pack_matrix(device, stored(w, n, k), format);
}
template <WeightFormat format>
Result<PackedMatrix> pack_glu_as(Device& device, const float* gate, const float* up, int64_t i,
                                 int64_t k) {
  return pack_glu(device, stored(gate, i, k), stored(up, i, k), format);
}

// MXFP4 by its specification: the scale of 32 values is 2^(floor(log2 amax) - 2), each value the
// nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6 times it.
struct Mxfp4 {
  std::vector<std::byte> blocks, scales;
};
Mxfp4 quantise_mxfp4(const float* const* rows, int64_t n, int64_t k) {
  constexpr float kMidpoints[] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f};
  Mxfp4 q;
  q.blocks.resize(static_cast<size_t>(n * k / 2));
  q.scales.resize(static_cast<size_t>(n * k / 32));
  for (int64_t r = 0; r < n; ++r)
    for (int64_t b = 0; b < k / 32; ++b) {
      const float* x = rows[r] + 32 * b;
      float amax = 0;
      for (int j = 0; j < 32; ++j) amax = std::max(amax, std::fabs(x[j]));
      const int exponent = amax > 0 ? std::clamp(std::ilogb(amax) - 2, -127, 127) : -127;
      q.scales[static_cast<size_t>(r * (k / 32) + b)] = static_cast<std::byte>(exponent + 127);
      for (int j = 0; j < 32; ++j) {
        const float v = std::ldexp(std::fabs(x[j]), -exponent);
        const auto code = std::upper_bound(kMidpoints, std::end(kMidpoints), v) - kMidpoints;
        const int nibble = static_cast<int>(code) | (std::signbit(x[j]) ? 8 : 0);
        q.blocks[static_cast<size_t>((r * k + 32 * b + j) / 2)] |=
            static_cast<std::byte>(nibble << (j % 2 * 4));
      }
    }
  return q;
}
Result<PackedMatrix> pack_mxfp4_rows(Device& device, const float* w, int64_t n, int64_t k) {
  std::vector<const float*> rows;
  for (int64_t r = 0; r < n; ++r) rows.push_back(w + r * k);
  const Mxfp4 q = quantise_mxfp4(rows.data(), n, k);
  return pack_mxfp4(device, {q.blocks.data(), q.scales.data(), n, k});
}
Result<PackedMatrix> pack_mxfp4_glu(Device& device, const float* gate, const float* up, int64_t i,
                                    int64_t k) {
  std::vector<const float*> rows;
  for (int64_t r = 0; r < i; ++r) {
    rows.push_back(gate + r * k);
    rows.push_back(up + r * k);
  }
  const Mxfp4 q = quantise_mxfp4(rows.data(), 2 * i, k);
  return pack_mxfp4_glu_interleaved(device, {q.blocks.data(), q.scales.data(), 2 * i, k});
}

constexpr Format kFormats[] = {
    {"f32", Arith::kF32Fma, "f32_fma", "fma", pack_as<WeightFormat::kF32>,
     pack_glu_as<WeightFormat::kF32>},
    {"bf16", Arith::kBf16Tile, "bf16_tile", "bf16", pack_as<WeightFormat::kBF16>,
     pack_glu_as<WeightFormat::kBF16>},
    {"mxfp4", Arith::kBf16Tile, "bf16_tile", "bf16", pack_mxfp4_rows, pack_mxfp4_glu},
    {"int4", Arith::kInt, "int", "int8", pack_as<WeightFormat::kInt4>,
     pack_glu_as<WeightFormat::kInt4>},
    {"int8", Arith::kInt16, "int16", "int8", pack_as<WeightFormat::kInt8>,
     pack_glu_as<WeightFormat::kInt8>},
    {"q4_0", Arith::kA8G32, "a8g32", "int8", pack_as<WeightFormat::kQ4_0>,
     pack_glu_as<WeightFormat::kQ4_0>},
    {"q8_0", Arith::kA8G32, "a8g32", "int8", pack_as<WeightFormat::kQ8_0>,
     pack_glu_as<WeightFormat::kQ8_0>},
    {"q5_0", Arith::kA8G32, "a8g32", "int8", pack_as<WeightFormat::kQ5_0>,
     pack_glu_as<WeightFormat::kQ5_0>},
    {"q5_1", Arith::kA8G32, "a8g32", "int8", pack_as<WeightFormat::kQ5_1>,
     pack_glu_as<WeightFormat::kQ5_1>},
    {"q4_k", Arith::kA8G32, "a8g32", "int8", pack_as<WeightFormat::kQ4_K>,
     pack_glu_as<WeightFormat::kQ4_K>},
    {"q5_k", Arith::kA8G32, "a8g32", "int8", pack_as<WeightFormat::kQ5_K>,
     pack_glu_as<WeightFormat::kQ5_K>},
    {"q6_k", Arith::kA8G32, "a8g32", "int8", pack_as<WeightFormat::kQ6_K>,
     pack_glu_as<WeightFormat::kQ6_K>},
    {"iq4_nl", Arith::kA8G32, "a8g32", "int8", pack_as<WeightFormat::kIQ4_NL>,
     pack_glu_as<WeightFormat::kIQ4_NL>},
};

}  // namespace

const Format* find_format(const std::string& name) {
  for (const Format& f : kFormats)
    if (name == f.name) return &f;
  return nullptr;
}

}  // namespace peers
