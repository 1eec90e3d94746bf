#!/usr/bin/env python3
"""Draw which experts each voice uses, layer by layer, as an SVG, from evaluation.json."""
import argparse
import json
import math
from pathlib import Path

import corpus

CELL, ROW, LEFT, TOP, GAP = 40, 24, 110, 64, 34
EVEN, MORE, LESS = (248, 248, 246), (11, 79, 138), (191, 120, 44)
SPAN = 2.0  # factors of two away from even use at which a colour is full


def colour(ratio):
    """(fill, is it dark) for a share as a multiple of even use: blue for more, brown for less."""
    octaves = max(-SPAN, min(SPAN, math.log2(max(ratio, 1e-6))))
    end, part = (MORE, octaves / SPAN) if octaves > 0 else (LESS, -octaves / SPAN)
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(EVEN, end)), part > 0.55


def draw(evaluation):
    shares = evaluation["shares"]
    layers, experts = len(shares["austen"]), len(shares["austen"][0])
    panel = len(corpus.VOICES) * ROW + GAP
    width, height = LEFT + experts * CELL + 24, TOP + layers * panel + 12
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
           f'viewBox="0 0 {width} {height}" font-family="Helvetica, Arial, sans-serif" role="img" '
           f'aria-label="Share of each voice\'s tokens that every expert receives, by layer">',
           f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
           f'<text x="16" y="26" font-size="16" font-weight="bold" fill="#1a1a1a">Where each voice goes: '
           f'expert load by layer</text>',
           f'<text x="16" y="45" font-size="12" fill="#555555">Per cent of a voice\'s expert choices on held-out text; '
           f'even use would be {100 / experts:.2f} (blue: more, brown: less)</text>']
    for layer in range(layers):
        y = TOP + layer * panel
        out.append(f'<text x="16" y="{y + 12}" font-size="12" font-weight="bold" fill="#1a1a1a">Layer {layer + 1}'
                   f'<tspan dx="6" font-weight="normal" fill="#555555">(distance of the voices '
                   f'{evaluation["voice_distance"][layer]:.2f})</tspan></text>')
        for row, voice in enumerate(corpus.VOICES):
            base = y + 18 + row * ROW
            out.append(f'<text x="{LEFT - 8}" y="{base + 16}" font-size="12" text-anchor="end" '
                       f'fill="#1a1a1a">{voice}</text>')
            for expert, share in enumerate(shares[voice][layer]):
                fill, dark = colour(share * experts)
                x = LEFT + expert * CELL
                out.append(f'<rect x="{x}" y="{base}" width="{CELL - 1}" height="{ROW - 1}" fill="{fill}"/>'
                           f'<text x="{x + CELL / 2}" y="{base + 16}" font-size="11" text-anchor="middle" '
                           f'fill="{"#ffffff" if dark else "#1a1a1a"}">{100 * share:.0f}</text>')
    return "\n".join(out + ["</svg>"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", default="work")
    parser.add_argument("--out", default="../expert-load.svg")
    args = parser.parse_args()
    evaluation = json.loads((Path(args.work) / "evaluation.json").read_text())
    Path(args.out).write_text(draw(evaluation), encoding="utf-8")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
