// unpack_panel: what packed_element says, sixteen columns at a time.
#include <cstring>

#include "base/fp.h"
#include "device/block.h"
#include "ops/matmul/block_values.h"
#include "ops/matmul/pack_fp8.h"
#include "weights/int_panels.h"

namespace sluice {
namespace {

constexpr int64_t kColumns = kPanelColumns;

float load_bf16(const std::byte* p) {
  return static_cast<float>(bf16::from_bits(load_as<uint16_t>(p)));
}

void unpack_bf16(const std::byte* p, int64_t k, float* out) {
  for (int64_t i = 0; i < k; ++i)
    for (int64_t c = 0; c < kColumns; ++c)
      out[i * kColumns + c] = load_bf16(p + ((i / 2 * kColumns + c) * 2 + (i & 1)) * 2);
}

void unpack_mxfp4(const std::byte* p, int64_t k, float* out) {
  float values[16];
  for (int code = 0; code < 16; ++code) values[code] = e2m1_to_f32(static_cast<uint8_t>(code));
  for (int64_t first = 0; first < k; first += 32, p += kColumns * 17) {
    for (int64_t c = 0; c < kColumns; ++c) {
      const float scale = e8m0_to_f32(load_as<uint8_t>(p + c));
      for (int64_t j = 0; j < 16; ++j) {
        const auto pair = static_cast<unsigned>(p[kColumns + j * kColumns + c]);
        float* to = out + (first + 2 * j) * kColumns + c;
        to[0] = values[pair & 15] * scale;
        to[kColumns] = values[pair >> 4] * scale;
      }
    }
  }
}

void unpack_fp8(const std::byte* p, int64_t k, float* out) {
  for (int64_t i = 0; i < k; ++i)
    for (int64_t c = 0; c < kColumns; ++c) out[i * kColumns + c] = fp8_element(p, c, i);
}

void unpack_int8_block(const std::byte* p, int64_t count, float* out) {
  for (int64_t k = 0; k < count; ++k)
    for (int64_t c = 0; c < kColumns; ++c)
      out[k * kColumns + c] =
          load_as<float>(p + c * 4) *
          static_cast<float>(static_cast<int>(p[kInt8CodesAt + k / 4 * 64 + c * 4 + k % 4]) - 128);
}

void unpack_int4_block(const std::byte* p, int64_t count, int64_t groups, float* out) {
  const std::byte* codes = p + int4_codes_at(groups);
  for (int64_t c = 0; c < kColumns; ++c) {
    const float scale = load_bf16(p + c * 2);
    for (int64_t k0 = 0, g = 0; k0 < count; k0 += kIntGroup, ++g) {
      const bool seven = (load_as<uint16_t>(p + kInt4ZeroAt + g * 2) >> c & 1) != 0;
      const auto multipliers =
          static_cast<unsigned>(p[kInt4MultiplierAt + g / 8 * 64 + c * 4 + g % 8 / 2]);
      const int multiplier = static_cast<int>(multipliers >> (g % 2 * 4) & 15);
      for (int64_t k = k0; k < count && k < k0 + kIntGroup; ++k) {
        const auto pair = static_cast<unsigned>(codes[k / 8 * 64 + c * 4 + k % 4]);
        const int code = static_cast<int>(pair >> (k % 8 / 4 * 4) & 15) - (seven ? 7 : 8);
        out[k * kColumns + c] = scale * static_cast<float>(multiplier) * static_cast<float>(code);
      }
    }
  }
}

void unpack_int(const PackedMatrix& w, const std::byte* p, float* out) {
  for (int64_t first = 0; first < w.k; first += w.block) {
    const int64_t count = w.k - first < w.block ? w.k - first : w.block;
    const int64_t groups = int_groups(count);
    if (w.format == WeightFormat::kInt8)
      unpack_int8_block(p, count, out + first * kColumns);
    else
      unpack_int4_block(p, count, groups, out + first * kColumns);
    p += w.format == WeightFormat::kInt8 ? int8_block_bytes(groups) : int4_block_bytes(groups);
  }
}

void unpack_blocks(const PackedMatrix& w, const std::byte* p, float* out) {
  for (int64_t g = 0; g < ceil_div(w.k, 32); ++g)
    for (int64_t c = 0; c < kColumns; ++c) {
      const GroupColumn column = read_group(w.format, p, w.k, w.block, c, g);
      for (int64_t i = 0; i < 32 && 32 * g + i < w.k; ++i)
        out[(32 * g + i) * kColumns + c] = column.weight(i);
    }
}

}  // namespace

void unpack_panel(const PackedMatrix& w, int64_t panel, float* out) {
  const std::byte* p = w.data + static_cast<size_t>(panel) * panel_bytes(w.format, w.k, w.block);
  if (w.format == WeightFormat::kF32)
    std::memcpy(out, p, static_cast<size_t>(w.k * kColumns) * sizeof(float));
  else if (w.format == WeightFormat::kBF16)
    unpack_bf16(p, w.k, out);
  else if (w.format == WeightFormat::kMXFP4)
    unpack_mxfp4(p, w.k, out);
  else if (w.format == WeightFormat::kFP8)
    unpack_fp8(p, w.k, out);
  else if (is_block_format(w.format))
    unpack_blocks(w, p, out);
  else
    unpack_int(w, p, out);
}

}  // namespace sluice
