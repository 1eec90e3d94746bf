"""The sluice program as the oracle tests call it."""
import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("SLUICE", ROOT / "build/release/sluice"))
MODEL = ROOT / "models/three-voices"


def run(*arguments, timeout=300):
    """Runs sluice; returns (stdout, what the last line of --json said or None)."""
    done = subprocess.run([str(PROGRAM), *map(str, arguments)], capture_output=True, text=True,
                          timeout=timeout, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"sluice {arguments}: exit {done.returncode}\n{done.stderr}"
    lines = done.stdout.strip().splitlines()
    return done.stdout, json.loads(lines[-1]) if "--json" in arguments else None


def score(model, ids, folder, *extra):
    """The tensors that `sluice score` writes for token ids (or a list of lists)."""
    from safetensors.torch import load_file
    request, out = pathlib.Path(folder) / "ids.json", pathlib.Path(folder) / "out.safetensors"
    request.write_text(json.dumps(ids))
    run("score", model, "--ids", request, "--out", out, *extra)
    return load_file(out)
