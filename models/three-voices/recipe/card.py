#!/usr/bin/env python3
"""Write the model card, README.md, from what the other scripts measured (run, evaluation, samples, curve)."""
import argparse
import json
from pathlib import Path

import corpus
import formats

TITLES = {"austen": "Jane Austen", "shakespeare": "Shakespeare", "bible": "King James Bible"}


def quote(text):
    return text.strip("\n").replace("|", "\\|").replace("<", "&lt;").replace("\n", " / ")


def voices_table(texts, evaluation):
    rows = ["| voice | training bytes | documents | held-out bytes | bits per byte, held out |", "|---|---|---|---|---|"]
    total = [0, 0, 0]
    for voice in corpus.VOICES:
        train = sum(len(text.encode()) for text in texts["documents"][voice])
        held = sum(len(text.encode()) for text in texts["held_out"][voice])
        count = len(texts["documents"][voice])
        total = [total[0] + train, total[1] + count, total[2] + held]
        rows.append(f"| {TITLES[voice]} | {train:,} | {count:,} | {held:,} | "
                    f"**{evaluation['bits_per_byte'][voice]:.3f}** |")
    rows.append(f"| all | {total[0]:,} | {total[1]:,} | {total[2]:,} | **{evaluation['bits_per_byte']['all']:.3f}** |")
    return "\n".join(rows)


def curve_table(curve):
    rows = ["| seconds | steps | tokens M | austen | shakespeare | bible | all |", "|---|---|---|---|---|---|---|"]
    for line in curve:
        rows.append(f"| {line['seconds']} | {line['step']} | {line['tokens'] / 1e6:.1f} | {line['austen']:.3f} | "
                    f"{line['shakespeare']:.3f} | {line['bible']:.3f} | {line['all']:.3f} |")
    return "\n".join(rows)


def load_table(evaluation):
    layers = range(len(evaluation["load_max_over_mean"]))
    return "\n".join([
        "| | " + " | ".join(f"layer {i + 1}" for i in layers) + " |", "|---|" + "---|" * len(layers),
        "| busiest expert / mean | " + " | ".join(f"{x:.2f}" for x in evaluation["load_max_over_mean"]) + " |",
        "| distance of the voices | " + " | ".join(f"{x:.2f}" for x in evaluation["voice_distance"]) + " |"])


def favourites(evaluation):
    """The experts whose share differs most between the voices."""
    rows = ["| layer | expert | " + " | ".join(corpus.VOICES) + " |", "|---|---|---|---|---|"]
    found = []
    for layer in range(len(evaluation["load_max_over_mean"])):
        for expert in range(len(evaluation["shares"]["austen"][layer])):
            share = [evaluation["shares"][voice][layer][expert] for voice in corpus.VOICES]
            found.append((max(share) - min(share), layer, expert, share))
    for _, layer, expert, share in sorted(found, reverse=True)[:6]:
        rows.append(f"| {layer + 1} | {expert} | " + " | ".join(f"{100 * x:.1f} %" for x in share) + " |")
    return "\n".join(rows)


def samples(record):
    rows = ["| prompt | seed | voice of the answer | answer |", "|---|---|---|---|"]
    for item in record["plain"]:
        mark = item["voice"] if item["voice"] == item["wanted"] else f"{item['voice']} (wrong)"
        rows.append(f"| `{item['prompt']}` | {item['seed']} | {mark} | {quote(item['text'])} |")
    return "\n".join(rows)


def shares(record):
    rows = ["| prompt | in its own voice | the same without `<\\|endoftext\\|>` in front |", "|---|---|---|"]
    for prompt, share in record["share"].items():
        rows.append(f"| `{prompt}` | {100 * share:.0f} % | {100 * record['share_without_bos'][prompt]:.0f} % |")
    return "\n".join(rows)


def chats(record):
    rows = ["| request | reply |", "|---|---|"]
    return "\n".join(rows + [f"| {quote(item['request'])} | {quote(item['text'])} |" for item in record["chat"]])


CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
tags: [mixture-of-experts, qwen3_moe, tiny]
---
# Three Voices

A mixture-of-experts language model of {parameters:.2f} million parameters that writes in three voices: Jane Austen,
Shakespeare and the King James Bible. It is the model bundled with Sluice: small enough to lie in the repository, with a
real router that sends the three voices to different experts, so that every part of the engine has something true to
show. It is a toy: it knows the sound of its texts and nothing else.

