#include "model/tensor_table.h"

#include <cmath>

namespace sluice {

std::string_view tensor_role_name(TensorRole role) {
  switch (role) {
    case TensorRole::kEmbedding:
      return "embedding";
    case TensorRole::kHead:
      return "head";
    case TensorRole::kAttention:
      return "attention";
    case TensorRole::kRouter:
      return "router";
    case TensorRole::kExperts:
      return "experts";
    case TensorRole::kDense:
      return "dense";
    case TensorRole::kNorm:
      return "norms";
  }
  return "unknown";
}

bool StoredTensor::per_expert() const {
  return names.front().find("{}") != std::string::npos;
}

TensorRule& add_layer_rule(TensorTable& table, int layer, TensorRule rule) {
  rule.layer = layer;
  for (StoredAs& way : rule.ways)
    for (StoredTensor& stored : way)
      for (std::string& name : stored.names) name = fmt::format("layers.{}.{}", layer, name);
  table.rules.push_back(std::move(rule));
  return table.rules.back();
}

namespace {

constexpr DtypePolicy kFloat = DtypePolicy::kFloat;

// Vectors and plain matrices have one stored tensor under one name.
TensorRule vector_rule(TensorRole role, std::string letters, int64_t n, ToVector to,
                       std::string name) {
  return {.role = role,
          .letters = std::move(letters),
          .n = n,
          .to = to,
          .ways = {{{{std::move(name)}, "N", TensorPart::kWhole, kFloat}}}};
}
TensorRule matrix_rule(TensorRole role, std::string letters, int64_t n, int64_t k, ToMatrix to,
                       std::string name) {
  return {.role = role,
          .letters = std::move(letters),
          .n = n,
          .k = k,
          .shard = 'N',
          .to = to,
          .ways = {{{{std::move(name)}, "NK"}}}};
}

void declare_attention(const ModelSpec& spec, int l, TensorTable& table) {
  const AttentionSpec& a = spec.layers[static_cast<size_t>(l)].attention;
  const int64_t q = a.heads * a.head_size, kv = a.kv_heads * a.head_size, d = spec.d;
  constexpr TensorRole kRole = TensorRole::kAttention;
#define SLUICE_ATTENTION(type, field) \
  static_cast<type>(                  \
      [](Model& m, int i) { return &m.layers[static_cast<size_t>(i)].attention.field; })
  const auto matrix = [&](const char* letters, int64_t n, int64_t k, ToMatrix to,
                          const char* name) {
    add_layer_rule(table, l, matrix_rule(kRole, letters, n, k, to, name));
  };
  const auto vector = [&](const char* letters, int64_t n, ToVector to, const char* name,
                          char shard) {
    add_layer_rule(table, l, vector_rule(kRole, letters, n, to, name)).shard = shard;
  };
  matrix("[H*C, D]", q, d, SLUICE_ATTENTION(ToMatrix, q), "self_attn.q_proj.weight");
  matrix("[G*C, D]", kv, d, SLUICE_ATTENTION(ToMatrix, k), "self_attn.k_proj.weight");
  if (!a.k_is_v)
    matrix("[G*C, D]", kv, d, SLUICE_ATTENTION(ToMatrix, v), "self_attn.v_proj.weight");
  matrix("[D, H*C]", d, q, SLUICE_ATTENTION(ToMatrix, o), "self_attn.o_proj.weight");
  if (a.qkv_bias) {
    vector("[H*C]", q, SLUICE_ATTENTION(ToVector, q_bias), "self_attn.q_proj.bias", 'N');
    vector("[G*C]", kv, SLUICE_ATTENTION(ToVector, k_bias), "self_attn.k_proj.bias", 'N');
    if (!a.k_is_v)
      vector("[G*C]", kv, SLUICE_ATTENTION(ToVector, v_bias), "self_attn.v_proj.bias", 'N');
  }
  if (a.o_bias) vector("[D]", d, SLUICE_ATTENTION(ToVector, o_bias), "self_attn.o_proj.bias", 'N');
  if (a.qk_norm) {
    vector("[C]", a.head_size, SLUICE_ATTENTION(ToVector, q_norm), "self_attn.q_norm.weight", 'R');
    vector("[C]", a.head_size, SLUICE_ATTENTION(ToVector, k_norm), "self_attn.k_norm.weight", 'R');
  }
  if (a.sinks) vector("[H]", a.heads, SLUICE_ATTENTION(ToVector, sinks), "self_attn.sinks", 'N');
#undef SLUICE_ATTENTION
}

#define SLUICE_LAYER(type, field) \
  static_cast<type>([](Model& m, int i) { return &m.layers[static_cast<size_t>(i)].field; })

void declare_norms(const ModelSpec& spec, int l, TensorTable& table) {
  const LayerSpec& layer = spec.layers[static_cast<size_t>(l)];
  const auto norm = [&](ToVector to, const char* name) {
    add_layer_rule(table, l, vector_rule(TensorRole::kNorm, "[D]", spec.d, to, name));
  };
  norm(SLUICE_LAYER(ToVector, input_norm), "input_layernorm.weight");
  norm(SLUICE_LAYER(ToVector, post_attention_norm), "post_attention_layernorm.weight");
  if (layer.norms == NormPlacement::kSandwich) {
    norm(SLUICE_LAYER(ToVector, pre_feedforward_norm), "pre_feedforward_layernorm.weight");
    norm(SLUICE_LAYER(ToVector, post_feedforward_norm), "post_feedforward_layernorm.weight");
    if (layer.moe) {
      norm(SLUICE_LAYER(ToVector, post_feedforward_norm_1), "post_feedforward_layernorm_1.weight");
      norm(SLUICE_LAYER(ToVector, pre_feedforward_norm_2), "pre_feedforward_layernorm_2.weight");
      norm(SLUICE_LAYER(ToVector, post_feedforward_norm_2), "post_feedforward_layernorm_2.weight");
    }
  }
  if (layer.layer_scalar)
    add_layer_rule(table, l,
                   {.role = TensorRole::kNorm,
                    .letters = "[1]",
                    .n = 1,
                    .to = SLUICE_LAYER(ToScalar, layer_scalar),
                    .ways = {{{{"layer_scalar"}, "1", TensorPart::kWhole, kFloat}}}});
}

void declare_dense(const ModelSpec& spec, int l, TensorTable& table) {
  const int64_t width = spec.layers[static_cast<size_t>(l)].dense->width;
  add_layer_rule(table, l,
                 {.role = TensorRole::kDense,
                  .letters = "[2I, D]",
                  .n = 2 * width,
                  .k = spec.d,
                  .shard = 'N',
                  .to = SLUICE_LAYER(ToGateUp, dense),
                  .ways = {{{{"mlp.gate_proj.weight"}, "NK", TensorPart::kGate},
                            {{"mlp.up_proj.weight"}, "NK", TensorPart::kUp}}},
                  .glu = true});
  add_layer_rule(table, l,
                 matrix_rule(TensorRole::kDense, "[D, I]", spec.d, width,
                             SLUICE_LAYER(ToMatrix, dense.down), "mlp.down_proj.weight"));
}

}  // namespace

void add_expert_rules(const ModelSpec& spec, int l, TensorTable& table,
                      std::vector<StoredAs> gate_up, std::vector<StoredAs> down) {
  const MoeSpec& moe = *spec.layers[static_cast<size_t>(l)].moe;
  add_layer_rule(table, l,
                 {.role = TensorRole::kExperts,
                  .letters = "[E, 2I, D]",
                  .n = 2 * moe.width,
                  .k = spec.d,
                  .experts = moe.experts,
                  .shard = 'E',
                  .to = SLUICE_LAYER(ToExperts, moe.gate_up),
                  .ways = std::move(gate_up),
                  .glu = true});
  add_layer_rule(table, l,
                 {.role = TensorRole::kExperts,
                  .letters = "[E, D, I]",
                  .n = spec.d,
                  .k = moe.width,
                  .experts = moe.experts,
                  .shard = 'E',
                  .to = SLUICE_LAYER(ToExperts, moe.down),
                  .ways = std::move(down)});
}

void add_router_rule(const ModelSpec& spec, int l, TensorTable& table,
                     std::vector<std::string> names) {
  add_layer_rule(table, l,
                 {.role = TensorRole::kRouter,
                  .letters = "[E, D]",
                  .n = spec.layers[static_cast<size_t>(l)].moe->experts,
                  .k = spec.d,
                  .to = SLUICE_LAYER(ToMatrix, moe.router),
                  .ways = {{{std::move(names), "NK", TensorPart::kWhole, kFloat}}}});
}

void add_router_bias_rule(const ModelSpec& spec, int l, TensorTable& table, std::string name) {
  add_layer_rule(
      table, l,
      vector_rule(TensorRole::kRouter, "[E]", spec.layers[static_cast<size_t>(l)].moe->experts,
                  SLUICE_LAYER(ToVector, moe.router_bias), std::move(name)));
}

void add_router_scale_rules(const ModelSpec& spec, int l, TensorTable& table,
                            std::vector<std::string> scale, std::vector<std::string> per_expert) {
  TensorRule norm =
      vector_rule(TensorRole::kRouter, "[D]", spec.d, SLUICE_LAYER(ToVector, moe.router_norm), "");
  norm.ways[0][0].names = std::move(scale);
  norm.multiplier = 1.0f / std::sqrt(static_cast<float>(spec.d));
  add_layer_rule(table, l, std::move(norm));
  TensorRule factor =
      vector_rule(TensorRole::kRouter, "[E]", spec.layers[static_cast<size_t>(l)].moe->experts,
                  SLUICE_LAYER(ToVector, moe.per_expert_scale), "");
  factor.ways[0][0].names = std::move(per_expert);
  add_layer_rule(table, l, std::move(factor));
}

void add_expert_bias_rules(const ModelSpec& spec, int l, TensorTable& table, StoredTensor gate_up,
                           StoredTensor down) {
  const MoeSpec& moe = *spec.layers[static_cast<size_t>(l)].moe;
  add_layer_rule(table, l,
                 {.role = TensorRole::kExperts,
                  .letters = "[E, 2I]",
                  .n = 2 * moe.width,
                  .experts = moe.experts,
                  .shard = 'E',
                  .to = SLUICE_LAYER(ToExpertRows, moe.gate_up_bias),
                  .ways = {{std::move(gate_up)}},
                  .glu = true});
  add_layer_rule(table, l,
                 {.role = TensorRole::kExperts,
                  .letters = "[E, D]",
                  .n = spec.d,
                  .experts = moe.experts,
                  .shard = 'E',
                  .to = SLUICE_LAYER(ToExpertRows, moe.down_bias),
                  .ways = {{std::move(down)}}});
}

StoredAs per_expert_gate_up(std::string_view prefix) {
  return {{{fmt::format("{}{{}}.gate_proj.weight", prefix)}, "NK", TensorPart::kGate},
          {{fmt::format("{}{{}}.up_proj.weight", prefix)}, "NK", TensorPart::kUp}};
}
StoredAs per_expert_down(std::string_view prefix) {
  return {{{fmt::format("{}{{}}.down_proj.weight", prefix)}, "NK"}};
}

void declare_decoder(const ModelSpec& spec, TensorTable& table) {
  const std::vector<std::string> head = {"/lm_head.weight", "/language_model.lm_head.weight",
                                         "/model.lm_head.weight"};
  table.rules.push_back({.role = TensorRole::kEmbedding,
                         .letters = "[V, D]",
                         .n = spec.vocabulary,
                         .k = spec.d,
                         .shard = 'N',
                         .to = ToEmbedding{},
                         .ways = {{{{"embed_tokens.weight"}, "NK", TensorPart::kWhole, kFloat}}}});
  TensorRule lm_head = matrix_rule(
      TensorRole::kHead, "[V, D]", spec.vocabulary, spec.d, [](Model& m, int) { return &m.head; },
      "");
  lm_head.ways = {{{head, "NK"}}};
  if (spec.tied_head) {
    lm_head.to = ToNothing{};
    lm_head.optional = true;
  }
  table.rules.push_back(std::move(lm_head));
  table.rules.push_back(vector_rule(
      TensorRole::kNorm, "[D]", spec.d, [](Model& m, int) { return &m.final_norm; },
      "norm.weight"));
  for (int l = 0; l < static_cast<int>(spec.layers.size()); ++l) {
    declare_norms(spec, l, table);
    declare_attention(spec, l, table);
    if (spec.layers[static_cast<size_t>(l)].dense) declare_dense(spec, l, table);
  }
}

}  // namespace sluice
