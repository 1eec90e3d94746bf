#!/usr/bin/env python3
"""Writes tables.json: the peers' times that a run must come near, or its row is void.

Medians in milliseconds of a MoE layer (2 threads, uniform routing), measured before this comparison
existed, with the peers' own best settings; a pair is a range. `bench/peers/tables.py` rewrites it.
"""
import json
import pathlib

MS = (1, 4, 8, 16, 64, 512, 2048)
# cpu kind, peer, shape, type, buffer -> {M: ms or (low, high)}
ROWS = {
    ("xeon-amx", "llama.cpp", "qwen3-30b-a3b", "q4_0", "CPU_REPACK"):
        {1: 2.05, 8: 14.4, 16: 26.4, 64: 79, 512: 485, 2048: 1365},
    ("xeon-amx", "llama.cpp", "qwen3-30b-a3b", "q4_k", "CPU_REPACK"):
        {1: 1.56, 8: 11.6, 16: 21.1, 64: 74, 512: 556},
    ("xeon-amx", "llama.cpp", "qwen3-30b-a3b", "q4_k", "CPU"): {1: 2.33, 64: 75, 512: 259, 2048: 845},
    ("xeon-amx", "llama.cpp", "qwen3-30b-a3b", "iq4_xs", "CPU"):
        {1: 3.30, 16: 40.7, 64: 115, 512: (186, 221), 2048: 580},
    ("xeon-amx", "llama.cpp", "qwen3-30b-a3b", "mxfp4", "CPU_REPACK"): {1: 2.31, 512: 390},
    ("xeon-amx", "llama.cpp", "qwen3-30b-a3b", "q8_0", "CPU"):
        {1: (2.9, 3.3), 8: 21.0, 16: 37.2, 64: (87, 116), 512: (460, 570)},
    ("xeon-amx", "llama.cpp", "qwen3-30b-a3b", "bf16", "CPU"):
        {1: 4.04, 8: 27.7, 16: 51.6, 64: 116, 512: (487, 558)},
    ("xeon-amx", "llama.cpp", "gemma4-26b-a4b", "q4_0", "CPU_REPACK"):
        {1: 2.41, 8: 16.4, 16: 30.3, 64: 96, 512: 495},
    ("xeon-amx", "llama.cpp", "gemma4-26b-a4b", "bf16", "CPU"):
        {1: 5.02, 8: 34.4, 16: 51.9, 64: 113, 512: 602},
    ("xeon-amx", "llama.cpp", "gpt-oss-20b", "mxfp4", "CPU_REPACK"):
        {1: 4.25, 8: 32.0, 16: 62.3, 64: 215, 512: 1667},
    ("xeon-amx", "kt-kernel", "qwen3-30b-a3b", "int4", "AMXInt4_MOE"):
        {1: 7.8, 8: 23.6, 16: (39, 43), 64: 63, 512: 53, 2048: 134},
    ("xeon-amx", "kt-kernel", "qwen3-30b-a3b", "int8", "AMXInt8_MOE"):
        {1: 7.8, 8: 27.5, 16: 47.6, 64: 88, 512: (72, 82), 2048: 163},
    ("xeon-amx", "kt-kernel", "qwen3-30b-a3b", "bf16", "AMXBF16_MOE"):
        {1: 7.9, 8: 41.6, 16: (68, 77), 64: (127, 139), 512: 105, 2048: 217},
    ("xeon-amx", "kt-kernel", "gemma4-26b-a4b", "int8", "AMXInt8_MOE"): {16: 50, 64: 87, 512: 74},
    ("xeon-amx", "kt-kernel", "gemma4-26b-a4b", "bf16", "AMXBF16_MOE"): {16: 80, 64: 159, 512: 126},
    ("xeon-amx", "kt-kernel", "gpt-oss-20b", "int8", "AMXInt8_MOE"): {512: 105},
    ("zen-avx512", "llama.cpp", "qwen3-30b-a3b", "q4_0", "CPU_REPACK"):
        {1: 0.72, 4: 2.44, 16: 9.19, 64: 34.0, 512: 270},
    ("zen-avx512", "llama.cpp", "qwen3-30b-a3b", "q4_k", "CPU_REPACK"):
        {1: (0.67, 0.72), 4: 2.46, 16: 8.76, 64: 31.1, 512: (261, 277)},
    ("zen-avx512", "llama.cpp", "qwen3-30b-a3b", "mxfp4", "CPU_REPACK"):
        {1: (0.75, 0.78), 4: 2.66, 16: 10.2, 64: 39.1, 512: 312},
    ("zen-avx512", "llama.cpp", "qwen3-30b-a3b", "q8_0", "CPU"):
        {1: (1.34, 1.49), 4: (5.2, 5.6), 16: 19.0, 64: 57.7, 512: 372},
    ("zen-avx512", "llama.cpp", "qwen3-30b-a3b", "bf16", "CPU"):
        {1: (2.29, 2.53), 4: 8.5, 16: 25.2, 64: 53.6, 512: 296},
    ("zen-avx512", "llama.cpp", "qwen3-30b-a3b", "iq4_xs", "CPU"):
        {1: 1.15, 16: 17.5, 64: 61.8, 512: 150, 2048: 469},
    ("zen-avx512", "llama.cpp", "gemma4-26b-a4b", "q4_0", "CPU_REPACK"):
        {1: 0.93, 4: 3.31, 16: 12.5, 64: 44.9, 512: 353},
    ("zen-avx512", "llama.cpp", "gemma4-26b-a4b", "bf16", "CPU"): {1: 3.33, 16: 35.6, 512: 421},
    ("zen-avx512", "llama.cpp", "gpt-oss-120b", "mxfp4", "CPU_REPACK"):
        {1: 1.88, 4: 6.94, 16: 28.9, 64: 111, 512: (946, 1063)},
}


def rows():
    for (cpu, peer, shape, kind, buffer), times in ROWS.items():
        for m in MS:
            if m in times:
                ms = times[m] if isinstance(times[m], tuple) else (times[m],)
                yield {"cpu": cpu, "peer": peer, "shape": shape, "type": kind, "buffer": buffer,
                       "M": m, "us": [round(1000 * t) for t in ms]}


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(row) for row in rows())
    (pathlib.Path(__file__).parent / "tables.json").write_text(f"[\n{lines}\n]\n")
