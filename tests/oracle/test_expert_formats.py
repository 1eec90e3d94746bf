"""Expert layers of weights in few bits: GGUF's formats by what their codes lose, MXFP4 bit for bit."""
import numpy
import pytest

ops = pytest.importorskip("sluice_ops", reason="the Python module is not built")
torch = pytest.importorskip("torch")

from test_experts import Layer, check  # noqa: E402

# Relative RMS error of Gaussian weights in these formats (ops/matmul/quantize_gguf.h), and of the
# rows of 8 bits that they are multiplied with.
WEIGHT_NOISE = {"q8_0": 0.0055, "q6_k": 0.0167, "q5_1": 0.0347, "q5_k": 0.0350, "q5_0": 0.0401,
                "q4_k": 0.0708, "iq4_nl": 0.0745, "q4_0": 0.0870}
ROW_NOISE = 0.0072


@pytest.mark.parametrize("name", WEIGHT_NOISE)
def test_formats_of_gguf_cost_what_their_weights_lose(name):
    layer = Layer(61, tokens=24, experts=4, k=2, d=512, width=256)
    exact, _ = layer.oracle(range(24))
    packed = layer.pack(format=name)
    assert packed.format == name
    got = layer.run(packed)
    error = numpy.linalg.norm(got - exact) / numpy.linalg.norm(exact)
    # Noise of both operands goes through gate and up, whose product feels it twice, and down.
    noise = 3 ** 0.5 * (WEIGHT_NOISE[name] ** 2 + ROW_NOISE ** 2) ** 0.5
    assert 0.7 * noise < error < 1.5 * noise
    assert (layer.run(packed, mode="a8g32") == got).all()
    # Rows that stay floats lose next to nothing.
    error = numpy.linalg.norm(layer.run(packed, mode="a16") - exact) / numpy.linalg.norm(exact)
    noise = 3 ** 0.5 * WEIGHT_NOISE[name]
    assert 0.7 * noise < error < 1.5 * noise
    with pytest.raises(ValueError, match="mode: .*: expected one of default, a8g32, a16, got int"):
        layer.run(packed, mode="int")
    with pytest.raises(ValueError, match="one of f32, bf16"):
        layer.pack(format="q3_k")


E2M1 = numpy.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def mxfp4(w):
    """OCP MX blocks of 32 of [..., K]: codes, scales (E8M0) and values. The scale is that of the
    largest, half or twice of it, whichever loses least; codes are nearest, ties to the even one."""
    blocks = w.numpy().astype(numpy.float64).reshape(*w.shape[:-1], -1, 32)
    plain = numpy.floor(numpy.log2(numpy.abs(blocks).max(-1))) - 2
    tried = []
    for exponent in (plain - 1, plain, plain + 1):
        magnitude = numpy.abs(blocks) * 2.0 ** -exponent[..., None]
        distance = numpy.abs(magnitude[..., None] - E2M1)
        code = distance.argmin(-1)  # of two equal ones the lower
        tie = numpy.take_along_axis(distance, numpy.minimum(code + 1, 7)[..., None], -1)[..., 0]
        code += (code % 2 == 1) & (code < 7) & (tie == distance.min(-1))
        value = numpy.copysign(E2M1[code] * 2.0 ** exponent[..., None], blocks)
        tried.append((((value - blocks) ** 2).sum(-1), code | 8 * (blocks < 0), exponent, value))
    best = numpy.argmin([t[0] for t in tried], axis=0)
    codes, exponent, values = (numpy.choose(best[..., None] if tried[0][i].ndim > best.ndim else best,
                                            [t[i] for t in tried]) for i in (1, 2, 3))
    pairs = (codes[..., 0::2] | codes[..., 1::2] << 4).astype(numpy.uint8)  # [..., K / 32, 16]
    return pairs, (exponent + 127).astype(numpy.uint8), values.reshape(w.shape)


