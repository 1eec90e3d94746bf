// Low-bit panels in the ariths of floats (mode a16, and f32_fma), over the vector vocabulary V:
// 32 k of 16 columns become f32, or bf16 widened, in a small buffer, and a block of R rows
// multiplies them in the order of the arith. Rows are prepared as for cpu.h's kernels.
//
// Include only from *_avx2.cc, *_avx512.cc and, for the decoding, *_amx.cc.
#pragma once

#include "ops/matmul/cpu.h"
#include "weights/block_panels.h"
#include "weights/int_panels.h"

namespace sluice::simd {

// The low-bit formats of mode a16 but MXFP4, which has kernels of its own.
constexpr bool is_decoded(WeightFormat format) {
  return is_int_format(format) || is_block_format(format);
}
constexpr int code_bits(WeightFormat format) {
  return format == WeightFormat::kInt8   ? 8
         : format == WeightFormat::kInt4 ? 4
                                         : block_traits(format).bits;
}

// Where group g of a panel lies: its block's scales, its place in the block, its codes.
struct GroupPlace {
  const std::byte* block = nullptr;
  const std::byte* codes = nullptr;
  int64_t at = 0;
};
template <class V, WeightFormat format>
SLUICE_SIMD_INLINE GroupPlace place_of(const std::byte* panel, int64_t k, int64_t block,
                                       int64_t g) {
  constexpr BlockTraits traits = block_traits(format);
  const int64_t each = is_int_format(format) ? block / kIntGroup : kBlockGroups;
  const int64_t b = g / each, at = g - b * each, left = block_groups(k) - b * each;
  const int64_t groups = left < each ? left : each;
  if constexpr (format == WeightFormat::kInt8) {
    const std::byte* p = panel + b * int8_block_bytes(each);
    return {p, p + kInt8CodesAt + at * kInt8GroupBytes, at};
  } else if constexpr (format == WeightFormat::kInt4) {
    const std::byte* p = panel + b * int4_block_bytes(each);
    return {p, p + int4_codes_at(groups) + at * kInt4GroupBytes, at};
  } else {
    const std::byte* p = panel + b * block_bytes(traits, kBlockGroups);
    return {p, p + block_header_bytes(traits, groups) + at * block_group_bytes(traits), at};
  }
}

// A small integer less `zero`, exactly.
template <class V>
SLUICE_SIMD_INLINE typename V::F number(typename V::I v, int32_t zero) {
  return V::sub(V::from_bits(V::addi(v, V::seti(0x4b400000 - zero))), V::set1(12582912.0f));
}
template <class V>
SLUICE_SIMD_INLINE typename V::F halves_at(const std::byte* p) {
  return V::load_f16(reinterpret_cast<const uint16_t*>(p));
}

// What a code is worth: scale * (code - zero) (+ minimum); the scale of the first and last 16 k.
template <class V>
struct GroupWorth {
  typename V::F scale[2], zero, minimum;
};
template <class V, WeightFormat format>
SLUICE_SIMD_INLINE void read_int_worth(const GroupPlace& p, GroupWorth<V>* w) {
  if constexpr (format == WeightFormat::kInt8) {
    w->scale[0] = V::load(reinterpret_cast<const float*>(p.block));
  } else {
    alignas(64) float multiplier[16], zero[16];
    for (int64_t c = 0; c < 16; ++c) {
      const auto pair =
          static_cast<unsigned>(p.block[kInt4MultiplierAt + p.at / 8 * 64 + 4 * c + p.at % 8 / 2]);
      multiplier[c] = static_cast<float>(pair >> (p.at % 2 * 4) & 15);
      const auto seven = static_cast<unsigned>(p.block[kInt4ZeroAt + 2 * p.at + c / 8]);
      zero[c] = (seven >> (c % 8) & 1) != 0 ? 7.0f : 8.0f;
    }
    w->zero = V::load(zero);
    w->scale[0] =
        V::mul(V::load_bf16(reinterpret_cast<const uint16_t*>(p.block)), V::load(multiplier));
  }
  w->scale[1] = w->scale[0];
}
template <class V, WeightFormat format>
SLUICE_SIMD_INLINE void read_block_worth(const GroupPlace& p, GroupWorth<V>* w) {
  constexpr GroupScales kind = block_traits(format).scales;
  if constexpr (kind == GroupScales::kF16) {
    w->scale[0] = w->scale[1] = halves_at<V>(p.block + 32 * p.at);
  } else if constexpr (kind == GroupScales::kF16Min) {
    w->scale[0] = w->scale[1] = halves_at<V>(p.block + 64 * p.at);
    w->minimum = halves_at<V>(p.block + 64 * p.at + kMinAt);
  } else {
    // Multipliers of 16 columns by scalar steps: once for 32 k.
    alignas(64) float first[16], second[16];
    const auto byte = [&p](int64_t at) { return static_cast<unsigned>(p.block[at]); };
    for (int64_t c = 0; c < 16; ++c) {
      if constexpr (kind == GroupScales::kSix) {
        const int64_t low = 64 + 4 * c + p.at / 2, high = 192 + 4 * c + p.at / 4;
        const int64_t nibble = p.at % 2 * 4, pair = p.at % 4 * 2;
        first[c] = static_cast<float>((byte(low) >> nibble & 15) | (byte(high) >> pair & 3) << 4);
        second[c] =
            static_cast<float>((byte(low + 64) >> nibble & 15) | (byte(high + 2) >> pair & 3) << 4);
      } else {
        const int64_t at = 64 + p.at / 2 * 64 + 4 * c + p.at % 2 * 2;
        first[c] = static_cast<float>(static_cast<int8_t>(p.block[at]));
        second[c] = static_cast<float>(static_cast<int8_t>(p.block[at + 1]));
      }
    }
    const auto d = halves_at<V>(p.block);
    w->scale[0] = w->scale[1] = V::mul(d, V::load(first));
    if constexpr (kind == GroupScales::kSix)
      w->minimum = V::sub(V::zero(), V::mul(halves_at<V>(p.block + kMinAt), V::load(second)));
    else
      w->scale[1] = V::mul(d, V::load(second));
  }
}

// The value of k = 4 t + i of each column, its zero subtracted.
template <class V, WeightFormat format, int t, int i>
SLUICE_SIMD_INLINE typename V::F code_value(const std::byte* codes, typename V::F zero) {
  constexpr int bits = code_bits(format);
  constexpr BlockTraits traits = block_traits(format);
  if constexpr (bits == 8) {
    const auto code = V::template shr<8 * i>(V::load_i32(codes + 64 * t));
    return number<V>(V::andi(code, V::seti(255)), 128);
  } else {
    const auto line = V::load_i32(codes + t / 2 * 64);
    auto code = V::andi(V::template shr<8 * i + t % 2 * 4>(line), V::seti(15));
    if constexpr (bits == 5) {
      const auto high = V::template shr<8 * i + t>(V::load_i32(codes + 256));
      code = V::ori(code, V::template shl<4>(V::andi(high, V::seti(1))));
    }
    if constexpr (bits == 6) {
      const auto high = V::template shr<8 * i + t % 4 * 2>(V::load_i32(codes + 256 + t / 4 * 64));
      code = V::ori(code, V::template shl<4>(V::andi(high, V::seti(3))));
    }
    if constexpr (traits.level.given) {
      alignas(64) int32_t index[16];
      alignas(64) float value[16];
      V::store_i32(index, code);
      for (int c = 0; c < 16; ++c)
        value[c] = static_cast<float>(traits.level.value[index[c]] - traits.zero);
      return V::load(value);
    }
    if constexpr (format == WeightFormat::kInt4) return V::sub(number<V>(code, 0), zero);
    return number<V>(code, traits.zero);
  }
}

template <class V, WeightFormat format, bool rounded, int k>
SLUICE_SIMD_INLINE void decode_from(const std::byte* codes, const GroupWorth<V>& worth,
                                    float* out) {
  constexpr GroupScales kind = block_traits(format).scales;
  constexpr bool min =
      is_block_format(format) && (kind == GroupScales::kF16Min || kind == GroupScales::kSix);
  const auto value = code_value<V, format, k / 4, k % 4>(codes, worth.zero);
  const auto scale = worth.scale[k / 16];
  const auto w = min ? V::fma(scale, value, worth.minimum) : V::mul(scale, value);
  V::store(out + 16 * k, rounded ? rounded_to_bf16<V>(w) : w);
  if constexpr (k < 31) decode_from<V, format, rounded, k + 1>(codes, worth, out);
}

// k in [32 g, 32 g + 32) of a panel: out [32][16], as ops/matmul/block_values.h:weight says.
template <class V, WeightFormat format, bool rounded>
void decode_group(const std::byte* panel, int64_t k, int64_t block, int64_t g, float* out) {
  const GroupPlace place = place_of<V, format>(panel, k, block, g);
  for (int64_t line = 0; line < code_bits(format); ++line)
    V::prefetch(place.codes + 64 * line + 4096);
  GroupWorth<V> worth;
  worth.zero = worth.minimum = V::zero();
  if constexpr (is_int_format(format))
    read_int_worth<V, format>(place, &worth);
  else
    read_block_worth<V, format>(place, &worth);
  decode_from<V, format, rounded, 0>(place.codes, worth, out);
}
using DecodeGroup = void(const std::byte* panel, int64_t k, int64_t block, int64_t g, float* out);

// R rows times one panel: acc[r * stride].
template <class V, Arith arith, int R>
void a16_tile(const PanelProduct& product, const std::byte* panel, const float* x,
              DecodeGroup* decode, float* to, int64_t stride) {
  using F = typename V::F;
  alignas(64) float w[32 * 16];
  F acc[R];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) acc[r] = V::zero();
  for (int64_t g = 0; g * kGroupK < product.k; ++g, x += kGroupK * R) {
    decode(panel, product.k, product.block, g, w);
    if constexpr (arith == Arith::kBf16Tile) {
      F e[R], o[R];
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) e[r] = o[r] = V::zero();
      for (int64_t j = 0; j < kGroupK; j += 2) {
        add_products<V, R, 1>(x + j * R, V::load(w + 16 * j), e);
        add_products<V, R, 1>(x + (j + 1) * R, V::load(w + 16 * j + 16), o);
      }
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) acc[r] = V::add(acc[r], V::add(e[r], o[r]));
    } else {
      // Nothing past K takes part: 0 * 0 would turn a sum of -0 into +0.
      const int64_t left = product.k - g * kGroupK;
      for (int64_t j = 0; j < kGroupK && j < left; ++j)
        add_products<V, R, 1>(x + j * R, V::load(w + 16 * j), acc);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) V::store(to + r * stride, acc[r]);
}

