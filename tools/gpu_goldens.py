#!/usr/bin/env python3
"""Compares one golden checkpoint on a device with transformers' values and with the CPU.

usage: tools/gpu_goldens.py SLUICE CASE_FOLDER [--device cuda]

Runs `sluice score --trace --greedy` twice, on the device and on the CPU. Ids (router, greedy) must be
the golden's exactly, values within the limits of tests/golden_test.cc; against the CPU, the elements
whose bits differ are counted and ids must agree. Prints one JSON line; exit code 1 on a difference.
"""
import argparse
import array
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

LIMITS = (("logits", 5e-4), ("hidden", 5e-4), ("router", 3e-5))  # tests/golden_test.cc
CODES = {"F32": "f", "I32": "i"}


def read_safetensors(path):
    """{name: (dtype, array of raw values)} of the f32 and i32 tensors of a file."""
    data = pathlib.Path(path).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, about in json.loads(data[8:8 + length]).items():
        if name == "__metadata__" or about["dtype"] not in CODES:
            continue
        begin, end = about["data_offsets"]
        values = array.array(CODES[about["dtype"]])
        values.frombytes(data[8 + length + begin:8 + length + end])
        tensors[name] = (about["dtype"], values)
    return tensors


def compare(golden, device, cpu):
    """(problems, worst difference from the golden, elements whose bits differ from the CPU's)."""
    problems, worst, differ = [], 0.0, 0
    for name, (dtype, want) in sorted(golden.items()):
        if name == "input_ids":
            continue
        if name not in device or len(device[name][1]) != len(want):
            problems.append(f"{name}: missing, or of another size")
            continue
        got = device[name][1]
        if dtype == "I32":
            if got != want:
                problems.append(f"{name}: other ids")
            continue
        limit = next(l for prefix, l in LIMITS if name.startswith(prefix))
        # `not <=`: a NaN is a difference too.
        most = max((abs(a - b) if a == a else float("inf") for a, b in zip(got, want)), default=0.0)
        worst = max(worst, most)
        if not most <= limit:
            problems.append(f"{name}: differs by {most:.3g}, the limit is {limit:g}")
    for name, (dtype, want) in sorted(cpu.items()):
        got = device.get(name, (dtype, array.array(CODES[dtype])))[1]
        if len(got) != len(want):
            problems.append(f"{name}: not of the CPU's size")
        elif dtype == "I32":
            if got != want:
                problems.append(f"{name}: other ids than the CPU's")
        else:
            mine, theirs = array.array("I", got.tobytes()), array.array("I", want.tobytes())
            differ += sum(a != b for a, b in zip(mine, theirs))
    return problems, worst, differ


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sluice")
    parser.add_argument("case", type=pathlib.Path)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    golden = read_safetensors(args.case / "golden.safetensors")
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        ids = pathlib.Path(folder) / "ids.json"
        ids.write_text(json.dumps(list(golden["input_ids"][1])))
        for device in (args.device, "cpu"):
            out = pathlib.Path(folder) / f"{device}.safetensors".replace(":", "_")
            done = subprocess.run(
                [args.sluice, "score", str(args.case), "--ids", str(ids), "--out", str(out),
                 "--compute", "f32", "--trace", "--greedy", str(len(golden["greedy"][1])),
                 "--device", device], capture_output=True, text=True)
            if done.returncode != 0:
                said = (done.stderr or done.stdout).strip().splitlines()
                print(json.dumps({"case": args.case.name, "device": device,
                                  "failed": said[-1] if said else f"code {done.returncode}"}))
                return 1
            runs.append(read_safetensors(out))
    problems, worst, differ = compare(golden, *runs)
    print(json.dumps({"case": args.case.name, "device": args.device, "worst_difference": worst,
                      "values_unlike_cpu_bits": differ, "problems": problems}))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
