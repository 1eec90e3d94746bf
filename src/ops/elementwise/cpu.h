// elementwise over the vector vocabulary V. Include only from *_avx2.cc and *_avx512.cc.
#pragma once

#include "ops/elementwise/kernels.h"
#include "simd/math.h"

namespace sluice::simd {

// activate.h, 16 lanes at a time.
template <class V>
SLUICE_SIMD_INLINE typename V::F bf16_if(bool rounded, typename V::F v) {
  return rounded ? round_bf16<V>(v) : v;
}
template <class V, ActivationKind kind>
SLUICE_SIMD_INLINE typename V::F gate_activation(typename V::F gate) {
  if constexpr (kind == ActivationKind::kSilu) return silu<V>(gate);
  if constexpr (kind == ActivationKind::kGeluTanh) return gelu_tanh<V>(gate);
  if constexpr (kind == ActivationKind::kGeluErf) return gelu_erf<V>(gate);
}

template <class V, ActivationKind kind>
SLUICE_SIMD_INLINE typename V::F activate_stepwise(const Activation& a, typename V::F gate,
                                                   typename V::F up) {
  const ActivationRounding& r = a.rounding;
  constexpr bool kOai = kind == ActivationKind::kSwigluOai;
  const auto limit = V::set1(a.limit);
  auto g = bf16_if<V>(r.inputs, gate), u = bf16_if<V>(r.inputs, up);
  if (kOai || a.clamp == ActivationClamp::kBefore) g = V::min(limit, g);
  if (kOai || a.clamp != ActivationClamp::kNone) u = V::max(V::set1(-a.limit), V::min(limit, u));
  if constexpr (kOai) {
    const auto s = sigmoid<V>(bf16_if<V>(r.steps, V::mul(V::set1(a.alpha), g)));
    const auto glu = bf16_if<V>(r.steps, V::mul(g, bf16_if<V>(r.steps, s)));
    return bf16_if<V>(r.result, V::mul(bf16_if<V>(r.steps, V::add(u, V::set1(1.0f))), glu));
  } else {
    auto v = bf16_if<V>(r.steps, gate_activation<V, kind>(g));
    if (a.clamp == ActivationClamp::kAfter) v = V::min(limit, v);
    return bf16_if<V>(r.result, V::mul(v, u));
  }
}

// What is known of an activation when its loop is compiled.
template <ActivationKind kind_, bool plain_>
struct ActivationForm {
  static constexpr ActivationKind kKind = kind_;
  static constexpr bool kPlain = plain_;
};

template <class V, class Form>
SLUICE_SIMD_INLINE typename V::F activate(const Activation& activation, typename V::F gate,
                                          typename V::F up) {
  if constexpr (!Form::kPlain)
    return activate_stepwise<V, Form::kKind>(activation, gate, up);
  else if constexpr (Form::kKind == ActivationKind::kSwigluOai)
    return swiglu_oai<V>(gate, up, activation.alpha, activation.limit);
  else
    return V::mul(gate_activation<V, Form::kKind>(gate), up);
}

// Calls f with the activation's form as a compile-time constant.
template <class V, class Body>
void with_activation(const Activation& activation, Body body) {
  const auto with_kind = [&]<bool plain>() {
    switch (activation.kind) {
      case ActivationKind::kSilu:
        return body.template operator()<ActivationForm<ActivationKind::kSilu, plain>>();
      case ActivationKind::kGeluTanh:
        return body.template operator()<ActivationForm<ActivationKind::kGeluTanh, plain>>();
      case ActivationKind::kGeluErf:
        return body.template operator()<ActivationForm<ActivationKind::kGeluErf, plain>>();
      case ActivationKind::kSwigluOai:
        return body.template operator()<ActivationForm<ActivationKind::kSwigluOai, plain>>();
    }
  };
  is_plain(activation) ? with_kind.template operator()<true>()
                       : with_kind.template operator()<false>();
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

// Row by row to the slots of the pairs.
template <class V>
void weigh(const ElementwiseTask& task) {
  for (int64_t r = 0; r < task.rows; ++r) {
    const int64_t pair = task.first_pair + r;
    if (task.slots[pair] < 0) continue;
    const auto w = V::set1(task.weights[pair]);
    const float* x = task.a + pair / task.fan_out * task.a_stride;
    float* out = task.out + task.slots[pair] * task.out_stride;
    for (int64_t i = 0; i < task.cols; i += 16) {
      const int64_t n = task.cols - i < 16 ? task.cols - i : 16;
      V::store_n(out + i, bf16_if<V>(task.rounded, V::mul(w, V::load_n(x + i, n))), n);
    }
  }
}

template <class V>
void elementwise(const ElementwiseTask& task) {
  using F = typename V::F;
  const auto s = V::set1(task.s);
  switch (task.step) {
    case ElementwiseStep::kGlu:
      return with_activation<V>(task.activation, [&]<class Form>() {
        map_rows<V>(
            task, task.a, task.a_stride, [&](F gate, F up) __attribute__((always_inline)) {
              return activate<V, Form>(task.activation, gate, up);
            });
      });
    case ElementwiseStep::kAdd:
      return map_rows<V>(task, task.out, task.out_stride, [](F a, F b) { return V::add(a, b); });
    case ElementwiseStep::kScale:
      return map_rows<V>(task, task.out, task.out_stride, [s](F a, F) { return V::mul(a, s); });
    case ElementwiseStep::kWeigh:
      return weigh<V>(task);
    case ElementwiseStep::kSoftcap:
      return map_rows<V>(
          task, task.out, task.out_stride, [s](F a, F) __attribute__((always_inline)) {
            return V::mul(s, tanh<V>(V::div(a, s)));
          });
  }
}

}  // namespace sluice::simd
