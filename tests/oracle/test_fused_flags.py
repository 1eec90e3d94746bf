"""fused_experts by the flags of vLLM and SGLang, against weights that torch dequantises and layers
computed in f64 (test_experts.py) or from integers (test_quant.py).

Dequantised weights are compared through whole layers: equal bits to the module on torch's weights,
and within the derived bound of the f64 oracle, which knows nothing of the module.
"""
import numpy
import pytest

ops = pytest.importorskip("sluice_ops", reason="the Python module is not built")
torch = pytest.importorskip("torch")

from test_experts import U32, Layer, check  # noqa: E402
from test_fp8 import Weights, by_order, decoded, max_rule  # noqa: E402
from test_quant import int8_rule, rounded, torch_silu_and_mul  # noqa: E402

F32 = numpy.float32
TOKENS, EXPERTS, K, D, WIDTH = 9, 6, 3, 320, 192


def layer_of(seed, w1, w2):
    """A layer whose weights are these, as bf16 holds them."""
    layer = Layer(seed, TOKENS, EXPERTS, K, D, WIDTH)
    layer.w1, layer.w2 = w1.bfloat16().float(), w2.bfloat16().float()
    return layer


def call(layer, w1, w2, **flags):
    return ops.fused_experts(layer.x.numpy(), w1, w2, layer.weights, layer.ids, **flags)


def expect(layer, got, **how):
    """The bits of torch's weights, and within the bound of the f64 oracle."""
    same = ops.fused_experts(layer.x.numpy(), layer.pack(format="bf16"), layer.weights, layer.ids, **how)
    assert (got.view(numpy.uint32) == same.view(numpy.uint32)).all()
    if not how:
        check(layer, got, list(range(TOKENS)))


def drawn(rng, n, k, bits):
    return rng.integers(0, 1 << bits, (EXPERTS, n, k)).astype(numpy.uint8)


def scales(rng, *shape, size=0.01):
    """bf16 values, as float32."""
    s = rng.uniform(0.5 * size, size, (EXPERTS, *shape)).astype(F32)
    return torch.from_numpy(s).bfloat16().float().numpy()


def spread(s, group, k):
    """[E, N, groups] to [E, N, K]."""
    return numpy.repeat(s, group, axis=2)[:, :, :k]


def bf16_product(q, s):
    """q * s as bf16 tensors multiply: the integers are exact in bf16."""
    return torch.from_numpy(q.astype(F32)).bfloat16() * torch.from_numpy(s).bfloat16()


def pairs(q):
    """Two codes along K in a byte, the even one low."""
    return (q[..., 0::2] | q[..., 1::2] << 4).astype(numpy.uint8)


# (group of D, group of I): whole rows, equal groups, a short last group
GROUPS = [(D, WIDTH), (64, 64), (128, 128)]


