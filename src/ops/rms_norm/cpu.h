// rms_norm over the vector vocabulary: row.h, sixteen lanes at a time.
#pragma once

#include <cstdint>

#include "ops/rms_norm/kernels.h"
#include "simd/math.h"

namespace sluice::simd {

// sum32 of f(i) * f(i), f(i) giving the 16 values from i on and f(i, n) the last n < 16, zeros
// after. Two accumulators are the 32 partials.
template <class V, class Full, class Tail>
float sum_squares(int64_t d, Full full, Tail tail) {
  typename V::F p0 = V::zero(), p1 = V::zero();
  int64_t i = 0;
  for (; i + 32 <= d; i += 32) {
    const auto a = full(i), b = full(i + 16);
    p0 = V::fma(a, a, p0);
    p1 = V::fma(b, b, p1);
  }
  if (i + 16 <= d) {
    const auto a = full(i);
    p0 = V::fma(a, a, p0);
    i += 16;
    if (i < d) {
      const auto b = tail(i, d - i);
      p1 = V::fma(b, b, p1);
    }
  } else if (i < d) {
    const auto a = tail(i, d - i);
    p0 = V::fma(a, a, p0);
  }
  return V::reduce_add(V::add(p0, p1));
}

template <class V>
float rms_factor(float sum, int64_t d, float eps) {
  return 1.0f / __builtin_sqrtf(sum / static_cast<float>(d) + eps);
}

// norm of the 16 (n) values of v that stand at i.
template <class V>
typename V::F normed(typename V::F v, typename V::F r, const float* weight, int64_t i) {
  v = V::mul(v, r);
  return weight != nullptr ? V::mul(v, V::load(weight + i)) : v;
}
template <class V>
typename V::F normed_n(typename V::F v, typename V::F r, const float* weight, int64_t i,
                       int64_t n) {
  v = V::mul(v, r);
  return weight != nullptr ? V::mul(v, V::load_n(weight + i, n)) : v;
}

template <class V>
void scale_row(const float* x, float r, const float* weight, int64_t d, float* out) {
  const auto factor = V::set1(r);
  int64_t i = 0;
  for (; i + 16 <= d; i += 16) V::store(out + i, normed<V>(V::load(x + i), factor, weight, i));
  if (i < d)
    V::store_n(out + i, normed_n<V>(V::load_n(x + i, d - i), factor, weight, i, d - i), d - i);
}

// out = norm(x); weight may be null; out may be x.
template <class V>
void rms_norm_row(const float* x, const float* weight, float eps, int64_t d, float* out) {
  const float sum = sum_squares<V>(
      d, [x](int64_t i) { return V::load(x + i); },
      [x](int64_t i, int64_t n) { return V::load_n(x + i, n); });
  scale_row<V>(x, rms_factor<V>(sum, d, eps), weight, d, out);
}

// residual = residual + x; out = norm(residual).
template <class V>
void residual_then_norm_row(const float* x, float* residual, const float* weight, float eps,
                            int64_t d, float* out) {
  const float sum = sum_squares<V>(
      d,
      [x, residual](int64_t i) {
        const auto v = V::add(V::load(residual + i), V::load(x + i));
        V::store(residual + i, v);
        return v;
      },
      [x, residual](int64_t i, int64_t n) {
        const auto v = V::add(V::load_n(residual + i, n), V::load_n(x + i, n));
        V::store_n(residual + i, v, n);
        return v;
      });
  scale_row<V>(residual, rms_factor<V>(sum, d, eps), weight, d, out);
}

// residual = (residual + norm(x)) * scale.
template <class V>
void norm_then_residual_row(const float* x, const float* weight, float eps, float scale, int64_t d,
                            float* residual) {
  const float sum = sum_squares<V>(
      d, [x](int64_t i) { return V::load(x + i); },
      [x](int64_t i, int64_t n) { return V::load_n(x + i, n); });
  const auto r = V::set1(rms_factor<V>(sum, d, eps)), s = V::set1(scale);
  int64_t i = 0;
  for (; i + 16 <= d; i += 16) {
    const auto y = normed<V>(V::load(x + i), r, weight, i);
    V::store(residual + i, V::mul(V::add(V::load(residual + i), y), s));
  }
  if (i < d) {
    const int64_t n = d - i;
    const auto y = normed_n<V>(V::load_n(x + i, n), r, weight, i, n);
    V::store_n(residual + i, V::mul(V::add(V::load_n(residual + i, n), y), s), n);
  }
}

template <class V>
void rms_norm_rows(const RmsNormRows& a) {
  for (int64_t t = 0; t < a.rows; ++t) {
    const float* x = a.x + t * a.x_stride;
    float* residual = a.residual + t * a.residual_stride;
    float* out = a.out + t * a.out_stride;
    if (a.residual == nullptr)
      rms_norm_row<V>(x, a.weight, a.eps, a.d, out);
    else if (a.out != nullptr)
      residual_then_norm_row<V>(x, residual, a.weight, a.eps, a.d, out);
    else
      norm_then_residual_row<V>(x, a.weight, a.eps, a.scale, a.d, residual);
  }
}

}  // namespace sluice::simd
