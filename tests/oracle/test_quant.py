"""Dynamic quantisation and quantised experts against NumPy and torch, written from the contracts of
mojo_opset and MAX.

Codes, scales and integer sums are equal bit for bit, products too, whose order of operations is
defined. Only silu is not NumPy's to the bit: whole layers are compared through our silu bit for bit,
and with torch's by mojo_opset's own tolerance.
"""
import numpy
import pytest

ops = pytest.importorskip("sluice_ops", reason="the Python module is not built")
torch = pytest.importorskip("torch")

F32 = numpy.float32
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def given(values, dtype):
    """f32 values of a dtype, and the array that carries them to the ops (bf16 as its bits)."""
    rounded = torch.from_numpy(numpy.ascontiguousarray(values)).to(DTYPES[dtype])
    array = rounded.view(torch.uint16).numpy() if dtype == "bfloat16" else rounded.numpy()
    return rounded.float().numpy(), array


def rounded(values, dtype):
    return torch.from_numpy(values).to(DTYPES[dtype]).float().numpy()


def int8_rule(y):
    """Codes and scales of rows, as MojoMoEDynamicQuant: true division, half to even."""
    scale = numpy.maximum(numpy.abs(y).max(axis=1, keepdims=True), F32(1e-12)) / F32(127)
    scale = numpy.where(scale < F32(1e-6), F32(1), scale).astype(F32)
    return numpy.clip(numpy.rint(y / scale), -128, 127).astype(numpy.int8), scale


def by_expert(values, counts):
    """[E, D] repeated to the rows of each expert."""
    return numpy.repeat(values, counts, axis=0)


def routed_counts(rng, experts, k, tokens):
    """Rows per expert, ids drawn from twice as many: those of other ranks are dropped."""
    ids = rng.integers(0, 2 * experts, tokens * k)
    return numpy.bincount(ids[ids < experts], minlength=experts).astype(numpy.int32)


# --- dynamic quantisation -----------------------------------------------------------------------

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("experts,k,width", [(16, 2, 512), (24, 4, 1280), (4, 1, 77)])
def test_moe_dynamic_quant(experts, k, width, dtype):
    rng = numpy.random.default_rng(experts + width)
    counts = routed_counts(rng, experts, k, 97)
    x, array = given(rng.standard_normal((counts.sum(), width)).astype(F32), dtype)
    smooth = (rng.random((experts, width)) + 0.5).astype(F32)
    codes, scales = ops.moe_dynamic_quant(array, counts, smooth)
    want_codes, want_scales = int8_rule(x * by_expert(smooth, counts))
    assert codes.dtype == numpy.int8 and scales.shape == (counts.sum(), 1)
    assert (codes == want_codes).all()
    assert (scales == want_scales).all()


def test_rows_below_the_least_scale_become_zeros():
    x = numpy.full((3, 64), 1e-4, F32)  # 1e-4 / 127 < 1e-6
    x[1] = 0
    x[2] = 1.3e-4  # above
    codes, scales = ops.dynamic_quant(x)
    assert scales[:2].ravel().tolist() == [1, 1] and (codes[:2] == 0).all()
    assert (scales[2] == F32(1.3e-4) / F32(127)).all() and (codes[2] == 127).all()


