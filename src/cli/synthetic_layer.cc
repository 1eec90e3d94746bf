#include "cli/synthetic_layer.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

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

constexpr LayerShape kShapes[] = {{.name = "gemma4-26b-a4b",  // a sliding layer, five of six
                                   .experts = "gemma4-26b-a4b",
                                   .heads = 16,
                                   .kv_heads = 8,
                                   .head_size = 256,
                                   .window = 1024,
                                   .dense = 2112,
                                   .qk_norm = true,
                                   .v_norm = true,
                                   .sandwich = true},
                                  {.name = "gemma4-26b-a4b-full",
                                   .experts = "gemma4-26b-a4b",
                                   .heads = 16,
                                   .kv_heads = 2,
                                   .head_size = 512,
                                   .dense = 2112,
                                   .qk_norm = true,
                                   .v_norm = true,
                                   .k_is_v = true,
                                   .sandwich = true},
                                  {.name = "qwen3-30b-a3b",
                                   .experts = "qwen3-30b-a3b",
                                   .heads = 32,
                                   .kv_heads = 4,
                                   .head_size = 128,
                                   .qk_norm = true},
                                  {.name = "qwen3-235b-a22b",
                                   .experts = "qwen3-235b-a22b",
                                   .heads = 64,
                                   .kv_heads = 4,
                                   .head_size = 128,
                                   .qk_norm = true},
                                  {.name = "gpt-oss-20b",  // a sliding layer, every other one
                                   .experts = "gpt-oss-20b",
                                   .heads = 64,
                                   .kv_heads = 8,
                                   .head_size = 64,
                                   .window = 128,
                                   .sinks = true,
                                   .bias = true,
                                   .score = RouteScore::kSoftmaxSelected},
                                  {.name = "gpt-oss-120b",
                                   .experts = "gpt-oss-120b",
                                   .heads = 64,
                                   .kv_heads = 8,
                                   .head_size = 64,
                                   .window = 128,
                                   .sinks = true,
                                   .bias = true,
                                   .score = RouteScore::kSoftmaxSelected}};

void fill_uniform(std::span<float> out, float size, uint64_t seed) {
  std::mt19937 random(static_cast<uint32_t>(seed));
  for (float& v : out) v = (static_cast<float>(random()) * 0x1p-31f - 1.0f) * size;
}

}  // namespace

std::span<const LayerShape> layer_shapes() {
  return kShapes;
}

Result<LayerShape> parse_layer_shape(const std::string& text, ExpertShape* experts) {
  for (const LayerShape& s : kShapes)
    if (s.name == text) {
      SLUICE_ASSIGN_OR_RETURN(*experts, parse_expert_shape(std::string(s.experts)));
      return s;
    }
  SLUICE_ASSIGN_OR_RETURN(*experts, parse_expert_shape(text));
  LayerShape s;
  s.name = "custom";
  s.heads = 8;
  s.kv_heads = 2;
  s.head_size = 64;
  s.qk_norm = true;
  return s;
}

float* SyntheticLayer::floats(int64_t count, float value) {
  return storage_.emplace_back(static_cast<size_t>(count), value).data();
}

Result<SyntheticLayer::Linear> SyntheticLayer::linear(const SyntheticFormat& format, int64_t n,
                                                      int64_t k, uint64_t seed) const {
  std::vector<float> values(static_cast<size_t>(n * k));
  fill_uniform(values, std::sqrt(3.0f / static_cast<float>(k)), seed);
  Linear out;
  SLUICE_ASSIGN_OR_RETURN(out.matrix, format.pack(runtime_->device(), values.data(), n, k));
  out.arith = format.arith;
  return out;
}