@pytest.mark.parametrize("layout", ["gate_first", "up_first", "interleaved"])
def test_mxfp4(layout):
    """Codes as stored give their values' results, and our choice of codes is the one above."""
    layer = Layer(71, tokens=20, experts=4, k=2, d=320, width=160)
    given = [mxfp4(w) for w in (layer.w1, layer.w2)]
    (up, up_scale, up_values), (down, down_scale, down_values) = given
    width = layer.w2.shape[2]
    stored = {"gate_first": numpy.arange(2 * width), "up_first": numpy.roll(numpy.arange(2 * width), width),
              "interleaved": numpy.arange(2 * width).reshape(2, width).T.reshape(-1)}[layout]
    chosen = ops.pack_experts(layer.w1.numpy()[:, stored], layer.w2.numpy(), format="mxfp4",
                              layout=layout)
    layer.w1, layer.w2 = (torch.from_numpy(v).float() for v in (up_values, down_values))
    how = {"format": "mxfp4", "layout": layout, "w1_scale": up_scale[:, stored].copy(),
           "w2_scale": down_scale}
    packed = ops.pack_experts(up[:, stored].copy(), down, **how)
    assert packed.format == "mxfp4" and packed.num_experts == 4
    got = layer.run(packed)
    check(layer, got, list(range(20)))
    # Every value is one of bf16's.
    assert (layer.run(layer.pack(format="bf16")) == got).all()
    exact = layer.run(layer.pack(format="f32"), compute="f32")
    assert (layer.run(packed, compute="f32") == exact).all()
    assert (layer.run(chosen) == got).all()
    flat = ops.pack_experts(up[:, stored].reshape(4, 2 * width, -1).copy(),
                            down.reshape(4, layer.w2.shape[1], -1), **how)
    assert (layer.run(flat) == got).all()
    eight = numpy.linalg.norm(layer.run(packed, mode="a8g32") - exact) / numpy.linalg.norm(exact)
    assert 0.7 * 3 ** 0.5 * ROW_NOISE < eight < 1.5 * 3 ** 0.5 * ROW_NOISE


def test_mxfp4_that_cannot_be_is_refused():
    up, down = numpy.zeros((2, 64, 2, 16), numpy.uint8), numpy.zeros((2, 64, 1, 16), numpy.uint8)
    s1, s2 = numpy.full((2, 64, 2), 127, numpy.uint8), numpy.full((2, 64, 1), 127, numpy.uint8)

    def pack(w1=up, w2=down, **more):
        return ops.pack_experts(w1, w2, **{"format": "mxfp4", "w1_scale": s1, "w2_scale": s2, **more})

    pack()
    with pytest.raises(ValueError, match="w2_scale: expected scales of both"):
        pack(w2_scale=None)
    with pytest.raises(ValueError, match=r"w1_scale: mxfp4: expected \[E, N, K / 32\]"):
        pack(w1_scale=s2)
    with pytest.raises(ValueError, match="w1, w2: expected"):
        pack(w2=up, w2_scale=s1)
    with pytest.raises(ValueError, match=r"w1: mxfp4: expected codes \[E, N, K / 2\]"):
        pack(w1=up.reshape(2, 64, 4, 8))
    with pytest.raises(ValueError, match="C-contiguous"):
        pack(w1=up[:, ::-1])
    with pytest.raises(TypeError, match="as uint8, got float32"):
        pack(w1=up.astype(numpy.float32))
    with pytest.raises(ValueError, match="block_shape: belongs to format fp8"):
        pack(block_shape=[1, 32])
    with pytest.raises(ValueError, match="belong to formats fp8 and mxfp4"):
        pack(format="bf16")
    s1[1, 5, 1] = 255
    with pytest.raises(ValueError, match="the scale of row N = 5, block 1 is NaN"):
        pack()
    with pytest.raises(ValueError, match="multiple of 32, got 80"):
        ops.pack_experts(numpy.zeros((1, 64, 80), numpy.float32),
                         numpy.zeros((1, 80, 32), numpy.float32), format="mxfp4")
