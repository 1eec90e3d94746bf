// config.json and generation_config.json: what they mean, and what is refused.
#include "model/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "model/checkpoint_files.h"
#include "model/footprint.h"
#include "model/model.h"
#include "weights/test_files.h"

namespace sluice {
namespace {

using nlohmann::json;

ModelConfig parse(const json& config) {
  auto out = parse_model_config(config, "config.json");
  EXPECT_TRUE(out.ok()) << out.status().message();
  return out.ok() ? std::move(out).value() : ModelConfig{};
}

json published_qwen() {
  json c = golden_config("qwen3moe-a");
  c.update({{"hidden_size", 2048},
            {"num_hidden_layers", 48},
            {"num_attention_heads", 32},
            {"num_key_value_heads", 4},
            {"head_dim", 128},
            {"num_experts", 128},
            {"num_experts_per_tok", 8},
            {"moe_intermediate_size", 768},
            {"intermediate_size", 6144},
            {"vocab_size", 151936},
            {"max_position_embeddings", 40960},
            {"bos_token_id", 151643},
            {"eos_token_id", 151645}});
  return c;
}

json published_gpt_oss(int layers, int experts) {
  json c = golden_config("gptoss-b");
  c.update({{"hidden_size", 2880},
            {"intermediate_size", 2880},
            {"num_hidden_layers", layers},
            {"num_local_experts", experts},
            {"num_attention_heads", 64},
            {"num_key_value_heads", 8},
            {"head_dim", 64},
            {"vocab_size", 201088},
            {"sliding_window", 128},
            {"max_position_embeddings", 131072},
            {"eos_token_id", 200002}});
  c.erase("layer_types");
  c["rope_scaling"]["original_max_position_embeddings"] = 4096;
  return c;
}

json published_gemma() {
  json c = golden_config("gemma4-a");
  json& t = c["text_config"];
  t.update({{"hidden_size", 2816},
            {"num_hidden_layers", 30},
            {"intermediate_size", 2112},
            {"num_attention_heads", 16},
            {"num_key_value_heads", 8},
            {"num_global_key_value_heads", 2},
            {"head_dim", 256},
            {"global_head_dim", 512},
            {"sliding_window", 1024},
            {"num_experts", 128},
            {"top_k_experts", 8},
            {"moe_intermediate_size", 704},
            {"vocab_size", 262144},
            {"max_position_embeddings", 262144}});
  t.erase("layer_types");
  return c;
}

TEST(Rope, YarnAsPublished) {
  const RopeSpec rope =
      yarn_rope(64, 150000.0, {.factor = 32, .original_context = 4096, .truncate = false});
  ASSERT_EQ(rope.inv_freq.size(), 32u);
  EXPECT_NEAR(rope.factor, 1.3465736, 1e-7);
  const std::pair<size_t, double> checks[] = {
      {0, 1.0},           {8, 5.081327e-02},  {9, 3.170570e-02}, {12, 6.794959e-03},
      {17, 1.293187e-04}, {18, 3.830881e-05}, {31, 3.023511e-07}};
  for (const auto& [i, value] : checks)
    EXPECT_NEAR(rope.inv_freq[i] / value, 1.0, 2e-7) << "pair " << i;
}

TEST(Rope, YarnBoundsAreClampedTruncatedAndScaled) {
  // A small context: the lower bound would be negative, the upper lies inside.
  const RopeSpec small =
      yarn_rope(16, 150000.0, {.factor = 32, .original_context = 64, .truncate = false});
  const double high = 8 * std::log(64 / (2 * M_PI)) / std::log(150000.0);  // 1.558
  EXPECT_DOUBLE_EQ(small.inv_freq[0], 1.0);
  const double ramp = 1 / high, f = std::pow(150000.0, -2.0 / 16);
  EXPECT_NEAR(small.inv_freq[1], f / 32 * ramp + f * (1 - ramp), 1e-15);
  EXPECT_NEAR(small.inv_freq[2], std::pow(150000.0, -4.0 / 16) / 32, 1e-15);
  const RopeSpec cut = yarn_rope(64, 1e6, {.factor = 4, .original_context = 32768});
  const auto bound = [](double turns) {
    return 32 * std::log(32768 / (turns * 2 * M_PI)) / std::log(1e6);
  };
  EXPECT_DOUBLE_EQ(cut.inv_freq[static_cast<size_t>(std::floor(bound(32)))],
                   std::pow(1e6, -2 * std::floor(bound(32)) / 64));
  EXPECT_DOUBLE_EQ(yarn_rope(64, 1e6, {.factor = 0.5, .original_context = 100}).factor, 1.0);
  EXPECT_DOUBLE_EQ(
      yarn_rope(64, 1e6, {.factor = 40, .original_context = 100, .attention_factor = 1.1}).factor,
      1.1);
  EXPECT_DOUBLE_EQ(
      yarn_rope(64, 1e6,
                {.factor = 40, .original_context = 100, .mscale = 0.7, .mscale_all_dim = 1.0})
          .factor,
      (0.07 * std::log(40.0) + 1) / (0.1 * std::log(40.0) + 1));
}

TEST(Rope, ProportionalTurnsTheFirstPairsOverTheWholeHead) {
  const RopeSpec rope = proportional_rope(512, 1e6, 0.25, 1.0);
  ASSERT_EQ(rope.inv_freq.size(), 256u);
  for (size_t i = 0; i < 256; ++i)
    EXPECT_DOUBLE_EQ(rope.inv_freq[i],
                     i < 64 ? std::pow(1e6, -2.0 * static_cast<double>(i) / 512) : 0.0);
}

TEST(Config, Qwen) {
  const ModelSpec s = parse(golden_config("qwen3moe-b")).spec;
  EXPECT_EQ(s.model_type, "qwen3_moe");
  EXPECT_TRUE(s.tied_head);
  EXPECT_TRUE(s.layers[1].dense && !s.layers[1].moe);
  EXPECT_TRUE(s.layers[2].moe && !s.layers[2].dense);
  EXPECT_EQ(s.layers[1].dense->width, 112);
  EXPECT_FALSE(s.layers[2].moe->rule.renormalise);
  EXPECT_EQ(s.layers[2].moe->k, 3);
  EXPECT_EQ(s.layers[0].attention.scale, 0.25f);
  EXPECT_EQ(s.eos_ids, std::vector<int32_t>{319});
  EXPECT_EQ(s.bos_id, 317);
  EXPECT_EQ(s.kv_groups.size(), 1u);
  json c = golden_config("qwen3moe-a");
  c["decoder_sparse_step"] = 2;
  for (const char* name : {"head_dim", "norm_topk_prob", "rope_theta", "eos_token_id"})
    c.erase(name);
  c["attention_bias"] = true;
  const ModelSpec t = parse(c).spec;
  EXPECT_FALSE(t.layers[0].moe || t.layers[2].moe);
  ASSERT_TRUE(t.layers[1].moe);
  EXPECT_FALSE(t.layers[1].moe->rule.renormalise);  // absent means false
  EXPECT_EQ(t.layers[0].attention.head_size, 16);   // hidden / heads
  EXPECT_TRUE(t.layers[0].attention.qkv_bias && t.layers[0].attention.o_bias);
  EXPECT_DOUBLE_EQ(t.ropes[0].inv_freq[1], std::pow(10000.0, -2.0 / 16));
  EXPECT_TRUE(t.eos_ids.empty());
}

TEST(Config, QwenLongContextByConfig) {
  json c = published_qwen();
  c["rope_scaling"] = {
      {"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32768}};
  const RopeSpec want = yarn_rope(128, 1e6, {.factor = 4, .original_context = 32768});
  EXPECT_EQ(parse(c).spec.ropes[0].inv_freq, want.inv_freq);
  EXPECT_EQ(parse(c).spec.ropes[0].factor, want.factor);
}

TEST(Config, NewDialectMeansTheSame) {
  json old = golden_config("qwen3moe-a"), c = old;
  c.erase("rope_theta");
  c.erase("rope_scaling");
  c.erase("torch_dtype");
  c["num_local_experts"] = c["num_experts"];
  c.erase("num_experts");
  c["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 1e6}};
  EXPECT_EQ(parse(c).spec.ropes[0].inv_freq, parse(old).spec.ropes[0].inv_freq);
  EXPECT_EQ(parse(c).spec.layers[0].moe->experts, 8);
  c["rope_parameters"] = {{"full_attention", c["rope_parameters"]}};
  EXPECT_EQ(parse(c).spec.ropes[0].inv_freq, parse(old).spec.ropes[0].inv_freq);

  json g = golden_config("gemma4-a"), h = g;
  json& t = h["text_config"];
  t.erase("global_head_dim");
  t.erase("num_global_key_value_heads");
  t["per_layer_config"] = {{"5", {{"head_dim", 64}, {"num_key_value_heads", 1}}}};
  const ModelSpec a = parse(g).spec, b = parse(h).spec;
  for (size_t l = 0; l < 6; ++l) {
    EXPECT_EQ(a.layers[l].attention.head_size, b.layers[l].attention.head_size);
    EXPECT_EQ(a.layers[l].attention.kv_heads, b.layers[l].attention.kv_heads);
    EXPECT_EQ(a.ropes[static_cast<size_t>(a.layers[l].attention.rope)].inv_freq,
              b.ropes[static_cast<size_t>(b.layers[l].attention.rope)].inv_freq);
  }
  t["per_layer_config"] = {{"5", {{"num_key_value_heads", 1}}}};
  EXPECT_EQ(parse(h).spec.layers[5].attention.head_size, 32);  // the global value
}

TEST(Config, Gemma) {
  const ModelSpec a = parse(golden_config("gemma4-a")).spec,
                  b = parse(golden_config("gemma4-b")).spec;
  EXPECT_EQ(a.model_type, "gemma4");
  EXPECT_EQ(b.model_type, "gemma4");
  EXPECT_EQ(a.eos_ids, (std::vector<int32_t>{1, 106}));
  EXPECT_TRUE(a.tied_head);
  EXPECT_EQ(a.final_softcap, 30.0f);
  EXPECT_EQ(a.embed_scale, 8.0f);
  for (const ModelSpec* s : {&a, &b}) {
    for (const LayerSpec& l : s->layers) {
      EXPECT_EQ(l.norms, NormPlacement::kSandwich);
      EXPECT_TRUE(l.dense && l.moe && l.layer_scalar);
      EXPECT_TRUE(l.attention.qk_norm && l.attention.v_norm);
      EXPECT_EQ(l.attention.scale, 1.0f);
      EXPECT_TRUE(l.moe->router_norm && l.moe->per_expert_scale && l.moe->rule.renormalise);
      EXPECT_EQ(l.moe->activation.kind, ActivationKind::kGeluTanh);
    }
    EXPECT_EQ(s->kv_groups.size(), 2u);
    EXPECT_EQ(s->ropes.size(), 2u);
  }
  EXPECT_TRUE(a.layers[5].attention.k_is_v);
  EXPECT_EQ(a.layers[5].attention.head_size, 64);
  EXPECT_EQ(a.layers[5].attention.kv_heads, 1);
  EXPECT_EQ(a.layers[5].attention.window, 0);
  EXPECT_EQ(a.layers[4].attention.window, 8);
  EXPECT_EQ(a.kv_groups[0].layers, (std::vector<int>{0, 1, 2, 3, 4}));
  EXPECT_EQ(a.layers[3].attention.kv_layer, 3);
  // num_global_key_value_heads counts only with K = V.
  json c = golden_config("gemma4-b");
  c["num_global_key_value_heads"] = 3;
  c["num_key_value_heads"] = 1;
  EXPECT_EQ(parse(c).spec.layers[2].attention.kv_heads, 1);
  // Without layer_types every sixth layer and the last are full.
  c.erase("layer_types");
  const ModelSpec d = parse(c).spec;
  for (size_t l = 0; l < 7; ++l)
    EXPECT_EQ(d.layers[l].attention.window == 0, l == 5 || l == 6) << l;
}

TEST(Config, GptOss) {
  const ModelSpec s = parse(golden_config("gptoss-a")).spec;
  const MoeSpec& moe = *s.layers[0].moe;
  EXPECT_EQ(moe.activation.kind, ActivationKind::kSwigluOai);
  EXPECT_EQ(moe.activation.alpha, 1.702f);
  EXPECT_EQ(moe.activation.limit, 7.0f);
  EXPECT_EQ(moe.rule.score, RouteScore::kSoftmaxSelected);
  EXPECT_TRUE(moe.router_bias && moe.expert_bias);
  EXPECT_TRUE(s.layers[0].attention.sinks && s.layers[0].attention.qkv_bias);
  EXPECT_EQ(s.layers[0].attention.window, 8);
  EXPECT_EQ(s.layers[1].attention.window, 0);
  EXPECT_EQ(s.eps, 1e-5f);
  EXPECT_EQ(s.ropes.size(), 1u);  // both layer types turn alike
  // What is absent means the published model.
  json c = golden_config("gptoss-a");
  for (const char* name : {"rope_scaling", "rope_theta", "layer_types", "swiglu_limit"})
    c.erase(name);
  c["head_dim"] = 64;
  const ModelSpec d = parse(c).spec;
  EXPECT_NEAR(d.ropes[0].inv_freq[12], 6.794959e-03, 1e-8);
  EXPECT_EQ(d.layers[2].attention.window, 8);
  EXPECT_EQ(d.layers[3].attention.window, 0);
}

TEST(Config, EndOfGenerationIds) {
  EXPECT_EQ(parse(published_gemma()).spec.eos_ids, (std::vector<int32_t>{1, 106, 50}));
  EXPECT_EQ(parse(published_gpt_oss(24, 32)).spec.eos_ids,
            (std::vector<int32_t>{200002, 199999, 200012}));
  const ModelSpec s = parse(published_qwen()).spec;
  const auto read = [&](const char* text) {
    auto out = parse_generation_defaults(json::parse(text), "g.json", s);
    EXPECT_TRUE(out.ok()) << out.status().message();
    return std::move(out).value();
  };
  const GenerationDefaults g = read(
      R"({"eos_token_id":[151645,151643,999999],"temperature":0.6,"top_k":20,"top_p":0.95,"x":1})");
  EXPECT_EQ(g.eos_ids, (std::vector<int32_t>{151645, 151643}));
  EXPECT_EQ(g.temperature, 0.6f);
  EXPECT_EQ(g.top_k, 20);
  EXPECT_EQ(g.top_p, 0.95f);
  EXPECT_FALSE(g.min_p || g.repetition_penalty);
  EXPECT_TRUE(g.do_sample);
  EXPECT_FALSE(read(R"({"do_sample":false,"top_p":null})").do_sample);
  for (const char* text : {R"({"temperature":-1})", R"({"temperature":"1"})", R"({"top_k":1.5})",
                           R"({"top_p":2})", R"({"eos_token_id":-1})", R"({"min_p":1e30})",
                           R"({"do_sample":1})", R"({"repetition_penalty":0})", "[]", "3"})
    EXPECT_FALSE(parse_generation_defaults(json::parse(text), "g.json", s).ok()) << text;
}

TEST(Config, GenerationDefaultsOfADirectory) {
  const ScratchDir dir;
  ModelSpec spec;
  spec.vocabulary = 100;
  spec.eos_ids = {3};
  auto absent = read_generation_defaults(dir.path(), spec);
  ASSERT_TRUE(absent.ok());
  EXPECT_EQ(absent->eos_ids, spec.eos_ids);
  write_file(dir / "generation_config.json", R"({"eos_token_id":4})");
  EXPECT_EQ(read_generation_defaults(dir.path(), spec)->eos_ids, (std::vector<int32_t>{3, 4}));
  write_file(dir / "generation_config.json", "{");
  EXPECT_FALSE(read_generation_defaults(dir.path(), spec).ok());
}

// Totals and active parameters of the published models.
TEST(Config, ParametersOfThePublishedModels) {
  const auto check = [](const json& config, double total, double active, double experts) {
    const ModelConfig c = parse(config);
    TensorTable table;
    c.family->declare(c.spec, table);
    const ModelFootprint f = footprint(c.spec, table, nullptr, Compute::kBf16);
    EXPECT_NEAR(static_cast<double>(f.parameters) / 1e9, total, 6e-4);
    EXPECT_NEAR(static_cast<double>(f.active_parameters) / 1e9, active, 6e-4);
    const RoleFootprint& role = f.roles[static_cast<size_t>(TensorRole::kExperts)];
    EXPECT_NEAR(static_cast<double>(role.parameters) / 1e9, experts, 2e-2);
  };
  check(published_qwen(), 30.532, 3.042, 28.991);
  check(published_gemma(), 25.233, 3.823, 22.838);
  check(published_gpt_oss(24, 32), 20.915, 3.608, 19.117);
  check(published_gpt_oss(36, 128), 116.829, 5.133, 114.702);
  const ModelConfig gemma = parse(published_gemma());
  TensorTable table;
  gemma.family->declare(gemma.spec, table);
  EXPECT_EQ(footprint(gemma.spec, table, nullptr, Compute::kBf16).kv_bytes_per_token,
            (std::vector<size_t>{204800, 20480}));
}

TEST(Spec, ADenseModelIsLegal) {
  ModelSpec s;
  s.d = 64;
  s.vocabulary = 100;
  s.context = 128;
  s.ropes = {plain_rope(16, 1e4)};
  s.layers.resize(2);
  for (LayerSpec& l : s.layers) {
    l.attention.heads = 4;
    l.attention.kv_heads = 2;
    l.attention.head_size = 16;
    l.dense = DenseSpec{96, {}};
  }
  assign_kv_groups(s);
  EXPECT_TRUE(validate_spec(s).ok()) << validate_spec(s).message();
  TensorTable table;
  declare_decoder(s, table);
  EXPECT_EQ(table.rules.size(), 3u + 2 * 8);
  const auto broken = [&](auto change, const char* why) {
    ModelSpec t = s;
    change(t);
    const Status status = validate_spec(t);
    ASSERT_FALSE(status.ok()) << why;
    EXPECT_NE(status.message().find(why), std::string::npos) << status.message();
  };
  broken([](ModelSpec& t) { t.d = 0; }, "(D)");
  broken([](ModelSpec& t) { t.vocabulary = (1 << 20) + 1; }, "(V)");
  broken([](ModelSpec& t) { t.layers.clear(); }, "(L)");
  broken([](ModelSpec& t) { t.layers[1].dense.reset(); }, "layer 1: expected a feed-forward");
  broken([](ModelSpec& t) { t.layers[1].attention.kv_heads = 3; }, "layer 1: kv heads (G)");
  broken([](ModelSpec& t) { t.layers[0].attention.rope = 1; }, "rope: expected an index below 1");
  broken([](ModelSpec& t) { t.ropes[0].inv_freq.pop_back(); }, "rope pairs");
  broken([](ModelSpec& t) { t.ropes[0].factor = NAN; }, "finite");
  broken([](ModelSpec& t) { t.layers[0].moe = MoeSpec{.experts = 2, .k = 3, .width = 4}; },
         "side by side");
  broken([](ModelSpec& t) { t.eps = 0; }, "eps");
}

}  // namespace
}  // namespace sluice
