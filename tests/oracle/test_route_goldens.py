"""The routing and sorting goldens are what their script computes, and it agrees with torch."""
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
