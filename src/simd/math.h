// The functions of scalar.h over a vector vocabulary V (Avx2 or Avx512), operation for operation.
#pragma once

#include <cstdint>

#include "simd/scalar.h"

// Always inlined: an Avx2 value is two registers, which a call would pass through memory (measured:
// silu at a seventh of its speed).
#define SLUICE_SIMD_INLINE [[gnu::always_inline]] inline

namespace sluice::simd {

template <class V>
SLUICE_SIMD_INLINE typename V::F exp(typename V::F x) {
  using K = scalar::ExpConstants;
  const auto clamped = V::min(V::max(x, V::set1(K::kLow)), V::set1(K::kHigh));
  const auto t = V::fma(clamped, V::set1(K::kLog2e), V::set1(K::kMagic));
  const auto n = V::sub(t, V::set1(K::kMagic));
  const auto k = V::subi(V::bits_of(t), V::bits_of(V::set1(K::kMagic)));
  auto r = V::fma(n, V::set1(-K::kLn2High), clamped);
  r = V::fma(n, V::set1(-K::kLn2Low), r);
  auto p = V::fma(V::set1(K::kC7), r, V::set1(K::kC6));
  p = V::fma(p, r, V::set1(K::kC5));
  p = V::fma(p, r, V::set1(K::kC4));
  p = V::fma(p, r, V::set1(K::kC3));
  p = V::fma(p, r, V::set1(K::kC2));
  p = V::fma(p, r, V::set1(K::kC1));
  p = V::fma(p, r, V::set1(1.0f));
  const auto half = V::template sar<1>(k);
  const auto bias = V::seti(127);
  const auto s1 = V::from_bits(V::template shl<23>(V::addi(half, bias)));
  const auto s2 = V::from_bits(V::template shl<23>(V::addi(V::subi(k, half), bias)));
  return V::select(V::is_nan(x), x, V::mul(V::mul(p, s1), s2));
}

template <class V>
SLUICE_SIMD_INLINE typename V::F negate(typename V::F x) {
  // A sign flip, as the scalar minus is: 0 - x would differ for zeros.
  const auto sign = V::seti(static_cast<int32_t>(0x80000000u));
  const auto b = V::bits_of(x);
  return V::from_bits(V::subi(V::ori(b, sign), V::andi(b, sign)));
}

// The nearest bf16, ties to even, as f32; a NaN stays as it is.
template <class V>
SLUICE_SIMD_INLINE typename V::F round_bf16(typename V::F x) {
  const auto b = V::bits_of(x);
  const auto odd = V::andi(V::template shr<16>(b), V::seti(1));
  const auto up = V::addi(V::addi(b, V::seti(0x7fff)), odd);
  const auto r = V::from_bits(V::andi(up, V::seti(static_cast<int32_t>(0xffff0000u))));
  return V::select(V::is_nan(x), x, r);
}

template <class V>
SLUICE_SIMD_INLINE typename V::F sigmoid(typename V::F x) {
  const auto one = V::set1(1.0f);
  return V::div(one, V::add(one, exp<V>(negate<V>(x))));
}
template <class V>
SLUICE_SIMD_INLINE typename V::F silu(typename V::F x) {
  return V::mul(x, sigmoid<V>(x));
}
template <class V>
SLUICE_SIMD_INLINE typename V::F gelu_tanh(typename V::F x) {
  const auto inner = V::fma(V::mul(V::mul(x, x), V::set1(0.044715f)), x, x);
  return V::mul(x, sigmoid<V>(V::mul(V::set1(scalar::kGeluTwoSqrt2OverPi), inner)));
}
template <class V>
SLUICE_SIMD_INLINE typename V::F sqrt_softplus(typename V::F x) {
  using K = scalar::SoftplusConstants;
  const auto t =
      exp<V>(V::from_bits(V::ori(V::bits_of(x), V::seti(static_cast<int32_t>(0x80000000u)))));
  const auto z = V::div(t, V::add(V::set1(2.0f), t)), q = V::mul(z, z);
  auto p = V::fma(V::set1(K::kC17), q, V::set1(K::kC15));
  p = V::fma(p, q, V::set1(K::kC13));
  p = V::fma(p, q, V::set1(K::kC11));
  p = V::fma(p, q, V::set1(K::kC9));
  p = V::fma(p, q, V::set1(K::kC7));
  p = V::fma(p, q, V::set1(K::kC5));
  p = V::fma(p, q, V::set1(K::kC3));
  const auto atanh = V::fma(V::mul(z, q), p, z);
  const auto y = V::add(V::max(x, V::zero()), V::add(atanh, atanh));
  return V::sqrt(V::select(V::is_nan(x), x, y));
}
template <class V>
SLUICE_SIMD_INLINE typename V::F tanh(typename V::F x) {
  using K = scalar::TanhConstants;
  const auto sign = V::seti(static_cast<int32_t>(0x80000000u));
  const auto a = V::from_bits(V::andi(V::bits_of(x), V::seti(0x7fffffff)));
  const auto z = V::mul(a, a);
  auto p = V::fma(V::set1(K::kC0), z, V::set1(K::kC1));
  p = V::fma(p, z, V::set1(K::kC2));
  p = V::fma(p, z, V::set1(K::kC3));
  p = V::fma(p, z, V::set1(K::kC4));
  const auto small = V::fma(V::mul(p, z), a, a);
  const auto one = V::set1(1.0f);
  const auto large = V::sub(one, V::div(V::set1(2.0f), V::add(exp<V>(V::add(a, a)), one)));
  const auto y = V::select(V::less(a, V::set1(K::kSmall)), small, large);
  return V::select(V::is_nan(x), x,
                   V::from_bits(V::ori(V::bits_of(y), V::andi(V::bits_of(x), sign))));
}
template <class V>
SLUICE_SIMD_INLINE typename V::F gelu_erf(typename V::F x) {
  using K = scalar::GeluErfConstants;
  const auto magnitude = V::from_bits(V::andi(V::bits_of(x), V::seti(0x7fffffff)));
  const auto a = V::min(magnitude, V::set1(K::kLimit));
  const auto one = V::set1(1.0f);
  const auto t = V::div(one, V::fma(a, V::set1(K::kQuarterSqrt2), one));
  auto q = V::fma(V::set1(K::kC0), t, V::set1(K::kC1));
  q = V::fma(q, t, V::set1(K::kC2));
  q = V::fma(q, t, V::set1(K::kC3));
  q = V::fma(q, t, V::set1(K::kC4));
  q = V::fma(q, t, V::set1(K::kC5));
  q = V::fma(q, t, V::set1(K::kC6));
  q = V::fma(q, t, V::set1(K::kC7));
  q = V::fma(q, t, V::set1(K::kC8));
  const auto square = V::mul(a, a), rest = V::fma(a, a, negate<V>(square));
  const auto minus_half = V::set1(-0.5f);
  const auto e = exp<V>(V::mul(minus_half, square));
  const auto erfc = V::mul(V::mul(q, t), V::fma(V::mul(minus_half, rest), e, e));
  const auto tail = V::mul(V::set1(0.5f), erfc);
  return V::mul(x, V::select(V::less(x, V::zero()), tail, V::sub(one, tail)));
}
template <class V>
SLUICE_SIMD_INLINE typename V::F swiglu_oai(typename V::F gate, typename V::F up, float alpha,
                                            float limit) {
  const auto g = V::min(V::set1(limit), gate);
  const auto u = V::max(V::set1(-limit), V::min(V::set1(limit), up));
  return V::mul(V::add(u, V::set1(1.0f)), V::mul(g, sigmoid<V>(V::mul(V::set1(alpha), g))));
}

// scalar::Sum32 over vectors: feed 16 values at a time, in order; pad the tail with zeros.
template <class V>
struct Sum32 {
  typename V::F p[2] = {V::zero(), V::zero()};
  // i: index of the first of the 16 values, a multiple of 16.
  void add(int64_t i, typename V::F v) { p[(i >> 4) & 1] = V::add(p[(i >> 4) & 1], v); }
  void add_product(int64_t i, typename V::F a, typename V::F b) {
    p[(i >> 4) & 1] = V::fma(a, b, p[(i >> 4) & 1]);
  }
  float total() const { return V::reduce_add(V::add(p[0], p[1])); }
};

}  // namespace sluice::simd
