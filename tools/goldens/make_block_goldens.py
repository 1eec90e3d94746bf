#!/usr/bin/env python3
"""GGUF's block formats as the gguf package reads and writes them.

Writes blocks.safetensors: per format random blocks of three rows (finite scales, subnormal ones
too) and the f32 values that gguf.quants.dequantize gives them; rows of f32 weights; for Q8_0 and Q4_0
the blocks that gguf.quants.quantize makes of them, for the others (gguf has no quantisers for all of
them) the values of those of ggml itself. Everything is seeded.

    make_block_goldens.py OUT --ggml LIB      needs numpy, safetensors, gguf (make oracles), and
                                              libggml-base.so (bench/peers/build)
"""
import argparse
import ctypes
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


def quantize_by_ggml(library, w, kind):
    """ggml's own quantiser, without an importance matrix."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    out = np.zeros((w.shape[0], w.shape[1] // block * size), np.uint8)
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    written = library.ggml_quantize_chunk(
        int(kind), w.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), out.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int64(0), ctypes.c_int64(w.shape[0]), ctypes.c_int64(w.shape[1]), None)
    assert written == out.nbytes, (written, out.nbytes)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--ggml", required=True, help="libggml-base.so of llama.cpp")
    args = parser.parse_args()
    out, library = args.out, ctypes.CDLL(args.ggml)
    tensors = {}
    for seed, name in enumerate(HALVES):
        rng = np.random.default_rng(seed)
        kind = gguf.GGMLQuantizationType[name]
        blocks = random_blocks(rng, name)
        tensors[f"{name.lower()}.blocks"] = blocks
        tensors[f"{name.lower()}.values"] = dequantize(blocks, kind).astype(np.float32)
        w = weights(rng)
        tensors[f"{name.lower()}.weights"] = w
        if name in ("Q8_0", "Q4_0"):
            tensors[f"{name.lower()}.quantized"] = quantize(w, kind)
        else:
            theirs = dequantize(quantize_by_ggml(library, w, kind), kind)
            tensors[f"{name.lower()}.ggml_values"] = theirs.astype(np.float32)
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "blocks.safetensors")


if __name__ == "__main__":
    main()
