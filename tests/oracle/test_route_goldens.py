"""The routing and sorting goldens are what their scripts compute; torch and transformers agree."""
import pathlib

import pytest

import make_route_goldens as script

STORED = pathlib.Path(__file__).resolve().parents[1] / "goldens/route"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    pytest.importorskip("safetensors")
    out = tmp_path_factory.mktemp("route")
    script.make_sort(out, script.make_route(out))
    return out


@pytest.mark.parametrize("file", ["route.safetensors", "sort.safetensors"])
def test_goldens_are_the_scripts(made, file):
    import numpy as np
    from safetensors.numpy import load_file
    ours, stored = load_file(made / file), load_file(STORED / file)
    assert sorted(ours) == sorted(stored)
    for name, values in ours.items():
        if name.endswith(".weights"):  # another NumPy may round exp otherwise
            np.testing.assert_allclose(values, stored[name], rtol=2e-7)
        else:
            np.testing.assert_array_equal(values, stored[name], err_msg=name)


def test_plain_rules_agree_with_torch():
    """Softmax and top-k of torch on the first rows of the AITER tables: the script's ids."""
    torch = pytest.importorskip("torch")
    from safetensors.numpy import load_file
    stored = load_file(STORED / "route.safetensors")
    for e, k in ((128, 4), (256, 8)):
        name = f"aiter.f32.e{e}"
        for i, seed in enumerate(stored[name + ".selected.seeds"]):
            x = torch.tensor(script.logits(int(seed), e, "f32"))
            top = torch.topk(x, k)
            assert top.indices.tolist() == stored[name + ".selected.ids"][i].tolist()
            want = torch.tensor(stored[name + ".selected.weights"][i].astype("float64"))
            torch.testing.assert_close(torch.softmax(top.values, -1), want, rtol=1e-6, atol=0)


@pytest.fixture(scope="module")
def router(transformers):
    return pytest.importorskip("make_router_goldens")


def test_router_goldens_are_the_scripts(router, tmp_path):
    import torch
    from safetensors.torch import load_file
    router.make(tmp_path)
    ours, stored = (load_file(p / "router.safetensors") for p in (tmp_path, STORED))
    assert sorted(ours) == sorted(stored)
    for name, values in ours.items():
        if name.endswith(".hf.weights"):  # f32: another torch may add in another order
            torch.testing.assert_close(values, stored[name], rtol=1e-6, atol=0)
        else:
            assert torch.equal(values, stored[name]), name


def test_router_chain_is_transformers_own(router, transformers):
    """Gemma4TextRouter itself, on the stored rows; its topk leaves the order of ties open."""
    import types
    import torch
    from safetensors.torch import load_file
    from transformers.models.gemma4.modeling_gemma4 import Gemma4TextRouter
    config = types.SimpleNamespace(hidden_size=router.D, num_experts=router.E,
                                   top_k_experts=router.K, rms_norm_eps=router.EPS)
    module = Gemma4TextRouter(config).to(torch.bfloat16)
    parameters = zip((module.scale, module.proj.weight, module.per_expert_scale),
                     router.parameters())
    with torch.no_grad():
        for parameter, value in parameters:
            parameter.copy_(value)
        stored = load_file(STORED / "router.safetensors")
        for i, seed in enumerate(stored["chain.seeds"].tolist()):
            _, weights, ids = module(router.stream(seed)[None])
            ours = dict(zip(stored["chain.hf.ids"][i].tolist(), stored["chain.hf.weights"][i]))
            theirs = dict(zip(ids[0].tolist(), weights[0].float()))
            logits = stored["chain.logits"][i]
            only = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
            assert logits[only[0]].tolist() == logits[only[1]].tolist(), "more than a tie"
            assert len(set(ours) & set(theirs)) >= router.K - 1
            for e in set(ours) & set(theirs):
                torch.testing.assert_close(theirs[e], ours[e], rtol=1e-6, atol=0)
