"""Tiny random checkpoints of every dialect and naming, against transformers (tools/goldens)."""
import pytest

import sluice

LOGITS, WEIGHTS = 5e-4, 3e-5


def names():
    from cases import CASES
    return list(CASES)


@pytest.fixture(scope="module")
def made(tmp_path_factory, transformers, program):
    """Makes a case once and remembers it: name -> (folder, golden tensors)."""
    from cases import CASES
    from make_model_goldens import make
    from safetensors.torch import load_file
    done = {}

    def get(name):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            make(CASES[name], folder)
            done[name] = folder, load_file(folder / "golden.safetensors")
        return done[name]

    return get


def worst(ours, theirs):
    assert ours.shape == theirs.shape
    return (ours.float() - theirs.float()).abs().max().item()


@pytest.mark.parametrize("name", names())
def test_f32_equals_transformers(name, made, tmp_path):
    folder, golden = made(name)
    steps = len(golden["greedy"])
    out = sluice.score(folder, golden["input_ids"].tolist(), tmp_path, "--compute", "f32", "--trace",
                       "--greedy", steps)
    routed = [n for n in golden if n.startswith("router.")]
    assert routed, "a case without experts checks nothing here"
    for tensor in sorted(routed):
        if tensor.endswith("ids"):
            assert out[tensor].tolist() == golden[tensor].tolist(), tensor
        else:
            assert worst(out[tensor], golden[tensor]) <= WEIGHTS, tensor
    for tensor in [n for n in golden if n.startswith("hidden.")] + ["logits"]:
        assert worst(out[tensor], golden[tensor]) <= LOGITS, tensor
    assert out["greedy"].tolist() == golden["greedy"].tolist()


@pytest.mark.parametrize("name", ["qwen-yarn-bias", "gemma-5x", "gptoss-mxfp4"])
def test_bf16_drifts_as_bf16_does(name, made, tmp_path):
    """bf16 moves the logits, and not wildly; the exact factor is pinned by the checked-in goldens."""
    folder, golden = made(name)
    out = sluice.score(folder, golden["input_ids"].tolist(), tmp_path, "--compute", "bf16")
    drift = (out["logits"] - golden["logits"]).abs().mean().item()
    assert 1e-3 < drift < 0.5, drift


def test_chunks_and_batches_change_nothing(made, tmp_path):
    """Other names and dialects take the same engine: one bit for bit check each."""
    for name in ("qwen-packed", "gptoss-limit"):
        folder, golden = made(name)
        ids = golden["input_ids"].tolist()
        whole = sluice.score(folder, ids, tmp_path)["logits"]
        chunked = sluice.score(folder, ids, tmp_path, "--chunk", 7)["logits"]
        ragged = sluice.score(folder, [ids[:11], ids], tmp_path)
        assert chunked.equal(whole) and ragged["seq.1.logits"].equal(whole), name
        assert ragged["seq.0.logits"].equal(whole[:11]), name
