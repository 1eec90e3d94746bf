// elementwise: the small maps between the big ops.
//
//   glu      out[t, i] = act(gate[t, i], up[t, i])
//     silu         silu(g) * u
//     gelu_tanh    gelu_tanh(g) * u
//     gelu_erf     gelu_erf(g) * u
//     swiglu_oai   (u' + 1) * (g' * sigmoid(alpha * g')),
//                  g' = min(g, limit), u' = clamp(u, -limit, limit)
//   add      a = a + b                    scale   a = a * s
//   softcap  a = cap * tanh(a / cap)
//   weigh_rows  out[slots[p]] = weights[p] * x[p / K]   (a router's weights on the input)
// glu's clamps and bf16 roundings: activation.h.
// All f32 with the functions of simd/scalar.h: every ISA gives the same bits. Within 8 ulp of f64;
// gelu_tanh within 8 ulp * max(1, 2|u|), since exp magnifies the rounding of its argument 2u.
// Errors: shapes that disagree; cap or limit not positive.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "device/device.h"
#include "ops/elementwise/activation.h"
#include "tensor/view.h"

namespace sluice {

std::string_view activation_name(ActivationKind kind);
// Names of Hugging Face configs, too: silu, gelu_pytorch_tanh (or gelu_tanh), gelu (or gelu_erf),
// swiglu_oai.
std::optional<ActivationKind> activation_from_name(std::string_view name);

// Exactly silu, gelu_tanh, gelu_erf or swiglu_oai ("gelu" alone means erf to some and tanh to
// others); anything else is a sentence with these names that `op` leads.
Result<ActivationKind> parse_activation(std::string_view op, std::string_view name);

// Refuses a limit that is not positive; `op` leads the message.
Status check_activation(std::string_view op, const Activation& activation);

Status glu(const ExecContext& context, ConstMatrixF32 gate, ConstMatrixF32 up,
           const Activation& activation, MatrixF32 out);
Status add(const ExecContext& context, MatrixF32 a, ConstMatrixF32 b);
Status scale(const ExecContext& context, MatrixF32 a, float s);
Status softcap(const ExecContext& context, MatrixF32 a, float cap);

struct WeighRowsArgs {
  ConstMatrixF32 x;                // [T, D]
  int64_t k = 1;                   // pairs per row of x
  std::span<const int32_t> slots;  // [T*K] rows of out; negative: dropped
  std::span<const float> weights;  // [T*K]
  bool rounded = false;            // products to bf16
  MatrixF32 out;                   // [R, D]; rows that are no slot are left alone
};
Status weigh_rows(const ExecContext& context, const WeighRowsArgs& args);

}  // namespace sluice
