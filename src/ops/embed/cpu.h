// embed over the vector vocabulary. Rows are read at any alignment; nothing past a row's end.
#pragma once

#include <cstdint>

#include "ops/embed/kernels.h"
#include "simd/math.h"

namespace sluice::simd {

// 16 halves, widened exactly: subnormal halves are normal f32 values.
template <class V>
typename V::F load_f16(const uint16_t* p) {
  const auto raw = V::bits_of(V::load_bf16(p));  // the half stands in the upper 16 bits
  const auto sign = V::andi(raw, V::seti(static_cast<int32_t>(0x80000000u)));
  const auto shifted = V::andi(V::template shr<3>(raw), V::seti(0x0fffe000));
  const auto normal = V::from_bits(V::addi(shifted, V::seti(0x38000000)));
  const auto special = V::from_bits(V::ori(shifted, V::seti(0x7f800000)));
  // magnitude * 2^-24: the integer is made a float by 2^23's exponent.
  const auto magnitude = V::andi(V::template shr<16>(raw), V::seti(0x7fff));
  const auto integer =
      V::sub(V::from_bits(V::ori(magnitude, V::seti(0x4b000000))), V::set1(8388608.0f));
  const auto tiny = V::mul(integer, V::set1(0x1p-24f));
  const auto as_float = V::from_bits(shifted);  // compares like the half
  auto v = V::select(V::less(as_float, V::set1(0x1p-126f)), tiny, normal);
  v = V::select(V::less(as_float, V::from_bits(V::seti(0x0f800000))), v, special);
  return V::from_bits(V::ori(V::bits_of(v), sign));
}

template <class V>
void embed_row_f32(const std::byte* row, int64_t d, float scale, float* out) {
  const auto s = V::set1(scale);
  const float* x = reinterpret_cast<const float*>(row);  // any alignment: only vector loads
  int64_t i = 0;
  for (; i + 16 <= d; i += 16) V::store(out + i, V::mul(V::load(x + i), s));
  if (i < d) V::store_n(out + i, V::mul(V::load_n(x + i, d - i), s), d - i);
}

template <class V, bool Half>
void embed_row_16(const std::byte* row, int64_t d, float scale, float* out) {
  const auto s = V::set1(scale);
  const auto widen = [](const void* p) {
    const uint16_t* q = static_cast<const uint16_t*>(p);
    if constexpr (Half)
      return load_f16<V>(q);
    else
      return V::load_bf16(q);
  };
  int64_t i = 0;
  for (; i + 16 <= d; i += 16) V::store(out + i, V::mul(widen(row + 2 * i), s));
  if (i == d) return;
  uint16_t last[16] = {};
  __builtin_memcpy(last, row + 2 * i, static_cast<size_t>(d - i) * 2);
  V::store_n(out + i, V::mul(widen(last), s), d - i);
}

// One column of a panel of 16: a load per element, bound by one cache line per step of k.
template <class V>
void embed_column(const std::byte* panel, int64_t column, bool f32, int64_t d, float scale,
                  float* out) {
  const auto s = V::set1(scale);
  for (int64_t k = 0; k < d; k += 16) {
    const int64_t n = d - k < 16 ? d - k : 16;
    uint32_t bits[16] = {};
    for (int64_t i = 0; i < n; ++i) {
      if (f32) {
        __builtin_memcpy(&bits[i], panel + ((k + i) * 16 + column) * 4, 4);
      } else {
        uint16_t half = 0;
        __builtin_memcpy(&half, panel + (((k + i) / 2 * 16 + column) * 2 + ((k + i) & 1)) * 2, 2);
        bits[i] = static_cast<uint32_t>(half) << 16;
      }
    }
    V::store_n(out + k, V::mul(V::from_bits(V::load_i32(bits)), s), n);
  }
}

template <class V>
void embed_rows(const EmbedRows& a) {
  for (int64_t t = 0; t < a.rows; ++t) {
    const int64_t id = a.ids[t];
    float* out = a.out + t * a.out_stride;
    const bool panels = a.form == EmbedForm::kPanelF32 || a.form == EmbedForm::kPanelBF16;
    const std::byte* group = a.table + static_cast<size_t>(panels ? id / 16 : id) * a.group_bytes;
    switch (a.form) {
      case EmbedForm::kRowF32:
        embed_row_f32<V>(group, a.d, a.scale, out);
        break;
      case EmbedForm::kRowF16:
        embed_row_16<V, true>(group, a.d, a.scale, out);
        break;
      case EmbedForm::kRowBF16:
        embed_row_16<V, false>(group, a.d, a.scale, out);
        break;
      case EmbedForm::kPanelF32:
        embed_column<V>(group, id % 16, true, a.d, a.scale, out);
        break;
      case EmbedForm::kPanelBF16:
        embed_column<V>(group, id % 16, false, a.d, a.scale, out);
        break;
    }
  }
}

}  // namespace sluice::simd
