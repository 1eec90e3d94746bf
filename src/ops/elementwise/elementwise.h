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
// All f32 with the functions of simd/scalar.h: every ISA gives the same bits. Within 8 ulp of f64;
// gelu_tanh within 8 ulp * max(1, 2|u|), since exp magnifies the rounding of its argument 2u.
// Errors: shapes that disagree; cap or limit not positive.
#pragma once

#include <optional>
#include <string_view>

#include "device/device.h"
#include "ops/elementwise/activation.h"
#include "tensor/view.h"

namespace sluice {

std::string_view activation_name(ActivationKind kind);
// Exact names: silu, gelu_pytorch_tanh (or gelu_tanh), gelu (or gelu_erf), swiglu_oai.
std::optional<ActivationKind> activation_from_name(std::string_view name);

// Refuses a limit that is not positive; `op` leads the message.
Status check_activation(std::string_view op, const Activation& activation);

Status glu(const ExecContext& context, ConstMatrixF32 gate, ConstMatrixF32 up,
           const Activation& activation, MatrixF32 out);
Status add(const ExecContext& context, MatrixF32 a, ConstMatrixF32 b);
Status scale(const ExecContext& context, MatrixF32 a, float s);
Status softcap(const ExecContext& context, MatrixF32 a, float cap);

}  // namespace sluice
