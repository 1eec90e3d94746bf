#!/usr/bin/env python3
"""Tiny random checkpoints of the three families and what Hugging Face transformers computes for them.

Each case is a folder as a published checkpoint has it (config.json, safetensors in one file or in
shards) plus golden.safetensors: input_ids [T], logits [T,V], hidden.N [T,D] (0 = after the
embedding, N = after layer N-1, before the final norm), router.N.ids and router.N.weights [T,K] for
layers with experts, greedy [G]. f32 arithmetic on the stored values, eager attention and experts,
no cache. Every weight is random, norms, biases, sinks and scales included; a seed whose routing or
greedy choices are nearly tied is passed over.

    make_model_goldens.py OUT [CASE...]        needs torch, transformers, safetensors (make oracles)
    make_model_goldens.py --list
"""
import argparse
import json
import pathlib
import sys
import zlib

import torch
import transformers
from safetensors.torch import save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from cases import CASES  # noqa: E402

GREEDY = 16
# Below these gaps two correct f32 programs may choose differently.
MIN_ROUTER_GAP, MIN_GREEDY_GAP = 4e-5, 2e-3
STORED = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


def draw(name, shape, seed, case):
    """The value of one in-memory tensor, by what its name says it is."""
    g = torch.Generator().manual_seed((zlib.crc32(name.encode()) ^ (seed * 2654435761)) & 0x7fffffff)
    x = torch.randn(shape, generator=g, dtype=torch.float64)
    u = torch.rand(shape, generator=g, dtype=torch.float64)
    gemma = case.family == "gemma4"
    if name.endswith("layer_scalar"):
        value = 0.6 + 0.6 * u
    elif name.endswith("per_expert_scale"):
        value = 0.5 + u
    elif name.endswith("router.scale"):
        value = 1 + 0.2 * x
    elif name.endswith("sinks"):
        value = 1 + x
    elif name.endswith("bias"):
        value = 0.3 * x
    elif "norm" in name.rsplit(".", 2)[-2]:
        value = 1 + 0.2 * x
        if gemma and "post_" in name:
            value = value * 0.5
        if gemma and "k_norm" in name:
            value = value * 1.5 / shape[-1] ** 0.5
        if name == "model.norm.weight" and case.tied:
            value = value * torch.where(u < 0.5, -1.0, 1.0)
    elif "embed_tokens" in name:
        value = x * (0.45 if case.tied else 1.0)
    elif "lm_head" in name:
        value = x * 3.5 / shape[-1] ** 0.5
    else:
        # [.., out, in], but gpt-oss experts are [E, in, out].
        fan_in = shape[-2] if case.family == "gpt_oss" and ".experts." in name else shape[-1]
        gain = 2.0 if ".experts.gate_up" in name or "router" in name or ".gate.weight" in name else 1.2
        value = x * gain / fan_in ** 0.5
    return value.to(torch.float32)


def quantise_mxfp4(w):
    """[E, out, in] f32 -> blocks [E, out, in/32, 16] u8, scales [E, out, in/32] u8, the values."""
    levels = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
    groups = w.reshape(*w.shape[:-1], -1, 32)
    peak = groups.abs().amax(-1)
    exponent = torch.ceil(torch.log2(torch.clamp(peak / 6, min=2.0 ** -20)))
    scale = torch.exp2(exponent)
    codes = ((groups / scale[..., None])[..., None] - levels).abs().argmin(-1)
    values = (levels[codes] * scale[..., None]).reshape(w.shape)
    blocks = (codes[..., 0::2] | (codes[..., 1::2] << 4)).to(torch.uint8)
    return blocks, (exponent + 127).to(torch.uint8), values


def on_disk(case, state):
    """In-memory names and values -> the tensors of the checkpoint, and the values as stored."""
    disk, used = {}, {}
    for name, value in state.items():
        stored = value.to(STORED[case.storage])
        if case.mxfp4 and name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            blocks, scales, exact = quantise_mxfp4(value.transpose(1, 2).contiguous())
            disk[name + "_blocks"], disk[name + "_scales"] = blocks, scales
            used[name] = exact.transpose(1, 2).contiguous()
            continue
        used[name] = stored.to(torch.float32)
        for new_name, part in case.rename(name, stored):
            disk[new_name] = part.contiguous()
    return disk, used


def write_shards(folder, tensors, count):
    """One file, or `count` shards with an index, cut by tensor in the order of names."""
    if count == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    cut = [names[len(names) * i // count:len(names) * (i + 1) // count] for i in range(count)]
    weight_map = {}
    for i, part in enumerate(cut, 1):
        file = f"model-{i:05d}-of-{count:05d}.safetensors"
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
        weight_map.update({n: file for n in part})
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))