Status SyntheticLayer::pack(uint64_t seed) {
  const int64_t d = e_.d, q = s_.heads * s_.head_size, kv = s_.kv_heads * s_.head_size;
  const SyntheticFormat& format = *dense_format_;
  SLUICE_ASSIGN_OR_RETURN(q_, linear(format, q, d, seed + 1));
  SLUICE_ASSIGN_OR_RETURN(k_, linear(format, kv, d, seed + 2));
  SLUICE_ASSIGN_OR_RETURN(v_, linear(format, kv, d, seed + 3));
  // As model/branches.cc: values keep f32 inputs where the format leaves a choice.
  if (!quantizes_x(v_.arith)) v_.arith = Arith::kF32Fma;
  SLUICE_ASSIGN_OR_RETURN(o_, linear(format, d, q, seed + 4));
  SLUICE_ASSIGN_OR_RETURN(router_, linear(synthetic_formats()[0], e_.experts, d, seed + 5));
  if (s_.bias)
    for (Linear* l : {&q_, &k_, &v_, &o_, &router_}) {
      l->bias.resize(static_cast<size_t>(l->matrix.n));
      fill_uniform(l->bias, 0.1f, seed + 9);
    }
  if (s_.dense == 0) return ok_status();
  std::vector<float> gate(static_cast<size_t>(s_.dense * d)), up(gate.size());
  fill_uniform(gate, std::sqrt(3.0f / static_cast<float>(d)), seed + 6);
  fill_uniform(up, std::sqrt(3.0f / static_cast<float>(d)), seed + 7);
  SLUICE_ASSIGN_OR_RETURN(gate_up_.matrix,
                          format.pack_glu(runtime_->device(), gate.data(), up.data(), s_.dense, d));
  gate_up_.arith = format.arith;
  SLUICE_ASSIGN_OR_RETURN(down_, linear(format, d, s_.dense, seed + 8));
  return ok_status();
}

Result<std::unique_ptr<SyntheticLayer>> SyntheticLayer::create(
    Runtime& runtime, const LayerShape& shape, const ExpertShape& experts,
    const SyntheticExperts& weights, const SyntheticFormat& expert_format,
    const SyntheticFormat& dense_format, const RoundingProfile& profile, int64_t tokens,
    int64_t context, uint64_t seed) {
  auto made = std::make_unique<SyntheticLayer>();
  SyntheticLayer& l = *made;
  l.runtime_ = &runtime;
  l.context_ = runtime.context();
  l.s_ = shape, l.e_ = experts, l.experts_ = &weights;
  l.expert_format_ = &expert_format, l.dense_format_ = &dense_format;
  l.profile_ = profile;
  l.t_ = tokens, l.cached_ = context;
  SLUICE_RETURN_IF_ERROR(l.pack(seed));
  const int64_t d = experts.d, q = shape.heads * shape.head_size,
                kv = shape.kv_heads * shape.head_size, pairs = tokens * experts.k;
  for (float** stream : {&l.input_, &l.hidden_, &l.normed_, &l.branch_, &l.second_})
    *stream = l.floats(tokens * d);
  fill_uniform({l.input_, static_cast<size_t>(tokens * d)}, 1.0f, seed);
  l.ones_ = l.floats(std::max({d, shape.head_size, shape.heads}), 1.0f);
  l.heads_q_ = l.floats(tokens * q), l.mixed_ = l.floats(tokens * q);
  l.heads_k_ = l.floats(tokens * kv), l.heads_v_ = l.floats(tokens * kv);
  l.units_ = l.floats(tokens * std::max<int64_t>(shape.dense, 1));
  l.logits_ = l.floats(tokens * experts.experts);
  l.weights_.resize(static_cast<size_t>(pairs));
  l.ids_.resize(l.weights_.size()), l.source_ = l.inverse_ = l.ids_;
  l.starts_.resize(static_cast<size_t>(experts.experts) + 1);
  l.rows_.resize(static_cast<size_t>(tokens));
  std::iota(l.rows_.begin(), l.rows_.end(), 0);
  l.positions_ = l.rows_;
  for (int32_t& p : l.positions_) p += static_cast<int32_t>(context);
  l.slots_ = l.positions_;  // block i of the sequence is block i of the pool
  l.query_starts_ = {0, static_cast<int32_t>(tokens)};
  const int64_t blocks = ceil_div(context + tokens, kKvBlock);
  l.table_.resize(static_cast<size_t>(blocks));
  std::iota(l.table_.begin(), l.table_.end(), 0);
  l.view_ = {DType::kBF16, nullptr, blocks, shape.kv_heads, shape.head_size};
  const auto elements = static_cast<size_t>(blocks * l.view_.block_elements());
  SLUICE_ASSIGN_OR_RETURN(l.cache_, runtime.device().allocate(elements * 2, "bench: KV cache"));
  std::fill_n(l.cache_.as<uint16_t>(), elements, uint16_t{0});
  l.view_.data = l.cache_.data();
  std::vector<double> frequencies(static_cast<size_t>(shape.head_size / 2));
  for (size_t i = 0; i < frequencies.size(); ++i)
    frequencies[i] =
        std::pow(1e-4, static_cast<double>(i) / static_cast<double>(frequencies.size()));
  l.angles_ = l.floats(tokens * shape.head_size);
  SLUICE_RETURN_IF_ERROR(rope_angles(l.context_, {l.positions_, frequencies, 1.0, l.angles_}));
  const size_t bytes = std::max(
      {attention_workspace_bytes(runtime.pool().size(), shape.heads, shape.head_size),
       matmul_workspace_bytes(tokens, std::max({d, q, shape.dense})),
       grouped_matmul_workspace_bytes(tokens, d),
       moe_experts_workspace_bytes({tokens, experts.k, experts.experts, d, experts.width})});
  SLUICE_ASSIGN_OR_RETURN(l.workspace_, runtime.device().allocate(bytes, "bench: workspace"));
  shape.sandwich ? l.declare_sandwich() : l.declare_pre_norm();
  return made;
}

