"""fp8 x fp8 expert products against NumPy and torch, written from the contracts of MAX's grouped
fp8 product (row-wise and block-wise) and SGLang's fused experts in fp8.

The codes are torch's float8_e4m3fn. The order of operations is defined, so that NumPy repeats it
bit for bit (a fused multiply-add of f32 whose product is exact is one rounding of an f64 sum);
upstreams' own orders, and exact sums in f64, are compared by the bound that the header derives.
"""
import numpy
import pytest

ops = pytest.importorskip("sluice_ops", reason="the Python module is not built")
torch = pytest.importorskip("torch")

F32, F64 = numpy.float32, numpy.float64
EPS = 2.0 ** -24


def ceil_div(a, b):
    return -(-a // b)


def decoded(codes):
    return torch.from_numpy(codes).view(torch.float8_e4m3fn).to(torch.float64).numpy()


def random_codes(rng, shape):
    """Every code but the two NaNs."""
    codes = rng.integers(0, 256, shape).astype(numpy.uint8)
    return numpy.where(codes & 0x7f == 0x7f, codes & 0x80, codes).astype(numpy.uint8)


class Weights:
    """Codes [E, N, K] and the scales of one upstream form; `at` widens them to [E, N, K]."""

    def __init__(self, rng, experts, n, k, form, block):
        self.codes = random_codes(rng, (experts, n, k))
        shape = {"tensor": (experts,), "channel": (experts, n),
                 "block": block and (experts, ceil_div(n, block[0]), ceil_div(k, block[1]))}[form]
        self.scales = rng.uniform(1e-3, 1e-2, shape).astype(F32)
        wide = self.scales
        if form == "block":
            wide = wide.repeat(block[0], axis=1)[:, :n].repeat(block[1], axis=2)[:, :, :k]
        else:
            wide = wide.reshape(experts, -1, 1)
        self.at = numpy.broadcast_to(wide, (experts, n, k)).copy()


def by_order(x, x_scale, w, w_scale, group):
    """[T, K] by [N, K], f64 values of codes: 32 k at a time, even and odd k apart, then groups."""
    k, y = x.shape[1], None
    for g, begin in enumerate(range(0, k, group)):
        end = min(k, begin + group)
        total = numpy.zeros((len(x), len(w)), F32)
        for step in range(begin, end, 32):
            parts = [numpy.zeros_like(total), numpy.zeros_like(total)]
            for i in range(step, min(end, step + 32)):
                product = x[:, i, None] * w[None, :, i]
                parts[(i - step) % 2] = (parts[(i - step) % 2].astype(F64) + product).astype(F32)
            total = total + (parts[0] + parts[1])
        term = (total * x_scale[:, g:g + 1]) * w_scale[None, :, begin]
        y = term if y is None else y + term
    return y


def bound(x, x_scale, w, w_scale, group):
    """Of |ours - exact|, and the exact result; scales widened to k."""
    k = x.shape[1]
    groups, steps = ceil_div(k, group), ceil_div(min(group, k), 32)
    wide = x * x_scale.astype(F64)
    exact = wide @ (w * w_scale).T
    size = numpy.abs(wide) @ numpy.abs(w * w_scale).T
    return 1.01 * (19 + groups + steps) * EPS * size, exact


# (form of the weights' scales, block, group of k, x's scales): MAX row-wise, block-wise; SGLang's
# tensor, channel and block; what they leave out: ragged blocks, groups that no tile divides.
FORMS = {
    "tensor": ("tensor", None, -1, "tensor"),
    "tensor_by_row": ("tensor", None, -1, "row"),
    "row": ("channel", None, -1, "row"),
    "block": ("block", (128, 128), 128, "group"),
    "block_by_row": ("block", (128, 128), 128, "row"),
    "channel_by_group": ("channel", None, 128, "group"),
    "odd_block": ("block", (48, 80), 80, "group"),
}
# MAX's fp8 shapes (E, N, K) and rows of experts; ragged edges; one row; no rows of some experts.
SHAPES = [((4, 256, 256), [128, 0, 3, 17]), ((4, 256, 128), [5, 64, 1, 2]),
          ((4, 256, 192), [32, 9, 0, 1]), ((3, 200, 300), [1, 0, 40]), ((1, 17, 31), [2])]


class Case:
    def __init__(self, shape, counts, form, seed=0):
        rng = numpy.random.default_rng(seed)
        (experts, n, k), rows = shape, sum(counts)
        weights, block, group, scope = FORMS[form]
        self.counts = numpy.array(counts, numpy.int32)
        self.group = k if group == -1 else group
        self.w = Weights(rng, experts, n, k, weights, block)
        self.x = random_codes(rng, (rows, k))
        groups = ceil_div(k, self.group)
        size = {"tensor": (1, 1), "row": (rows, 1), "group": (rows, groups)}[scope]
        self.given_scale = rng.uniform(1e-3, 1e-1, size).astype(F32)
        self.x_scale = numpy.broadcast_to(self.given_scale, (rows, groups))
        self.block, self.group_size = block, group

    def packed(self):
        # The module packs both sides of a layer; the second is not used here.
        experts, n, k = self.w.codes.shape
        if self.block is None:
            scale = self.w.scales
            down = numpy.ones((experts,), F32)
        else:
            scale = self.w.scales
            down = numpy.ones((experts, ceil_div(k, self.block[0]),
                               ceil_div(n // 2, self.block[1])), F32)
        return ops.pack_fp8_experts(
            self.w.codes, scale, numpy.zeros((experts, k, n // 2), numpy.uint8), down,
            block_shape=self.block, group_size=self.group_size)

    def experts(self):
        start = 0
        for e, count in enumerate(self.counts):
            yield e, slice(start, start + count)
            start += count


def even(shape):
    """The module takes up [2I, D]: an even N."""
    (experts, n, k), counts = shape
    return (experts, n + n % 2, k), counts


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_grouped_product(shape, form):
    case = Case(*even(shape), form, seed=len(form))
    got = ops.quant_group_gemm(case.x, case.given_scale, case.counts, case.packed(), side="up")
    x = decoded(case.x)
    for e, rows in case.experts():
        w, w_scale = decoded(case.w.codes[e]), case.w.at[e]
        want = by_order(x[rows], case.x_scale[rows], w, w_scale, case.group)
        assert (got[rows].view(numpy.uint32) == want.view(numpy.uint32)).all()
        wide = case.x_scale[rows].repeat(case.group, axis=1)[:, :x.shape[1]]
        limit, exact = bound(x[rows], wide, w, w_scale, case.group)
        assert (numpy.abs(got[rows] - exact) <= limit).all()


def test_block_product_of_sglang():
    """acc += dot(a, b) * a_scale * b_scale for each block of k, by torch in f32."""
    case = Case((2, 384, 512), [7, 33], "block", seed=3)
    got = ops.quant_group_gemm(case.x, case.given_scale, case.counts, case.packed(), side="up")
    x = decoded(case.x)
    for e, rows in case.experts():
        w = decoded(case.w.codes[e])
        acc = torch.zeros((rows.stop - rows.start, 384))
        for g in range(4):
            part = slice(128 * g, 128 * g + 128)
            dot = torch.from_numpy(x[rows, part]).float() @ torch.from_numpy(w[:, part]).float().T
            acc += (dot * torch.from_numpy(case.x_scale[rows, g:g + 1].copy())
                    * torch.from_numpy(case.w.at[e][:, 128 * g].copy()))
        wide = case.x_scale[rows].repeat(128, axis=1)
        limit, _ = bound(x[rows], wide, w, case.w.at[e], 128)
        # Theirs may sum 128 products one by one.
        theirs = limit * (128 + 6) / (19 + 4 + 4)
        assert (numpy.abs(got[rows] - acc.numpy()) <= limit + theirs).all()


def max_rule(x, group, most=1200):
    """MAX's dynamic fp8: codes, and scales [T, groups]: amax / 448, bounded by 1200 / 448."""
    codes, scales = [], []
    for begin in range(0, x.shape[1], group):
        part = x[:, begin:begin + group]
        scale = numpy.minimum(numpy.abs(part).max(axis=1), F32(most)) / F32(448)
        with numpy.errstate(divide="ignore", over="ignore"):
            factor = F32(1) / scale
        factor = numpy.where((scale == 0) | ~numpy.isfinite(factor), F32(0), factor).astype(F32)
        scaled = torch.from_numpy(part * factor[:, None]).clamp(-448, 448)
        codes.append(scaled.to(torch.float8_e4m3fn).view(torch.uint8).numpy())
        scales.append(scale)
    return numpy.concatenate(codes, axis=1), numpy.stack(scales, axis=1).astype(F32)


def rounded(y, dtype):
    kinds = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
    return torch.from_numpy(y).to(kinds[dtype]).float().numpy()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("form", ["row", "block", "tensor_by_row"])
def test_experts_with_dynamic_activations(form, dtype):
    weights, block, size, scope = FORMS[form]
    rng = numpy.random.default_rng(11)
    experts, d, width, counts = 3, 256, 136, numpy.array([4, 0, 9], numpy.int32)
    up = Weights(rng, experts, 2 * width, d, weights, block)
    down = Weights(rng, experts, d, width, weights, block)
    up.scales *= F32(2.0 ** -6)  # keep the layer's values near one
    up.at = up.at * F32(2.0 ** -6)
    packed = ops.pack_fp8_experts(up.codes, up.scales, down.codes, down.scales, block_shape=block,
                                  group_size=size)
    x = rng.standard_normal((counts.sum(), d)).astype(F32)
    x[1] = 0
    got = ops.quant_experts(x, counts, packed, dtype=dtype)  # by group as the weights are

    def linear(values, side):
        group = size if scope == "group" else values.shape[1]
        codes, scales = max_rule(values, group)
        group = values.shape[1] if size == -1 else size
        scales = numpy.broadcast_to(scales, (len(values), ceil_div(values.shape[1], group)))
        out, start = [], 0
        for e, count in enumerate(counts):
            rows = slice(start, start + count)
            out.append(by_order(decoded(codes[rows]), scales[rows], decoded(side.codes[e]),
                                side.at[e], group))
            start += count
        return rounded(numpy.concatenate(out), dtype)

    want = linear(ops.silu_and_mul(linear(x, up)), down)
    assert (got.view(numpy.uint32) == want.view(numpy.uint32)).all()
    assert (got[1] == 0).all()


@pytest.mark.parametrize("form", ["block", "channel_by_group", "tensor_by_row"])
def test_engine_layer_in_fp8(form):
    """fused_experts, mode fp8: bit for bit from codes that are kept, at ragged edges, whatever
    the weights' scales; the products within the bound of the header of the exact sums."""
    weights, block, _, _ = FORMS[form]
    rng = numpy.random.default_rng(17)
    experts, d, width, tokens, k = 3, 320, 256, 6, 2
    up = Weights(rng, experts, 2 * width, d, weights, block)
    down = Weights(rng, experts, d, width, weights, block)
    up.scales *= F32(2.0 ** -6)
    up.at = up.at * F32(2.0 ** -6)
    packed = ops.pack_experts(up.codes, down.codes, format="fp8", w1_scale=up.scales,
                              w2_scale=down.scales, block_shape=block and list(block))
    x = rng.standard_normal((tokens, d)).astype(F32)
    x[1] = 0
    x[2, 5] = 5000  # beyond 1200: no bound here
    ids = numpy.stack([rng.permutation(experts)[:k] for _ in range(tokens)]).astype(numpy.int32)
    routed = rng.uniform(0.1, 1, (tokens, k)).astype(F32)
    got = ops.fused_experts(x, packed, routed, ids, mode="fp8")

    def product(y, side, e):
        codes, s = max_rule(y, 128, numpy.inf)
        w, w_scale = decoded(side.codes[e]), side.at[e]
        out = by_order(decoded(codes), s, w, w_scale, 128)
        limit, exact = bound(decoded(codes), s.repeat(128, axis=1)[:, :y.shape[1]], w, w_scale, 128)
        assert (numpy.abs(out - exact) <= limit).all()
        return out
    want = numpy.zeros((tokens, d), F32)
    for t in range(tokens):
        for i in range(k):  # a fused multiply-add is one rounding of the f64 sum
            e = ids[t, i]
            y = product(ops.silu_and_mul(product(x[t:t + 1], up, e)), down, e)[0]
            want[t] = (F64(routed[t, i]) * y + want[t]).astype(F32)
    assert (got.view(numpy.uint32) == want.view(numpy.uint32)).all()
    assert (got[1] == 0).all()
    assert (ops.fused_experts(x, packed, routed, ids) != got).any(), "mode changed nothing"
    with pytest.raises(ValueError, match="mode: bf16: expected one of default, a16, got fp8"):
        wide = [numpy.zeros_like(side.codes, F32) for side in (up, down)]
        ops.fused_experts(x, ops.pack_experts(*wide), routed, ids, mode="fp8")


def test_nan_stays_in_its_row():
    case = Case((2, 32, 64), [3, 2], "row", seed=5)
    clean = ops.quant_group_gemm(case.x, case.given_scale, case.counts, case.packed())
    case.x[3, 7] = 0x7f
    got = ops.quant_group_gemm(case.x, case.given_scale, case.counts, case.packed())
    assert numpy.isnan(got[3]).all()
    others = [0, 1, 2, 4]
    assert (got[others] == clean[others]).all()


def test_what_is_refused():
    up, down = numpy.zeros((2, 8, 64), numpy.uint8), numpy.zeros((2, 64, 4), numpy.uint8)
    one = numpy.ones(2, F32)
    packed = ops.pack_fp8_experts(up, one, down, one)
    bad = up.copy()
    bad[1, 2, 3] = 0xff
    with pytest.raises(ValueError, match=r"codes: \(n, k\) = \(2, 3\) is NaN"):
        ops.pack_fp8_experts(bad, one, down, one)
    with pytest.raises(ValueError, match="expected finite, got inf"):
        ops.pack_fp8_experts(up, one * F32("inf"), down, one)
    with pytest.raises(ValueError, match="expected a multiple of the group"):
        ops.pack_fp8_experts(up, numpy.ones((2, 1, 2), F32), down, numpy.ones((2, 1, 1), F32),
                             block_shape=(128, 33), group_size=32)
    with pytest.raises(ValueError, match=r"scales: expected \[N, groups\]"):
        ops.pack_fp8_experts(up, numpy.ones((2, 3), F32), down, one)
    x, counts = numpy.zeros((2, 64), numpy.uint8), numpy.array([1, 1], numpy.int32)
    with pytest.raises(TypeError, match="uint8, the bits of e4m3"):
        ops.quant_group_gemm(x.view(numpy.int8), numpy.ones(2, F32), counts, packed)
    with pytest.raises(ValueError, match="x_scale: expected"):
        ops.quant_group_gemm(x, numpy.ones((2, 3), F32), counts, packed)
