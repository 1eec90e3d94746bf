"""Draws a result file: microseconds over M of both sides and the roof, one frame per shape and format.

    plot.py RESULT.json [OUT.svg]      (matplotlib; bench/peers/build makes its environment)
"""
import json
import pathlib
import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "sluice", "font.size": 9})
import matplotlib.pyplot as plt  # noqa: E402


def draw(frame, rows):
    """One frame: ours, the peer's same type, its best type, the roof; hollow marks are void rows."""
    ms = [r["M"] for r in rows]
    frame.plot(ms, [r["roof_us"] for r in rows], "k--", lw=1, label="roof of the same run")
    same = f"{rows[0]['peer']} {rows[0]['type']}"
    for key, label, colour in (("peer_us", same, "#c44e52"), ("ours_us", "Sluice", "#4c72b0")):
        frame.plot(ms, [r[key] for r in rows], "-", color=colour, lw=1.5, label=label)
        for r in rows:
            frame.plot([r["M"]], [r[key]], "o", ms=4, color=colour,
                       mfc="white" if r["void_reason"] else colour)
    best = [r for r in rows if r.get("best_us") and r["best_us"] != r["peer_us"]]
    if best:
        frame.plot([r["M"] for r in best], [r["best_us"] for r in best], "v", ms=4, color="#dd8452",
                   label=f"{rows[0]['peer']}'s fastest type")
    routing = rows[0].get("routing", "uniform")
    title = f"{rows[0]['shape']}, {rows[0]['weights']}, {rows[0]['ours_isa']}"
    frame.set(xscale="log", yscale="log", title=title + (f", {routing}" if routing != "uniform" else ""),
              xlabel="tokens M", ylabel="us per layer")
    frame.set_xticks(ms, [str(m) for m in ms])
    frame.minorticks_off()
    frame.grid(alpha=0.3)
    frame.legend(fontsize=7)


def main(argv):
    result = json.loads(pathlib.Path(argv[1]).read_text())
    groups = {}
    for row in result["rows"]:
        if row["ours_us"] is not None:
            groups.setdefault((row["shape"], row["weights"], row["ours_isa"], row.get("routing", "uniform")), []).append(row)
    if not groups:
        return
    columns = min(3, len(groups))
    lines = -(-len(groups) // columns)
    figure, frames = plt.subplots(lines, columns, figsize=(4 * columns, 3.2 * lines), squeeze=False)
    for frame in frames.flat[len(groups):]:
        frame.remove()
    for frame, rows in zip(frames.flat, groups.values()):
        draw(frame, sorted(rows, key=lambda r: r["M"]))
    machine = result["machine"]
    figure.suptitle(f"{machine['cpu']}, {result['rows'][0]['threads']} threads, {max(r['date'] for r in result['rows'])}", fontsize=9)
    figure.tight_layout()
    out = pathlib.Path(argv[2]) if len(argv) > 2 else pathlib.Path(argv[1]).with_suffix(".svg")
    figure.savefig(out, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main(sys.argv)
