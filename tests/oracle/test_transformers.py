"""The bundled model in transformers and in sluice: the same logits, ids and bits per byte."""
import math

import pytest

import sluice

PROMPTS = ["It is a truth universally acknowledged, that a single man",
           "1:1 In the beginning God created the heaven and the earth.\n1:2 And the earth was",
           "HAMLET.\nTo be, or not to be, that is the question:\nWhether 'tis nobler",
           "Emma could not forgive her;--but as neither provocation nor resentment\nwere discerned"]
LIMIT = 5e-4
# Two correct f32 programs choose differently only below such a gap between router logits.
TIE = 1e-4


@pytest.fixture(scope="module")
def oracle(bundled, transformers):
    import torch
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        bundled, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager",
        output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer(bundled):
    tokenizers = pytest.importorskip("tokenizers")
    return tokenizers.Tokenizer.from_file(str(bundled / "tokenizer.json"))


def routed_alike(out, golden, tokens):
    """How many leading tokens have the same experts in every layer; a later one must be a tie."""
    alike = tokens
    for name in (n for n in golden if n.endswith(".ids")):
        same = (out[name].sort(-1).values == golden[name].sort(-1).values).all(-1)
        if not bool(same.all()):
            alike = min(alike, int((~same).nonzero()[0]))
    return alike


@pytest.mark.parametrize("prompt", PROMPTS, ids=["austen", "bible", "shakespeare", "novel"])
def test_logits_equal(prompt, oracle, tokenizer, bundled, tmp_path):
    import json
    import torch
    import make_model_goldens
    from cases import Case
    case = Case("bundled", "", "qwen3_moe", json.loads((bundled / "config.json").read_text()))
    ids = tokenizer.encode(prompt).ids
    golden, gap = make_model_goldens.run(case, oracle, torch.tensor(ids))
    out = sluice.score(bundled, ids, tmp_path, "--compute", "f32", "--trace")
    alike = routed_alike(out, golden, len(ids))
    assert alike == len(ids) or gap < TIE, f"experts differ at token {alike} without a tie ({gap})"
    assert alike > 0
    worst = (out["logits"][:alike] - golden["logits"][:alike]).abs().max().item()
    assert worst <= LIMIT
    # The loss is insensitive to one flipped tie: it must agree over the whole prompt.
    target = torch.tensor(ids[1:])
    loss = [torch.nn.functional.cross_entropy(x["logits"][:-1], target).item()
            for x in (out, golden)]
    assert abs(loss[0] - loss[1]) <= 1e-3


def bits_per_byte(oracle, tokenizer, text, context):
    """Windows of the model's context, stride half; each token is scored once, the first not."""
    import torch
    ids = tokenizer.encode(text).ids
    nats, start, scored = 0.0, 0, 1
    while scored < len(ids):
        window = torch.tensor(ids[start:start + context])
        with torch.no_grad():
            logits = oracle(window[None], use_cache=False).logits[0].double()
        losses = torch.nn.functional.cross_entropy(logits[:-1], window[1:], reduction="none")
        nats += losses[scored - start - 1:].sum().item()
        scored = start + len(window)
        start += context // 2
    return nats / math.log(2) / len(text.encode())


def test_bits_per_byte_equal(oracle, tokenizer, bundled, tmp_path):
    text = "\n".join(PROMPTS) * 12  # longer than one window
    assert len(tokenizer.encode(text).ids) > oracle.config.max_position_embeddings
    file = tmp_path / "text.txt"
    file.write_text(text)
    _, said = sluice.run("score", bundled, "--text", file, "--compute", "f32", "--out",
                         tmp_path / "out.safetensors", "--json")
    expected = bits_per_byte(oracle, tokenizer, text, oracle.config.max_position_embeddings)
    assert said["bits_per_byte"] == pytest.approx(expected, rel=2e-3)


def test_greedy_text_equals(oracle, tokenizer, bundled, tmp_path):
    import torch
    import make_model_goldens
    ids = tokenizer.encode(PROMPTS[0]).ids
    theirs, gap = make_model_goldens.greedy(oracle, torch.tensor(ids))
    out = sluice.score(bundled, ids, tmp_path, "--compute", "f32", "--greedy", len(theirs))
    assert out["greedy"].tolist() == theirs.tolist() or gap < 1e-3
