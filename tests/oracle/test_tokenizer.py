"""`sluice tokenize` against the `tokenizers` library, on the published tokenizers.

The published files are read from ../shared/data/tokenizers (or $SLUICE_SHARED/data/tokenizers);
without them only the bundled model's tokenizer is compared. $SLUICE_RANDOM_STRINGS says how many
random strings per tokenizer (2000).
"""

import json
import os
import random
import subprocess
from pathlib import Path

import pytest

tokenizers = pytest.importorskip("tokenizers")

ROOT = Path(__file__).resolve().parents[2]
SLUICE = os.environ.get("SLUICE", str(ROOT / "build/release/sluice"))
SHARED = Path(os.environ.get("SLUICE_SHARED", ROOT.parent / "shared")) / "data/tokenizers"
FILES = {
    "bundled": ROOT / "models/three-voices/tokenizer.json",
    "gemma3": SHARED / "gemma3/tokenizer.json",
    "qwen3": SHARED / "qwen3/tokenizer.json",
    "gptoss": SHARED / "gptoss/tokenizer.json",
}
STRINGS = int(os.environ.get("SLUICE_RANDOM_STRINGS", "2000"))
# Code points that bite: contractions and their long s, joiners, every kind of space and line end,
# digits of other scripts, marks, title case, Hangul parts, SentencePiece's space, non-characters.
SHARP = (
    "''''sSdDtTmM\u017freREveVEllLL    \n\n\r\t\u000b\u000c\u0085\u00a0\u1680\u2003\u2028\u2029\u202f\u3000"
    "\u200b\u200c\u200d\ufeff0123456789\u0661\u0968\u2167\u00bd\u00b2\u4e09\u0301\u0323\u0345\u0338\u093c"
    "\u01c5\u02b0\u05d0\u0915\u4e2d\u6587\u304b\u3099\u30ab\u309a\u1100\u1161\u11a8\uac00\u2581\u2126\u212b"
    "\u1e9b\u00e9\u00c9\u00df\u0130\u0131\uff21\ufb01\U0001f600\U0001f468\U0001f3fd\ufe0f\U000e0041\ufffd\uffff"
    "\U0010ffff\x00\x01\x7f\u0378.,;:!?/\\-_()[]{}<>|\"#$%&*+=@^`~"
)


def tokenizer_of(name):
    if not FILES[name].exists():
        pytest.skip(f"{FILES[name]} is absent")
    return tokenizers.Tokenizer.from_file(str(FILES[name]))


def sluice(name, tmp_path, lines, *flags):
    if not os.path.exists(SLUICE):
        pytest.skip(f"{SLUICE} is not built")
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = subprocess.run(
        [SLUICE, "tokenize", str(FILES[name]), "--jsonl", str(path), *flags],
        capture_output=True, timeout=600,
    )
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def check(name, tmp_path, texts):
    """Ids, and the text back, of every string."""
    oracle = tokenizer_of(name)
    wanted = [e.ids for e in oracle.encode_batch(texts, add_special_tokens=False)]
    got = [line["ids"] for line in sluice(name, tmp_path, [{"text": t} for t in texts])]
    wrong = [(t, w, g) for t, w, g in zip(texts, wanted, got) if w != g]
    assert len(got) == len(texts) and not wrong, f"{len(wrong)} of {len(texts)}: {wrong[:5]!a}"
    back = [oracle.decode(ids, skip_special_tokens=False) for ids in wanted]
    text = [line["text"] for line in sluice(name, tmp_path, [{"ids": i} for i in wanted], "--decode")]
    wrong = [(i, w, g) for i, w, g in zip(wanted, back, text) if w != g]
    assert len(text) == len(texts) and not wrong, f"{len(wrong)} of {len(texts)}: {wrong[:5]!a}"


