"""The Python module as a caller meets it: every format and mode of fused_experts against the layer
in f64 on the weights that its codes stand for, within derived bounds; rows to their experts and back;
what is wrong said in a sentence."""

import json
import re
import subprocess
import sys

import numpy
import pytest

ops = pytest.importorskip("sluice_ops")

FORMATS = ["f32", "bf16", "fp8", "mxfp4", "int8", "int4", "q8_0", "q4_0", "q5_0", "q5_1", "q4_k",
           "q5_k", "q6_k", "iq4_nl"]
# What rows are rounded to: bits of an integer code and k per scale.
MODES = {"int8": ("int", 32639, 512), "int4": ("int", 127, 512)}
MODES |= {f: ("a8g32", 127, 32) for f in FORMATS if f.startswith(("q", "iq", "mx"))}
U32 = 2.0 ** -24
SHAPES = [(64, 32, 3, 2), (544, 130, 5, 3), (33, 17, 4, 4), (100, 1, 2, 1), (1, 3, 2, 2)]


class Layer:
    def __init__(self, d, width, experts, k, tokens=7):
        rng = numpy.random.default_rng(d)
        self.d, self.width, self.k, self.tokens = d, width, k, tokens
        self.w1 = (rng.standard_normal((experts, 2 * width, d)) / d ** 0.5).astype(numpy.float32)
        self.w2 = (rng.standard_normal((experts, d, width)) / width ** 0.5).astype(numpy.float32)
        self.x = rng.standard_normal((tokens, d)).astype(numpy.float32)
        self.x[1] = 0
        self.ids = rng.integers(-1, experts + 1, (tokens, k)).astype(numpy.int32)
        self.weights = rng.random((tokens, k)).astype(numpy.float32)

    def run(self, packed, **options):
        return ops.fused_experts(self.x, packed, self.weights, self.ids, **options)

    def exact(self, w1, w2, noise):
        """The layer in f64 and how far a result may lie from it. noise(v, e): how far the operand
        that stands for v, itself within e of it, may lie from v."""
        out, bound = numpy.zeros((2, self.tokens, self.d))
        eps = (self.d + self.width + 64) * U32
        for t, x in enumerate(self.x.astype(numpy.float64)):
            for e, weight in zip(self.ids[t], self.weights[t].astype(numpy.float64)):
                if not 0 <= e < len(w1):
                    continue
                gate, up = w1[e, :self.width].astype(numpy.float64), w1[e, self.width:].astype(numpy.float64)
                down = w2[e].astype(numpy.float64)
                e_x = noise(x, 0 * x)
                g, u = gate @ x, up @ x
                e_g = abs(gate) @ (e_x + eps * abs(x))
                e_u = abs(up) @ (e_x + eps * abs(x))
                silu = g / (1 + numpy.exp(-g))
                h = silu * u
                # silu climbs by less than 1.1 a unit.
                e_h = 1.1 * e_g * (abs(u) + e_u) + (abs(silu) + 1e-6) * e_u + 1e-6 * abs(h)
                e_h = noise(h, e_h) + e_h
                out[t] += weight * (down @ h)
                bound[t] += weight * (abs(down) @ (e_h + eps * abs(h)))
        return out, bound + 1e-6 * abs(out) + 1e-30


