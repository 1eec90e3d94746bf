// gpt-oss: attention sinks, alternating windows, YaRN, biases everywhere, clamped SwiGLU, MXFP4
// experts with gate and up rows interleaved.
#include <algorithm>
#include <cmath>

#include "model/families/families.h"

namespace sluice {
namespace {

// What an absent rope block means.
RopeDefaults published_rope() {
  return {.theta = 150000.0,
          .yarn = true,
          .parameters = {.factor = 32, .original_context = 4096, .truncate = false}};
}

void read_attention(ConfigReader& config, ModelSpec& spec) {
  AttentionSpec attention;
  attention.heads = config.integer({"num_attention_heads"}, 1, 1024);
  attention.kv_heads = config.integer({"num_key_value_heads"}, 1, 1024, attention.heads);
  attention.head_size = config.integer({"head_dim"}, 2, 1024, spec.d / attention.heads);
  attention.scale = 1.0f / std::sqrt(static_cast<float>(attention.head_size));
  attention.qkv_bias = attention.o_bias = config.boolean({"attention_bias"}, true);
  attention.sinks = true;
  const std::vector<bool> sliding =
      read_sliding_layers(config, spec.layers.size(), [](size_t layer) { return layer % 2 == 0; });
  const bool any = std::count(sliding.begin(), sliding.end(), true) != 0;
  const int64_t window = any ? config.integer({"sliding_window"}, 1, INT32_MAX) : 0;
  for (size_t l = 0; l < spec.layers.size(); ++l) {
    spec.layers[l].attention = attention;
    spec.layers[l].attention.window = sliding[l] ? window : 0;
    spec.layers[l].attention.rope =
        add_rope(config, spec, sliding[l] ? "sliding_attention" : "full_attention",
                 attention.head_size, published_rope());
  }
}

void read(ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, spec, 1e-5, false);
  read_attention(config, spec);
  // The config says silu; the layer is the clamped SwiGLU with up + 1 all the same.
  if (const std::string act = config.text({"hidden_act"}, "silu"); act != "silu")
    config.fail(fmt::format("hidden_act: expected silu, got {}", act));
  MoeSpec moe;
  moe.experts = config.integer({"num_local_experts", "num_experts"}, 1, 4096);
  moe.k = config.integer({"num_experts_per_tok", "experts_per_token"}, 1,
                         std::min<int64_t>(moe.experts, 64));
  moe.width = config.integer({"intermediate_size"}, 1, 1 << 20);
  moe.rule.score = RouteScore::kSoftmaxSelected;
  moe.activation.kind = ActivationKind::kSwigluOai;
  moe.activation.limit = static_cast<float>(config.number({"swiglu_limit"}, 1e-6, 1e6, 7.0));
  moe.activation.alpha = static_cast<float>(config.number({"swiglu_alpha"}, 1e-6, 1e6, 1.702));
  moe.router_bias = moe.expert_bias = true;
  for (LayerSpec& layer : spec.layers) layer.moe = moe;
  // Older files list two of the three ids that end the published vocabulary's turns.
  if (spec.vocabulary == 201088) spec.eos_ids = {200002, 199999, 200012};
}

void declare(const ModelSpec& spec, TensorTable& table) {
  table.prefixes = {"model."};
  declare_decoder(spec, table);
  constexpr DtypePolicy kFloat = DtypePolicy::kFloat, kBytes = DtypePolicy::kBytes;
  constexpr TensorPart kWhole = TensorPart::kWhole, kPairs = TensorPart::kInterleaved;
  for (int l = 0; l < static_cast<int>(spec.layers.size()); ++l) {
    const MoeSpec& moe = *spec.layers[static_cast<size_t>(l)].moe;
    add_router_rule(spec, l, table, {"mlp.router.weight"});
    add_router_bias_rule(spec, l, table, "mlp.router.bias");
    // Blocks are [E, out, in]; whatever has no blocks is transposed, even where the shape would
    // allow both.
    add_expert_rules(spec, l, table,
                     {{{{"mlp.experts.gate_up_proj_blocks"}, "ENBb", kPairs, kBytes},
                       {{"mlp.experts.gate_up_proj_scales"}, "ENB", kPairs, kBytes}},
                      {{{"mlp.experts.gate_up_proj"}, "EKN", kPairs}}},
                     {{{{"mlp.experts.down_proj_blocks"}, "ENBb", kWhole, kBytes},
                       {{"mlp.experts.down_proj_scales"}, "ENB", kWhole, kBytes}},
                      {{{"mlp.experts.down_proj"}, "EKN"}}});
    if (moe.expert_bias)
      add_expert_bias_rules(spec, l, table,
                            {{"mlp.experts.gate_up_proj_bias"}, "EN", kPairs, kFloat},
                            {{"mlp.experts.down_proj_bias"}, "EN", kWhole, kFloat});
  }
}

}  // namespace

const Family kGptOss = {"gpt_oss", "gpt_oss", read, declare};

}  // namespace sluice
