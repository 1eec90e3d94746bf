#!/usr/bin/env python3
"""Routing and sorting as the upstream projects define them, computed in NumPy alone.

Writes route.safetensors (ids and f64 weights of small routed tables) and sort.safetensors (hashes
of every output of the block and CSR views). Inputs are not stored: a row is the SplitMix64 sequence
of its seed, which src/ops/moe_route_sort/golden_cases.h repeats. Scores are f64; a row in which
two different selection values lie closer than an f32 program can tell is passed over, so that ids
must agree exactly.

    make_route_goldens.py OUT           needs numpy, safetensors (make oracles)
"""
import argparse
import pathlib

import numpy as np
from safetensors.numpy import save_file

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
ROWS = 12
NEAREST = 1e-6  # between two selection values, relative to them (with a bias: to 1)


def words(seed, n):
    """The first n of SplitMix64(seed)."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.arange(n, dtype=np.uint64) + np.uint64(1)) * GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def bell(seed, n):
    """n integers, about normal around 0, |x| < 2^17: the sum of a word's four quarters."""
    w = words(seed, n)
    quarters = [(w >> np.uint64(16 * i)) & np.uint64(0xFFFF) for i in range(4)]
    return sum(q.astype(np.int64) for q in quarters) - 2 * 65535


def logits(seed, n, dtype):
    x = bell(seed, n)
    if dtype == "f32":
        return x * 2.0**-14
    if dtype == "f16":  # eleven bits: exact
        return (x >> 7) * 2.0**-7
    bits = (x * 2.0**-14).astype(np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + np.uint64(0x7FFF) + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)
    return (bits << np.uint64(16)).astype(np.uint32).view(np.float32).astype(np.float64)


def digest(values):
    """Order-dependent 64-bit hash of int32 values."""
    v = np.asarray(values, dtype=np.int32).reshape(-1)
    with np.errstate(over="ignore"):
        weight = words(0x5EED, len(v))
        return int(((v.astype(np.uint32).astype(np.uint64) + np.uint64(1)) * weight).sum(dtype=np.uint64)
                   .astype(np.int64))


# ---- routing ------------------------------------------------------------------------------------

