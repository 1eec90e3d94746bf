#!/usr/bin/env python3
"""Gemma 4's router as an eager chain of torch ops on bf16 tensors, in the forms that exist.

Writes router.safetensors: for whole chains from the residual stream (D 2816, E 128, K 8) the bf16
logits, ids and weights; for chains from given logits (ties, underflow) ids and weights. Inputs are
SplitMix64 sequences of their seeds, as in make_route_goldens.py; tests/router_chain_test.cc repeats
them. torch may add a row's products and a softmax's terms in any order, so a row is passed over when
an f64 value at a rounding point lies so close to the middle of two bf16 values that the order of an
f32 sum decides; where it does not, every chain must give the same bits.

    make_router_goldens.py OUT          needs torch, safetensors (make oracles)
"""
import argparse
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file

from make_route_goldens import bell

D, E, K, ROWS = 2816, 128, 8, 16
EPS = 1e-6
ULP = 2.0**-24  # half an f32 ulp, relative
FORMS = ["hf", "max", "dtype", "sglang", "maxtext"]


def bf16(values):
    return torch.tensor(np.asarray(values), dtype=torch.float64).to(torch.float32).to(torch.bfloat16)


def stream(seed):
    return bf16(bell(seed, D) * 2.0**-15)


def parameters():
    """scale [D], proj [E, D], per_expert_scale [E]."""
    scale = bf16(1 + bell(1, D) * 2.0**-18)
    proj = bf16(np.stack([bell(50000 + e, D) * 2.0**-17 for e in range(E)]))
    return scale, proj, bf16(1 + bell(2, E) * 2.0**-18)


def near_middle(value, slack):
    """Whether an f64 value lies within `slack` of the middle between two bf16 values."""
    v = np.abs(np.asarray(value, dtype=np.float64))
    half = np.exp2(np.floor(np.log2(np.maximum(v, 1e-300))) - 8)  # half a bf16 ulp
    return np.abs(np.abs(np.mod(v, 2 * half)) - half) <= slack


def input_chain(x, scale):
    """Norm without weight, scale, D^-0.5: as transformers' Gemma4TextRouter does."""
    wide = x.float()
    normed = (wide * torch.pow(wide.pow(2).mean(-1, keepdim=True) + EPS, -0.5)).type_as(x)
    return normed, normed * scale * D**-0.5


def pick(values, k):
    """torch.topk leaves ties open; the rule is the lowest id."""
    top, ids = torch.sort(values, dim=-1, descending=True, stable=True)
    return top[:k], ids[:k]


def choose(form, logits, per_expert_scale):
    """(ids, weights, values about to be rounded to bf16 that f32 does not hold exactly) of one row.

    Sums, quotients and products of bf16 values are not among them: f32 rounds each of these in one
    way, whatever the program.
    """
    if form in ("hf", "max"):  # softmax, renormalisation and scales in f32
        w, ids = pick(torch.softmax(logits, -1, dtype=torch.float32), K)
        w = w / w.sum() * per_expert_scale[ids]
        return ids, (w.to(torch.bfloat16) if form == "max" else w), [w]
    if form == "dtype":  # everything in the model's dtype
        exact = torch.softmax(logits.double(), -1)
        w, ids = pick(torch.softmax(logits, -1), K)
    elif form == "sglang":  # top-k of the logits, softmax over them in the model's dtype
        top, ids = pick(logits, K)
        exact = torch.softmax(top.double(), -1)
        return ids, torch.softmax(top, -1) * per_expert_scale[ids], [exact]
    else:  # maxtext: f32 softmax over all, top-k of the logits, then the model's dtype
        _, ids = pick(logits, K)
        exact = torch.softmax(logits.double(), -1)[ids]
        w = torch.softmax(logits, -1, dtype=torch.float32)[ids].to(torch.bfloat16)
    return ids, w / w.sum() * per_expert_scale[ids], [exact]


def clear_choice(form, logits, per_expert_scale):
    values = choose(form, logits, per_expert_scale)[2]
    wide = [v.double().numpy() for v in values]
    wide = [v[v > 1e-46] for v in wide]  # the rest is 0 in f32
    if any((v < 1.2e-38).any() for v in wide):  # subnormal in torch, 0 where they flush
        return False
    return not any(near_middle(v, 16 * ULP * np.abs(v)).any() for v in wide)


def clear_input(x, scale, proj):
    """Whether no rounding before the logits, and no selection, hangs on an f32 sum's order."""
    normed, read = input_chain(x, scale)
    wide = x.double().numpy()
    exact = wide / np.sqrt((wide * wide).mean() + EPS)
    if near_middle(exact, 4 * ULP * np.abs(exact)).any():
        return None
    products = proj.double().numpy() * read.double().numpy()
    slack = 2 * ULP * np.sqrt(D) * np.sqrt((products**2).sum(1))
    if near_middle(products.sum(1), slack).any():
        return None
    return read, torch.nn.functional.linear(read, proj)


def given_logits(kind, seed):
    x = bell(seed, E)
    if kind == "ties":
        return bf16((x >> 15) * 0.5)
    below = np.where(np.arange(E) % 32 == seed % 32, 0.0, 200.0)  # four that do not underflow
    return bf16(x * 2.0**-14 - below)


def store(tensors, name, per_expert_scale, rows):
    """rows: [(seed, logits)]."""
    tensors[name + ".seeds"] = torch.tensor([s for s, _ in rows], dtype=torch.int32)
    for form in FORMS:
        chosen = [choose(form, logits, per_expert_scale) for _, logits in rows]
        tensors[f"{name}.{form}.ids"] = torch.stack([c[0] for c in chosen]).to(torch.int32)
        tensors[f"{name}.{form}.weights"] = torch.stack([c[1].float() for c in chosen])


def make(out):
    torch.set_num_threads(1)
    scale, proj, per_expert_scale = parameters()
    tensors, passed_over = {}, {}
    rows, seed = [], 1000
    while len(rows) < ROWS:
        seed += 1
        found = clear_input(stream(seed), scale, proj)
        if found and all(clear_choice(f, found[1], per_expert_scale) for f in FORMS):
            rows.append((seed, found[1], found[0]))
        assert seed < 4000
    passed_over["chain"] = seed - 1000 - ROWS
    tensors["chain.logits"] = torch.stack([logits for _, logits, _ in rows])
    tensors["chain.input"] = torch.stack([read for _, _, read in rows[:2]])
    store(tensors, "chain", per_expert_scale, [(s, logits) for s, logits, _ in rows])
    for kind in ("ties", "underflow"):
        rows, seed = [], 5000
        while len(rows) < ROWS:
            seed += 1
            logits = given_logits(kind, seed)
            if all(clear_choice(f, logits, per_expert_scale) for f in FORMS):
                rows.append((seed, logits))
            assert seed < 9000
        passed_over[kind] = seed - 5000 - ROWS
        store(tensors, kind, per_expert_scale, rows)
    save_file(tensors, str(out / "router.safetensors"))
    print(f"router: {ROWS} rows each, passed over {passed_over}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    make(out)


if __name__ == "__main__":
    main()