@pytest.mark.parametrize("vocabulary, name", [("gemma-4", "gemma3"), ("qwen2", "qwen3")])
def test_published_vectors(vocabulary, name, tmp_path):
    """llama.cpp's test vectors of the Gemma 4 and Qwen 2 vocabularies, which share their ordinary
    tokens with the files at hand. $SLUICE_TEMPLATES is explained in test_chat.py."""
    templates = os.environ.get(
        "SLUICE_TEMPLATES", Path.home() / ".cache/sluice/peers/llama.cpp/models/templates"
    )
    texts = Path(templates).parent / f"ggml-vocab-{vocabulary}.gguf.inp"
    if not texts.exists() or not FILES[name].exists():
        pytest.skip(f"{texts} or {FILES[name]} is absent")
    with open(texts, newline="", encoding="utf-8") as file:
        inputs = file.read().split("\n__ggml_vocab_test__\n")
    wanted = [
        [int(i) for i in line.split()] for line in texts.with_suffix(".out").read_text().split("\n")
    ][: len(inputs)]
    got = [line["ids"] for line in sluice(name, tmp_path, [{"text": t} for t in inputs])]
    assert len(inputs) > 40 and got == wanted


def any_code_point(rng):
    while True:
        c = rng.choice((rng.randrange(0x80), rng.randrange(0x3000), rng.randrange(0x110000)))
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def random_text(rng, special):
    kind = rng.randrange(5)
    length = rng.choice((1, 3, 8, 20, 60))
    if kind == 0:
        return "".join(rng.choice(SHARP) for _ in range(length))
    if kind == 1:
        return "".join(any_code_point(rng) for _ in range(length))
    if kind == 2:
        return "".join(rng.choice((rng.choice(SHARP), any_code_point(rng))) for _ in range(length))
    words = ("the", "They'LL", "don't", "  ", "\n\n", " ", "MacBook", "iPhone15", "naïve", "日本語", "e\u0301tude",
             "12345", "user_name", "</s>", "<h1>", "http://a.b/c?d=1", "…", "–", "😀", "\t", "{\n    }")
    parts = [rng.choice(words) for _ in range(length)]
    if kind == 4:
        for _ in range(rng.randrange(3)):
            token = rng.choice(special)
            parts.insert(rng.randrange(len(parts) + 1), rng.choice((token, token[:-1], token.upper())))
    return rng.choice(("", " ")).join(parts)


@pytest.mark.parametrize("name", FILES)
def test_random_strings(name, tmp_path):
    special = [t.content for t in tokenizer_of(name).get_added_tokens_decoder().values()]
    rng = random.Random(f"{name} {STRINGS}")
    check(name, tmp_path, [random_text(rng, special) for _ in range(STRINGS)])


@pytest.mark.parametrize("name", FILES)
def test_random_ids_decode(name, tmp_path):
    oracle = tokenizer_of(name)
    rng = random.Random(name)
    size = oracle.get_vocab_size()
    lists = []
    for _ in range(STRINGS // 2):
        low = rng.choice((0, 0, 200))  # below 500 lie the byte tokens of every kind
        lists.append([rng.randrange(low, rng.choice((500, size + 500))) for _ in range(rng.randrange(12))])
    wanted = [oracle.decode(ids, skip_special_tokens=False) for ids in lists]
    got = [line["text"] for line in sluice(name, tmp_path, [{"ids": i} for i in lists], "--decode")]
    wrong = [(i, w, g) for i, w, g in zip(lists, wanted, got) if w != g]
    assert not wrong, f"{len(wrong)} of {len(lists)}: {wrong[:5]!a}"


@pytest.mark.parametrize("name", FILES)
def test_every_code_point(name, tmp_path):
    """Each code point where it can join letters, digits, symbols, spaces, marks and line breaks."""
    step = 1 if "SLUICE_RANDOM_STRINGS" in os.environ else 37
    points = [chr(c) for c in range(0, 0x110000, step) if not 0xD800 <= c < 0xE000]
    for frame in ("a{}B {}", "\u0315{}\u0301 {}9", ".{}\n{}'s"):
        texts = [frame.replace("{}", c) for c in points]
        for at in range(0, len(texts), 100_000):
            check(name, tmp_path, texts[at : at + 100_000])
