// grouped_matmul: for each expert e, the rows sorted to it times that expert's weights.
//
//   slot s in [starts[e], starts[e+1]):  x_s = x[source[s], :]
//   plain  out[s, n] = dot_arith(x_s, W_e[n, :]) (+ bias_e[n])                       n in [0, N)
//   glu    out[s, i] = act(g, u), g = dot(x_s, Wgate_e[i]) + bgate_e[i], u likewise  i in [0, I)
// A kGluPanel16 matrix taken plain gives N = 2 I outputs, gate first.
// GEMM + activation in one pass equals grouped_matmul followed by elementwise glu bit for bit.
// Each weight panel is read once per call and used for all rows of its expert.
//
// tensor  | shape           | dtype            | layout
// x       | [*, K]          | f32              | row stride
// source  | [R]             | i32              | row of x of each slot (moe_sort), R = T*K; empty:
//         |                 |                  | slot s takes row s
// starts  | [E+1]           | i32              | starts[0] = 0, ascending, starts[E] <= R
// experts | [E] pointers    | as matmul's w    | kPanel16 or, for glu, kGluPanel16; lie anywhere
// bias    | [E] pointers    | f32              | optional; glu: 2 I values, gate first
// out     | [R, N] or [R, I]| f32              | row stride; slots beyond starts[E] are left alone
// Arith, rounding, invariance and tolerance as matmul.
// On CUDA devices every array is the device's: source, starts (read there, when the op runs, and
// trusted as source is), the panels of the experts, the array `bias` and what it points to. The
// structs that `experts` points to stay the host's, so that their data pointers are given a second
// time, as the device's array device_panels. Slots of an expert without weights are left alone.
// Errors: shapes, a null expert that has rows.
#pragma once

#include <span>

#include "device/device.h"
#include "ops/elementwise/elementwise.h"
#include "tensor/arith.h"
#include "weights/packed.h"

namespace sluice {

struct GroupedMatmulArgs {
  Arith arith = Arith::kF32Fma;
  ConstMatrixF32 x;
  std::span<const int32_t> source;
  std::span<const int32_t> starts;
  std::span<const PackedMatrix* const> experts;
  std::span<const float* const> bias;  // empty: none
  bool glu = false;
  Activation activation;  // glu only
  MatrixF32 out;
  // CUDA: [E] data of the experts in device memory, null where there is none; E = 1 may omit it.
  std::span<const std::byte* const> device_panels;
};
size_t grouped_matmul_workspace_bytes(int64_t max_slots, int64_t max_k);
Status grouped_matmul(const ExecContext& context, const GroupedMatmulArgs& args,
                      Workspace workspace);

}  // namespace sluice
