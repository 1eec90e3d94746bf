#!/usr/bin/env python3
"""Makes the small tokenizers under tests/data/tokenizers and their golden lines.

Three files of the kinds that published models use, small enough to commit, and beside each a
.jsonl with {"text", "ids", "decoded"} as the `tokenizers` library computes them: encode without
added tokens around the text, decode with special tokens kept. Needs the oracle environment
(make oracles); the result is the same at every run.
"""

import json
import sys
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

OUT = Path(__file__).resolve().parents[2] / "tests/data/tokenizers"
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TRAINING = [
    "A sluice is a passage for water, with a gate that opens, closes and measures what goes through it.",
    "The miller opens the gate in the morning; the wheel turns, the stones turn, and the flour falls.",
    "Many small channels leave the great one, and at each of them stands a gate. Few are open at a time.",
    "def open_gate(level: float) -> bool:\n    if level > 1.25:\n        return True\n    return False\n",
    "{\"name\": \"gate\", \"arguments\": {\"level\": 12, \"open\": true}}\n\n\n",
    "Don't say it's done; they'll say we've only begun. I'M HERE. YOU'RE THERE. HTTPServer iPhone MacBook",
    "Wasser fließt über das Wehr. L'eau coule, été comme hiver. Вода течёт через шлюз. 水は水門を通って流れる。",
    "0 1 22 333 4444 55555 1234567890 3.14159 1,000,000\t\ttabs\r\nlines\r\n",
]
TEXTS = [
    "", " ", "a", "The gate opens.", " The gate", "  two  spaces  ", "line\nline\n\nline\n\n\n\nline", "a\r\nb\r\n\r\nc",
    "\t\ttabs\t", "don't I'LL we'Ve 'S 's '\u017f x'\u017f", "1 22 333 4444 1234567890", "open_gate(level=1.25)/path//x\n/y",
    "e\u0301te\u0301 vs \u00e9t\u00e9", "q\u0323\u0307 q\u0307\u0323", "\u1112\u1161\u11ab \ud55c", "\u212b \u2126 \ufb01", "日本語 水門", "Вода течёт",
    "😀 👨\u200d👩\u200d👧 🏽", "\u0e01\u0e33 \u0915\u094d\u0937", "\x00\x01\x7f", "\u2028\u2029\u0085\u00a0\u3000x", "\ufffd\uffff\U0010ffff",
    "<|im_start|>user\nhi<|im_end|>", "<|im_end|", "<|IM_END|>", "<think>x</think>", "<h1>t</h1>", "<bos><eos>", "\u2581\u2581x \u2581",
    "HTTPServer iPhone MacBookPRO ABCdef ǅ", "a" * 100, " " * 40 + "x", "\n" * 70, "ab" * 60 + "\n" + "ba" * 60,
    " <mask> x<mask>y <mask>\n", "wordy word words word",
]


def token(ident, content, special=True, **more):
    out = {"id": ident, "content": content, "single_word": False, "lstrip": False, "rstrip": False}
    return {**out, "normalized": False, "special": special, **more}


def train(pre_tokenizer, size, normalizer=None, alphabet=()):
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        made.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=list(alphabet), show_progress=False)
    made.train_from_iterator(TRAINING * 4, trainer)
    return json.loads(made.to_str())


def byte_level(pattern, size, normalizer, **model):
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    steps = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made = train(steps, size, normalizer, pre_tokenizers.ByteLevel.alphabet())
    made["decoder"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    made["model"].update(model)
    first = len(made["model"]["vocab"])
    made["added_tokens"] = [
        token(first, "<|endoftext|>"), token(first + 1, "<|im_start|>"), token(first + 2, "<|im_end|>"),
        token(first + 3, "<think>", special=False), token(first + 4, "</think>", special=False),
        token(first + 5, "<mask>", lstrip=True, rstrip=True), token(first + 6, "word", special=False, single_word=True),
    ]
    return made


def sentence_piece():
    steps = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("(?=\u2581)"), "isolated"), pre_tokenizers.Split(Regex(r"\n+"), "isolated")]
    )
    made = train(steps, 500, normalizers.Replace(" ", "\u2581"))
    learned = made["model"]["vocab"]
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>"]
    runs = ["\n" * n for n in range(1, 9)] + ["\u2581" * n for n in range(2, 9)]
    vocab = {}
    for text in [*special, *runs, "<h1>", "</h1>", *(f"<0x{b:02X}>" for b in range(256)), *sorted(learned, key=learned.get)]:
        vocab.setdefault(text, len(vocab))
    first = [[a, b] for run in ("\n", "\u2581") for n in range(8, 1, -1) for k in range(1, n) for a, b in [(run * k, run * (n - k))]]
    merges = [m for m in first if m[0] in vocab and m[1] in vocab]
    merges += [m for m in made["model"]["merges"] if m not in merges]
    merges.append(["e", "\u2581g"]) if "e\u2581g" in vocab else None
    made["model"].update(
        vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True, ignore_merges=False
    )
    made["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    made["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    made["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
        ],
    }
    made["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [vocab["<bos>"]], "tokens": ["<bos>"]}},
    }
    made["added_tokens"] = sorted(
        [token(vocab[t], t, special=t != "<mask>") for t in special]
        + [token(vocab[t], t, special=False) for t in [*runs, "<h1>", "</h1>"]],
        key=lambda t: t["id"],
    )
    return made


def write(name, made):
    path = OUT / f"{name}.json"
    path.write_text(json.dumps(made, ensure_ascii=False, separators=(",", ":")) + "\n")
    oracle = Tokenizer.from_file(str(path))
    with open(OUT / f"{name}.jsonl", "w") as out:
        for text in TEXTS:
            ids = oracle.encode(text, add_special_tokens=False).ids
            decoded = oracle.decode(ids, skip_special_tokens=False)
            out.write(json.dumps({"text": text, "ids": ids, "decoded": decoded}) + "\n")
    print(f"{path}: {len(made['model']['vocab'])} tokens, {len(made['model']['merges'])} merges")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    write("qwen", byte_level(QWEN, 600, normalizers.NFC()))
    o200k = byte_level(O200K, 500, None, ignore_merges=True)
    o200k["model"]["merges"] = [" ".join(m) for m in o200k["model"]["merges"][:-40]]  # the older spelling
    write("o200k", o200k)
    write("sentencepiece", sentence_piece())
    return 0


if __name__ == "__main__":
    sys.exit(main())
