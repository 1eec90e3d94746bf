#!/usr/bin/env python3
"""Load the exported directory with transformers and measure it on the held-out text: bits per byte, expert load.

Windows of 512 tokens, <|endoftext|> first; the exported bf16 weights, computed in float32.
"""
import argparse
import json
import math
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

import corpus
import data


def load(directory):
    """The model in float32; fails if a tensor is missing, unexpected or of another shape."""
    model, report = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    problems = {name: keys for name, keys in report.items() if keys}
    if problems:
        raise SystemExit(f"the directory does not load cleanly: {problems}")
    return model.eval()


class Router:
    """Counts which experts the tokens of a voice go to, in every layer."""

    def __init__(self, model):
        self.model, self.config = model, model.config
        self.keep, self.counts = None, torch.zeros(model.config.num_hidden_layers, model.config.num_experts)
        for number, layer in enumerate(model.model.layers):
            layer.mlp.gate.register_forward_hook(self.hook(number, layer.mlp.gate))

    def hook(self, number, gate):
        def count(module, inputs, output):
            hidden = inputs[0].reshape(-1, self.config.hidden_size)
            chosen = torch.nn.functional.linear(hidden, gate.weight).topk(self.config.num_experts_per_tok, -1).indices
            chosen = chosen[self.keep]
            self.counts[number] += torch.bincount(chosen.reshape(-1), minlength=self.config.num_experts)
        return count


@torch.no_grad()
def measure(model, tokenizer, held_out, context):
    result, nats, size, loads = {}, 0.0, 0, {}
    router = Router(model)
    for voice in corpus.VOICES:
        x, y, count = data.evaluation_windows(tokenizer, held_out[voice], context)
        total = 0.0
        router.counts.zero_()
        for start in range(0, len(x), 8):
            xb, yb = torch.from_numpy(x[start:start + 8]), torch.from_numpy(y[start:start + 8])
            router.keep = (yb >= 0).reshape(-1)
            logits = model(input_ids=xb).logits.float()
            total += torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), yb.flatten(), ignore_index=-1, reduction="sum").item()
        loads[voice] = router.counts.clone()
        result[voice] = total / count / math.log(2)
        nats, size = nats + total, size + count
        print(f"{voice:12} {count:7,} bytes  {result[voice]:.4f} bits per byte", flush=True)
    result["all"] = nats / size / math.log(2)
    print(f"{'all':12} {size:7,} bytes  {result['all']:.4f} bits per byte")
    return result, loads


def load_figures(loads):
    together = sum(loads.values())
    spread = (together.max(1).values / together.mean(1)).tolist()
    shares = {voice: counts / counts.sum(1, keepdim=True) for voice, counts in loads.items()}
    pairs = [(a, b) for i, a in enumerate(corpus.VOICES) for b in corpus.VOICES[i + 1:]]
    distance = (sum((shares[a] - shares[b]).abs().sum(1) / 2 for a, b in pairs) / len(pairs)).tolist()
    return spread, distance, {voice: share.tolist() for voice, share in shares.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", default="work")
    parser.add_argument("--model", default="..")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--text", nargs="*", default=[], help="measure these text files instead of the held-out part")
    args = parser.parse_args()
    model = load(args.model)
    AutoTokenizer.from_pretrained(args.model)
    tokenizer = Tokenizer.from_file(str(Path(args.model) / "tokenizer.json"))
    if args.text:
        for path in args.text:
            x, y, size = data.evaluation_windows(tokenizer, [Path(path).read_text(encoding="utf-8")], args.context)
            with torch.no_grad():
                total = sum(torch.nn.functional.cross_entropy(
                    model(input_ids=torch.from_numpy(x[i:i + 1])).logits[0], torch.from_numpy(y[i]),
                    ignore_index=-1, reduction="sum").item() for i in range(len(x)))
            print(f"{path}: {size:,} bytes, {total / size / math.log(2):.4f} bits per byte")
        return
    bits, loads = measure(model, tokenizer, corpus.load(Path(args.work) / "corpus.json")["held_out"], args.context)
    spread, distance, shares = load_figures(loads)
    print("expert load, busiest / mean, by layer:          " + "  ".join(f"{value:.2f}" for value in spread))
    print("distance of the voices' expert shares, by layer: " + "  ".join(f"{value:.2f}" for value in distance))
    out = Path(args.work) / "evaluation.json"
    out.write_text(json.dumps({"bits_per_byte": bits, "load_max_over_mean": spread, "voice_distance": distance,
                               "shares": shares}, indent=1) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
