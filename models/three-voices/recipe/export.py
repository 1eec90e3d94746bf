#!/usr/bin/env python3
"""Write a checkpoint as bf16 safetensors with the published Qwen3-MoE tensor names, and its two configuration files."""
import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

import model
from train_tokenizer import END, IM_END


def tensors(checkpoint, which):
    c = model.Config(**checkpoint["config"])
    p = model.views(checkpoint[which], model.parameter_shapes(c))
    out = {"model.embed_tokens.weight": p["embed"], "model.norm.weight": p["norm"]}
    for i in range(c.layers):
        head = f"model.layers.{i}."
        out[head + "input_layernorm.weight"] = p[f"{i}.norm1"]
        out[head + "post_attention_layernorm.weight"] = p[f"{i}.norm2"]
        for name in "qkvo":
            out[head + f"self_attn.{name}_proj.weight"] = p[f"{i}.{name}"]
        out[head + "self_attn.q_norm.weight"] = p[f"{i}.q_norm"]
        out[head + "self_attn.k_norm.weight"] = p[f"{i}.k_norm"]
        out[head + "mlp.gate.weight"] = p[f"{i}.router"]
        for e in range(c.experts):
            expert = head + f"mlp.experts.{e}."
            out[expert + "gate_proj.weight"] = p[f"{i}.gate_up"][e, 0]
            out[expert + "up_proj.weight"] = p[f"{i}.gate_up"][e, 1]
            out[expert + "down_proj.weight"] = p[f"{i}.down"][e]
    return c, {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in out.items()}


def configuration(c, tokenizer):
    end = tokenizer.token_to_id(END)
    return {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "torch_dtype": "bfloat16",
        "vocab_size": c.vocabulary, "hidden_size": c.hidden, "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads, "num_key_value_heads": c.kv_heads, "head_dim": c.head_dim,
        "intermediate_size": c.expert_width * c.active, "moe_intermediate_size": c.expert_width,
        "num_experts": c.experts, "num_experts_per_tok": c.active, "norm_topk_prob": True,
        "decoder_sparse_step": 1, "mlp_only_layers": [], "output_router_logits": False,
        "router_aux_loss_coef": 0.0, "hidden_act": "silu", "rms_norm_eps": c.eps, "rope_theta": c.theta,
        "rope_scaling": None, "max_position_embeddings": c.context, "attention_bias": False,
        "attention_dropout": 0.0, "initializer_range": 0.02, "use_sliding_window": False, "sliding_window": None,
        "tie_word_embeddings": True, "use_cache": True, "bos_token_id": end, "eos_token_id": end,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", default="work")
    parser.add_argument("--checkpoint", help="default: checkpoint.pt in the work directory")
    parser.add_argument("--which", choices=("flat", "average"), default="flat",
                        help="the weights of the last step, or their running average (for an unfinished run)")
    parser.add_argument("--mix", help="another checkpoint to average the weights with")
    parser.add_argument("--mix-share", type=float, default=0.5, help="the weight of that checkpoint")
    parser.add_argument("--out", default="..")
    args = parser.parse_args()
    checkpoint = torch.load(args.checkpoint or Path(args.work) / "checkpoint.pt", weights_only=False)
    if args.mix:
        other = torch.load(args.mix, weights_only=False)
        checkpoint[args.which] = checkpoint[args.which].lerp(other[args.which], args.mix_share)
    c, weights = tensors(checkpoint, args.which)
    out = Path(args.out)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    save_file(weights, str(out / "model.safetensors"), metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(configuration(c, tokenizer), indent=2) + "\n")
    (out / "generation_config.json").write_text(json.dumps({
        "bos_token_id": tokenizer.token_to_id(END), "pad_token_id": tokenizer.token_to_id(END),
        "eos_token_id": [tokenizer.token_to_id(END), tokenizer.token_to_id(IM_END)],
        "do_sample": True, "temperature": 0.8, "top_p": 0.95}, indent=2) + "\n")
    size = (out / "model.safetensors").stat().st_size
    arguments = {name: value for name, value in checkpoint["arguments"].items()
                 if name not in ("work", "model", "resume")}
    name = "finish.json" if arguments.get("finish") else "run.json"
    (Path(args.work) / name).write_text(json.dumps({
        "steps": checkpoint["step"], "seconds": round(checkpoint["seconds"]), "tokens": checkpoint["tokens"],
        "epochs": round(checkpoint["epochs"], 2), "parameters": checkpoint[args.which].numel(),
        "which": args.which, "mix_share": args.mix_share if args.mix else 0, "bytes": size, "tensors": len(weights), "config": checkpoint["config"],
        "arguments": arguments | {"resumed_at": checkpoint.get("resumed_at", 0)}}, indent=1) + "\n")
    print(f"step {checkpoint['step']}, {checkpoint['tokens'] / 1e6:.1f} M tokens, {checkpoint['epochs']:.1f} epochs; "
          f"{len(weights)} tensors, {size:,} bytes in {out / 'model.safetensors'}")


if __name__ == "__main__":
    main()
