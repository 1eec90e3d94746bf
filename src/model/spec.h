// ModelSpec: a model as data. Sizes, and enums that name mathematics, never brands.
//
// A family file (families/*.cc) turns config.json into this; forward.cc branches on nothing else.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ops/elementwise/elementwise.h"
#include "ops/moe_route/moe_route.h"

namespace sluice {

// Where the norms of a layer stand.
enum class NormPlacement {
  kPre,       // h += attn(norm(h)); h += ffn(norm(h))
  kSandwich,  // h += norm(attn(norm(h))); each feed-forward branch is normed on both sides; h *=
              // layer_scalar
};

// One rotary embedding, resolved: the angle of pair i at position p is p * inv_freq[i], cos and sin
// are multiplied by factor. Plain, proportional and YaRN differ only in these numbers.
struct RopeSpec {
  std::vector<double> inv_freq;  // [C/2]; 0 leaves a pair alone
  double factor = 1.0;
};
RopeSpec plain_rope(int64_t head_size, double theta);
// The first `rotated` pairs turn; exponents run over the whole head (Gemma 4's full layers).
RopeSpec proportional_rope(int64_t head_size, double theta, double rotary_factor, double divisor);
struct YarnParameters {
  double factor = 1, beta_fast = 32, beta_slow = 1, original_context = 0;
  bool truncate = true;
  std::optional<double> attention_factor, mscale, mscale_all_dim;
};
RopeSpec yarn_rope(int64_t head_size, double theta, const YarnParameters& yarn);

struct AttentionSpec {
  int64_t heads = 0, kv_heads = 0, head_size = 0;
  int64_t window = 0;  // 0: every earlier key; else the W latest keys, itself included
  float scale = 1.0f;
  int rope = 0;          // index into ModelSpec::ropes
  bool qk_norm = false;  // per-head RMSNorm of q and k, before rope
  bool v_norm = false;   // weightless per-head RMSNorm of v
  bool k_is_v = false;   // no v projection: v is the raw k projection
  bool qkv_bias = false, o_bias = false;
  bool sinks = false;
  int kv_group = 0;  // index into ModelSpec::kv_groups
  int kv_layer = 0;  // this layer's place in the group
};

struct DenseSpec {
  int64_t width = 0;  // I
  Activation activation;
};

struct MoeSpec {
  int64_t experts = 0, k = 0, width = 0;  // E, K, I
  RouteRule rule;
  Activation activation;
  bool router_bias = false;
  bool router_norm =
      false;  // the router reads its own norm of the raw residual, times a scale vector
  bool per_expert_scale = false;
  bool expert_bias = false;
};

struct LayerSpec {
  NormPlacement norms = NormPlacement::kPre;
  AttentionSpec attention;
  std::optional<DenseSpec> dense;  // dense and moe together: parallel branches (kSandwich only)
  std::optional<MoeSpec> moe;
  bool layer_scalar = false;
};

// Layers that can share a block table: one per distinct (kv heads, head size, window, K = V).
struct KvGroupSpec {
  int64_t kv_heads = 0, head_size = 0, window = 0;
  bool k_is_v = false;
  std::vector<int> layers;
};

struct ModelSpec {
  std::string
      model_type;  // as config.json says: names the chat format and messages, never mathematics
  int64_t d = 0, vocabulary = 0, context = 0;
  float eps = 1e-6f;
  float embed_scale = 1.0f;
  bool tied_head = false;
  float final_softcap = 0.0f;  // 0: none
  std::vector<LayerSpec> layers;
  std::vector<RopeSpec> ropes;
  std::vector<KvGroupSpec> kv_groups;
  std::vector<int32_t> eos_ids;
  int32_t bos_id = -1;
};

// Fills kv_groups and each layer's kv_group / kv_layer. Called once by every family file.
void assign_kv_groups(ModelSpec& spec);
// Every rule that forward relies on (positive sizes, H % G, K <= E, indices in range): one sentence
// if not.
Status validate_spec(const ModelSpec& spec);

// What generation_config.json says (absent fields stay empty).
struct GenerationDefaults {
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int32_t> top_k;
  std::vector<int32_t> eos_ids;
  bool do_sample = true;
};

}  // namespace sluice
