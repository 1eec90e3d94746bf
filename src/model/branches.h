// The branches of a decoder layer: what happens between reading the residual stream and adding to
// it.
//
// Each reads ForwardState's `normed` and leaves its result in `branch` (or where it says).
// forward.cc strings them together; kernels choose themselves by ISA, format and arith.
#pragma once

#include "model/forward_state.h"
#include "model/mode.h"
#include "ops/matmul/panels.h"
#include "ops/moe_experts/moe_experts.h"

namespace sluice {

class Branches {
 public:
  Branches(const ExecContext& context, const Model& model, const Batch& batch,
           ForwardState::Impl& state)
      : c_(context), m_(model), b_(batch), s_(state), t_(static_cast<int64_t>(batch.ids.size())) {}

  // normed -> branch
  Status attend(const AttentionSpec& a, const AttentionWeights& w) const;
  // normed -> branch
  Status dense(const DenseSpec& d, const DenseWeights& w) const;
  // The residual stream as a router of its own norm reads it, rounded as the profile says.
  Status norm_for_router(ConstMatrixF32 x, const MoeWeights& w, MatrixF32 out) const;
  // x -> expert_ids, expert_weights, and the pairs sorted by expert
  Status route(const MoeSpec& e, const MoeWeights& w, ConstMatrixF32 x, int layer,
               const Tap* tap) const;
  // normed and the routing, ready for moe_experts once the caller says what follows the sum.
  MoeExpertsArgs experts(const MoeSpec& e, const MoeWeights& w) const;

  // Hands the residual stream, or a layer's routing, to the tap; from a device by way of a copy.
  Status show_hidden(const Tap* tap, int layer) const;
  Status show_routing(const Tap* tap, int layer, int64_t k) const;

  // The T live rows of a buffer.
  MatrixF32 rows(float* data, int64_t cols) const { return {data, t_, cols}; }
  MatrixF32 stream(float* data) const { return rows(data, m_.spec.d); }
  Status norm(ConstMatrixF32 x, const float* weight, MatrixF32 out) const;
  Arith arith(const PackedMatrix& w) const {
    return product_arith(w.format, m_.compute, m_.mode, m_.bf16_dot);
  }

 private:
  Status linear(ConstMatrixF32 x, const PackedMatrix& w, const F32Vector& bias, MatrixF32 out,
                Arith arith) const;
  Status project(const AttentionSpec& a, const AttentionWeights& w) const;

  const ExecContext& c_;
  const Model& m_;
  const Batch& b_;
  ForwardState::Impl& s_;
  const int64_t t_;
};

}  // namespace sluice