template <class V, Arith arith, int R>
void a16_block(const PanelProduct& product, int64_t row, const float* x, DecodeGroup* decode) {
  if constexpr (R <= Blocking<V, arith>::kMaxRows) {
    alignas(64) float acc[R * 2 * 16];
    for (int64_t p0 = product.panel_begin; p0 < product.panel_end; p0 += 2) {
      const int64_t panels = product.panel_end - p0 < 2 ? 1 : 2;
      for (int64_t p = 0; p < panels; ++p)
        a16_tile<V, arith, R>(product,
                              product.panels + static_cast<size_t>(p0 + p) * product.panel_bytes, x,
                              decode, acc + 16 * p, 16 * panels);
      product.epilogue({&product, acc, row, R, p0, panels});
    }
  }
}

template <class V, WeightFormat format, Arith arith>
void multiply_a16(const PanelProduct& product) {
  DecodeGroup* decode = decode_group<V, format, arith == Arith::kBf16Tile>;
  for_row_blocks<V, arith>(product, [&]<int R>(int64_t row, const float* x) {
    a16_block<V, arith, R>(product, row, x, decode);
  });
}

template <class V, WeightFormat format, Arith arith>
inline constexpr PanelKernel kA16Kernel = {prepare<V, arith>, multiply_a16<V, format, arith>,
                                           store<V>};

}  // namespace sluice::simd
