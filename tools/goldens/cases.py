"""The cases of make_model_goldens.py: what each varies in config, naming, storage and length."""
import dataclasses
import re

QWEN = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "attention_bias": False,
    "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "decoder_sparse_step": 1,
    "hidden_act": "silu", "hidden_size": 64, "head_dim": 32, "intermediate_size": 96,
    "max_position_embeddings": 4096, "max_window_layers": 3, "mlp_only_layers": [],
    "moe_intermediate_size": 48, "norm_topk_prob": True, "num_attention_heads": 4,
    "num_experts": 8, "num_experts_per_tok": 2, "num_hidden_layers": 3, "num_key_value_heads": 2,
    "output_router_logits": False, "rms_norm_eps": 1e-6, "rope_scaling": None, "rope_theta": 1e6,
    "sliding_window": None, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "use_sliding_window": False, "vocab_size": 300,
}
GEMMA = {
    "architectures": ["Gemma4ForCausalLM"], "model_type": "gemma4_text", "attention_bias": False,
    "attention_dropout": 0.0, "attention_k_eq_v": True, "bos_token_id": 2, "dtype": "bfloat16",
    "enable_moe_block": True, "eos_token_id": 1, "final_logit_softcapping": 30.0,
    "global_head_dim": 64, "head_dim": 32, "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 64, "hidden_size_per_layer_input": 0, "intermediate_size": 80,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "max_position_embeddings": 4096, "moe_intermediate_size": 48, "num_attention_heads": 4,
    "num_experts": 8, "num_global_key_value_heads": 1, "num_hidden_layers": 3,
    "num_key_value_heads": 2, "num_kv_shared_layers": 0, "pad_token_id": 0, "rms_norm_eps": 1e-6,
    "rope_parameters": {
        "full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 1e6,
                           "rope_type": "proportional"},
        "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}},
    "sliding_window": 8, "tie_word_embeddings": True, "top_k_experts": 2,
    "use_bidirectional_attention": None, "use_double_wide_mlp": False, "vocab_size": 300,
    "vocab_size_per_layer_input": 300,
}
YARN = {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
        "original_max_position_embeddings": 64, "truncate": False}
GPT_OSS = {
    "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "attention_bias": True,
    "attention_dropout": 0.0, "eos_token_id": 2, "experts_per_token": 2, "head_dim": 32,
    "hidden_act": "silu", "hidden_size": 64, "initial_context_length": 64,
    "intermediate_size": 64,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "max_position_embeddings": 2048, "num_attention_heads": 4, "num_experts_per_tok": 2,
    "num_hidden_layers": 3, "num_key_value_heads": 2, "num_local_experts": 6, "pad_token_id": 1,
    "rms_norm_eps": 1e-5, "rope_scaling": YARN, "rope_theta": 150000, "sliding_window": 8,
    "swiglu_limit": 7.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "vocab_size": 300,
}
CLASSES = {"qwen3_moe": "Qwen3MoeForCausalLM", "gemma4": "Gemma4ForCausalLM",
           "gpt_oss": "GptOssForCausalLM"}


def changed(base, drop=(), **fields):
    out = {k: v for k, v in base.items() if k not in drop}
    out.update(fields)
    return out


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    what: str
    family: str
    config: dict
    tokens: int = 70
    storage: str = "bf16"
    shards: int = 1
    mxfp4: bool = False
    packed: bool = False  # Qwen: one tensor for all experts, and the router's other name
    prefix: str = "model."

    @property
    def text(self):
        return self.config.get("text_config", self.config)

    @property
    def vocabulary(self):
        return self.text["vocab_size"]

    @property
    def tied(self):
        return bool(self.text.get("tie_word_embeddings", False))

    @property
    def model_class(self):
        return CLASSES[self.family]

    routers = ("mlp.gate", "mlp.router", "router")

    def rename(self, name, value):
        """In-memory name and value -> the tensors that the checkpoint holds for it."""
        if name.startswith("model."):
            name = self.prefix + name[len("model."):]
        if self.family != "qwen3_moe":
            return [(name, value)]
        if self.packed:
            return [(re.sub(r"mlp\.gate\.weight$", "mlp.router.weight", name), value)]
        match = re.fullmatch(r"(.*\.mlp\.experts)\.(gate_up_proj|down_proj)", name)
        if not match:
            return [(name, value)]
        parts = []
        for e in range(value.shape[0]):
            where = f"{match.group(1)}.{e}."
            if match.group(2) == "down_proj":
                parts.append((where + "down_proj.weight", value[e]))
            else:
                gate, up = value[e].chunk(2)
                parts += [(where + "gate_proj.weight", gate), (where + "up_proj.weight", up)]
        return parts


