// Qwen3-MoE: pre-norm layers, per-head q/k norms, softmax over all experts and top-K, SwiGLU.
#include <algorithm>
#include <cmath>

#include "model/families/families.h"

namespace sluice {
namespace {

void read(ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, spec, 1e-6, false);
  config.refuse_if_set({"use_sliding_window"}, "sliding windows are not supported in this family");
  AttentionSpec attention;
  attention.heads = config.integer({"num_attention_heads"}, 1, 1024);
  attention.kv_heads = config.integer({"num_key_value_heads"}, 1, 1024, attention.heads);
  attention.head_size = config.integer({"head_dim"}, 2, 1024, spec.d / attention.heads);
  attention.scale = 1.0f / std::sqrt(static_cast<float>(attention.head_size));
  attention.qk_norm = true;
  attention.qkv_bias = attention.o_bias = config.boolean({"attention_bias"}, false);
  spec.ropes = {read_rope(config, "full_attention", attention.head_size, spec.context, {})};

  const Activation activation = read_activation(config, {"hidden_act", "hidden_activation"});
  const int64_t experts = config.integer({"num_experts", "num_local_experts"}, 0, 4096);
  const int64_t sparse_step = config.integer({"decoder_sparse_step"}, 1, 1000, 1);
  const auto last_layer = static_cast<int64_t>(spec.layers.size()) - 1;
  const std::vector<int64_t> dense_layers = config.integers({"mlp_only_layers"}, 0, last_layer);
  for (int64_t l = 0; l <= last_layer; ++l) {
    LayerSpec& layer = spec.layers[static_cast<size_t>(l)];
    layer.attention = attention;
    const bool dense = std::count(dense_layers.begin(), dense_layers.end(), l) != 0;
    if (!dense && experts > 0 && (l + 1) % sparse_step == 0) {
      layer.moe.emplace();
      layer.moe->experts = experts;
      layer.moe->k = config.integer({"num_experts_per_tok"}, 1, std::min<int64_t>(experts, 64));
      layer.moe->width = config.integer({"moe_intermediate_size"}, 1, 1 << 20);
      layer.moe->rule.renormalise = config.boolean({"norm_topk_prob"}, false);
      layer.moe->activation = activation;
    } else {
      layer.dense = DenseSpec{config.integer({"intermediate_size"}, 1, 1 << 20), activation};
    }
  }
}

void declare(const ModelSpec& spec, TensorTable& table) {
  table.prefixes = {"model.", "model.language_model.", "language_model.model."};
  declare_decoder(spec, table);
  for (int l = 0; l < static_cast<int>(spec.layers.size()); ++l) {
    if (!spec.layers[static_cast<size_t>(l)].moe) continue;
    add_router_rule(spec, l, table, {"mlp.gate.weight", "mlp.router.weight"});
    const std::vector<std::string> gate_up = {"mlp.experts.gate_up_proj",
                                              "mlp.experts.gate_up_proj.weight"};
    const std::vector<std::string> down = {"mlp.experts.down_proj", "mlp.experts.down_proj.weight"};
    // Packed experts exist as [E, out, in] and as [E, in, out]: the shape decides.
    add_expert_rules(spec, l, table,
                     {per_expert_gate_up("mlp.experts."),
                      {{gate_up, "ENK", TensorPart::kGateThenUp}},
                      {{gate_up, "EKN", TensorPart::kGateThenUp}}},
                     {per_expert_down("mlp.experts."), {{down, "ENK"}}, {{down, "EKN"}}});
  }
}

}  // namespace

const Family kQwen3Moe = {"qwen3_moe", "qwen3_moe", read, declare};

}  // namespace sluice