void SyntheticLayer::add_norm(std::string_view name, float* from, float* to) {
  ops_.push_back({name, [this, from, to] {
                    return rms_norm(context_,
                                    {.x = stream(from), .weight = ones_, .out = stream(to)});
                  }});
}
void SyntheticLayer::add_matmul(std::string_view name, const Linear& w, float* x, float* out) {
  ops_.push_back({name, [this, &w, x, out] {
                    return matmul(context_,
                                  {.arith = w.arith,
                                   .x = {x, t_, w.matrix.k},
                                   .w = &w.matrix,
                                   .bias = w.bias.empty() ? nullptr : w.bias.data(),
                                   .out = {out, t_, w.matrix.n}},
                                  {workspace_.data(), workspace_.bytes()});
                  }});
}

// normed -> branch
void SyntheticLayer::add_attention() {
  const int64_t q = s_.heads * s_.head_size, kv = s_.kv_heads * s_.head_size;
  add_matmul("q_proj", q_, normed_, heads_q_);
  add_matmul("k_proj", k_, normed_, heads_k_);
  if (!s_.k_is_v) add_matmul("v_proj", v_, normed_, heads_v_);
  const auto head_norm = [this](float* from, float* to, int64_t heads, const float* weight) {
    return rms_norm(context_, {.x = {from, t_ * heads, s_.head_size},
                               .weight = weight,
                               .out = {to, t_ * heads, s_.head_size}});
  };
  if (s_.v_norm)
    ops_.push_back({"v_norm", [this, head_norm] {
                      return head_norm(s_.k_is_v ? heads_k_ : heads_v_, heads_v_, s_.kv_heads,
                                       nullptr);
                    }});
  if (s_.qk_norm)
    ops_.push_back({"qk_norm", [this, head_norm] {
                      SLUICE_RETURN_IF_ERROR(head_norm(heads_q_, heads_q_, s_.heads, ones_));
                      return head_norm(heads_k_, heads_k_, s_.kv_heads, ones_);
                    }});
  ops_.push_back(
      {"rope", [this, q, kv] {
         SLUICE_RETURN_IF_ERROR(rope(context_, {{heads_q_, t_, q}, s_.head_size, angles_}));
         return rope(context_, {{heads_k_, t_, kv}, s_.head_size, angles_});
       }});
  ops_.push_back(
      {"kv_write", [this, kv] {
         return kv_write(
             context_,
             {.k = {heads_k_, t_, kv}, .v = {heads_v_, t_, kv}, .slots = slots_, .cache = view_});
       }});
  ops_.push_back({"attention", [this, q] {
                    return attention(context_,
                                     {.q = {heads_q_, t_, q},
                                      .cache = view_,
                                      .heads = s_.heads,
                                      .scale = 1.0f / std::sqrt(static_cast<float>(s_.head_size)),
                                      .window = s_.window,
                                      .sinks = s_.sinks ? ones_ : nullptr,
                                      .query_starts = query_starts_,
                                      .positions = positions_,
                                      .block_tables = {table_.data(), 1, std::ssize(table_)},
                                      .out = {mixed_, t_, q}},
                                     {workspace_.data(), workspace_.bytes()});
                  }});
  add_matmul("o_proj", o_, mixed_, branch_);
}