def _cases():
    yield Case("qwen-yarn-bias", "YaRN, biases on attention, f16, T = 300, GQA 6:2", "qwen3_moe",
               changed(QWEN, attention_bias=True, hidden_size=80, num_attention_heads=6,
                       num_experts=16, num_experts_per_tok=4,
                       rope_scaling={"rope_type": "yarn", "factor": 4.0,
                                     "original_max_position_embeddings": 64}),
               tokens=300, storage="f16")
    yield Case("qwen-sparse-5x", "sparse step 2, tied, f32, three shards, the 5.x config dialect",
               "qwen3_moe",
               changed(QWEN, ("num_experts", "rope_theta", "rope_scaling", "torch_dtype"),
                       num_hidden_layers=4, decoder_sparse_step=2, tie_word_embeddings=True,
                       num_local_experts=8, dtype="float32",
                       rope_parameters={"rope_type": "default", "rope_theta": 10000.0}),
               storage="f32", shards=3)
    yield Case("qwen-packed", "packed experts, mlp.router, dense layer, fields absent", "qwen3_moe",
               changed(QWEN, ("norm_topk_prob", "head_dim", "rope_theta", "rope_scaling"),
                       num_experts=12, num_experts_per_tok=5, mlp_only_layers=[2],
                       hidden_size=96, num_attention_heads=6, num_key_value_heads=3),
               packed=True, tokens=90)
    yield Case("qwen-yarn-5x", "YaRN in rope_parameters with attention_factor, one KV head, K = 1",
               "qwen3_moe",
               changed(QWEN, ("rope_theta", "rope_scaling"), num_key_value_heads=1,
                       num_experts_per_tok=1, head_dim=64,
                       rope_parameters={"rope_type": "yarn", "rope_theta": 50000.0, "factor": 8.0,
                                        "beta_fast": 16.0, "beta_slow": 2.0, "truncate": False,
                                        "attention_factor": 1.1,
                                        "original_max_position_embeddings": 128}),
               tokens=150, storage="f32")
    yield Case("gemma-5x", "nested, per_layer_config, K = V, f32, window 20, T = 300", "gemma4",
               {"architectures": ["Gemma4ForConditionalGeneration"], "model_type": "gemma4",
                "dtype": "float32", "tie_word_embeddings": True,
                "text_config": changed(
                    GEMMA, ("global_head_dim", "num_global_key_value_heads", "architectures"),
                    hidden_size=96, num_hidden_layers=4, sliding_window=20, dtype="float32",
                    layer_types=["sliding_attention", "full_attention", "sliding_attention",
                                 "full_attention"],
                    per_layer_config={"1": {"head_dim": 64, "num_key_value_heads": 1},
                                      "3": {"head_dim": 64, "num_key_value_heads": 1}})},
               tokens=300, storage="f32", prefix="model.language_model.")
    yield Case("gemma-flat", "flat, f16, three shards, K != V with the global KV field set, K = 4",
               "gemma4",
               changed(GEMMA, attention_k_eq_v=False, hidden_size=96, top_k_experts=4,
                       num_experts=10, num_attention_heads=6, sliding_window=5,
                       final_logit_softcapping=None, dtype="float16"),
               storage="f16", shards=3, tokens=90)
    yield Case("gptoss-limit", "other SwiGLU limit and alpha, YaRN truncated, T = 300, E = 5",
               "gpt_oss",
               changed(GPT_OSS, ("layer_types",), swiglu_limit=2.5, swiglu_alpha=1.3,
                       num_local_experts=5, num_experts_per_tok=3, experts_per_token=3,
                       rope_scaling=dict(YARN, truncate=True, factor=8.0)),
               tokens=300)
    yield Case("gptoss-mxfp4", "MXFP4, expert width not D, three shards, no rope_scaling", "gpt_oss",
               changed(GPT_OSS, ("rope_scaling",), intermediate_size=96, sliding_window=5,
                       num_experts_per_tok=4, experts_per_token=4,
                       quantization_config={"quant_method": "mxfp4",
                                            "modules_to_not_convert": ["model.embed_tokens"]}),
               tokens=150, shards=3, mxfp4=True)
    yield Case("gptoss-5x", "rope_parameters, f32, head size 64, one expert chosen", "gpt_oss",
               changed(GPT_OSS, ("rope_scaling", "rope_theta", "torch_dtype"), head_dim=64,
                       num_experts_per_tok=1, experts_per_token=1, dtype="float32",
                       rope_parameters=dict(YARN, rope_theta=20000.0)),
               storage="f32", tokens=90)
    yield Case("qwen-odd", "sizes that are no multiple of 16, exact gelu, every expert chosen",
               "qwen3_moe",
               changed(QWEN, hidden_act="gelu", hidden_size=76, head_dim=80, num_attention_heads=3,
                       num_key_value_heads=3, num_experts=4, num_experts_per_tok=4,
                       moe_intermediate_size=20, vocab_size=301),
               tokens=50)
    yield Case("gemma-odd", "head sizes 48 and 96, odd widths, two shards, vision attention", "gemma4",
               changed(GEMMA, head_dim=48, global_head_dim=96, hidden_size=76, intermediate_size=36,
                       moe_intermediate_size=12, num_experts=9, top_k_experts=3, vocab_size=301,
                       vocab_size_per_layer_input=301, use_bidirectional_attention="vision",
                       sliding_window=33),
               tokens=100, shards=2)
    yield Case("gptoss-odd", "head size 80, expert width 44, f16, window 1", "gpt_oss",
               changed(GPT_OSS, head_dim=80, hidden_size=76, intermediate_size=44, vocab_size=301,
                       sliding_window=1, num_attention_heads=6, num_key_value_heads=1,
                       torch_dtype="float16"),
               tokens=60, storage="f16")


CASES = {case.name: case for case in _cases()}
