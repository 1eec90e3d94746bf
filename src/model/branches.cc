#include "model/branches.h"

#include "ops/attention/attention.h"
#include "ops/grouped_matmul/grouped_matmul.h"
#include "ops/kv_write/kv_write.h"
#include "ops/matmul/matmul.h"
#include "ops/moe_route_sort/moe_route_sort.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/rope/rope.h"
#include "ops/router_norm/router_norm.h"

namespace sluice {
namespace {

const float* optional(const F32Vector& v) {
  return v.empty() ? nullptr : v.data();
}

}  // namespace

Status Branches::norm(ConstMatrixF32 x, const float* weight, MatrixF32 out) const {
  return rms_norm(c_, {.x = x, .weight = weight, .eps = m_.spec.eps, .out = out});
}

Status Branches::linear(ConstMatrixF32 x, const PackedMatrix& w, const F32Vector& bias,
                        MatrixF32 out, Arith arith) const {
  return matmul(c_, {.arith = arith, .x = x, .w = &w, .bias = optional(bias), .out = out},
                s_.workspace);
}

// q, k, v of the normed stream, normed per head and rotated.
Status Branches::project(const AttentionSpec& a, const AttentionWeights& w) const {
  const MatrixF32 x = stream(s_.normed), q = rows(s_.q, a.heads * a.head_size);
  const MatrixF32 k = rows(s_.k, a.kv_heads * a.head_size), v = rows(s_.v, k.cols);
  const MatrixF32 q_heads(s_.q, t_ * a.heads, a.head_size);
  const MatrixF32 k_heads(s_.k, t_ * a.kv_heads, a.head_size);
  const MatrixF32 v_heads(s_.v, t_ * a.kv_heads, a.head_size);
  SLUICE_RETURN_IF_ERROR(linear(x, w.q, w.q_bias, q, arith(w.q)));
  SLUICE_RETURN_IF_ERROR(linear(x, w.k, w.k_bias, k, arith(w.k)));
  // Where V is the raw K projection, its norm reads k before k's own norm and rope.
  const bool v_from_k = a.k_is_v && a.v_norm;
  // Values reach the residual stream, which the router reads, linearly: this small product keeps
  // f32 inputs in every compute mode. Rounding them flips close expert choices early and moved the
  // bf16 logits of one golden case (gptoss-a) by 10 times transformers' own drift, instead of 1.4.
  if (!v_from_k)
    SLUICE_RETURN_IF_ERROR(
        linear(x, a.k_is_v ? w.k : w.v, a.k_is_v ? w.k_bias : w.v_bias, v, Arith::kF32Fma));
  if (a.v_norm) SLUICE_RETURN_IF_ERROR(norm(v_from_k ? k_heads : v_heads, nullptr, v_heads));
  if (a.qk_norm) {
    SLUICE_RETURN_IF_ERROR(norm(q_heads, w.q_norm.data(), q_heads));
    SLUICE_RETURN_IF_ERROR(norm(k_heads, w.k_norm.data(), k_heads));
  }
  const float* angles = s_.cos_sin[static_cast<size_t>(a.rope)];
  SLUICE_RETURN_IF_ERROR(rope(c_, {.x = q, .head_size = a.head_size, .cos_sin = angles}));
  return rope(c_, {.x = k, .head_size = a.head_size, .cos_sin = angles});
}

Status Branches::attend(const AttentionSpec& a, const AttentionWeights& w) const {
  SLUICE_RETURN_IF_ERROR(project(a, w));
  const BatchKvGroup& group = b_.groups[static_cast<size_t>(a.kv_group)];
  const KvCacheView cache = group.caches[static_cast<size_t>(a.kv_layer)];
  const MatrixF32 mixed = rows(s_.mixed, a.heads * a.head_size);
  SLUICE_RETURN_IF_ERROR(kv_write(c_, {.k = rows(s_.k, a.kv_heads * a.head_size),
                                       .v = rows(s_.v, a.kv_heads * a.head_size),
                                       .slots = group.slots,
                                       .cache = cache}));
  SLUICE_RETURN_IF_ERROR(attention(c_,
                                   {.q = rows(s_.q, mixed.cols),
                                    .cache = cache,
                                    .heads = a.heads,
                                    .scale = a.scale,
                                    .window = a.window,
                                    .sinks = optional(w.sinks),
                                    .query_starts = b_.query_starts,
                                    .positions = b_.positions,
                                    .block_tables = group.block_tables,
                                    .out = mixed},
                                   s_.workspace));
  return linear(mixed, w.o, w.o_bias, stream(s_.branch), arith(w.o));
}

// A dense feed-forward is a group of one expert: the same kernels, the activation in the same pass.
Status Branches::dense(const DenseSpec& d, const DenseWeights& w) const {
  const PackedMatrix* expert = &w.gate_up;
  SLUICE_RETURN_IF_ERROR(grouped_matmul(c_,
                                        {.arith = arith(w.gate_up),
                                         .x = stream(s_.normed),
                                         .source = {s_.every_row, static_cast<size_t>(t_)},
                                         .starts = {s_.row_ranges + 2 * t_, 2},
                                         .experts = {&expert, 1},
                                         .glu = true,
                                         .activation = d.activation,
                                         .out = rows(s_.units, d.width)},
                                        s_.workspace));
  return linear(rows(s_.units, d.width), w.down, {}, stream(s_.branch), arith(w.down));
}

Status Branches::norm_for_router(ConstMatrixF32 x, const MoeWeights& w, MatrixF32 out) const {
  if (!m_.profile.router.norm) return norm(x, w.router_norm.data(), out);
  return router_norm(
      c_,
      {.x = x, .scale = w.router_scale.data(), .eps = m_.spec.eps, .round_bf16 = true, .out = out});
}

// The router's product is f32 in every compute mode: a rounded logit flips expert choices. Only a
// profile that rounds where another implementation does rounds it, behind the product.
Status Branches::route(const MoeSpec& e, const MoeWeights& w, ConstMatrixF32 x, int layer,
                       const Tap* tap) const {
  const MatrixF32 logits = rows(s_.router_logits, e.experts);
  SLUICE_RETURN_IF_ERROR(linear(x, w.router, w.router_bias, logits, Arith::kF32Fma));
  const auto pairs = static_cast<size_t>(t_ * e.k);
  const auto experts = static_cast<size_t>(e.experts);
  RouteRule rule = e.rule;
  if (e.router_norm) rule.rounding = m_.profile.router.route;
  SLUICE_RETURN_IF_ERROR(
      moe_route_sort(c_, {.route = {.logits = logits,
                                    .rule = rule,
                                    .k = e.k,
                                    .per_expert_scale = optional(w.per_expert_scale),
                                    .ids = {s_.expert_ids, pairs},
                                    .weights = {s_.expert_weights, pairs}},
                          .sort = {.experts = e.experts,
                                   .starts = {s_.expert_starts, experts + 1},
                                   .source = {s_.pair_source, pairs},
                                   .inverse = {s_.pair_inverse, pairs},
                                   .totals = {s_.expert_counts + layer * s_.most_experts, experts}},
                          .stats = &s_.routes}));
  return show_routing(tap, layer, e.k);
}

Status Branches::show_hidden(const Tap* tap, int layer) const {
  if (tap == nullptr || !tap->hidden) return ok_status();
  SLUICE_ASSIGN_OR_RETURN(const float* rows,
                          s_.host_copy(c_, s_.hidden, t_ * m_.spec.d, s_.shown_values));
  tap->hidden(layer, {rows, t_, m_.spec.d});
  return ok_status();
}

Status Branches::show_routing(const Tap* tap, int layer, int64_t k) const {
  if (tap == nullptr || !tap->router) return ok_status();
  const auto pairs = static_cast<size_t>(t_ * k);
  SLUICE_ASSIGN_OR_RETURN(const int32_t* ids,
                          s_.host_copy(c_, s_.expert_ids, t_ * k, s_.shown_ids));
  SLUICE_ASSIGN_OR_RETURN(const float* weights,
                          s_.host_copy(c_, s_.expert_weights, t_ * k, s_.shown_values));
  tap->router(layer, k, {ids, pairs}, {weights, pairs});
  return ok_status();
}

MoeExpertsArgs Branches::experts(const MoeSpec& e, const MoeWeights& w) const {
  const auto pairs = static_cast<size_t>(t_ * e.k);
  RoundingProfile profile = m_.profile;
  if (e.router_norm && profile.router.f32_weights) profile.combine.weights = false;
  return {.arith = arith(w.gate_up.front()),
          .x = stream(s_.normed),
          .ids = {s_.expert_ids, pairs},
          .weights = {s_.expert_weights, pairs},
          .k = e.k,
          .experts = {w.gate_up_experts.matrices(), w.down_experts.matrices(),
                      w.gate_up_experts.biases(), w.down_experts.biases(), e.width, e.activation,
                      w.gate_up_experts.panels(), w.down_experts.panels()},
          .profile = profile,
          .eps = m_.spec.eps,
          .sorted = {{s_.expert_starts, static_cast<size_t>(e.experts + 1)},
                     {s_.pair_source, pairs},
                     {s_.pair_inverse, pairs}}};
}

}  // namespace sluice