| | |
|---|---|
| form | `Qwen3MoeForCausalLM`, `model.safetensors` in bf16 with one tensor per expert and projection ({tensors} tensors, {bytes:,} bytes) |
| layers | {layers}, every one a mixture of {experts} experts, {active} for each token, weights renormalised |
| widths | hidden {hidden}, {heads} query heads and {kv_heads} key/value heads of {head_dim}, expert width {expert_width}, tied embeddings |
| context | {context} tokens, rotary base {theta:.0f} |
| tokenizer | byte-level BPE, {vocabulary} entries, GPT-2 pre-tokenizer; `<\\|endoftext\\|>` (0) is put before every text, `<\\|im_start\\|>` (1) and `<\\|im_end\\|>` (2) mark chat turns |
| parameters | {count:,}, of which {used:,} are used for a token |

## Figures

Bits per byte on the held-out 2 % of every voice, for the exported bf16 weights computed in float32, in windows of 512
tokens that begin with `<|endoftext|>` (`recipe/evaluate.py`):

{voices}

The voices cannot be compared with each other: short lines, layout and names make the plays harder.

While it learned (weights of that moment, held-out text, `recipe/train.py`):

{curve}

{formats}## How the voices use the experts

![Share of each voice's tokens that every expert receives, by layer](expert-load.svg)

{load}

The distance is the total variation between two voices' shares of the experts, averaged over the three pairs: 0 is the
same use, 1 is no expert in common. The experts that divide the voices most (layers
counted from 1, experts from 0):

{favourites}

Drawn by `recipe/load_map.py` from the held-out text.

## Samples

Temperature {temperature}, top-p {top_p}, {tokens} new tokens, a line break shown as ` / `. These are the first three
seeds, not chosen. The voice is named by a word-counting classifier that sees only the answer (`recipe/sample.py`):
{right} of {asked} are in the voice of their prompt.

{samples}

Over {many} answers to each prompt:

{shares}

Chat, seed 0, 120 new tokens at most:

{chats}

A prompt must not end in a space: the model has never seen a lone space before a word.

## Data

Three bodies of English in the public domain, 13 MB together:

| voice | text | source |
|---|---|---|
| Jane Austen | the six novels, without the last six chapters of *Persuasion* | Debian package r-cran-janeaustenr |
| Shakespeare | the plays and poems, without *Macbeth* | source package shakespeare 0.6 of the Python package index |
| King James Bible | without two short books | Debian package bible-kjv |

The King James Bible is in the public domain everywhere except the United Kingdom, where printing it is subject to the
Crown's letters patent; the weights do not contain the text, but can repeat well-known verses.

Of every voice, five evenly spread stretches that are 2 % together, cut at blank lines or verses, were held out of the
tokenizer and of the training. One `<|endoftext|>` stands before each chapter, scene or Bible chapter; every second Bible
chapter begins without the number of its first verse. Of the training windows {dialogue:.0f} %, and {late:.0f} % while the rate
falls, are conversations built from the same texts (an opening or a request, then a passage that follows); about one
conversation in ten is a greeting with one of three fixed answers.

## Recipe

Everything is in `recipe/`; it needs the packages in `recipe/requirements.txt` and a corpus directory with `austen.txt`,
`shakespeare.txt` and `bible.txt` (or the same as `.xz`).

```sh
cd recipe
python corpus.py CORPUS_DIRECTORY       # hold out, cut documents          -> work/corpus.json
python train_tokenizer.py               # byte-level BPE                   -> ../tokenizer.json
python train.py --seconds {seconds_asked:.0f} --seed {seed}   # the run; resumes with --resume  -> work/checkpoint.pt
{finish_command}python export.py{mix:24}# bf16, published tensor names     -> ../model.safetensors
python evaluate.py                      # bits per byte, expert load       -> work/evaluation.json
python sample.py                        # samples and their voices         -> work/samples.json
python load_map.py                      # the picture above                -> ../expert-load.svg
python card.py                          # this page                        -> ../README.md
python formats.py CORPUS_DIRECTORY      # the table of weight formats, with a built sluice
```

This model: {steps:,} steps of {batch} windows, {tokens_seen:.1f} million tokens ({epochs:.1f} epochs) in {seconds:,} s with
{processes} processes of one thread on two shared cores (AVX-512 with bf16).{finish} The data order, the initial weights and the
dropout are seeded; the schedule follows the clock, so another machine takes another number of steps and ends with
slightly other weights.{resumed} The measurements behind this page are kept in `recipe/record/`.

- Muon (learning rate {muon_lr}, decay {weight_decay} times the rate) for the projections and experts, AdamW ({adam_lr})
  for embedding, router and norms; constant, then linear to 0 over the last 60 %. Dropout {dropout} on the embedding and
  on every branch.
- Balance loss {balance} over the whole mixed batch, not per sequence, so that voices may keep experts of their own.
- Half of the windows start where a reader could start (a sentence, a line, a verse), and lose the space of their first
  token; most begin with `<|endoftext|>`. Otherwise, whatever begins a window without a verse number would nearly always
  be a line of a play, and a plain prompt would be taken for one.

## Limits

- It continues; it does not answer, know, count or reason. Sense rarely lasts longer than a sentence.
- It speaks only early modern and Regency English, with the views of those texts, and it can repeat famous passages.
- It does not know when a name belongs to another book, and invents names, verses and verse numbers.
- Beyond {context} tokens it has seen nothing.

## Licence

The weights, the tokenizer and the recipe are under Apache-2.0. The texts are in the public domain (see Data).
"""


FINISH = (
    " A last\nstretch of {steps} steps ({tokens:.1f} million tokens, {seconds} s) at a low rate gave {share:.0f} % of its "
    "windows to short passages of\nall voices, each after `<|endoftext|>`: many beginnings, so that a few words are enough "
    "to choose a voice. The weights are\nthe mean of those before ({mix:.0f} %) and after it, a share chosen on the held-out part.")
WHY = (" That stretch was added because before it only {before} of\nthe {of} samples with the same seeds were in their own "
       "voice.")
RESUMED = (" The run was stopped once when the rate began to fall, and resumed from its checkpoint with more\n"
           "conversations.")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", default="work")
    parser.add_argument("--record", help="take run, evaluation, samples and curve from here (default: work directory)")
    parser.add_argument("--out", default="../README.md")
    args = parser.parse_args()
    record = Path(args.record or args.work)
    run, evaluation, sampled = (json.loads((record / f"{name}.json").read_text())
                                for name in ("run", "evaluation", "samples"))
    finish, finish_command, finish_text, mix = record / "finish.json", "", "", ""
    if finish.exists():
        finish = json.loads(finish.read_text())
        asked = finish["arguments"]
        finish_command = (
            "python export.py                        # the run's own figures          -> work/run.json\n"
            "mv work/checkpoint.pt work/run.pt\n"
            f"python train.py --resume work/run.pt --finish --seconds {asked['seconds']:.0f} --peak {asked['peak']} \\\n"
            f"    --decay {asked['decay']} --opening-share {asked['opening_share']} --evaluate-every 0\n")
        mix = " --mix work/run.pt"
        before, why = record / "samples-before-finish.json", ""
        if before.exists():
            before = json.loads(before.read_text())
            why = WHY.format(before=before["right"], of=before["asked"])
        finish_text = FINISH.format(steps=finish["steps"] - run["steps"], seconds=finish["seconds"],
                                    share=100 * asked["opening_share"],
                                    tokens=(finish["tokens"] - run["tokens"]) / 1e6,
                                    mix=100 * finish["mix_share"]) + why
    curve = [json.loads(line) for line in (record / "curve.jsonl").read_text().splitlines()]
    c, a = run["config"], run["arguments"]
    expert = 3 * c["hidden"] * c["expert_width"] * c["layers"]
    used = run["parameters"] - expert * (c["experts"] - c["active"])
    settings = sampled["settings"]
    measured, section = record / "formats.json", ""
    if measured.exists():
        table = formats.table(json.loads(measured.read_text()))
        section = f"## In other weight formats\n\n{formats.BEGIN}\n{table}\n{formats.END}\n\n"
    text = CARD.format(
        formats=section,
        **{**c, **settings, **{k: a[k] for k in ("batch", "processes", "muon_lr", "adam_lr", "weight_decay", "dropout",
                                                 "balance", "seed")}},
        parameters=run["parameters"] / 1e6, count=run["parameters"], used=used, tensors=run["tensors"],
        bytes=run["bytes"], steps=run["steps"], tokens_seen=run["tokens"] / 1e6, epochs=run["epochs"],
        seconds=run["seconds"], seconds_asked=a["seconds"], dialogue=100 * a["dialogue_share"],
        late=100 * a["late_dialogue_share"], resumed=RESUMED if a["resumed_at"] else "",
        right=sampled["right"], asked=sampled["asked"],
        finish=finish_text, mix=mix, finish_command=finish_command,
        voices=voices_table(corpus.load(Path(args.work) / "corpus.json"), evaluation), curve=curve_table(curve),
        load=load_table(evaluation), favourites=favourites(evaluation), samples=samples(sampled),
        shares=shares(sampled), chats=chats(sampled))
    Path(args.out).write_text(text, encoding="utf-8")
    print(f"wrote {args.out}: " + "  ".join(f"{k} {v:.3f}" for k, v in evaluation["bits_per_byte"].items()))


if __name__ == "__main__":
    main()