def rounded_codes(most, group):
    def noise(v, e):
        padded = numpy.zeros(-(-len(v) // group) * group)
        padded[:len(v)] = abs(v) + e
        amax = padded.reshape(-1, group).max(1).repeat(group)[:len(v)]
        # Half a step, or the value itself where the scale is below 1e-6 and so 1.
        return numpy.where(amax / most < 1.001e-6, amax, 0.501 * amax / most)
    return noise


def rounded_bf16(v, e):
    return 2.0 ** -8 * 1.01 * (abs(v) + e)  # of the row and of the weight, 2^-9 each


def not_rounded(v, e):
    return 0 * v


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def layer(request):
    return Layer(*request.param)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_and_mode_on_its_own_weights(layer, name):
    if name == "mxfp4" and (layer.d % 32 or layer.width % 32):
        with pytest.raises(ValueError, match="mxfp4: K: expected a multiple of 32"):
            ops.pack_experts(layer.w1, layer.w2, format=name)
        return
    packed = ops.pack_experts(layer.w1, layer.w2, format=name)
    w1, w2 = packed.dequantize()
    assert w1.shape == layer.w1.shape and w2.shape == layer.w2.shape
    if name == "f32":
        assert (w1 == layer.w1).all() and (w2 == layer.w2).all()
    runs = [({"compute": "f32", "mode": "a16"}, not_rounded)]
    if name != "f32":
        runs.append(({"compute": "bf16", "mode": "a16"}, rounded_bf16))
    if name in MODES:
        mode, most, group = MODES[name]
        default = rounded_bf16 if name == "mxfp4" else rounded_codes(most, group)
        runs += [({}, default), ({"mode": mode}, rounded_codes(most, group))]
    results = []
    for options, noise in runs:
        want, bound = layer.exact(w1, w2, noise)
        got = layer.run(packed, **options)
        assert (abs(got - want) <= bound).all(), (options, (abs(got - want) / bound).max())
        # Errors of that many independent terms add up to the root of it, not to all of it.
        most = numpy.linalg.norm(bound) / min(layer.d, layer.width) ** 0.5
        assert numpy.linalg.norm(got - want) <= most, options
        results.append(got)
        one = [ops.fused_experts(layer.x[t:t + 1], packed, layer.weights[t:t + 1],
                                 layer.ids[t:t + 1], **options) for t in range(layer.tokens)]
        assert (numpy.concatenate(one) == got).all(), options
    if name in MODES:
        own = 1 if name == "mxfp4" else -1  # the default is the format's own mode
        assert (results[-2] == results[own]).all()
        assert layer.width < 32 or (results[0] != results[-1]).any()  # modes differ


def test_layouts_dequantize_with_the_gate_first():
    layer = Layer(64, 32, 3, 2)
    gate, up = layer.w1[:, :32], layer.w1[:, 32:]
    mixed = numpy.stack([gate, up], 2).reshape(layer.w1.shape)
    for stored, layout in [(numpy.concatenate([up, gate], 1), "up_first"), (mixed, "interleaved")]:
        w1, _ = ops.pack_experts(stored, layer.w2, format="f32", layout=layout).dequantize()
        assert (w1 == layer.w1).all()


@pytest.mark.parametrize("options,sentence", [
    ({"mode": "a8g32"}, "mode: int4: expected one of default, int, a16, got a8g32"),
    ({"compute": "f32"}, r"compute: rows of int4 weights are quantised .int., got f32"),
    ({"compute": "f64"}, "compute: expected f32 or bf16, got f64")])
def test_options_that_a_format_has_not(options, sentence):
    layer = Layer(64, 32, 3, 2)
    packed = ops.pack_experts(layer.w1, layer.w2, format="int4")
    with pytest.raises(ValueError, match=sentence):
        layer.run(packed, **options)


def test_f32_weights_are_multiplied_in_f32():
    layer = Layer(64, 32, 3, 2)
    packed = ops.pack_experts(layer.w1, layer.w2, format="f32")
    assert (layer.run(packed) == layer.run(packed, compute="f32")).all()
    with pytest.raises(ValueError, match="f32 weights are multiplied in f32, got bf16"):
        layer.run(packed, compute="bf16")


PACK_THEN_CHANGE_THREADS = """
import numpy, sluice_ops as ops
one = numpy.ones((2, 64, 64), numpy.float32)
packed = [ops.pack_experts(one, one[:, :, :32].copy()), ops.pack_groups(one),
          ops.pack_quant_experts(one.astype(numpy.int8), one[:, :, :1].copy(),
                                 one[:, :, :32].astype(numpy.int8), one[:, :, :1].copy())]
ops.set_num_threads(2)
del packed
print("freed")
"""


def test_packed_weights_outlive_a_change_of_threads():
    path = "import sys; sys.path[:0] = %r\n" % sys.path
    run = subprocess.run([sys.executable, "-c", path + PACK_THEN_CHANGE_THREADS],
                         capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "freed\n"), run.stderr


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float16, numpy.uint8])
@pytest.mark.parametrize("mapped", [False, True])
def test_moe_permute_and_unpermute(dtype, mapped):
    rng = numpy.random.default_rng(3)
    tokens, k, experts, d = 23, 3, 6, 10
    x = (100 * rng.random((tokens, d))).astype(dtype)
    ids = rng.integers(-1, experts + 1, (tokens, k)).astype(numpy.int32)
    places = numpy.array([1, -1, 0, 2, -1, 3] if mapped else range(experts), numpy.int32)
    rows, offsets, inverse = ops.moe_permute(x, ids, experts, places if mapped else None)
    assert rows.dtype == dtype and offsets.dtype == numpy.int64
    local = numpy.where((ids >= 0) & (ids < experts), places[numpy.clip(ids, 0, experts - 1)], -1)
    order = [f for e in range(places.max() + 1) for f in numpy.flatnonzero(local == e)]
    assert (rows == x[numpy.array(order) // k]).all()
    assert offsets.tolist() == \
        numpy.searchsorted(local.ravel()[order], range(places.max() + 2)).tolist()
    want = numpy.full(tokens * k, -1)
    want[order] = range(len(order))
    assert (inverse == want.reshape(tokens, k)).all()
    weights = rng.random((tokens, k)).astype(numpy.float32)
    y = rng.standard_normal((len(order), d)).astype(numpy.float32)
    got = ops.moe_unpermute(y, weights, inverse)
    exact = numpy.zeros((tokens, d))
    for t in range(tokens):
        for w, slot in zip(weights[t], inverse[t]):
            if slot >= 0:
                exact[t] += float(w) * y[slot]
    assert abs(got - exact).max() <= k * 2 * U32 * 4 * k


def test_permuted_rows_through_one_expert_each_are_the_fused_layer():
    layer = Layer(64, 32, 3, 2)
    packed = ops.pack_experts(layer.w1, layer.w2)
    rows, offsets, inverse = ops.moe_permute(layer.x, layer.ids, 3)
    expert = numpy.searchsorted(offsets, numpy.arange(len(rows)), "right") - 1
    ones = numpy.ones((len(rows), 1), numpy.float32)
    y = ops.fused_experts(rows, packed, ones, expert.astype(numpy.int32)[:, None])
    assert (ops.moe_unpermute(y, layer.weights, inverse) == layer.run(packed)).all()


@pytest.mark.parametrize("experts,k", [(8, 2), (256, 6), (257, 8)])
def test_topk_softplus_sqrt(experts, k):
    rng = numpy.random.default_rng(experts)
    logits = rng.integers(-64, 64, (40, experts)).astype(numpy.float32) / 8
    bias = rng.integers(-4, 4, experts).astype(numpy.float32)
    score = numpy.sqrt(numpy.log1p(numpy.exp(logits.astype(numpy.float64))))
    for b in (None, bias):
        weights, ids = ops.topk_softplus_sqrt(logits, k, renormalize=True,
                                              routed_scaling_factor=1.5, correction_bias=b)
        rank = score.astype(numpy.float32) + (0 if b is None else b)
        for t in range(len(logits)):
            # Values of different logits lie far apart, those of equal ones tie.
            best = sorted(range(experts), key=lambda e: (-numpy.round(rank[t, e], 5), e))[:k]
            assert ids[t].tolist() == best
            w = score[t, best]
            numpy.testing.assert_allclose(weights[t], 1.5 * w / w.sum(), rtol=2e-6)


def test_mistakes_are_sentences():
    layer = Layer(64, 32, 3, 2)
    packed = ops.pack_experts(layer.w1, layer.w2)
    with pytest.raises(ValueError, match=r"hidden_states: row stride: expected at least the 64"):
        ops.fused_experts(layer.x[::-1], packed, layer.weights, layer.ids)
    with pytest.raises(ValueError, match=r"hidden_states: row stride"):
        ops.fused_experts(numpy.broadcast_to(layer.x[0], layer.x.shape), packed, layer.weights,
                          layer.ids)
    with pytest.raises(ValueError, match=r"topk_weights: expected \[T, K\] = \[7, 2\] as topk_ids"):
        ops.fused_experts(layer.x, packed, layer.weights.reshape(2, 7), layer.ids)
    with pytest.raises(ValueError, match=r"element \(N, K\) = \(0, 5\) is nan"):
        bad = layer.w1.copy()
        bad[0, 0, 5] = numpy.nan
        ops.pack_experts(bad, layer.w2, format="int4")
    with pytest.raises(ValueError, match=r"expert_map: expected one value an expert, \[3\], got \[2\]"):
        ops.moe_align_block_size(layer.ids, 16, 3, numpy.zeros(2, numpy.int32))
    # Before anything is allocated for each of them.
    for sort in (lambda e: ops.moe_permute(layer.x, layer.ids, e),
                 lambda e: ops.moe_align_block_size(layer.ids, 16, e),
                 lambda e: ops.moe_sorting(layer.ids, layer.weights, e, 16),
                 lambda e: ops.moe_create_indices(layer.ids, e)):
        for experts in (0, 4097, 2 ** 40):
            with pytest.raises(ValueError, match=rf"expected in \[1, 4096\], got {experts}"):
                sort(experts)
    far = numpy.array([2 ** 31 - 1, 0, 1], numpy.int32)
    for sort in (lambda: ops.moe_permute(layer.x, layer.ids, 3, far),
                 lambda: ops.moe_align_block_size(layer.ids, 16, 3, far)):
        with pytest.raises(ValueError, match=r"experts that expert_map numbers: .*, got 2147483648"):
            sort()
    with pytest.raises(ValueError, match=r"w1, w2: .*, got \[3, 64, 64\] and \[3, 64, 16\]"):
        ops.pack_experts(layer.w1, layer.w2[:, :, :16])
    valid = ops.moe_sorting(layer.ids, layer.weights, 3, 16, num_local_tokens=2 ** 40)[3]
    assert valid[1] == layer.tokens


@pytest.mark.parametrize("name", ["int4", "int8", "fp8", "mxfp4", "q8_0", "q4_0", "q6_k"])
def test_pack_reports_the_error_that_numpy_finds(name, program, bundled, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    run = subprocess.run([program, "pack", bundled, "-o", tmp_path / "store", "--weights", name,
                          "--json"], capture_output=True, text=True, check=True)
    report = json.loads(run.stdout.splitlines()[-1])
    stored = safetensors.load_file(bundled / "model.safetensors")
    layer = "model.layers.2.mlp.experts.%d.%s_proj.weight"
    w = {side: numpy.stack([stored[layer % (e, side)].float().numpy() for e in range(16)])
         for side in ("gate", "up", "down")}
    gate_up = numpy.concatenate([w["gate"], w["up"]], 1)
    found = ops.pack_experts(gate_up, w["down"], format=name).dequantize()
    checked = 0
    for t in report["tensors"]:
        if not t["name"].startswith("layers.2.") or t["role"] != "experts":
            continue
        e = int(re.search(r"experts\.(\d+)", t["name"]).group(1))
        side = 1 if "down" in t["name"] else 0
        exact, got = (gate_up, w["down"])[side][e].astype(float), found[side][e].astype(float)
        want = numpy.linalg.norm(got - exact) / numpy.linalg.norm(exact)
        assert abs(t["relative_rms_error"] - want) < 1e-6 * want, t["name"]
        assert abs(t["snr_db"] + 20 * numpy.log10(want)) < 1e-4
        assert t["bits_per_weight"] == 8 * t["bytes"] / exact.size
        checked += 1
    assert checked == 32