SCORES = ["softmax_all", "softmax_selected", "sigmoid", "sqrt_softplus"]


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def route(x, rule, k, bias):
    """(ids, weights, whether every choice is clear) of one row."""
    e = len(x) - rule.get("shared", 0)
    x, extra = x[:e], x[e:]
    score = {"softmax_all": lambda: softmax(x), "softmax_selected": lambda: x,
             "sigmoid": lambda: 1 / (1 + np.exp(-x)),
             "sqrt_softplus": lambda: np.sqrt(np.logaddexp(0, x))}[rule["score"]]()
    value = (x if rule.get("by_logit") or rule["score"] == "softmax_selected" else score) + bias
    least = 1.0 if np.any(bias) else 0.0
    clear = well_apart(value, least)
    groups, kept = rule.get("groups", 1), rule.get("kept", 1)
    if kept < groups:
        table = np.sort(value.reshape(groups, -1), axis=1)[:, ::-1]
        best = table[:, 0] if rule["group_score"] == "max" else table[:, 0] + table[:, 1]
        clear = clear and well_apart(best, least)
        keep = sorted(range(groups), key=lambda g: (-best[g], g))[:kept]
        mask = np.isin(np.arange(e) // (e // groups), keep)
        value = np.where(mask, value, -np.inf)
    ids = sorted(range(e), key=lambda i: (-value[i], i))[:k]
    w = softmax(x[ids]) if rule["score"] == "softmax_selected" else score[ids]
    if rule.get("renormalise"):
        w = w / (w.sum() + rule.get("epsilon", 0.0))
    w = w * rule.get("scale", 1.0)
    ids = ids + list(range(e, e + len(extra)))
    return ids, np.concatenate([w, 1 / (1 + np.exp(-extra))]), clear


def well_apart(values, least):
    v = np.sort(values)
    gap = np.diff(v)
    return bool(np.all((gap == 0) | (gap > NEAREST * np.maximum(least, np.abs(v[1:])))))


def route_cases():
    """(name, rule, dtype, E, K)."""
    for dtype in ("f32", "bf16", "f16"):
        for e, k in ((128, 4), (256, 8)):
            yield f"aiter.{dtype}.e{e}.all", {"score": "softmax_all", "by_logit": 1}, dtype, e, k
            yield f"aiter.{dtype}.e{e}.selected", {"score": "softmax_selected"}, dtype, e, k
    deepseek = {"renormalise": 1, "epsilon": 1e-20, "scale": 2.5, "bias": 1}
    for e, k in ((8, 2), (64, 4), (128, 4), (128, 8), (256, 8), (384, 8), (512, 10)):
        for name, rule in (("softmax", {"score": "softmax_all"}),
                           ("softmax_renorm", {"score": "softmax_all", "renormalise": 1}),
                           ("sigmoid_bias", {"score": "sigmoid", **deepseek}),
                           ("sigmoid_logit", {"score": "sigmoid", "by_logit": 1}),
                           ("sqrt_softplus", {"score": "sqrt_softplus", **deepseek}),
                           ("grouped_max", {"score": "softmax_all", "renormalise": 1, "groups": 4,
                                            "kept": 2, "group_score": "max", "scale": 1.5}),
                           ("grouped_sum", {"score": "sigmoid", **deepseek, "groups": 4, "kept": 2,
                                            "group_score": "sum"})):
            if rule.get("groups") and k > e // 2:
                continue
            yield f"topk.{name}.e{e}.k{k}", rule, "f16" if e < 512 else "f32", e, k
    biased = {"score": "sigmoid", "renormalise": 1, "epsilon": 1e-20, "bias": 1}
    yield ("biased.deepseek_r1", {**biased, "scale": 2.5, "groups": 8, "kept": 4,
                                  "group_score": "sum"}, "f16", 256, 8)
    yield "biased.kimi_k2", {**biased, "scale": 2.827}, "f16", 384, 8
    yield "biased.e896", {**biased, "scale": 1.0}, "f16", 896, 16
    for e, s, k in ((8, 2, 2), (16, 2, 4), (32, 4, 8), (64, 4, 16)):
        yield (f"shared.e{e}.s{s}", {"score": "softmax_all", "renormalise": 1, "shared": s}, "f32", e,
               k)


def make_route(out):
    tensors, passed_over = {}, 0
    for index, (name, rule, dtype, e, k) in enumerate(route_cases()):
        bias = bell(7000 + index, e) * 2.0**-19 if rule.get("bias") else np.zeros(e)
        seeds, ids, weights, seed = [], [], [], 1000 * (index + 1)
        while len(seeds) < ROWS:
            seed += 1
            x = logits(seed, e + rule.get("shared", 0), dtype)
            row_ids, w, clear = route(x, rule, k, bias)
            if not clear:
                passed_over += 1
                assert seed % 1000 < 999, f"{name}: no row is clear"
                continue
            seeds.append(seed), ids.append(row_ids), weights.append(w)
        numbers = [SCORES.index(rule["score"]), rule.get("renormalise", 0), rule.get("by_logit", 0),
                   rule.get("groups", 1), rule.get("kept", 1), rule.get("group_score") == "sum",
                   rule.get("shared", 0), e, k, 7000 + index if rule.get("bias") else -1,
                   ("f32", "bf16", "f16").index(dtype)]
        tensors[name + ".rule"] = np.array(numbers, dtype=np.int64)
        tensors[name + ".floats"] = np.array([rule.get("epsilon", 0.0), rule.get("scale", 1.0)],
                                             dtype=np.float64)
        tensors[name + ".seeds"] = np.array(seeds, dtype=np.int32)
        tensors[name + ".ids"] = np.array(ids, dtype=np.int16)
        tensors[name + ".weights"] = np.array(weights, dtype=np.float32)
    save_file(tensors, out / "route.safetensors")
    print(f"route: {len(tensors) // 5} cases of {ROWS} rows, {passed_over} rows passed over")
    return tensors


# ---- sorting ------------------------------------------------------------------------------------

DISTINCT, SOME_MISSING, ONE_EXPERT = range(3)


def drawn_ids(seed, t, k, e, kind):
    """[T, K]: consecutive experts from a random first one; a quarter of them -1; or all the same."""
    w = words(seed, t * k).reshape(t, k)
    if kind == ONE_EXPERT:
        return np.full((t, k), seed % e, dtype=np.int64)
    first = (w[:, :1] % np.uint64(e)).astype(np.int64) if t else np.zeros((0, 1), np.int64)
    ids = (first + np.arange(k)) % e
    if kind == SOME_MISSING:
        ids = np.where((w >> np.uint64(40)) % np.uint64(4) == 0, -1, ids)
    return ids


def sort_pairs(ids, e, block, mask=None, live=None, packed=False):
    """Every output of both views, by a stable argsort."""
    t, k = ids.shape
    live = t if live is None else live
    local = np.arange(e) if mask is None else np.where(mask, np.cumsum(mask) - 1, -1)
    experts = e if mask is None else int(mask.sum())
    flat = ids[:live].reshape(-1)
    here = np.full(flat.shape, -1)
    known = (flat >= 0) & (flat < e)
    here[known] = local[flat[known]]
    f = np.flatnonzero(here >= 0)
    order = f[np.argsort(here[f], kind="stable")]
    counts = np.bincount(here[order], minlength=experts)
    starts = np.concatenate([[0], np.cumsum(counts)])
    inverse = np.full(t * k, -1)
    inverse[order] = np.arange(len(order))
    word = order // k + ((order % k) << 24) if packed else order
    pad = (k << 24) + live if packed else t * k
    padded = -(-counts // block) * block
    begin = np.concatenate([[0], np.cumsum(padded)])
    pairs = np.full(begin[-1], pad)
    place = begin[here[order]] + np.arange(len(order)) - starts[here[order]]
    pairs[place] = word
    blocks = np.repeat(np.arange(experts), padded // block)
    return dict(order=order, starts=starts, inverse=inverse, pairs=pairs, blocks=blocks,
                padded=int(begin[-1]))


def entry(e, k, t, block, kind, seed, mask_seed=-1, live=-1, packed=False):
    ids = drawn_ids(seed, t, k, e, kind)
    mask = None
    if mask_seed >= 0:
        mask = (words(mask_seed, e) % np.uint64(2)).astype(np.int64)
        mask[0] = 1
    s = sort_pairs(ids, e, block, mask, None if live < 0 else live, packed)
    return [e, k, t, block, kind, seed, mask_seed, live, int(packed), s["padded"], digest(s["pairs"]),
            digest(s["blocks"]), digest(s["order"]), digest(s["starts"]), digest(s["inverse"])]


def fused_sorts(routed):
    """What the 60 AITER configurations sort to, at every row count up to the limits and past them."""
    rows = []
    for d, dtype in enumerate(("f32", "bf16", "f16")):
        for e, k, most in ((128, 4, 124), (256, 8, 62)):
            table = routed[f"aiter.{dtype}.e{e}.selected.ids"].astype(np.int64)
            for m in range(1, most + 1):
                s = sort_pairs(table[np.arange(m) % ROWS], e, 32, packed=True)
                rows.append([d, e, m, s["padded"], digest(s["pairs"]), digest(s["blocks"])])
    return rows


def make_sort(out, routed):
    align, kind = [], 0
    for e in (8, 64, 128, 256):
        for block in (16, 32, 64, 128, 256):
            for t in (0, 1, 7, 64, 513, 4096):
                for k in (1, 4, 8, 64):
                    kind = (kind + 1) % 3
                    align.append(entry(e, k, t, block, kind, len(align)))
    moe_sorting = []
    for m in (1, 7, 31, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384):
        for e, k in ((32, 5), (256, 8), (40, 6), (385, 7)):
            for mask_seed in (-1, m + e):
                live = -1 if m % 2 else m // 2 + 1
                moe_sorting.append(entry(e, k, m, 32, DISTINCT, m * e, mask_seed, live, True))
    indices = [entry(256, 1, n, 1, SOME_MISSING if n == 2500 else DISTINCT, n)
               for n in (197, 2500, 11, 1, 20660, 100000)]
    tensors = {"align": align, "moe_sorting": moe_sorting, "create_indices": indices,
               "fused": fused_sorts(routed)}
    save_file({n: np.array(v, dtype=np.int64) for n, v in tensors.items()}, out / "sort.safetensors")
    print("sort: " + ", ".join(f"{len(v)} {n}" for n, v in tensors.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    make_sort(out, make_route(out))


if __name__ == "__main__":
    main()
