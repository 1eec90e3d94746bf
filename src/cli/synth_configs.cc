#include "cli/synth_configs.h"

namespace sluice {
namespace {

using nlohmann::ordered_json;

// "sliding_attention" but for every `period`th layer and the last.
ordered_json sliding_but_every(int64_t period, int64_t layers, bool last_is_full) {
  ordered_json types = ordered_json::array();
  for (int64_t l = 0; l < layers; ++l) {
    const bool full = l % period == period - 1 || (last_is_full && l == layers - 1);
    types.push_back(full ? "full_attention" : "sliding_attention");
  }
  return types;
}

SynthConfig qwen3(int64_t layers, bool tiny) {
  ordered_json c = {{"architectures", {"Qwen3MoeForCausalLM"}},
                    {"attention_bias", false},
                    {"bos_token_id", 151643},
                    {"decoder_sparse_step", 1},
                    {"eos_token_id", 151645},
                    {"head_dim", 128},
                    {"hidden_act", "silu"},
                    {"hidden_size", 2048},
                    {"intermediate_size", 6144},
                    {"max_position_embeddings", 40960},
                    {"mlp_only_layers", ordered_json::array()},
                    {"model_type", "qwen3_moe"},
                    {"moe_intermediate_size", 768},
                    {"norm_topk_prob", true},
                    {"num_attention_heads", 32},
                    {"num_experts", 128},
                    {"num_experts_per_tok", 8},
                    {"num_hidden_layers", layers},
                    {"num_key_value_heads", 4},
                    {"rms_norm_eps", 1e-6},
                    {"rope_scaling", nullptr},
                    {"rope_theta", 1000000.0},
                    {"tie_word_embeddings", false},
                    {"torch_dtype", "bfloat16"},
                    {"use_sliding_window", false},
                    {"vocab_size", 151936}};
  if (tiny)
    c.update({{"head_dim", 32},
              {"hidden_size", 64},
              {"intermediate_size", 96},
              {"max_position_embeddings", 1024},
              {"moe_intermediate_size", 32},
              {"num_attention_heads", 4},
              {"num_experts", 8},
              {"num_experts_per_tok", 2},
              {"num_key_value_heads", 2},
              {"vocab_size", 320}});
  return {c,
          {{"bos_token_id", 151643},
           {"do_sample", true},
           {"eos_token_id", {151645, 151643}},
           {"pad_token_id", 151643},
           {"temperature", 0.6},
           {"top_k", 20},
           {"top_p", 0.95}}};
}

SynthConfig gpt_oss(int64_t layers, bool tiny) {
  ordered_json types = ordered_json::array();
  for (int64_t l = 0; l < layers; ++l)
    types.push_back(l % 2 == 0 ? "sliding_attention" : "full_attention");
  ordered_json c = {{"architectures", {"GptOssForCausalLM"}},
                    {"attention_bias", true},
                    {"eos_token_id", 200002},
                    {"experts_per_token", 4},
                    {"head_dim", 64},
                    {"hidden_act", "silu"},
                    {"hidden_size", 2880},
                    {"initial_context_length", 4096},
                    {"intermediate_size", 2880},
                    {"layer_types", types},
                    {"max_position_embeddings", 131072},
                    {"model_type", "gpt_oss"},
                    {"num_attention_heads", 64},
                    {"num_experts_per_tok", 4},
                    {"num_hidden_layers", layers},
                    {"num_key_value_heads", 8},
                    {"num_local_experts", 32},
                    {"pad_token_id", 199999},
                    {"quantization_config",
                     {{"modules_to_not_convert",
                       {"model.layers.*.self_attn", "model.layers.*.mlp.router",
                        "model.embed_tokens", "lm_head"}},
                      {"quant_method", "mxfp4"}}},
                    {"rms_norm_eps", 1e-5},
                    {"rope_scaling",
                     {{"beta_fast", 32.0},
                      {"beta_slow", 1.0},
                      {"factor", 32.0},
                      {"original_max_position_embeddings", 4096},
                      {"rope_type", "yarn"},
                      {"truncate", false}}},
                    {"rope_theta", 150000},
                    {"sliding_window", 128},
                    {"swiglu_limit", 7.0},
                    {"tie_word_embeddings", false},
                    {"vocab_size", 201088}};
  if (tiny)
    c.update({{"head_dim", 16},
              {"hidden_size", 64},
              {"intermediate_size", 96},
              {"max_position_embeddings", 1024},
              {"num_attention_heads", 4},
              {"num_key_value_heads", 2},
              {"num_local_experts", 8},
              {"sliding_window", 8},
              {"vocab_size", 320}});
  return {c,
          {{"bos_token_id", 199998},
           {"do_sample", true},
           {"eos_token_id", {200002, 199999, 200012}},
           {"pad_token_id", 199999}}};
}

// Long because it is the published config.json, a field a line.
SynthConfig gemma4(int64_t layers, bool tiny) {
  ordered_json t = {
      {"attention_bias", false},
      {"attention_k_eq_v", true},
      {"bos_token_id", 2},
      {"dtype", "bfloat16"},
      {"enable_moe_block", true},
      {"eos_token_id", 1},
      {"final_logit_softcapping", 30.0},
      {"global_head_dim", 512},
      {"head_dim", 256},
      {"hidden_activation", "gelu_pytorch_tanh"},
      {"hidden_size", 2816},
      {"hidden_size_per_layer_input", 0},
      {"intermediate_size", 2112},
      {"layer_types", sliding_but_every(6, layers, true)},
      {"max_position_embeddings", 262144},
      {"model_type", "gemma4_text"},
      {"moe_intermediate_size", 704},
      {"num_attention_heads", 16},
      {"num_experts", 128},
      {"num_global_key_value_heads", 2},
      {"num_hidden_layers", layers},
      {"num_key_value_heads", 8},
      {"num_kv_shared_layers", 0},
      {"pad_token_id", 0},
      {"rms_norm_eps", 1e-6},
      {"rope_parameters",
       {{"full_attention",
         {{"partial_rotary_factor", 0.25}, {"rope_theta", 1e6}, {"rope_type", "proportional"}}},
        {"sliding_attention", {{"rope_theta", 1e4}, {"rope_type", "default"}}}}},
      {"sliding_window", 1024},
      {"tie_word_embeddings", true},
      {"top_k_experts", 8},
      {"use_bidirectional_attention", "vision"},
      {"use_double_wide_mlp", false},
      {"vocab_size", 262144}};
  if (tiny)
    t.update({{"global_head_dim", 32},
              {"head_dim", 16},
              {"hidden_size", 64},
              {"intermediate_size", 96},
              {"max_position_embeddings", 1024},
              {"moe_intermediate_size", 32},
              {"num_attention_heads", 4},
              {"num_experts", 8},
              {"num_global_key_value_heads", 1},
              {"num_key_value_heads", 2},
              {"sliding_window", 8},
              {"top_k_experts", 2},
              {"vocab_size", 320}});
  return {{{"architectures", {"Gemma4ForConditionalGeneration"}},
           {"dtype", "bfloat16"},
           {"eos_token_id", {1, 106, 50}},
           {"model_type", "gemma4"},
           {"text_config", t},
           {"tie_word_embeddings", true}},
          {{"bos_token_id", 2},
           {"do_sample", true},
           {"eos_token_id", {1, 106, 50}},
           {"pad_token_id", 0},
           {"temperature", 1.0},
           {"top_k", 64},
           {"top_p", 0.95}}};
}

}  // namespace

std::optional<SynthConfig> synth_config(const std::string& family, int64_t layers, bool tiny) {
  if (family == "qwen3-30b-a3b") return qwen3(layers, tiny);
  if (family == "gpt-oss-20b") return gpt_oss(layers, tiny);
  if (family == "gemma4-26b-a4b") return gemma4(layers, tiny);
  return std::nullopt;
}

}  // namespace sluice
