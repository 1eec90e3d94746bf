// moe_route: from router logits to expert ids and combine weights.
//
//   kSoftmaxAll       p = softmax over all E;  select by p + bias;  w_k = p[id_k]
//   kSoftmaxSelected  select by l + bias;  w = softmax over the K selected logits
//   kSigmoid          p = sigmoid(l);  select by p + bias;  w_k = p[id_k]
// softmax: max, subtract, exp, sum32 (index = expert, or k), divide. The bias enters selection
// only. Selection is by (value descending, expert id ascending), always; the value is the f32 just
// written, so that two probabilities that round to the same f32 are a tie although their logits
// differ. Then, in this order: renormalise w = w / (sum + epsilon), the sum ascending in k (1/K
// when that divisor is 0); w = w * routed_scale; w = w * per_expert_scale[id].
//
// Non-finite input: such a logit has probability 0 and takes no part in max and sums; an entry
// whose logit or value is not finite is chosen only when no finite one is left, lowest id first; a
// row with such a logit is counted in stats. A row without any finite logit gets ids 0..K-1 and
// weights 1/K as they are. Ids are distinct and in range and weights finite whatever the logits.
//
// tensor           | shape  | dtype | layout
// logits           | [T, E] | f32   | row stride; E <= 4096, K <= min(E, 64)
// selection_bias   | [E]    | f32   | optional
// per_expert_scale | [E]    | f32   | optional (Gemma 4)
// ids, weights     | [T, K] | i32, f32 | contiguous, in order of selection
// Exact ids on every path given the same logits; weights the same bits on every ISA.
// Errors: E, K out of range, shapes.
#pragma once

#include <span>

#include "device/device.h"
#include "ops/moe_route/rule.h"
#include "tensor/view.h"

namespace sluice {

struct RouteStats {
  int64_t non_finite_rows = 0;
};
struct MoeRouteArgs {
  ConstMatrixF32 logits;
  RouteRule rule;
  int64_t k = 0;
  const float* selection_bias = nullptr;
  const float* per_expert_scale = nullptr;
  std::span<int32_t> ids;
  std::span<float> weights;
  RouteStats* stats = nullptr;
};
Status moe_route(const ExecContext& context, const MoeRouteArgs& args);

}  // namespace sluice
