// elementwise over the vector vocabulary V. Include only from *_avx2.cc and *_avx512.cc.
#pragma once

#include "ops/elementwise/kernels.h"
#include "simd/math.h"

namespace sluice::simd {

// activate.h, 16 lanes at a time.
template <class V, ActivationKind kind>
SLUICE_SIMD_INLINE typename V::F activate(const Activation& activation, typename V::F gate,
                                          typename V::F up) {
  if constexpr (kind == ActivationKind::kSilu) return V::mul(silu<V>(gate), up);
  if constexpr (kind == ActivationKind::kGeluTanh) return V::mul(gelu_tanh<V>(gate), up);
  if constexpr (kind == ActivationKind::kGeluErf) return V::mul(gelu_erf<V>(gate), up);
  if constexpr (kind == ActivationKind::kSwigluOai)
    return swiglu_oai<V>(gate, up, activation.alpha, activation.limit);
}

// Calls f with the activation's kind as a compile-time constant.
template <class V, class Body>
void with_activation(ActivationKind kind, Body body) {
  switch (kind) {
    case ActivationKind::kSilu:
      return body.template operator()<ActivationKind::kSilu>();
    case ActivationKind::kGeluTanh:
      return body.template operator()<ActivationKind::kGeluTanh>();
    case ActivationKind::kGeluErf:
      return body.template operator()<ActivationKind::kGeluErf>();
    case ActivationKind::kSwigluOai:
      return body.template operator()<ActivationKind::kSwigluOai>();
  }
}

// out = map(a, b), for every row; map takes and gives 16 lanes.
template <class V, class Map>
void map_rows(const ElementwiseTask& task, const float* a0, int64_t a_stride, Map map) {
  for (int64_t r = 0; r < task.rows; ++r) {
    const float* a = a0 + r * a_stride;
    const float* b = task.b + r * task.b_stride;
    float* out = task.out + r * task.out_stride;
    int64_t i = 0;
    for (; i + 16 <= task.cols; i += 16) V::store(out + i, map(V::load(a + i), V::load(b + i)));
    const int64_t n = task.cols - i;
    if (n > 0) V::store_n(out + i, map(V::load_n(a + i, n), V::load_n(b + i, n)), n);
  }
}

template <class V>
void elementwise(const ElementwiseTask& task) {
  using F = typename V::F;
  const auto s = V::set1(task.s);
  switch (task.step) {
    case ElementwiseStep::kGlu:
      return with_activation<V>(task.activation.kind, [&]<ActivationKind kind>() {
        map_rows<V>(
            task, task.a, task.a_stride, [&](F gate, F up) __attribute__((always_inline)) {
              return activate<V, kind>(task.activation, gate, up);
            });
      });
    case ElementwiseStep::kAdd:
      return map_rows<V>(task, task.out, task.out_stride, [](F a, F b) { return V::add(a, b); });
    case ElementwiseStep::kScale:
      return map_rows<V>(task, task.out, task.out_stride, [s](F a, F) { return V::mul(a, s); });
    case ElementwiseStep::kSoftcap:
      return map_rows<V>(
          task, task.out, task.out_stride, [s](F a, F) __attribute__((always_inline)) {
            return V::mul(s, tanh<V>(V::div(a, s)));
          });
  }
}

}  // namespace sluice::simd
