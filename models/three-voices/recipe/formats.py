#!/usr/bin/env python3
"""Pack the exported directory in every weight format and measure each with `sluice score` and `run`.

Bits per byte are of the held-out text. Tokens changed: the share of held-out positions, windows of 512 tokens, at which
the likeliest next token is another one than with the bf16 weights. Speed: the fastest of the turns, in which
all formats run one after the other. Writes record/formats.json and its table into the card.
"""
import argparse
import json
import re
import subprocess
import tempfile
from pathlib import Path

import corpus

# Name in the table, options of `sluice pack`.
FORMATS = {
    "bf16": ["--weights", "bf16"],
    "int8": ["--weights", "int8"],
    "q8_0": ["--weights", "q8_0"],
    "fp8": ["--weights", "fp8"],
    "int4, the rest int8": ["--weights", "int4"],
    "int4, the rest bf16": ["--weights", "int4", "--dense", "bf16", "--head", "bf16"],
    "int4, nearest, the rest int8": ["--weights", "int4", "--nearest"],
    "q4_0, the rest int8": ["--weights", "q4_0", "--dense", "int8", "--head", "int8"],
    "mxfp4, the rest int8": ["--weights", "mxfp4"],
    "iq4_nl, the rest int8": ["--weights", "iq4_nl"],
    "q4_k, the rest int8": ["--weights", "q4_k"],
    "q5_0, the rest int8": ["--weights", "q5_0"],
    "q5_1, the rest int8": ["--weights", "q5_1"],
    "q5_k, the rest int8": ["--weights", "q5_k"],
    "q6_k, the rest int8": ["--weights", "q6_k"],
    "int4 throughout": ["--weights", "int4", "--dense", "int4", "--head", "int4"],
}
BEGIN, END = "<!-- formats -->", "<!-- /formats -->"
WINDOW, WINDOWS = 512, 8


