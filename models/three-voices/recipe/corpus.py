#!/usr/bin/env python3
"""Read the corpus directory, hold out 2 % of every voice, cut documents and write the splits.

The corpus directory holds austen.txt, shakespeare.txt and bible.txt, plain or as .xz.
Nothing here is random: the same three files always give the same splits.
"""
import argparse
import json
import lzma
import re
from pathlib import Path

VOICES = ("austen", "shakespeare", "bible")
HELD_OUT_SHARE = 0.02
HELD_OUT_PIECES = 5
VERSE = re.compile(r"^(\d+):(\d+) ", re.M)
CHAPTER = re.compile(r"^(?:CHAPTER|Chapter|VOLUME)\b.*$", re.M)
SCENE = re.compile(r"^(?:ACT|SCENE|Scene|Act|PROLOGUE|EPILOGUE|INDUCTION)\b.*$|^[IVXLC]+\.?$", re.M)
TITLE = re.compile(r"^(?=[^\n]*[A-Z]{3})[^a-z\n]+\n\n?by (?:Jane Austen|William Shakespeare)$", re.M)


def read_voice(corpus, voice):
    """The text of one voice, from <voice>.txt or <voice>.txt.xz."""
    plain = Path(corpus) / f"{voice}.txt"
    if plain.exists():
        text = plain.read_text(encoding="utf-8")
    else:
        with lzma.open(Path(corpus) / f"{voice}.txt.xz", "rt", encoding="utf-8") as file:
            text = file.read()
    return text.replace("\r\n", "\n")


def border(text, position, voice):
    """The first line border (bible) or blank-line border (others) at or after a position."""
    mark = "\n" if voice == "bible" else "\n\n"
    found = text.find(mark, position)
    return len(text) if found < 0 else found + len(mark)


def split(text, voice):
    """(training stretches, held-out pieces): five pieces of together 2 %, evenly spread."""
    length = int(len(text) * HELD_OUT_SHARE / HELD_OUT_PIECES)
    train, held_out, last = [], [], 0
    for number in range(HELD_OUT_PIECES):
        centre = int(len(text) * (number + 0.5) / HELD_OUT_PIECES)
        start = border(text, centre - length // 2, voice)
        end = border(text, start + length, voice)
        train.append(text[last:start])
        held_out.append(text[start:end])
        last = end
    train.append(text[last:])
    return train, held_out


def documents(text, voice):
    """Cut a stretch at chapters, acts and scenes, or Bible chapters."""
    cuts = {0, len(text)}
    if voice == "bible":
        last = None
        for match in VERSE.finditer(text):
            if match[1] != last or match[2] == "1":
                cuts.add(match.start())
            last = match[1]
    else:
        pattern = CHAPTER if voice == "austen" else SCENE
        for match in TITLE.finditer(text):
            cuts.add(match.start())
        for match in pattern.finditer(text):
            cuts.add(match.start())
    cuts = sorted(cuts)
    pieces, start = [], 0
    for end in cuts[1:]:
        # A heading directly below another one (ACT I / SCENE I) stays with it.
        if len(text[start:end].strip()) < 40 and end != len(text):
            continue
        piece = text[start:end].strip("\n")
        if piece.strip():
            pieces.append(piece)
        start = end
    if voice == "bible":
        # Every second chapter begins without the number of its first verse.
        pieces = [VERSE.sub("", piece, count=1) if number % 2 == 0 else piece
                  for number, piece in enumerate(pieces)]
    return pieces


def natural_starts(text, voice):
    """Character positions at which somebody could begin to read: what a window may start with.

    A position may be that of a space; the window builder drops it.
    """
    if voice == "bible":
        return [match.end() - 1 for match in VERSE.finditer(text)]
    if voice == "shakespeare":
        return [match.end() for match in re.finditer(r"\n+", text) if match.end() < len(text)]
    starts = [match.end() for match in re.finditer(r"\n\n", text)]
    starts += [match.end() for match in re.finditer(r"[.!?][\"']?(?= [\"'A-Z])", text)]
    return sorted(set(starts))


def load(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", help="the corpus directory")
    parser.add_argument("--work", default="work", help="where intermediate files go (default: work)")
    args = parser.parse_args()
    work = Path(args.work)
    work.mkdir(parents=True, exist_ok=True)
    out = {"documents": {}, "held_out": {}}
    for voice in VOICES:
        text = read_voice(args.corpus, voice)
        train, held_out = split(text, voice)
        out["documents"][voice] = [piece for stretch in train for piece in documents(stretch, voice)]
        out["held_out"][voice] = held_out
        size = len(text.encode())
        kept = sum(len(piece.encode()) for piece in held_out)
        print(f"{voice:12} {size:9,} bytes, {len(out['documents'][voice]):5,} documents, "
              f"held out {kept:7,} bytes ({100 * kept / size:.2f} %)")
    (work / "corpus.json").write_text(json.dumps(out, ensure_ascii=False), encoding="utf-8")
    print(f"wrote {work / 'corpus.json'}")


if __name__ == "__main__":
    main()