void SyntheticLayer::add_router(float* x) {
  add_matmul("router", router_, x, logits_);
  ops_.push_back({"route_sort", [this] {
                    RouteRule rule;
                    rule.score = s_.score;
                    rule.renormalise = s_.score == RouteScore::kSoftmaxAll;
                    if (s_.sandwich) rule.rounding = profile_.router.route;
                    return moe_route_sort(context_,
                                          {.route = {.logits = MatrixF32(logits_, t_, e_.experts),
                                                     .rule = rule,
                                                     .k = e_.k,
                                                     .per_expert_scale = nullptr,
                                                     .ids = ids_,
                                                     .weights = weights_},
                                           .sort = {.experts = e_.experts,
                                                    .starts = starts_,
                                                    .source = source_,
                                                    .inverse = inverse_}});
                  }});
}

void SyntheticLayer::add_experts(CombineThen then, float* out) {
  ops_.push_back({"experts", [this, then, out] {
                    MoeExpertsArgs a;
                    a.arith = expert_format_->arith;
                    a.x = stream(normed_);
                    a.ids = ids_;
                    a.weights = weights_;
                    a.k = e_.k;
                    a.experts = experts_->weights(set_);
                    a.profile = profile_;
                    if (s_.sandwich && profile_.router.f32_weights)
                      a.profile.combine.weights = false;
                    a.sorted = {starts_, source_, inverse_};
                    a.then = then;
                    a.norm_weight = ones_;
                    (then == CombineThen::kResidualAdd ? a.residual : a.out) = stream(out);
                    if (then == CombineThen::kBranches) {
                      a.residual = stream(hidden_);
                      a.branches = {stream(branch_), ones_, ones_, 1.0f};
                    }
                    return moe_experts(context_, a, {workspace_.data(), workspace_.bytes()});
                  }});
}

// normed -> branch
void SyntheticLayer::add_dense() {
  ops_.push_back({"dense_gate_up", [this] {
                    const PackedMatrix* w = &gate_up_.matrix;
                    return grouped_matmul(context_,
                                          {.arith = gate_up_.arith,
                                           .x = stream(normed_),
                                           .source = rows_,
                                           .starts = query_starts_,
                                           .experts = {&w, 1},
                                           .glu = true,
                                           .activation = {e_.activation},
                                           .out = {units_, t_, s_.dense}},
                                          {workspace_.data(), workspace_.bytes()});
                  }});
  add_matmul("dense_down", down_, units_, branch_);
}

void SyntheticLayer::declare_pre_norm() {
  add_norm("input_norm", hidden_, normed_);
  add_attention();
  ops_.push_back({"residual_norm", [this] {
                    return rms_norm(context_, {.mode = RmsNormMode::kResidualThenNorm,
                                               .x = stream(branch_),
                                               .weight = ones_,
                                               .residual = stream(hidden_),
                                               .out = stream(normed_)});
                  }});
  add_router(normed_);
  add_experts(CombineThen::kResidualAdd, hidden_);
}

void SyntheticLayer::declare_sandwich() {
  const auto norm_then_add = [this](std::string_view name) {
    ops_.push_back({name, [this] {
                      return rms_norm(context_, {.mode = RmsNormMode::kNormThenResidual,
                                                 .x = stream(branch_),
                                                 .weight = ones_,
                                                 .residual = stream(hidden_)});
                    }});
  };
  add_norm("input_norm", hidden_, normed_);
  add_attention();
  norm_then_add("attention_norm_residual");
  if (s_.dense > 0) {
    add_norm("dense_norm", hidden_, normed_);
    add_dense();
  }
  if (profile_.router.norm)
    ops_.push_back(
        {"router_norm", [this] {
           return router_norm(
               context_,
               {.x = stream(hidden_), .scale = ones_, .round_bf16 = true, .out = stream(normed_)});
         }});
  else
    add_norm("router_norm", hidden_, normed_);
  add_router(normed_);
  add_norm("experts_norm", hidden_, normed_);
  if (s_.dense > 0) return add_experts(CombineThen::kBranches, second_);
  add_experts(CombineThen::kRmsNorm, branch_);
  norm_then_add("ffn_norm_residual");
}

void SyntheticLayer::begin_step(int64_t step) {
  std::copy_n(input_, t_ * e_.d, hidden_);
  set_ = step % experts_->sets();
}

int64_t SyntheticLayer::experts_used() const {
  int64_t used = 0;
  for (size_t e = 0; e + 1 < starts_.size(); ++e) used += starts_[e + 1] > starts_[e] ? 1 : 0;
  return used;
}

}  // namespace sluice
