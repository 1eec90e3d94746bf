#include "ops/matmul/block_values.h"

#include <cmath>

#include "base/fp.h"
#include "device/block.h"
#include "weights/block_panels.h"
#include "weights/int_panels.h"

namespace sluice {
namespace {

float load_f16(const std::byte* p) {
  return f16_to_f32(load_as<uint16_t>(p));
}
int32_t bits_of(uint32_t word, int64_t at, int bits) {
  return static_cast<int32_t>(word >> at & ((1u << bits) - 1));
}

GroupColumn read_int8(const std::byte* panel, int64_t block, int64_t c, int64_t g) {
  const int64_t each = block / kIntGroup;
  const std::byte* p = panel + g / each * int8_block_bytes(each);
  GroupColumn out;
  out.scale = load_as<float>(p + 4 * c);
  const std::byte* codes = p + kInt8CodesAt + g % each * kInt8GroupBytes;
  for (int64_t i = 0; i < 32; ++i)
    out.value[i] = static_cast<int32_t>(codes[i / 4 * 64 + 4 * c + i % 4]) - 128;
  return out;
}

// Of a group whose lines hold k = 8 j + i in the low and 8 j + 4 + i in the high nibbles.
int32_t nibble(const std::byte* codes, int64_t c, int64_t i) {
  const auto byte = static_cast<uint32_t>(codes[i / 8 * 64 + 4 * c + i % 4]);
  return bits_of(byte, i % 8 / 4 * 4, 4);
}

GroupColumn read_int4(const std::byte* panel, int64_t k, int64_t block, int64_t c, int64_t g) {
  const int64_t each = block / kIntGroup, first = g / each * each, at = g - first;
  const int64_t left = int_groups(k) - first, groups = left < each ? left : each;
  const std::byte* p = panel + g / each * int4_block_bytes(each);
  GroupColumn out;
  out.scale = static_cast<float>(bf16::from_bits(load_as<uint16_t>(p + 2 * c)));
  const auto eight = load_as<uint32_t>(p + kInt4MultiplierAt + at / 8 * 64 + 4 * c);
  out.multiplier[0] = out.multiplier[1] = bits_of(eight, at % 8 * 4, 4);
  const int32_t zero = (load_as<uint16_t>(p + kInt4ZeroAt + 2 * at) >> c & 1) != 0 ? 7 : 8;
  const std::byte* codes = p + int4_codes_at(groups) + at * kInt4GroupBytes;
  for (int64_t i = 0; i < 32; ++i) out.value[i] = nibble(codes, c, i) - zero;
  return out;
}

GroupColumn read_mxfp4(const std::byte* panel, int64_t c, int64_t g) {
  const BlockTraits t = block_traits(WeightFormat::kMXFP4);
  const std::byte* p = panel + g * block_group_bytes(t);
  const auto exponent = static_cast<uint32_t>(p[c]);
  GroupColumn out;
  out.scale = bits_to_f32((exponent < 1 ? 0 : exponent - 1) << 23);
  for (int64_t i = 0; i < 32; ++i) {
    const auto pair = static_cast<uint32_t>(p[16 + i / 2 * 16 + c]);
    out.value[i] = t.level[bits_of(pair, i % 2 * 4, 4)] - t.zero;
  }
  return out;
}

void read_scales(BlockTraits t, const std::byte* p, int64_t c, int64_t g, GroupColumn* out) {
  switch (t.scales) {
    case GroupScales::kF16:
      out->scale = load_f16(p + 32 * g + 2 * c);
      break;
    case GroupScales::kF16Min:
      out->scale = load_f16(p + 64 * g + 2 * c);
      out->has_min = true;
      out->min_multiplier = 1;
      out->min = -load_f16(p + 64 * g + kMinAt + 2 * c);
      break;
    case GroupScales::kSix: {
      out->scale = load_f16(p + 2 * c);
      out->has_min = true;
      out->min = load_f16(p + kMinAt + 2 * c);
      const auto low = load_as<uint32_t>(p + 64 + 4 * c),
                 low_min = load_as<uint32_t>(p + 128 + 4 * c);
      const auto high = load_as<uint32_t>(p + 192 + 4 * c);
      out->multiplier[0] = bits_of(low, 4 * g, 4) | bits_of(high, 2 * g, 2) << 4;
      out->multiplier[1] = out->multiplier[0];
      out->min_multiplier = bits_of(low_min, 4 * g, 4) | bits_of(high, 16 + 2 * g, 2) << 4;
      break;
    }
    case GroupScales::kInt8:
      out->scale = load_f16(p + 2 * c);
      for (int64_t h = 0; h < 2; ++h)
        out->multiplier[h] =
            (static_cast<int32_t>(p[64 + g / 2 * 64 + 4 * c + g % 2 * 2 + h]) ^ 128) - 128;
      break;
    case GroupScales::kE8M0:
      break;
  }
}

// The bits of a code above the low four (weights/packed.h).
int32_t high_bits(int bits, const std::byte* at, int64_t c, int64_t i) {
  const int64_t quad = i / 4;
  if (bits == 5) return bits_of(static_cast<uint32_t>(at[4 * c + i % 4]), quad, 1) << 4;
  if (bits != 6) return 0;
  return bits_of(static_cast<uint32_t>(at[quad / 4 * 64 + 4 * c + i % 4]), quad % 4 * 2, 2) << 4;
}

GroupColumn read_block_group(BlockTraits t, const std::byte* panel, int64_t k, int64_t c,
                             int64_t g) {
  const int64_t first = g / kBlockGroups * kBlockGroups, at = g - first;
  const int64_t left = block_groups(k) - first, groups = left < kBlockGroups ? left : kBlockGroups;
  const std::byte* p = panel + g / kBlockGroups * block_bytes(t, kBlockGroups);
  GroupColumn out;
  read_scales(t, p, c, at, &out);
  const std::byte* codes = p + block_header_bytes(t, groups) + at * block_group_bytes(t);
  for (int64_t i = 0; i < 32; ++i) {
    const int32_t code = t.bits == 8 ? static_cast<int32_t>(codes[i / 4 * 64 + 4 * c + i % 4])
                                     : nibble(codes, c, i) | high_bits(t.bits, codes + 256, c, i);
    out.value[i] = (t.level.given ? t.level[code] : code) - t.zero;
  }
  return out;
}

}  // namespace

float GroupColumn::weight(int64_t i) const {
  const int64_t half = i / 16;
  const float times = scale * static_cast<float>(multiplier[half]);  // exact
  const auto integer = static_cast<float>(value[i]);
  if (!has_min) return times * integer;
  return std::fma(times, integer, -(min * static_cast<float>(min_multiplier)));
}

GroupColumn read_group(WeightFormat format, const std::byte* panel, int64_t k, int64_t block,
                       int64_t c, int64_t g) {
  switch (format) {
    case WeightFormat::kInt8:
      return read_int8(panel, block, c, g);
    case WeightFormat::kInt4:
      return read_int4(panel, k, block, c, g);
    case WeightFormat::kMXFP4:
      return read_mxfp4(panel, c, g);
    default:
      return read_block_group(block_traits(format), panel, k, c, g);
  }
}

}  // namespace sluice
