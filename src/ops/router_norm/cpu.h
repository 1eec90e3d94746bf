// router_norm over the vector vocabulary: reference.cc, sixteen lanes at a time.
#pragma once

#include "ops/rms_norm/cpu.h"
#include "ops/router_norm/kernels.h"
#include "simd/math.h"

namespace sluice::simd {

template <class V, bool Round>
SLUICE_SIMD_INLINE typename V::F round_if(typename V::F v) {
  return Round ? round_bf16<V>(v) : v;
}

template <class V, bool Round>
SLUICE_SIMD_INLINE typename V::F router_value(typename V::F x, typename V::F r, typename V::F scale,
                                              typename V::F root) {
  const auto n = round_if<V, Round>(V::mul(round_if<V, Round>(x), r));
  return round_if<V, Round>(V::mul(round_if<V, Round>(V::mul(n, scale)), root));
}

template <class V, bool Round>
void router_norm_rows(const RouterNormRows& a) {
  const auto root = V::set1(a.root);
  for (int64_t t = 0; t < a.rows; ++t) {
    const float* x = a.x + t * a.x_stride;
    float* out = a.out + t * a.out_stride;
    const float sum = sum_squares<V>(
        a.d, [x](int64_t i) { return round_if<V, Round>(V::load(x + i)); },
        [x](int64_t i, int64_t n) { return round_if<V, Round>(V::load_n(x + i, n)); });
    const auto r = V::set1(rms_factor<V>(sum, a.d, a.eps));
    int64_t i = 0;
    for (; i + 16 <= a.d; i += 16)
      V::store(out + i, router_value<V, Round>(V::load(x + i), r, V::load(a.scale + i), root));
    const int64_t n = a.d - i;
    if (n > 0)
      V::store_n(out + i,
                 router_value<V, Round>(V::load_n(x + i, n), r, V::load_n(a.scale + i, n), root),
                 n);
  }
}

template <class V>
void router_norm(const RouterNormRows& a) {
  a.round ? router_norm_rows<V, true>(a) : router_norm_rows<V, false>(a);
}

}  // namespace sluice::simd
