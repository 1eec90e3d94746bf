// What config.json may not say: every field, every kind of value, whole files.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "model/checkpoint_files.h"
#include "model/config.h"
#include "model/model.h"
#include "weights/test_files.h"

namespace sluice {
namespace {

using nlohmann::json;

void expect_refused(const json& config, const std::string& why) {
  const auto out = parse_model_config(config, "here/config.json");
  ASSERT_FALSE(out.ok()) << why;
  EXPECT_TRUE(out.status().message().starts_with("here/config.json")) << out.status().message();
  EXPECT_NE(out.status().message().find(why), std::string::npos) << out.status().message();
}

TEST(Config, EveryNumberIsValidated) {
  const std::map<std::string, std::vector<std::string>> numbers = {
      {"qwen3moe-a",
       {"hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "head_dim", "vocab_size", "max_position_embeddings", "num_experts_per_tok",
        "moe_intermediate_size", "decoder_sparse_step", "rms_norm_eps", "rope_theta"}},
      {"gemma4-b",
       {"hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "head_dim", "global_head_dim", "vocab_size", "max_position_embeddings", "top_k_experts",
        "num_experts", "moe_intermediate_size", "intermediate_size", "sliding_window",
        "rms_norm_eps"}},
      {"gptoss-a",
       {"hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "head_dim", "vocab_size", "max_position_embeddings", "num_experts_per_tok",
        "num_local_experts", "intermediate_size", "sliding_window", "rms_norm_eps", "rope_theta",
        "swiglu_limit"}}};
  for (const auto& [name, fields] : numbers) {
    for (const std::string& field : fields) {
      const json good = golden_config(name);
      ASSERT_TRUE(good.contains(field)) << name << " " << field;
      for (const json& bad : {json("8"), json(-1), json(0), json(1e30), json::array({8}),
                              json::object(), json(true)}) {
        json c = good;
        c[field] = bad;
        SCOPED_TRACE(name + " " + field + " " + bad.dump());
        expect_refused(c, field);
      }
      if (good[field].is_number_integer()) {
        json c = good;
        c[field] = good[field].get<double>() + 0.5;
        if (field != "rope_theta") expect_refused(c, field);
      }
    }
  }
  for (const char* field :
       {"hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads",
        "max_position_embeddings", "num_experts_per_tok", "moe_intermediate_size"}) {
    json c = golden_config("qwen3moe-a");
    c[field] = nullptr;
    expect_refused(c, fmt::format("{}: expected an integer", field));
    c.erase(field);
    expect_refused(c, "the field is absent or null");
  }
}

// Whatever stands in any field, reading ends with a spec or a sentence.
TEST(Config, AnythingInAnyField) {
  const json bad[] = {nullptr,
                      "x",
                      -1,
                      0,
                      1,
                      1e30,
                      1.5,
                      true,
                      json::array(),
                      json::object(),
                      json::array({"a"}),
                      INT64_MAX,
                      3000000000u};
  for (const char* name :
       {"qwen3moe-a", "qwen3moe-b", "gemma4-a", "gemma4-b", "gptoss-a", "gptoss-b"}) {
    const json good = golden_config(name);
    const json flat = good.flatten();
    for (const auto& pointer : flat.items()) {
      // The field itself, and every object on the way to it.
      for (json::json_pointer p(pointer.key()); !p.empty(); p.pop_back()) {
        for (const json& value : bad) {
          json c = good;
          c[p] = value;
          const auto out = parse_model_config(c, "config.json");
          if (!out.ok()) {
            EXPECT_TRUE(out.status().message().starts_with("config.json"))
                << p.to_string() << " " << out.status().message();
          }
        }
      }
    }
  }
}

TEST(Config, WhatIsRefused) {
  const auto with = [](const char* name, const char* field, json value) {
    json c = golden_config(name);
    c[field] = std::move(value);
    return c;
  };
  expect_refused(with("qwen3moe-a", "model_type", "llama"),
                 "expected one of gemma4, gemma4_text, gpt_oss, qwen3_moe, got \"llama\"");
  expect_refused(with("qwen3moe-a", "model_type", 3), "model_type");
  expect_refused(with("qwen3moe-a", "model_type", nullptr), "got nothing");
  expect_refused(with("qwen3moe-a", "num_experts_per_tok", 9),
                 "num_experts_per_tok: expected an integer from 1 to 8, got 9");
  expect_refused(with("qwen3moe-a", "use_sliding_window", true), "use_sliding_window");
  expect_refused(with("qwen3moe-a", "hidden_act", "relu"), "hidden_act");
  expect_refused(with("qwen3moe-a", "hidden_act", "swiglu_oai"), "hidden_act");
  expect_refused(with("qwen3moe-a", "num_key_value_heads", 3), "a divisor of H = 4");
  expect_refused(with("qwen3moe-a", "head_dim", 31), "an even number");
  expect_refused(with("qwen3moe-a", "mlp_only_layers", {3}), "mlp_only_layers");
  expect_refused(with("qwen3moe-a", "mlp_only_layers", {"1"}), "mlp_only_layers");
  for (const char* type : {"llama3", "longrope", "dynamic", "YARN"})
    expect_refused(with("qwen3moe-a", "rope_scaling", {{"rope_type", type}, {"factor", 2.0}}),
                   "rope_type: expected default, linear, yarn or proportional");
  expect_refused(with("qwen3moe-a", "rope_scaling", {{"rope_type", "yarn"}}), "factor");
  expect_refused(with("qwen3moe-a", "rope_scaling", {{"partial_rotary_factor", 0.5}}),
                 "partial_rotary_factor");
  expect_refused(with("qwen3moe-a", "rope_scaling", "yarn"), "rope_scaling: expected an object");
  expect_refused(with("qwen3moe-a", "quantization_config", {{"quant_method", "gptq"}}),
                 "quant_method: expected fp8 or mxfp4, got \"gptq\"");
  expect_refused(with("qwen3moe-a", "quantization_config", json::object()), "quant_method");
  expect_refused(with("qwen3moe-a", "quantization_config",
                      {{"quant_method", "fp8"}, {"weight_block_size", {128}}}),
                 "weight_block_size");
  expect_refused(with("gptoss-a", "hidden_act", "gelu"), "hidden_act: expected silu");
  expect_refused(with("gptoss-a", "layer_types", {"full_attention"}),
                 "layer_types: expected 4 entries (num_hidden_layers), got 1");
  expect_refused(with("gptoss-a", "layer_types",
                      {"full_attention", "full_attention", "chunked_attention", "full_attention"}),
                 "layer_types[2]");
  expect_refused(with("gemma4-b", "use_bidirectional_attention", "all"),
                 "use_bidirectional_attention");
  expect_refused(with("gemma4-b", "hidden_size_per_layer_input", 256), "per-layer embeddings");
  json c = golden_config("gemma4-b");
  c.erase("hidden_size_per_layer_input");
  expect_refused(c, "per-layer embeddings");  // absent means 256
  expect_refused(with("gemma4-b", "num_kv_shared_layers", 2), "share keys");
  expect_refused(with("gemma4-b", "use_double_wide_mlp", true), "double-wide");
  expect_refused(with("gemma4-b", "attention_bias", true), "attention_bias");
  expect_refused(with("gemma4-b", "per_layer_config", {{"9", json::object()}}), "index below 7");
  expect_refused(with("gemma4-b", "per_layer_config", {{"2", {{"intermediate_size", 9}}}}),
                 "intermediate_size: expected head_dim or num_key_value_heads");
  expect_refused(with("gemma4-a", "text_config", 5), "text_config: expected an object");
  expect_refused(json::array(), "expected an object");
}

TEST(Config, Files) {
  const ScratchDir dir;
  const std::string path = dir / "config.json";
  const auto refused = [&](const std::string& why) {
    const auto out = read_spec(dir.path());
    ASSERT_FALSE(out.ok());
    EXPECT_NE(out.status().message().find(path), std::string::npos) << out.status().message();
    EXPECT_NE(out.status().message().find(why), std::string::npos) << out.status().message();
  };
  refused("No such file");
  const std::string good = golden_config("qwen3moe-a").dump();
  write_file(path, good);
  EXPECT_TRUE(read_spec(dir.path()).ok());
  write_file(path, "\xEF\xBB\xBF" + good);
  refused("byte order mark");
  write_file(path, "// a comment\n" + good);
  refused("not valid JSON");
  write_file(path, good + std::string(size_t{100} << 20, ' '));
  refused("at most 16777216 expected");
  write_file(path, R"({"model_type":"qwen3_moe","rms_norm_eps":NaN})");
  refused("not valid JSON");
  for (size_t n = 0; n < good.size(); n += 7) {
    write_file(path, good.substr(0, n));
    refused("not valid JSON");
  }
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  refused("got a directory");
}

}  // namespace
}  // namespace sluice