@pytest.mark.parametrize("groups", GROUPS, ids=str)
@pytest.mark.parametrize("points", [False, True], ids=["default", "given"])
@pytest.mark.parametrize("flag,bits", [("use_int8_w8a16", 8), ("use_int4_w4a16", 4)])
def test_weights_in_groups(flag, bits, points, groups):
    rng = numpy.random.default_rng(bits + groups[0] + points)
    sides, given = [], {}
    for name, n, k, group in (("w1", 2 * WIDTH, D, groups[0]), ("w2", D, WIDTH, groups[1])):
        q = drawn(rng, n, k, bits)
        count = -(-k // group)
        s = scales(rng, n, count)
        middle = 1 << bits - 1
        zero = rng.integers(0, 1 << bits, (EXPERTS, n, count)) if points else numpy.full_like(s, middle)
        if points:
            stored = zero.astype(numpy.uint8)
            given[name + "_zp"] = stored if bits == 8 else (stored[:, 0::2] | stored[:, 1::2] << 4)
        given[name + "_scale"] = s
        # |q - zp| <= 255 is exact in bf16
        sides.append((q if bits == 8 else pairs(q),
                      bf16_product(q.astype(int) - spread(zero, group, k).astype(int), spread(s, group, k))))
    if groups == (128, 128):  # I = 192: the last group is short
        given["block_shape"] = [0, 128]
    layer = layer_of(bits, sides[0][1], sides[1][1])
    got = call(layer, sides[0][0], sides[1][0], **{flag: True}, **given)
    expect(layer, got)
    packed = ops.pack_experts(sides[0][0], sides[1][0], **{flag: True}, **given)
    again = ops.fused_experts(layer.x.numpy(), packed, layer.weights, layer.ids)
    assert (again == got).all()


def test_int8_by_channel_is_signed_and_f32_keeps_the_product():
    rng = numpy.random.default_rng(3)
    q1, q2 = (rng.integers(-128, 128, (EXPERTS, n, k)).astype(numpy.int8)
              for n, k in ((2 * WIDTH, D), (D, WIDTH)))
    s1, s2 = scales(rng, 2 * WIDTH), scales(rng, D)
    w1, w2 = bf16_product(q1, s1[..., None]), bf16_product(q2, s2[..., None])
    layer = layer_of(3, w1, w2)
    flags = dict(use_int8_w8a16=True, per_channel_quant=True, w1_scale=s1, w2_scale=s2)
    expect(layer, call(layer, q1, q2, **flags))
    exact = [torch.from_numpy(q.astype(F32) * s[..., None]) for q, s in ((q1, s1), (q2, s2))]
    same = ops.fused_experts(layer.x.numpy(),
                             ops.pack_experts(exact[0].numpy(), exact[1].numpy(), format="f32"),
                             layer.weights, layer.ids, compute="f32")
    assert (call(layer, q1, q2, compute="f32", **flags) == same).all()


@pytest.mark.parametrize("granularity", ["tensor", "row", "block"])
def test_fp8_weights(granularity):
    """128x128 blocks with ragged edges both ways: D = 320, 2I = 384 (I begins a block), I = 192."""
    rng = numpy.random.default_rng(5)
    width = WIDTH if granularity != "block" else 256
    sides = []
    for n, k in ((2 * width, D), (D, width)):
        codes = torch.from_numpy(rng.standard_normal((EXPERTS, n, k)).astype(F32)).to(torch.float8_e4m3fn)
        shape = {"tensor": (), "row": (n,), "block": (-(-n // 128), -(-k // 128))}[granularity]
        s = scales(rng, *shape, size=0.1)
        full = {"tensor": lambda: s[:, None, None], "row": lambda: s[:, :, None],
                "block": lambda: s.repeat(128, 1).repeat(128, 2)[:, :n, :k]}[granularity]()
        sides.append((codes.view(torch.uint8).numpy(), s, codes.float() * torch.from_numpy(full)))
    layer = Layer(5, TOKENS, EXPERTS, K, D, width)
    layer.w1, layer.w2 = (side[2].bfloat16().float() for side in sides)
    got = call(layer, sides[0][0], sides[1][0], use_fp8_w8a16=True, w1_scale=sides[0][1],
               w2_scale=sides[1][1], per_channel_quant=granularity == "row",
               block_shape=[128, 128] if granularity == "block" else None)
    expect(layer, got)


@pytest.mark.parametrize("granularity", ["tensor", "row"])
def test_int8_rows_and_weights(granularity):
    rng = numpy.random.default_rng(7)
    q1, q2 = (rng.integers(-127, 128, (EXPERTS, n, k)).astype(numpy.int8)
              for n, k in ((2 * WIDTH, D), (D, WIDTH)))
    # Outputs of about 1, so that silu is neither linear nor flat.
    s1, s2 = ((scales(rng, n) if granularity == "row" else scales(rng)) * F32(f)
              for n, f in ((2 * WIDTH, 0.08), (D, 0.08)))
    layer = Layer(7, TOKENS, EXPERTS, K, D, WIDTH)
    got = call(layer, q1, q2, use_int8_w8a8=True, w1_scale=s1, w2_scale=s2,
               per_channel_quant=granularity == "row")

    def product(codes, row_scales, q, s):
        sums = codes.astype(numpy.int64) @ q.astype(numpy.int64).T
        return rounded((sums.astype(F32) * s) * row_scales, "bfloat16")
    want = numpy.zeros((TOKENS, D))
    for t in range(TOKENS):
        for i in range(K):
            e = layer.ids[t, i]
            h = torch_silu_and_mul(product(*int8_rule(layer.x[t:t + 1].numpy()), q1[e], s1[e]))
            y = product(*int8_rule(h), q2[e], s2[e])
            want[t] += float(layer.weights[t, i]) * y[0]
    # One code of a hidden row may lie between two where our silu and torch's differ; upstream's bound.
    assert (numpy.abs(got - want) <= numpy.maximum(2.0 ** -6, 2.0 ** -6 * numpy.abs(want))).all()
    assert (numpy.abs(got - want) <= K * 4 * U32 * numpy.abs(want).max()).mean() > 0.9


@pytest.mark.parametrize("granularity", ["tensor", "row", "block"])
def test_fp8_rows_and_weights(granularity):
    """Bit for bit: dynamic e4m3 by MAX's rule, the products' written order, the sum over k in f32."""
    rng = numpy.random.default_rng(13)
    form = {"row": "channel"}.get(granularity, granularity)
    block = (128, 128) if form == "block" else None
    up, down = Weights(rng, EXPERTS, 2 * WIDTH, D, form, block), Weights(rng, EXPERTS, D, WIDTH, form, block)
    up.scales *= F32(2.0 ** -6)  # keep the layer's values near one
    up.at = up.at * F32(2.0 ** -6)
    layer = Layer(13, TOKENS, EXPERTS, K, D, WIDTH)
    got = call(layer, up.codes, down.codes, use_fp8_w8a8=True, w1_scale=up.scales, w2_scale=down.scales,
               per_channel_quant=granularity == "row", block_shape=block and list(block))

    def product(y, side, e):
        group = 128 if block else y.shape[1]
        codes, s = max_rule(y, group)
        return rounded(by_order(decoded(codes), s, decoded(side.codes[e]), side.at[e], group), "bfloat16")
    want = numpy.zeros((TOKENS, D), F32)
    for t in range(TOKENS):
        for i in range(K):  # a fused multiply-add is one rounding of the f64 sum
            e = layer.ids[t, i]
            y = product(ops.silu_and_mul(product(layer.x[t:t + 1].numpy(), up, e)), down, e)[0]
            want[t] = (numpy.float64(layer.weights[t, i]) * y + want[t]).astype(F32)
    assert (got.view(numpy.uint32) == want.view(numpy.uint32)).all()


def test_other_arguments_pass_through():
    layer = Layer(11, TOKENS, EXPERTS, K, D, WIDTH, "gelu_tanh")
    w1, w2 = layer.w1.numpy(), layer.w2.numpy()
    for how in (dict(activation="gelu_tanh"), dict(profile="sglang"),
                dict(apply_router_weight_on_input=True), dict(compute="f32")):
        packed = layer.pack(format=how.get("compute", "bf16"))
        want = ops.fused_experts(layer.x.numpy(), packed, layer.weights, layer.ids, **how)
        assert (call(layer, w1, w2, **how) == want).all()
    half = numpy.where(numpy.arange(2 * EXPERTS) < EXPERTS, numpy.arange(2 * EXPERTS), -1).astype(numpy.int32)
    got = call(layer, w1, w2, expert_map=half, global_num_experts=2 * EXPERTS)
    assert (got == call(layer, w1, w2, global_num_experts=EXPERTS)).all()


CODES = [numpy.zeros((2, 8, 64), numpy.int8), numpy.zeros((2, 64, 4), numpy.int8)]
ROWS = dict(w1_scale=numpy.ones((2, 8), F32), w2_scale=numpy.ones((2, 64), F32))


@pytest.mark.parametrize("error,message,flags", [
    (NotImplementedError, "use_fp8_w8a8 with biases", dict(use_fp8_w8a8=True, w1_bias=1.0, **ROWS)),
    (NotImplementedError, "use_fp8_w8a8: layout: expected gate_first",
     dict(use_fp8_w8a8=True, layout="interleaved", **ROWS)),
    (NotImplementedError, "use_int8_w8a8: profile: only f32", dict(use_int8_w8a8=True, profile="hf", **ROWS)),
    (NotImplementedError, "a1_scale, a2_scale", dict(use_int8_w8a8=True, a1_scale=1.0, **ROWS)),
    (NotImplementedError, "use_int8_w8a8 with block_shape", dict(use_int8_w8a8=True, block_shape=[8, 8], **ROWS)),
    (NotImplementedError, "use_int8_w8a8: activation: only silu", dict(use_int8_w8a8=True, activation="gelu_tanh", **ROWS)),
    (NotImplementedError, "use_int8_w8a8 with expert_map", dict(use_int8_w8a8=True, expert_map=numpy.zeros(2, numpy.int32), **ROWS)),
    (NotImplementedError, "inplace", dict(inplace=True)),
    (ValueError, "use_int8_w8a8 and use_int4_w4a16", dict(use_int8_w8a8=True, use_int4_w4a16=True, **ROWS)),
    (ValueError, "use_int8_w8a16: w1_scale and w2_scale are missing", dict(use_int8_w8a16=True)),
    (ValueError, "no flag says what they scale", ROWS),
    (ValueError, "no flag says of what", dict(per_channel_quant=True)),
    (ValueError, "w1_zp, w2_zp: belong to", dict(use_int8_w8a8=True, w1_zp=CODES[0], **ROWS)),
    (ValueError, "w2: scale: 3 groups of K = 4", dict(
        use_int8_w8a16=True, w1_scale=ROWS["w1_scale"], w2_scale=numpy.ones((2, 64, 3), F32))),
    (ValueError, "w1: scale: expected", dict(
        use_int8_w8a16=True, w1_scale=numpy.ones((2, 7), F32), w2_scale=ROWS["w2_scale"])),
    (ValueError, "global_num_experts: expected 2", dict(global_num_experts=3)),
    (ValueError, "block_shape: expected", dict(use_int8_w8a16=True, block_shape=[1], **ROWS)),
], ids=lambda v: v.replace(" ", "_")[:40] if isinstance(v, str) else "")
def test_what_cannot_be_mapped_is_a_sentence(error, message, flags):
    x = numpy.zeros((1, 64), F32)
    with pytest.raises(error, match=message):
        ops.fused_experts(x, *CODES, numpy.ones((1, 1), F32), numpy.zeros((1, 1), numpy.int32), **flags)
