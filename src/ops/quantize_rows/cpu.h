// quantize_rows over the vector vocabulary: reference.cc, sixteen columns at a time.
// Include only from *_avx2.cc and *_avx512.cc.
#pragma once

#include "ops/quantize_rows/kernels.h"
#include "simd/math.h"

namespace sluice::simd {

template <class V>
SLUICE_SIMD_INLINE typename V::F load_row(const float* x, int64_t n) {
  return n >= 16 ? V::load(x) : V::load_n(x, n);
}
template <class V>
SLUICE_SIMD_INLINE typename V::F load_row(const uint16_t* x, int64_t n) {
  if (n >= 16) return V::load_bf16(x);
  uint16_t tail[16] = {};
  for (int64_t i = 0; i < n; ++i) tail[i] = x[i];
  return V::load_bf16(tail);
}

// One row: y = x * smooth.
template <class V, class T>
struct SmoothedRow {
  const T* x;
  const float* smooth;
  // y[i] and what follows, n of them if fewer than 16, then zeros.
  SLUICE_SIMD_INLINE typename V::F at(int64_t i, int64_t n) const {
    const auto v = load_row<V>(x + i, n);
    return smooth != nullptr ? V::mul(v, load_row<V>(smooth + i, n)) : v;
  }
};

template <class V, class T>
float amax_of(const SmoothedRow<V, T>& y, int64_t begin, int64_t end) {
  const auto magnitude = V::seti(0x7fffffff);
  auto amax = V::zero(), nan = V::zero();
  for (int64_t i = begin; i < end; i += 16) {
    const auto v = y.at(i, end - i);
    nan = V::select(V::is_nan(v), v, nan);
    amax = V::max(V::from_bits(V::andi(V::bits_of(v), magnitude)), amax);
  }
  return V::bits(V::is_nan(nan)) != 0 ? __builtin_nanf("") : V::reduce_max(amax);
}

// base/fp.h:f32_to_e4m3, 16 lanes at a time.
template <class V>
SLUICE_SIMD_INLINE typename V::I e4m3_codes(typename V::F v) {
  const auto bits = V::bits_of(v), magnitude_bits = V::andi(bits, V::seti(0x7fffffff));
  const auto m = V::min(V::from_bits(magnitude_bits), V::set1(448.0f));
  const auto b = V::bits_of(m);
  const auto odd = V::andi(V::template shr<20>(b), V::seti(1));
  const auto up = V::template shr<20>(V::addi(V::addi(b, V::seti(0x7ffff)), odd));
  const auto normal = V::subi(up, V::seti(120 * 8));
  const auto magic = V::set1(16384.0f);  // its ulp is the step of e4m3's subnormals, 2^-9
  const auto small = V::subi(V::bits_of(V::add(m, magic)), V::bits_of(magic));
  const auto code = V::bits_of(
      V::select(V::less(m, V::set1(0x1p-6f)), V::from_bits(small), V::from_bits(normal)));
  return V::ori(code, V::andi(V::template shr<24>(bits), V::seti(0x80)));
}

template <class V, class T>
void write_codes(QuantizeTo to, const GroupScale& s, const SmoothedRow<V, T>& y, int64_t begin,
                 int64_t end, uint8_t* codes) {
  const bool nan = s.scale != s.scale;
  const auto factor = V::set1(s.factor), magic = V::set1(12582912.0f);
  for (int64_t i = begin; i < end; i += 16) {
    const int64_t n = end - i;
    auto code = V::seti(to == QuantizeTo::kE4m3 ? 0x7f : 0);
    if (!nan && to == QuantizeTo::kE4m3) {
      code = e4m3_codes<V>(V::mul(y.at(i, n), factor));
    } else if (!nan) {
      const auto rounded = V::add(V::div(y.at(i, n), factor), magic);
      code = V::subi(V::bits_of(rounded), V::bits_of(magic));
    }
    if (n >= 16) {
      V::store_u8(codes + i, code);
    } else {
      uint8_t tail[16];
      V::store_u8(tail, code);
      for (int64_t j = 0; j < n; ++j) codes[i + j] = tail[j];
    }
  }
}

template <class V, class T>
void quantize_rows(const QuantizeRowsTask& task) {
  float most = 0;
  for (int64_t t = 0; t < task.rows; ++t) {
    const SmoothedRow<V, T> y{static_cast<const T*>(task.x) + t * task.x_stride, task.smooth};
    uint8_t* codes = task.codes + t * task.codes_stride;
    if (task.step == QuantizeStep::kAmax) {
      const float amax = amax_of(y, 0, task.d);
      if (!(amax <= most)) most = amax;
      if (most != most) break;
    } else if (task.step == QuantizeStep::kCodes) {
      write_codes(task.rule.to, task.given, y, 0, task.d, codes);
    } else {
      for (int64_t begin = 0, g = 0; begin < task.d; begin += task.group, ++g) {
        const int64_t end = begin + task.group < task.d ? begin + task.group : task.d;
        const GroupScale s = group_scale(task.rule, amax_of(y, begin, end));
        task.scales.data[t * task.scales.row_stride + g * task.scales.group_stride] = s.scale;
        write_codes(task.rule.to, s, y, begin, end, codes);
      }
    }
  }
  if (task.step == QuantizeStep::kAmax) *task.amax = most;
}

}  // namespace sluice::simd