def sluice(args, *arguments, timed=False):
    command = (args.timed_with.split() if timed else []) + [args.sluice, *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {ran.stderr or ran.stdout}")
    return ran.stdout


def last_json(text):
    return json.loads(text.strip().splitlines()[-1])


def bits_per_byte(args, model, held_out, work):
    """Of every voice and of all, over its held-out pieces."""
    result, all_nats, all_bytes = {}, 0.0, 0
    for voice in corpus.VOICES:
        nats, size = 0.0, 0
        for piece in held_out[voice]:
            text = work / "piece.txt"
            text.write_text(piece, encoding="utf-8")
            scored = last_json(sluice(args, "score", model, "--text", text, "--json"))
            nats, size = nats + scored["bits_per_byte"] * scored["bytes"], size + scored["bytes"]
        result[voice] = nats / size
        all_nats, all_bytes = all_nats + nats, all_bytes + size
    result["all"] = all_nats / all_bytes
    return result


def write_windows(args, held_out, work):
    """Token ids of the first windows of every voice, each behind <|endoftext|>."""
    windows = []
    for voice in corpus.VOICES:
        text = work / "text.jsonl"
        text.write_text(json.dumps({"text": "\n".join(held_out[voice])}) + "\n", encoding="utf-8")
        ids = last_json(sluice(args, "tokenize", args.model, "--jsonl", text))["ids"]
        step = WINDOW - 1
        windows += [[0] + ids[at:at + step] for at in range(0, step * WINDOWS, step)]
    path = work / "windows.json"
    path.write_text(json.dumps(windows), encoding="utf-8")
    return path


def choices(args, model, windows, work):
    """The likeliest next token at every position."""
    import numpy as np
    from safetensors import safe_open

    out = work / "logits.safetensors"
    sluice(args, "score", model, "--ids", windows, "--out", out)
    with safe_open(out, "np") as file:
        names = sorted(name for name in file.keys() if name.endswith("logits"))
        return np.concatenate([file.get_tensor(name).argmax(-1) for name in names])


def speeds(args, stores):
    """Most tokens per second of every store: decoding, and a prompt of a whole window."""
    prompt = "It is a truth universally acknowledged, that a single man in possession. " * 20
    found = {name: {"decode": [], "prefill": []} for name in stores}
    for _ in range(args.turns):
        for name, store in stores.items():
            common = ("--temp", 0, "--ignore-eos", "--json")
            ran = last_json(sluice(args, "run", store, "-p", "HAMLET.", "-n", 200, *common, timed=True))
            found[name]["decode"].append(ran["decode_tokens_per_second"])
            ran = last_json(sluice(args, "run", store, "-p", prompt, "-n", 2, *common, timed=True))
            found[name]["prefill"].append(ran["prefill_tokens_per_second"])
            isa = ran["isa"]
    return {n: {k: max(v) for k, v in s.items()} for n, s in found.items()}, isa


def measure_speeds(args, record):
    """Only the speeds, once more, of the formats on record."""
    with tempfile.TemporaryDirectory() as folder:
        stores = {name: Path(folder) / str(i) for i, name in enumerate(record["formats"])}
        for name, store in stores.items():
            sluice(args, "pack", args.model, "-o", store, *record["formats"][name]["options"])
        measured, record["isa"] = speeds(args, stores)
    for name, speed in measured.items():
        record["formats"][name].update(speed)
    record.update(turns=args.turns, note=args.note)
    return record


def measure(args):
    held_out = {voice: corpus.split(corpus.read_voice(args.corpus, voice), voice)[1] for voice in corpus.VOICES}
    record = {"formats": {}}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        windows = write_windows(args, held_out, work)
        usual, stores = choices(args, args.model, windows, work), {}
        for name, options in FORMATS.items():
            store = stores[name] = work / name.replace(" ", "-").replace(",", "")
            packed = last_json(sluice(args, "pack", args.model, "-o", store, *options, "--json"))
            mine = choices(args, store, windows, work)
            experts = packed["roles"]["experts"]
            record["formats"][name] = {
                "options": options, "bytes": packed["bytes"], "expert_bits": experts["bits_per_weight"],
                "expert_snr_db": experts["snr_db"], "bits_per_byte": bits_per_byte(args, store, held_out, work),
                "tokens_changed": float((mine != usual).mean()), "positions": len(usual)}
            print(name, json.dumps(record["formats"][name]), flush=True)
        measured, record["isa"] = speeds(args, stores)
        for name, speed in measured.items():
            record["formats"][name].update(speed)
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    record["cpu"] = cpu[1] if cpu else "?"
    record["turns"] = args.turns
    record["note"] = args.note
    return record


def table(record):
    """The card's section on weight formats."""
    rows = ["| weights | experts, bits | experts, SNR | size | " + " | ".join(corpus.VOICES) +
            " | all | tokens changed | decode | prompt |", "|---" * 11 + "|"]
    for name, f in record["formats"].items():
        snr = "exact" if f["expert_snr_db"] is None else f"{f['expert_snr_db']:.1f} dB"
        bits = " | ".join(f"{f['bits_per_byte'][v]:.4f}" for v in (*corpus.VOICES, "all"))
        rows.append(f"| {name} | {f['expert_bits']:.2f} | {snr} | {f['bytes'] / 1e6:.1f} MB | {bits} | "
                    f"{100 * f['tokens_changed']:.2f} % | {f['decode']:,.0f} /s | {f['prefill']:,.0f} /s |")
    positions = next(iter(record["formats"].values()))["positions"]
    return (f"Made by `recipe/formats.py` with `sluice pack`, `score` and `run`: bits per byte of the held-out text (windows "
            f"that overlap by half,\nso lower than above); tokens changed among {positions:,} held-out positions against the bf16 "
            f"directory; tokens per second,\nthe fastest of {record['turns']} turns on {record['cpu']} ({record['isa']}{', ' + record['note'] if record['note'] else ''}). "
            f"The embedding stays bf16 beside a quantised head. The experts have\n256 and 64 inputs, so that blocks end early and "
            f"pay more for their scales than in a large model: int4 and int8 there take\n4.19 and 8.06 bits (blocks of 512), "
            f"q4_k, q5_k and q6_k 4.50, 5.50 and 6.63 (blocks of 256).\n\n" + "\n".join(rows))


def write_card(path, record):
    text = path.read_text(encoding="utf-8")
    section = f"{BEGIN}\n{table(record)}\n{END}"
    if BEGIN in text:
        text = text[:text.index(BEGIN)] + section + text[text.index(END) + len(END):]
    else:
        heading = "## How the voices use the experts"
        text = text.replace(heading, f"## In other weight formats\n\n{section}\n\n{heading}", 1)
    path.write_text(text, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="?", help="the corpus directory; without it, only the card is written again")
    parser.add_argument("--sluice", default="../../../build/release/sluice")
    parser.add_argument("--model", default="..")
    parser.add_argument("--record", default="record/formats.json")
    parser.add_argument("--card", default="../README.md")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--timed-with", default="", help="a command to run timed runs with (taskset -c 0-3)")
    parser.add_argument("--note", default="", help="what a reader of the speeds should know of the machine")
    parser.add_argument("--speeds", action="store_true", help="measure only the speeds again")
    args = parser.parse_args()
    path = Path(args.record)
    if args.speeds:
        record = measure_speeds(args, json.loads(path.read_text(encoding="utf-8")))
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    elif args.corpus:
        path.write_text(json.dumps(measure(args), indent=1) + "\n", encoding="utf-8")
    write_card(Path(args.card), json.loads(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