def build_model(case, folder, seed):
    """(transformers model with the stored values, tensors of the checkpoint)."""
    config = transformers.AutoConfig.from_pretrained(folder)
    config = getattr(config, "text_config", None) or config
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    model = getattr(transformers, case.model_class)(config).to(torch.float32).eval()
    names = {n: t for n, t in model.state_dict().items()
             if not (case.tied and n == "lm_head.weight")}
    state = {n: draw(n, tuple(t.shape), seed, case) for n, t in names.items()}
    disk, used = on_disk(case, state)
    missing, unexpected = model.load_state_dict(used, strict=False)
    missing = [m for m in missing if m != "lm_head.weight" or not case.tied]
    assert not missing and not unexpected, (missing, unexpected)
    model.tie_weights()
    if case.family == "gemma4":
        # The scale is sqrt(D) in the dtype that the table is stored in, whatever is loaded.
        root = torch.tensor(config.hidden_size ** 0.5).to(STORED[case.storage]).to(torch.float32)
        model.model.embed_tokens.embed_scale.fill_(root.item())
    return model, disk


def router_of(case, output):
    """(f32 scores that selection compares, ids, weights) of a router module's output."""
    logits, weights, ids = output
    if case.family == "gemma4":
        logits = torch.log(logits)  # it returns probabilities
    return logits.float(), ids, weights.float()


@torch.no_grad()
def run(case, model, ids):
    """Everything that golden.safetensors holds but greedy, and the smallest routing gap."""
    out, gaps = {"input_ids": ids.to(torch.int32)}, [float("inf")]
    handles = []

    def keep_hidden(index):
        def hook(module, args, output):
            hidden = output[0] if isinstance(output, tuple) else output
            out[f"hidden.{index}"] = hidden.reshape(len(ids), -1).clone()
        return hook

    def keep_router(index):
        def hook(module, args, output):
            logits, chosen, weights = router_of(case, output)
            order = torch.sort(logits.reshape(len(ids), -1), dim=-1, descending=True).values
            k = chosen.shape[-1]
            gaps.append((order[:, :k] - order[:, 1:k + 1]).min().item()
                        if order.shape[-1] > k else float("inf"))
            out[f"router.{index}.ids"] = chosen.reshape(len(ids), k).to(torch.int32)
            out[f"router.{index}.weights"] = weights.reshape(len(ids), k)
        return hook

    handles.append(model.model.embed_tokens.register_forward_hook(keep_hidden(0)))
    for i, layer in enumerate(model.model.layers):
        handles.append(layer.register_forward_hook(keep_hidden(i + 1)))
        router = next((m for n, m in layer.named_modules() if n in case.routers), None)
        if type(router).__name__.endswith("Router"):
            handles.append(router.register_forward_hook(keep_router(i)))
    out["logits"] = model(ids[None], use_cache=False).logits[0].float()
    for handle in handles:
        handle.remove()
    return {n: t.contiguous() for n, t in out.items()}, min(gaps)


@torch.no_grad()
def greedy(model, ids):
    """Greedy continuation and the smallest gap between the best two logits."""
    chosen, gap = [], float("inf")
    for _ in range(GREEDY):
        logits = model(ids[None], use_cache=False).logits[0, -1].float()
        best = torch.topk(logits, 2).values
        gap = min(gap, (best[0] - best[1]).item())
        chosen.append(int(logits.argmax()))
        ids = torch.cat([ids, torch.tensor(chosen[-1:])])
    return torch.tensor(chosen, dtype=torch.int32), gap


def make(case, out, first_seed=1):
    """Writes one case into the folder `out`; returns the seed that was used."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(case.config, indent=2))
    for seed in range(first_seed, first_seed + 40):
        model, disk = build_model(case, out, seed)
        ids = torch.randint(0, case.vocabulary, (case.tokens,),
                            generator=torch.Generator().manual_seed(seed))
        golden, router_gap = run(case, model, ids)
        if router_gap < MIN_ROUTER_GAP:
            continue
        golden["greedy"], greedy_gap = greedy(model, ids)
        if greedy_gap < MIN_GREEDY_GAP:
            continue
        write_shards(out, disk, case.shards)
        info = {"case": case.name, "seed": seed, "torch": torch.__version__,
                "transformers": transformers.__version__, "router_gap": router_gap,
                "greedy_gap": greedy_gap, "std_logit": golden["logits"].std().item()}
        save_file(golden, out / "golden.safetensors", metadata={"info": json.dumps(info)})
        return info
    raise RuntimeError(f"{case.name}: 40 seeds were all nearly tied")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path, nargs="?")
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.list or not args.out:
        for case in CASES.values():
            print(f"{case.name:<20} {case.what}")
        return 0 if args.list else 2
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    for name in args.cases or CASES:
        print(json.dumps(make(CASES[name], args.out / name, args.seed)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
