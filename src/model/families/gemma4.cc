// Gemma 4, text: norms on both sides of every branch, dense and expert feed-forward side by side,
// two attention geometries, K = V in full layers, soft-capped logits.
#include <algorithm>
#include <cmath>

#include "model/families/families.h"

namespace sluice {
namespace {

void refuse_variants(ConfigReader& config) {
  config.refuse_if_set({"attention_bias"}, "attention biases are not supported in this family");
  // Absent means 256, not 0.
  const int64_t ple = config.integer({"hidden_size_per_layer_input"}, 0, 1 << 20, 256);
  if (ple != 0)
    config.fail(
        fmt::format("hidden_size_per_layer_input: per-layer embeddings (the E2B and E4B "
                    "variants) are not supported; expected 0, got {}",
                    ple));
  config.refuse_if_set({"num_kv_shared_layers"}, "layers that share keys are not supported");
  config.refuse_if_set({"use_double_wide_mlp"}, "double-wide feed-forwards are not supported");
  const std::string both = config.text({"use_bidirectional_attention"}, "vision");
  if (both != "vision")
    config.fail(
        fmt::format("use_bidirectional_attention: expected null or vision (text attends "
                    "causally), got {}",
                    both));
}

void read_attention(ConfigReader& config, ModelSpec& spec) {
  const size_t layers = spec.layers.size();
  std::vector<bool> sliding =
      read_sliding_layers(config, layers, [](size_t layer) { return layer % 6 != 5; });
  sliding.back() = false;  // whatever layer_types says
  const int64_t heads = config.integer({"num_attention_heads"}, 1, 1024);
  const int64_t kv_heads = config.integer({"num_key_value_heads"}, 1, 1024);
  const int64_t head_size = config.integer({"head_dim"}, 2, 1024, 256);
  const bool k_is_v = config.boolean({"attention_k_eq_v"}, false);
  const int64_t full_kv_heads =
      k_is_v ? config.integer({"num_global_key_value_heads"}, 1, 1024, kv_heads) : kv_heads;
  const bool per_layer = config.has({"per_layer_config"});
  const int64_t full_head_size =
      config.integer({"global_head_dim"}, 2, 1024, per_layer ? head_size : 512);
  const int64_t window = config.integer({"sliding_window"}, 1, INT32_MAX, 512);
  for (size_t l = 0; l < layers; ++l) {
    AttentionSpec& a = spec.layers[l].attention;
    a.heads = heads;
    a.kv_heads = sliding[l] ? kv_heads : full_kv_heads;
    a.head_size = sliding[l] ? head_size : full_head_size;
    a.window = sliding[l] ? window : 0;
    a.k_is_v = !sliding[l] && k_is_v;
    a.qk_norm = a.v_norm = true;
  }
  read_layer_geometry(config, spec, kv_heads, head_size);
  const RopeDefaults local{.theta = 10000.0}, global{.theta = 1e6, .rotary_factor = 0.25};
  for (size_t l = 0; l < layers; ++l) {
    AttentionSpec& a = spec.layers[l].attention;
    a.rope = sliding[l] ? add_rope(config, spec, "sliding_attention", a.head_size, local)
                        : add_rope(config, spec, "full_attention", a.head_size, global);
  }
}

void read(ConfigReader& config, ModelSpec& spec) {
  refuse_variants(config);
  read_decoder(config, spec, 1e-6, true);
  read_attention(config, spec);
  spec.embed_scale = std::sqrt(static_cast<float>(spec.d));
  spec.final_softcap = static_cast<float>(config.number({"final_logit_softcapping"}, 0, 1e6, 0));
  const Activation activation = read_activation(config, {"hidden_activation", "hidden_act"});
  const DenseSpec dense{config.integer({"intermediate_size"}, 1, 1 << 20), activation};
  std::optional<MoeSpec> moe;
  if (config.boolean({"enable_moe_block"}, false)) {
    moe.emplace();
    moe->experts = config.integer({"num_experts", "num_local_experts"}, 1, 4096);
    moe->k = config.integer({"top_k_experts", "num_experts_per_tok"}, 1,
                            std::min<int64_t>(moe->experts, 64));
    moe->width = config.integer({"moe_intermediate_size", "expert_intermediate_size"}, 1, 1 << 20);
    moe->rule.renormalise = true;
    moe->activation = activation;
    moe->router_norm = moe->per_expert_scale = true;
  }
  for (LayerSpec& layer : spec.layers) {
    layer.norms = NormPlacement::kSandwich;
    layer.layer_scalar = true;
    layer.dense = dense;
    layer.moe = moe;
  }
  // The end of a turn and the start of a tool's answer end a generation too.
  if (spec.vocabulary == 262144) spec.eos_ids = {1, 106, 50};
}

void declare(const ModelSpec& spec, TensorTable& table) {
  table.prefixes = {"model.language_model.", "model.", "language_model.model."};
  table.ignored = {"model.vision_tower.",   "model.embed_vision.", "model.audio_tower.",
                   "model.embed_audio.",    "vision_tower.",       "embed_vision.",
                   "audio_tower.",          "embed_audio.",        "vision_embedder.",
                   "model.vision_embedder."};
  declare_decoder(spec, table);
  for (int l = 0; l < static_cast<int>(spec.layers.size()); ++l) {
    if (!spec.layers[static_cast<size_t>(l)].moe) continue;
    add_router_rule(spec, l, table, {"router.proj.weight", "moe.router.proj.weight"});
    add_router_scale_rules(spec, l, table, {"router.scale", "router_scale", "moe.router.scale"},
                           {"router.per_expert_scale", "moe.per_expert_scale"});
    const auto packed = [](const char* what) -> std::vector<std::string> {
      return {fmt::format("experts.{}", what), fmt::format("experts.{}.weight", what),
              fmt::format("moe.{}", what), fmt::format("moe.{}.weight", what)};
    };
    add_expert_rules(spec, l, table,
                     {{{packed("gate_up_proj"), "ENK", TensorPart::kGateThenUp}},
                      {{packed("gate_proj"), "ENK", TensorPart::kGate},
                       {packed("up_proj"), "ENK", TensorPart::kUp}},
                      per_expert_gate_up("experts."),
                      per_expert_gate_up("moe.experts.")},
                     {{{packed("down_proj"), "ENK"}},
                      per_expert_down("experts."),
                      per_expert_down("moe.experts.")});
  }
}

}  // namespace

const Family kGemma4 = {"gemma4", "gemma4_text", read, declare};

}  // namespace sluice
