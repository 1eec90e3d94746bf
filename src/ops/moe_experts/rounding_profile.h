// RoundingProfile: where an implementation of the expert layer rounds to bf16, its model dtype, and
// in which order it adds. A profile changes nothing else: routing, arith (tensor/arith.h) and
// weights are arguments of their own. Under arith bf16_tile the products round their inputs once
// more, which only matters where a profile leaves them in f32 (mojo's hidden rows).
//
//   router            router, of a router with a norm of its own (Gemma 4)
//   x * w             weighted_inputs, when the router's weight stands on the input
//   gate_up + bias    activation.inputs
//   act(g) (* u)      activation.steps, activation.result
//   down + bias       combine.rows
//   w, w * y, sum     combine.weights, .products, .sums, .result; .order, .fused
//
// Each profile names the source of its fields: published code and tests of that revision, read,
// not run. tests/oracle/test_experts.py has an oracle per profile, of hf transformers itself. No
// profile rounds between a product and its bias, which eager frameworks do where the two are
// operators of their own (transformers' gpt-oss).
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "ops/elementwise/activation.h"
#include "ops/moe_combine/combine_then.h"
#include "ops/moe_route/rule.h"

namespace sluice {

// The chain from the residual stream to the router's weights, where the router has a norm of its
// own. Routers that read the experts' input are f32 in every profile.
struct RouterRounding {
  bool norm = false;         // ops/router_norm: x, n, n * scale and out; unset, one folded weight
  RouteRounding route = {};  // ops/moe_route; .logits: as the router's product leaves them
  bool f32_weights = false;  // combine takes these weights as they are, whatever it does to others
};

struct RoundingProfile {
  std::string_view name = "f32";
  ActivationRounding activation = {};
  CombineRounding combine = {};
  bool weighted_inputs = false;
  RouterRounding router = {};
};

// Sluice's own and the default: nothing between the products is rounded but by the arith.
inline constexpr RoundingProfile kF32Profile = {};

inline constexpr RoundingProfile kRoundingProfiles[] = {
    kF32Profile,
    // transformers 5.23, {Qwen3Moe,GptOss,Gemma4}*Experts.forward, eager, all tensors bf16: every
    // operator rounds; experts are visited in ascending id and index_add_ sums in bf16. Gemma 4's
    // router: softmax and what follows in f32 over bf16 logits, and f32 weights.
    {.name = "hf",
     .activation = {.inputs = true, .steps = true, .result = true},
     .combine = {.rows = true,
                 .weights = true,
                 .products = true,
                 .sums = true,
                 .result = true,
                 .fused = false,
                 .order = CombineOrder::kSlot},
     .weighted_inputs = true,
     .router = {.norm = true, .route = {.logits = true}, .f32_weights = true}},
    // ROCm/aiter e4048607a5, the reference of op_tests (torch_moe): first product and activation in
    // f32, one cast to the output dtype; second product, f32 router weight and sum over k in f32;
    // one cast. (Its kernels' atomic bf16 sums have no order and no profile.)
    {.name = "aiter", .activation = {.result = true}, .combine = {.result = true, .fused = false}},
    // modular/modular, nn/moe and the Gemma 4 graph: grouped matmuls store bf16, the activation is
    // one element-wise kernel in f32 with one cast; weights are cast to bf16, and combine is a
    // batched matmul [1, K] x [K, D]: f32 accumulation, one cast. Gemma 4's router: as hf's, its
    // weights cast at the end.
    {.name = "max",
     .activation = {.inputs = true, .result = true},
     .combine = {.rows = true, .weights = true, .result = true},
     .weighted_inputs = true,
     .router = {.norm = true, .route = {.logits = true, .out = true}}},
    // vllm-project/tpu-inference b8692ff01, fused_moe_gmm: activation on the f32 accumulator with
    // one cast, second product cast, weights cast to bf16 before they multiply and add in f32, one
    // cast.
    {.name = "tpu",
     .activation = {.result = true},
     .combine = {.rows = true, .weights = true, .result = true, .fused = false}},
    // XPU-Forces/mojo_opset b97e98bff, MojoExperts and MojoMoECombine: f32 from product to product,
    // one cast behind the second; f32 weights, scatter-add over rows that lie by expert, one cast.
    {.name = "mojo",
     .combine = {.rows = true, .result = true, .fused = false, .order = CombineOrder::kSlot}},
    // The same revision, MojoQuantExperts: the first product is cast, the hidden rows stay f32 for
    // their quantisation; combine as mojo.
    {.name = "mojo_quant",
     .activation = {.inputs = true},
     .combine = {.rows = true, .result = true, .fused = false, .order = CombineOrder::kSlot}},
    // sgl-project/sglang, fused_moe_triton and moe_sum_reduce: first product and activation are
    // cast, the second product is weighted in f32 and then cast, the sum over k is f32 and cast.
    {.name = "sglang",
     .activation = {.inputs = true, .result = true},
     .combine = {.products = true, .result = true, .fused = false}},
};

// The profile of that name; unknown: a sentence that lists them.
Result<RoundingProfile> parse_rounding_profile(std::string_view name);
// "f32, hf, aiter, ..."
std::string rounding_profile_names();

}  // namespace sluice
