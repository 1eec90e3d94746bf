// moe_route: from router logits to expert ids and combine weights.
//
//   kSoftmaxAll       p = softmax over all E
//   kSoftmaxSelected  p = softmax over the K selected logits; selects by logit
//   kSigmoid          p = sigmoid(l)
//   kSqrtSoftplus     p = sqrt(softplus(l))
// softmax: max, subtract, exp, sum32 (index = expert, or k), divide. In this order:
//   1. score     p, as above
//   2. select    v = p + bias, or l + bias (RouteSelect::kLogit); the bias enters nothing else
//   3. groups    of E / count consecutive experts, scored by the largest v or by the sum of the
//                two largest; v = -infinity outside the best `kept`, ties to the lower group
//   4. top-k     by (v descending, expert id ascending), always; v is the f32 just written, so that
//                two probabilities that round to the same f32 are a tie although logits differ
//   5. renormalise   w = w / (sum + epsilon), the sum ascending in k; 0 when that is 0
//   6. scale     w = w * routed_scale, then w = w * per_expert_scale[id]
//   7. shared    S experts appended: ids E .. E+S-1, weight 1 or sigmoid of logit column E+s;
//                nothing of 1 to 6 applies to them
// RouteRounding rounds to bf16 after the steps it names: {logits} is a router whose linear gives
// bf16 and whose softmax is f32, {logits, scores, weights} the chain in a bf16 model's dtype.
//
// Non-finite input: such a logit has probability 0 and takes no part in max and sums; an entry
// whose v is not finite is chosen only when no finite one is left, lowest id first, with weight 0.
// A weight that its scales make infinite or NaN is 0. Ids are distinct and in range and weights
// finite whatever the input. RouteStats counts rows with a non-finite logit or weight, and rows
// whose weights sum to 0 where they had to be renormalised.
//
// tensor           | shape    | dtype          | layout
// logits           | [T, E]   | f32, bf16, f16 | row stride; E <= 4096, K <= min(E, 64)
//                  | [T, E+S] |                | with SharedWeight::kSigmoid
// selection_bias   | [E]      | f32            | optional
// per_expert_scale | [E]      | f32            | optional (Gemma 4)
// ids, weights     | [T, K+S] | i32, f32       | row stride out_stride (0: K+S), as selected
// live_tokens      | scalar   | i32            | optional: rows from it on are not touched
// On CUDA devices every array is the device's, live_tokens and stats included.
// Exact ids on every path given the same logits; weights the same bits on every ISA.
// Errors: E, K, S, groups out of range, shapes, epsilon or scale not finite.
#pragma once

#include <span>

#include "base/fp.h"
#include "device/device.h"
#include "ops/moe_route/rule.h"
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace sluice {

// Rows of logits in the dtype that the router's product left them in.
struct LogitsView {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0, cols = 0, stride = 0;

  LogitsView() = default;
  LogitsView(ConstMatrixF32 m)  // NOLINT: implicit by design
      : data(m.data), rows(m.rows), cols(m.cols), stride(m.stride) {}
  LogitsView(MatrixF32 m) : LogitsView(ConstMatrixF32(m)) {}  // NOLINT: implicit by design
  LogitsView(MatrixView<const bf16> m)                        // NOLINT: implicit by design
      : data(m.data), dtype(DType::kBF16), rows(m.rows), cols(m.cols), stride(m.stride) {}
  LogitsView(const void* d, DType type, int64_t r, int64_t c, int64_t s)
      : data(d), dtype(type), rows(r), cols(c), stride(s) {}
};

struct RouteStats {
  int64_t non_finite_rows = 0, zero_rows = 0;
};
struct MoeRouteArgs {
  LogitsView logits;
  RouteRule rule;
  int64_t k = 0;
  const float* selection_bias = nullptr;
  const float* per_expert_scale = nullptr;
  std::span<int32_t> ids;
  std::span<float> weights;
  RouteStats* stats = nullptr;  // added to
  int64_t out_stride = 0;
  const int32_t* live_tokens = nullptr;
};
Status moe_route(const ExecContext& context, const MoeRouteArgs& args);

}  // namespace sluice
