"""Draws a file of bench/tokens/sweep: microseconds per token over M with the spread and the roof.

    plot.py RESULT.json [OUT.svg]
"""
import json
import pathlib
import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "sluice", "font.size": 9})
import matplotlib.pyplot as plt  # noqa: E402


def main(argv):
    path = pathlib.Path(argv[1])
    sweeps = json.loads(path.read_text())["sweeps"]
    figure, frames = plt.subplots(1, len(sweeps), figsize=(4.6 * len(sweeps), 3.4), squeeze=False)
    for frame, sweep in zip(frames.flat, sweeps):
        rows = sweep["rows"]
        ms = [r["M"] for r in rows]
        frame.plot(ms, [r["roof_us"] / r["M"] for r in rows], "k--", lw=1, label="roof")
        frame.fill_between(ms, [r["least"] for r in rows], [r["largest"] for r in rows],
                           color="#4c72b0", alpha=0.25, lw=0, label=f"{sweep['rounds']} rounds")
        frame.plot(ms, [r["us_per_token"] for r in rows], "o-", ms=3, lw=1.2, color="#4c72b0",
                   label="median")
        rises = [r for r in rows if r["rises"]]
        if rises:
            frame.plot([r["M"] for r in rises], [r["us_per_token"] for r in rises], "x", ms=7,
                       color="#c44e52", label="rises beyond the spread")
        frame.set(xscale="log", yscale="log", xlabel="tokens M", ylabel="us per token",
                  title=f"{sweep['shape']}, {sweep['weights']}, {sweep['isa']}, "
                        f"{sweep['threads']} threads")
        ticks = [m for m in (1, 2, 4, 8, 16, 32, 64) if m in ms]
        frame.set_xticks(ticks, [str(m) for m in ticks])
        frame.minorticks_off()
        frame.grid(alpha=0.3)
        frame.legend(fontsize=7)
    figure.suptitle(f"{sweeps[0]['cpu']}, one expert layer", fontsize=9)
    figure.tight_layout()
    out = pathlib.Path(argv[2]) if len(argv) > 2 else path.with_suffix(".svg")
    figure.savefig(out, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main(sys.argv)