@pytest.mark.parametrize("group", [32, 100, 128, 576, 1000])
def test_dynamic_quant_by_group(group):
    rng = numpy.random.default_rng(group)
    x = rng.standard_normal((9, 576)).astype(F32)
    codes, scales = ops.dynamic_quant(x, group_size=group)
    assert scales.shape == (9, -(-576 // group))
    for g in range(scales.shape[1]):
        part = slice(g * group, (g + 1) * group)
        want_codes, want_scales = int8_rule(x[:, part])
        assert (codes[:, part] == want_codes).all() and (scales[:, g:g + 1] == want_scales).all()


@pytest.mark.parametrize("counts,message", [
    ([3, -1, 2], ">= 0"), ([1, 1, 1], "sum of T = 4"), ([[1, 1, 2]], "one dimension")])
def test_bad_counts_are_refused(counts, message):
    x, smooth = numpy.ones((4, 8), F32), numpy.ones((3, 8), F32)
    with pytest.raises(ValueError, match=message):
        ops.moe_dynamic_quant(x, numpy.array(counts, numpy.int32), smooth)
    with pytest.raises(TypeError, match="int32"):
        ops.moe_dynamic_quant(x, numpy.array([1, 1, 2], F32), smooth)


def float8_rule(x, bound, dtype):
    """One group a row: scale in its dtype, codes by the rounded reciprocal, saturated."""
    kind = DTYPES[dtype]
    amax = torch.from_numpy(numpy.abs(x).max(axis=1)).to(kind)
    scale = torch.minimum(amax, torch.tensor(bound).to(kind)) / torch.tensor(448.0).to(kind)
    factor = 1 / scale
    factor = torch.where((scale == 0) | ~torch.isfinite(factor), torch.zeros((), dtype=kind), factor)
    scaled = torch.from_numpy(x) * factor.float()[:, None]
    codes = scaled.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8)
    return codes.numpy(), scale.float().numpy()


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("scale_dtype", DTYPES)
@pytest.mark.parametrize("rows,width,group", [
    (1, 256, -1), (1, 1024, -1), (1, 16384, -1), (4, 16384, 128), (4, 576, 128), (2, 260, -1),
    (2, 264, -1), (43, 1024, 128)])
def test_dynamic_float8(rows, width, group, scale_dtype, kind):
    rng = numpy.random.default_rng(width + rows)
    x, array = given((rng.standard_normal((rows, width)) * 10).astype(F32), kind)
    codes, scales = ops.quantize_dynamic_scaled_float8(array, group, 1200.0, scale_dtype=scale_dtype)
    size = width if group == -1 else group
    groups = -(-width // size)
    assert codes.shape == x.shape and scales.shape == (groups, rows)
    for g in range(groups):
        part = slice(g * size, (g + 1) * size)
        want_codes, want_scales = float8_rule(x[:, part], 1200.0, scale_dtype)
        assert (scales[g] == want_scales).all()
        assert (codes[:, part] == want_codes).all()


def test_float8_of_tiny_values_is_zero_and_of_large_ones_saturates():
    tiny = numpy.random.default_rng(1).uniform(-1e-38, 1e-38, (4, 512)).astype(F32)
    codes, scales = ops.quantize_dynamic_scaled_float8(tiny, 128)
    assert (codes & 0x7f == 0).all() and (scales == 0).all()
    large = numpy.array([[5000, -2400, 1200, 1]], F32)
    codes, scales = ops.quantize_dynamic_scaled_float8(large)
    want_codes, want_scales = float8_rule(large, 1200.0, "float32")
    assert (codes == want_codes).all() and (scales == want_scales).all()
    assert codes[0, 0] == 0x7e and codes[0, 1] == 0xfe


def test_float8_by_tensor_is_one_group():
    x = numpy.random.default_rng(2).standard_normal((700, 96)).astype(F32)
    codes, scales = ops.quantize_dynamic_scaled_float8(x, per_tensor=True)
    want_codes, want_scales = float8_rule(x.reshape(1, -1), 1200.0, "float32")
    assert scales.shape == (1, 1) and scales[0, 0] == want_scales[0]
    assert (codes.reshape(1, -1) == want_codes).all()


@pytest.mark.parametrize("rows,width,group", [(43, 1024, 128), (3, 16384, 128), (1, 576, 128)])
def test_float8_with_powers_of_two_for_scales(rows, width, group):
    x = numpy.random.default_rng(rows).standard_normal((rows, width)).astype(F32)
    codes, scales = ops.quantize_dynamic_scaled_float8(x, group, scale_dtype="float8_e8m0fnu")
    for g in range(scales.shape[0]):
        part = x[:, g * group:(g + 1) * group]
        least = numpy.maximum(numpy.abs(part).max(axis=1) / F32(448), F32(1e-10))
        want = numpy.exp2(numpy.ceil(numpy.log2(least.astype(numpy.float64)))).astype(F32)
        assert (scales[g] == want).all()
        want_codes = torch.from_numpy(part / want[:, None]).to(torch.float8_e4m3fn).view(torch.uint8)
        assert (codes[:, g * group:(g + 1) * group] == want_codes.numpy()).all()


# --- quantised experts --------------------------------------------------------------------------

def row_pairs(codes):
    """[E, N, K] int4 codes as mojo_opset packs them: rows 2 i (low nibble) and 2 i + 1."""
    low, high = codes[:, 0::2] & 15, codes[:, 1::2] & 15
    return (low | high << 4).astype(numpy.uint8).view(numpy.int8)


def k_pairs(codes):
    """[E, N, K] int4 codes as SGLang and vLLM pack them: even k low, zero point 8."""
    return ((codes[..., 0::2] + 8) | (codes[..., 1::2] + 8) << 4).astype(numpy.uint8)


PACK = {"int8": lambda c: c.astype(numpy.int8), "int4_rows": row_pairs, "int4_k": k_pairs}


class Side:
    """Codes [E, N, K] and scales [E, N, groups] of one product, by the layout's rules."""

    def __init__(self, rng, experts, n, k, layout, group, full):
        least, most = ((-128, 127) if full else (-8, 7)) if layout == "int8" else (-8, 7)
        if full:
            self.codes = rng.integers(least, most + 1, (experts, n, k)).astype(numpy.int32)
        else:
            weights = 0.01 * rng.standard_normal((experts, n, k))
            self.codes = numpy.clip(numpy.rint(weights / 0.005), least, most).astype(numpy.int32)
        groups = 1 if group == -1 else -(-k // group)
        scale = torch.from_numpy(rng.uniform(0.001, 0.006, (experts, n, groups)).astype(F32))
        self.scale_bits = scale.bfloat16().view(torch.uint16).numpy()
        self.scales = scale.bfloat16().float().numpy()
        self.size, self.layout, self.group = (k if group == -1 else group), layout, group

    def packed(self):
        return PACK[self.layout](self.codes)

    def product(self, codes, scales, expert):
        """sum over groups ascending of (f32(sum) * w) * x in f32, sums in 64 bits."""
        y = None
        for g in range(self.scales.shape[2]):
            part = slice(g * self.size, (g + 1) * self.size)
            # Exact in f64: integers far below 2^53.
            sums = codes[:, part].astype(numpy.float64) @ self.codes[expert][:, part].T.astype(
                numpy.float64)
            term = (sums.astype(F32) * self.scales[expert, :, g]) * scales
            y = term if y is None else y + term
        return y


class Layer:
    def __init__(self, experts, k, d, width, tokens, up, down, full, seed=0):
        rng = numpy.random.default_rng(seed)
        self.counts = routed_counts(rng, experts, k, tokens)
        self.up = Side(rng, experts, 2 * width, d, *up, full)
        self.down = Side(rng, experts, d, width, *down, full)
        self.smooth_up = (rng.random((experts, d)) + 0.5).astype(F32)
        self.smooth_down = (rng.random((experts, width)) + 0.5).astype(F32)
        self.x = rng.standard_normal((self.counts.sum(), d)).astype(F32)
        self.x[2] = 0
        self.x[3] *= F32(1e-6)
        self.experts = ops.pack_quant_experts(
            self.up.packed(), self.up.scale_bits, self.down.packed(), self.down.scale_bits,
            up_layout=up[0], down_layout=down[0], up_group_size=up[1], down_group_size=down[1])

    def linear(self, side, codes, scales, dtype):
        starts = numpy.concatenate([[0], numpy.cumsum(self.counts)])
        y = [side.product(codes[a:b], scales[a:b], e)
             for e, (a, b) in enumerate(zip(starts, starts[1:]))]
        return rounded(numpy.concatenate(y), dtype)

    def run(self, x, dtype, silu_and_mul):
        codes, scales = int8_rule(x * by_expert(self.smooth_up, self.counts))
        hidden = silu_and_mul(self.linear(self.up, codes, scales, dtype))
        codes, scales = int8_rule(hidden * by_expert(self.smooth_down, self.counts))
        return self.linear(self.down, codes, scales, dtype)


def torch_silu_and_mul(y):
    gate, up = torch.from_numpy(y).chunk(2, dim=1)
    return (torch.nn.functional.silu(gate) * up).numpy()


SHAPES = [(16, 2, 512, 1280, 33), (24, 4, 512, 1280, 97)]  # E, K, D, I, T
FORMATS = {
    "int4": (("int4_rows", 512), ("int4_rows", 320)),
    "int8": (("int8", -1), ("int8", -1)),
    "int4_k": (("int4_k", 128), ("int4_k", 256)),
    "short_tails": (("int4_rows", 320), ("int8", 768)),
    "mixed": (("int8", -1), ("int4_rows", -1)),
}


# Upstream's shapes and formats with its small codes, then what it leaves out: every code, K pairs,
# short tails, sides that differ.
CASES = [(shape, formats, dtype, False) for shape in SHAPES for formats in ("int4", "int8")
         for dtype in ("bfloat16", "float16")]
CASES += [(SHAPES[0], formats, "bfloat16", True) for formats in FORMATS]
CASES += [(SHAPES[0], "short_tails", "float16", True)]


@pytest.mark.parametrize("shape,formats,dtype,full", CASES, ids=str)
def test_quant_experts(shape, formats, dtype, full):
    layer = Layer(*shape, *FORMATS[formats], full, seed=shape[0])
    x, array = given(layer.x, dtype)
    got = ops.quant_experts(array, layer.counts, layer.experts, layer.smooth_up, layer.smooth_down,
                            dtype=dtype)
    want = layer.run(x, dtype, ops.silu_and_mul)
    assert (got.view(numpy.uint32) == want.view(numpy.uint32)).all()
    # With torch's silu a code may move by one where it lies between two.
    plain = layer.run(x, dtype, torch_silu_and_mul)
    bound = numpy.maximum(2.0 ** -6, 2.0 ** -6 * numpy.abs(plain))
    if not full:
        assert (numpy.abs(got - plain) <= bound).all()
    assert (got[2] == 0).all() and (got[3] == 0).all()


@pytest.mark.parametrize("formats", FORMATS)
def test_quant_group_gemm_is_exact(formats):
    layer = Layer(8, 2, 512, 320, 40, *FORMATS[formats], True, seed=5)
    rng = numpy.random.default_rng(6)
    rows = layer.counts.sum()
    for side, name in ((layer.up, "up"), (layer.down, "down")):
        codes = rng.integers(-128, 128, (rows, side.codes.shape[2])).astype(numpy.int8)
        scales = rng.uniform(0.001, 0.1, (rows, 1)).astype(F32)
        for dtype in DTYPES:
            got = ops.quant_group_gemm(codes, scales, layer.counts, layer.experts, side=name,
                                       dtype=dtype)
            want = layer.linear(side, codes, scales, dtype)
            assert (got.view(numpy.uint32) == want.view(numpy.uint32)).all()


# Megablox' quantised gmm: blocks along K, some experts empty. e2m1's doubled values are integers.
E2M1 = numpy.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12])


@pytest.mark.parametrize("block", [64, 128, 256, 512, 1024])
@pytest.mark.parametrize("kind", ["int8", "int4_rows", "e2m1"])
def test_grouped_gemm_with_blocks(kind, block):
    experts, rows, k, n = 16, 128, 1024, 512
    rng = numpy.random.default_rng(block)
    counts = numpy.bincount(rng.integers(0, 12, rows), minlength=experts).astype(numpy.int32)
    layout = "int8" if kind == "e2m1" else kind
    up = Side(rng, experts, 2 * k, n, layout, -1, True)
    down = Side(rng, experts, n, k, layout, block, True)
    if kind == "e2m1":
        down.codes = E2M1[rng.integers(0, 16, down.codes.shape)].astype(numpy.int32)
    packed = ops.pack_quant_experts(up.packed(), up.scale_bits, down.packed(), down.scale_bits,
                                    up_layout=layout, down_layout=layout, down_group_size=block)
    codes = rng.integers(-128, 128, (rows, k)).astype(numpy.int8)
    scales = rng.uniform(0.001, 0.1, (rows, 1)).astype(F32)
    got = ops.quant_group_gemm(codes, scales, counts, packed, side="down", dtype="float32")
    starts = numpy.concatenate([[0], numpy.cumsum(counts)])
    want = [down.product(codes[a:b], scales[a:b], e)
            for e, (a, b) in enumerate(zip(starts, starts[1:]))]
    assert (got == numpy.concatenate(want)).all() and (counts == 0).any()


@pytest.mark.parametrize("counts,experts", [
    ([3, 0, 5, 4], 4), ([2, 1, 0, 3, 4, 0, 5, 2], 8), ([2, 1, 0, 3] + [0] * 380, 384), ([0, 0], 2)])
def test_counts_of_upstream(counts, experts):
    layer = Layer(experts, 1, 96, 64, 40, ("int8", -1), ("int4_rows", 32), False)
    layer.counts = numpy.array(counts, numpy.int32)
    x, array = given(numpy.random.default_rng(3).standard_normal((sum(counts), 96)).astype(F32),
                     "bfloat16")
    got = ops.quant_experts(array, layer.counts, layer.experts, layer.smooth_up, layer.smooth_down)
    assert got.shape == (sum(counts), 96)
    if len(x):
        assert (got == layer.run(x, "bfloat16", ops.silu_and_mul)).all()


def test_fused_experts_sorts_and_combines():
    layer = Layer(16, 2, 256, 128, 33, ("int4_rows", 64), ("int8", -1), False, seed=9)
    rng = numpy.random.default_rng(10)
    tokens, k = 29, 4
    x = rng.standard_normal((tokens, 256)).astype(F32)
    ids = rng.integers(0, 32, (tokens, k)).astype(numpy.int32)  # half of them are elsewhere
    weights = rng.random((tokens, k)).astype(F32)
    got = ops.fused_experts(x, layer.experts, weights, ids, inv_smooth_up=layer.smooth_up,
                            inv_smooth_down=layer.smooth_down)
    want = numpy.zeros((tokens, 256), numpy.float64)
    for t in range(tokens):
        for i in range(k):
            if ids[t, i] >= 16:
                continue
            counts = numpy.bincount([ids[t, i]], minlength=16).astype(numpy.int32)
            y = ops.quant_experts(x[t:t + 1], counts, layer.experts, layer.smooth_up,
                                  layer.smooth_down)
            want[t] += weights[t, i].astype(numpy.float64) * y[0]
    bound = 2 * k * 2.0 ** -24 * numpy.abs(want).max()
    numpy.testing.assert_allclose(got, want, rtol=1e-6, atol=bound)


def test_repacking_between_the_layouts():
    rng = numpy.random.default_rng(4)
    codes = rng.integers(-8, 8, (1, 30, 64))
    rows, pairs = row_pairs(codes)[0], k_pairs(codes)[0]
    assert (ops.repack_int4(rows, "int4_rows", "int4_k") == pairs).all()
    assert (ops.repack_int4(pairs, "int4_k", "int4_rows") == rows.view(numpy.uint8)).all()
    with pytest.raises(ValueError, match="N is even"):
        ops.repack_int4(pairs[:29], "int4_k", "int4_rows")
    with pytest.raises(ValueError, match="two layouts of int4"):
        ops.repack_int4(rows, "int8", "int4_k")


def test_bad_weights_are_refused():
    up, down = numpy.zeros((2, 8, 64), numpy.int8), numpy.zeros((2, 64, 4), numpy.int8)
    good_up, good_down = numpy.ones((2, 8, 1), F32), numpy.ones((2, 64, 1), F32)
    ops.pack_quant_experts(up, good_up, down, good_down)
    for bad in (0, numpy.nan, numpy.inf):
        scale = good_up.copy()
        scale[1, 5] = bad
        with pytest.raises(ValueError, match="n = 5, group 0: expected finite and not zero"):
            ops.pack_quant_experts(up, scale, down, good_down)
    with pytest.raises(ValueError, match="expected"):
        ops.pack_quant_experts(up, good_up, down, good_down, up_group_size=8)
    with pytest.raises(ValueError, match="scales: expected"):
        ops.pack_quant_experts(up, good_up, down, good_down, up_group_size=32)
    with pytest.raises(ValueError, match="up_weight, down_weight"):
        ops.pack_quant_experts(up, good_up, up, good_up)
    with pytest.raises(TypeError, match="int8 or uint8"):
        ops.pack_quant_experts(up.astype(F32), good_up, down, good_down)
    with pytest.raises(ValueError, match="layout"):
        ops.pack_quant_experts(up, good_up, down, good_down, up_layout="int5")
