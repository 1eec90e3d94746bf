// moe_experts: the expert layer whole, from routed ids and weights to the combined output.
//
//   sort -> grouped_matmul with glu (D -> I) -> grouped_matmul (I -> D) -> combine
// in one call that equals that chain bit for bit. The activation writes its rows rounded and in
// the blocks that the second product streams: two passes over [T*K, I] and one loop fewer than the
// chain, and half its workspace. (Ariths that quantise x scale several k, which several tasks may
// write: their rows stay f32 and are quantised between the products.) On CPUs, where many experts
// have rows, each worker takes one expert after the other through both products, its rows in its
// own cache (by_expert.h). Each piece is an op of its own, because engines with expert parallelism
// put communication between them.
//
// tensor   | shape         | dtype            | layout
// x        | [T, D]        | f32              | row stride
// ids      | [T, K]        | i32              | contiguous; weights [T, K] f32 likewise
// gate_up  | [E] pointers  | as matmul's w     | kGluPanel16 [2I, D]; bias optional (gate first)
// down     | [E] pointers  | as matmul's w     | kPanel16 [D, I]; bias optional, inside the weight
// then     |               |                  | as moe_combine
// counts   | [E]           | i64              | optional: pairs per expert are added
// sorted   | [E+1], [T*K]  | i32              | optional: starts, source and inverse of ids
//          |               |                  | sorted before (moe_route_sort); expert_map and
//          |               |                  | counts were that sort's and must be empty
// On CUDA devices the pieces are queued one after the other, and arrays are the device's, counts
// included (ops/grouped_matmul/grouped_matmul.h says which are not).
// `profile` puts the rounding points of another implementation between the pieces
// (rounding_profile.h); the default has none and costs nothing. `weight_point` says where the
// router's weight stands: on the output, w * y in the sum, or on the input, dot(w * x, W) with the
// expert rows added as they are (Llama 4), which takes another [T*K, D] of workspace.
// Errors: as the pieces.
#pragma once

#include <span>

#include "device/device.h"
#include "ops/elementwise/elementwise.h"
#include "ops/moe_combine/moe_combine.h"
#include "ops/moe_experts/rounding_profile.h"
#include "tensor/arith.h"
#include "weights/packed.h"

namespace sluice {

struct ExpertWeights {
  std::span<const PackedMatrix*const> gate_up, down;
  std::span<const float*const> gate_up_bias, down_bias;  // empty: none
  int64_t width = 0;                                     // I
  Activation activation;
  // CUDA: the panels of gate_up and down, as grouped_matmul's device_panels; E = 1 may omit them.
  std::span<const std::byte*const> gate_up_panels, down_panels;
};
enum class WeightPoint { kOutput, kInput };
struct SortedPairs {
  std::span<const int32_t> starts, source, inverse;
};
struct MoeExpertsArgs {
  Arith arith = Arith::kF32Fma;
  ConstMatrixF32 x;
  std::span<const int32_t> ids;
  std::span<const float> weights;
  int64_t k = 0;
  std::span<const int32_t> expert_map;  // empty: identity
  ExpertWeights experts;
  RoundingProfile profile;  // its activation rounding replaces that of experts.activation
  WeightPoint weight_point = WeightPoint::kOutput;
  CombineThen then = CombineThen::kStore;
  const float* norm_weight = nullptr;
  float eps = 1e-6f;
  MatrixF32 out;
  MatrixF32 residual;
  CombineBranches branches;  // CombineThen::kBranches
  std::span<int64_t> counts;
  SortedPairs sorted;
};
struct MoeExpertsShape {
  int64_t max_tokens = 0, k = 0, experts = 0, d = 0, width = 0;
  Arith arith = Arith::kFp8G128;  // the one that needs most, unless said
  WeightPoint weight_point = WeightPoint::kOutput;
};
size_t moe_experts_workspace_bytes(const MoeExpertsShape& shape);
Status moe_experts(const ExecContext& context, const MoeExpertsArgs& args, Workspace workspace);

}  // namespace sluice
