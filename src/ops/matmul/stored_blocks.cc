#include "ops/matmul/stored_blocks.h"

#include <cmath>
#include <cstring>

#include "base/fp.h"
#include "device/block.h"
#include "weights/block_panels.h"

namespace sluice {
namespace {

unsigned byte_at(const std::byte* p, int64_t i) {
  return static_cast<unsigned>(p[i]);
}

// The low nibbles of 16 bytes are weights 0..15, the high ones 16..31.
void read_halves(const std::byte* nibbles, uint8_t* code) {
  for (int64_t i = 0; i < 16; ++i) {
    code[i] = static_cast<uint8_t>(byte_at(nibbles, i) & 15);
    code[16 + i] = static_cast<uint8_t>(byte_at(nibbles, i) >> 4);
  }
}

// Bit i of 32: the fifth bit of code i.
void add_fifth_bits(uint32_t bits, uint8_t* code) {
  for (int64_t i = 0; i < 32; ++i) code[i] = static_cast<uint8_t>(code[i] | (bits >> i & 1u) << 4);
}

// One stored block of a format with a scale per 32: group g of the column.
void read_small(WeightFormat format, const std::byte* p, int64_t g, BlockColumn* out) {
  uint8_t* code = out->code + 32 * g;
  out->scale[g] = load_as<uint16_t>(p);
  p += 2;
  switch (format) {
    case WeightFormat::kQ8_0:
      for (int64_t i = 0; i < 32; ++i) code[i] = static_cast<uint8_t>(byte_at(p, i) ^ 128);
      break;
    case WeightFormat::kQ5_1:
      out->min[g] = load_as<uint16_t>(p);
      p += 2;
      [[fallthrough]];
    case WeightFormat::kQ5_0:
      read_halves(p + 4, code);
      add_fifth_bits(load_as<uint32_t>(p), code);
      break;
    default:
      read_halves(p, code);
      break;
  }
}

// A stored block of q4_k or q5_k: d, dmin, 12 bytes of multipliers, q5_k's fifth bits, nibbles.
void read_six(WeightFormat format, const std::byte* p, BlockColumn* out) {
  out->scale[0] = load_as<uint16_t>(p);
  out->min[0] = load_as<uint16_t>(p + 2);
  const std::byte* s = p + 4;
  for (int64_t j = 0; j < 8; ++j) {
    const bool low = j < 4;
    out->multiplier[j] = static_cast<uint8_t>(
        low ? byte_at(s, j) & 63 : (byte_at(s, j + 4) & 15) | byte_at(s, j - 4) >> 6 << 4);
    out->min_multiplier[j] = static_cast<uint8_t>(
        low ? byte_at(s, j + 4) & 63 : byte_at(s, j + 4) >> 4 | byte_at(s, j) >> 6 << 4);
  }
  const bool five = format == WeightFormat::kQ5_K;
  const std::byte *fifth = p + 16, *nibbles = five ? p + 48 : p + 16;
  for (int64_t g = 0; g < 8; ++g)
    for (int64_t i = 0; i < 32; ++i) {
      unsigned code = byte_at(nibbles, g / 2 * 32 + i) >> (g % 2 * 4) & 15;
      if (five) code |= (byte_at(fifth, i) >> g & 1) << 4;
      out->code[32 * g + i] = static_cast<uint8_t>(code);
    }
}

// A stored block of q6_k: low nibbles, upper pairs, 16 multipliers, d. Halves of 128 codes, in each
// 64 bytes of nibbles and 32 of pairs for four runs of 32.
void read_q6_k(const std::byte* p, BlockColumn* out) {
  out->scale[0] = load_as<uint16_t>(p + 208);
  std::memcpy(out->half_multiplier, p + 192, 16);
  for (int64_t k = 0; k < 256; ++k) {
    const int64_t half = k / 128, run = k % 128 / 32, i = k % 32;
    const unsigned low = byte_at(p, half * 64 + run % 2 * 32 + i) >> (run / 2 * 4) & 15;
    const unsigned high = byte_at(p, 128 + half * 32 + i) >> (run * 2) & 3;
    out->code[k] = static_cast<uint8_t>(low | high << 4);
  }
}

float quantize_q8_0(const float* w, std::byte* out) {
  float amax = 0;
  for (int64_t i = 0; i < 32; ++i) amax = std::fmax(amax, std::fabs(w[i]));
  const float d = amax / 127, inverse = d != 0 ? 1.0f / d : 0.0f;
  for (int64_t i = 0; i < 32; ++i)
    out[2 + i] = static_cast<std::byte>(static_cast<int>(std::round(w[i] * inverse)));
  return d;
}

float quantize_q4_0(const float* w, std::byte* out) {
  float amax = 0, most = 0;
  for (int64_t i = 0; i < 32; ++i)
    if (std::fabs(w[i]) > amax) amax = std::fabs(w[i]), most = w[i];
  const float d = most / -8, inverse = d != 0 ? 1.0f / d : 0.0f;
  const auto code = [&](float v) {
    const int c = static_cast<int>(v * inverse + 8.5f);
    return c < 15 ? c : 15;
  };
  for (int64_t i = 0; i < 16; ++i)
    out[2 + i] = static_cast<std::byte>(code(w[i]) | code(w[16 + i]) << 4);
  return d;
}

void write_scales(GroupScales kind, const BlockColumn& column, int64_t c, int64_t groups,
                  std::byte* block) {
  switch (kind) {
    case GroupScales::kF16:
      for (int64_t g = 0; g < groups; ++g) store_as(block + 32 * g + 2 * c, column.scale[g]);
      break;
    case GroupScales::kF16Min:
      for (int64_t g = 0; g < groups; ++g) {
        store_as(block + 64 * g + 2 * c, column.scale[g]);
        store_as(block + 64 * g + kMinAt + 2 * c, column.min[g]);
      }
      break;
    case GroupScales::kSix: {
      store_as(block + 2 * c, column.scale[0]);
      store_as(block + kMinAt + 2 * c, column.min[0]);
      uint32_t low = 0, low_min = 0, high = 0;
      for (int64_t g = 0; g < groups; ++g) {
        const uint32_t m = column.multiplier[g], q = column.min_multiplier[g];
        low |= (m & 15) << (4 * g);
        low_min |= (q & 15) << (4 * g);
        high |= m >> 4 << (2 * g) | q >> 4 << (16 + 2 * g);
      }
      store_as(block + 64 + 4 * c, low);
      store_as(block + 128 + 4 * c, low_min);
      store_as(block + 192 + 4 * c, high);
      break;
    }
    case GroupScales::kInt8:
      store_as(block + 2 * c, column.scale[0]);
      for (int64_t h = 0; h < 2 * groups; ++h)
        store_as(block + 64 + h / 4 * 64 + 4 * c + h % 4, column.half_multiplier[h]);
      break;
    case GroupScales::kE8M0:
      break;
  }
}

}  // namespace

size_t stored_row_bytes(WeightFormat format, int64_t k) {
  const BlockTraits t = block_traits(format);
  return t.stored_k == 0 ? 0 : static_cast<size_t>(k / t.stored_k * t.stored_bytes);
}

BlockColumn read_stored_blocks(WeightFormat format, const std::byte* row, int64_t b,
                               int64_t groups) {
  const BlockTraits t = block_traits(format);
  BlockColumn out;
  if (t.scales == GroupScales::kInt8)
    read_q6_k(row + b * t.stored_bytes, &out);
  else if (t.scales == GroupScales::kSix)
    read_six(format, row + b * t.stored_bytes, &out);
  for (int64_t g = 0; t.stored_k == 32 && g < groups; ++g)
    read_small(format, row + (b * kBlockGroups + g) * t.stored_bytes, g, &out);
  return out;
}

void write_block_column(WeightFormat format, const BlockColumn& column, int64_t c, int64_t groups,
                        std::byte* block) {
  const BlockTraits t = block_traits(format);
  write_scales(t.scales, column, c, groups, block);
  std::byte* codes = block + block_header_bytes(t, groups);
  for (int64_t k = 0; k < 32 * groups; ++k) {
    std::byte* group = codes + k / 32 * block_group_bytes(t);
    const int64_t i = k % 32, lane = 4 * c + i % 4, quad = i / 4;
    const unsigned code = column.code[k];
    if (t.bits == 8) {
      group[quad * 64 + lane] = static_cast<std::byte>(code);
      continue;
    }
    group[quad / 2 * 64 + lane] |= static_cast<std::byte>((code & 15) << (quad % 2 * 4));
    if (t.bits == 5) group[256 + lane] |= static_cast<std::byte>(code >> 4 << quad);
    if (t.bits == 6)
      group[256 + quad / 4 * 64 + lane] |= static_cast<std::byte>(code >> 4 << (quad % 4 * 2));
  }
}

bool finite_scales(WeightFormat format, const BlockColumn& column, int64_t groups) {
  const GroupScales kind = block_traits(format).scales;
  const int64_t count = kind == GroupScales::kF16 || kind == GroupScales::kF16Min ? groups : 1;
  for (int64_t i = 0; i < count; ++i)
    if ((column.scale[i] & 0x7c00u) == 0x7c00u || (column.min[i] & 0x7c00u) == 0x7c00u)
      return false;
  return true;
}

Status quantize_blocks(WeightFormat format, const float* w, int64_t groups, std::byte* out) {
  const int64_t bytes = block_traits(format).stored_bytes;
  for (int64_t g = 0; g < groups; ++g, w += 32, out += bytes) {
    const float d = format == WeightFormat::kQ8_0 ? quantize_q8_0(w, out) : quantize_q4_0(w, out);
    const uint16_t scale = f32_to_f16(d);
    if ((scale & 0x7fffu) == 0x7c00u)
      return data_loss("{}: a scale of {} overflows f16", weight_format_name(format), d);
    store_as(out, scale);
  }
  return ok_status();
}

}  // namespace sluice
