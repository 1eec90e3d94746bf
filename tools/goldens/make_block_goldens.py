#!/usr/bin/env python3
"""GGUF's block formats as the gguf package reads and writes them.

Writes blocks.safetensors: per format random blocks of three rows (finite scales, subnormal ones
too) and the f32 values that gguf.quants.dequantize gives them; for Q8_0 and Q4_0 also rows of f32
weights and the blocks that gguf.quants.quantize makes of them. Everything is seeded.

    make_block_goldens.py OUT           needs numpy, safetensors, gguf (make oracles)
"""
import argparse
import pathlib

import gguf
import numpy as np
from gguf.quants import dequantize, quantize
from safetensors.numpy import save_file

ROWS, WIDTH = 3, 512
# Where a block's f16 fields lie.
HALVES = {"Q8_0": [0], "Q4_0": [0], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2],
          "Q6_K": [208], "IQ4_NL": [0]}


def random_blocks(rng, name):
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    blocks = rng.integers(0, 256, (ROWS, WIDTH // block, size), dtype=np.uint8)
    for at in HALVES[name]:
        scales = rng.normal(0, 0.02, blocks.shape[:2]).astype(np.float16)
        scales[rng.random(scales.shape) < 0.1] *= np.float16(1e-4)
        blocks[:, :, at:at + 2] = scales[..., None].view(np.uint8)
    return blocks.reshape(ROWS, -1)


def weights(rng):
    """Normal rows, an outlier, a block of zeros, one of equal magnitudes, one that is tiny."""
    w = rng.normal(0, 0.05, (ROWS, WIDTH)).astype(np.float32)
    w[0, 7] = 3.0
    w[1, 32:64] = 0
    w[1, 64:96] = np.where(rng.random(32) < 0.5, -0.25, 0.25)
    w[2, 96:128] *= 1e-7
    return w


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    out = parser.parse_args().out
    tensors = {}
    for seed, name in enumerate(HALVES):
        rng = np.random.default_rng(seed)
        kind = gguf.GGMLQuantizationType[name]
        blocks = random_blocks(rng, name)
        tensors[f"{name.lower()}.blocks"] = blocks
        tensors[f"{name.lower()}.values"] = dequantize(blocks, kind).astype(np.float32)
        if name in ("Q8_0", "Q4_0"):
            w = weights(rng)
            tensors[f"{name.lower()}.weights"] = w
            tensors[f"{name.lower()}.quantized"] = quantize(w, kind)
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "blocks.safetensors")


if __name__ == "__main__":
    main()
