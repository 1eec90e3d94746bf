"""The ops of the module sluice_ops against NumPy and torch, written from the upstreams' contracts.

Ids, offsets and padding are exact; weights and layer outputs are held to derived bounds, and to equal
bits where a promise says so (batch, threads).
"""
import numpy
import pytest

ops = pytest.importorskip("sluice_ops", reason="the Python module is not built")
torch = pytest.importorskip("torch")

EPS = 2.0 ** -24


def softmax(logits):
    e = numpy.exp(logits.astype(numpy.float64) - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def best(values, k):
    """The k best of each row by (value descending, id ascending)."""
    return numpy.argsort(-values, axis=1, kind="stable")[:, :k].astype(numpy.int32)


def planted(rng, tokens, experts):
    """Logits on a coarse grid: many exact ties."""
    return (rng.integers(-8, 8, (tokens, experts)) / 4).astype(numpy.float32)


SHAPES = [(8, 2), (64, 4), (128, 4), (128, 8), (256, 8), (384, 8), (512, 10), (7, 3)]


@pytest.mark.parametrize("experts,k", SHAPES)
@pytest.mark.parametrize("renormalize", [True, False])
def test_topk_softmax(experts, k, renormalize):
    rng = numpy.random.default_rng(experts + k)
    for tokens in (0, 1, 7, 64, 128, 1024):
        for logits in (rng.standard_normal((tokens, experts)).astype(numpy.float32),
                       planted(rng, tokens, experts)):
            weights, ids, rows = ops.topk_softmax(logits, k, renormalize=renormalize)
            assert weights.shape == ids.shape == rows.shape == (tokens, k)
            if tokens == 0:
                continue
            assert (ids == best(logits, k)).all()
            want = numpy.take_along_axis(softmax(logits), ids.astype(numpy.int64), axis=1)
            if renormalize:
                want = want / want.sum(axis=1, keepdims=True)
            numpy.testing.assert_allclose(weights, want, rtol=1e-6, atol=1e-9)
            assert (rows == numpy.arange(tokens)[:, None] + tokens * numpy.arange(k)).all()


def test_topk_softmax_reads_strided_and_narrow_logits():
    rng = numpy.random.default_rng(1)
    wide = rng.standard_normal((33, 138)).astype(numpy.float32)
    strided = wide[:, :128]
    want = ops.topk_softmax(numpy.ascontiguousarray(strided), 8)
    for got, expected in zip(ops.topk_softmax(strided, 8), want):
        assert (got == expected).all()
    half = strided.astype(numpy.float16)
    assert (ops.topk_softmax(half, 8)[1] == best(half.astype(numpy.float32), 8)).all()
    bits = torch.from_numpy(numpy.ascontiguousarray(strided)).bfloat16().view(torch.uint16).numpy()
    rounded = torch.from_numpy(bits.astype(numpy.int32) << 16).view(torch.float32).numpy()
    assert (ops.topk_softmax(bits, 8)[1] == best(rounded, 8)).all()


def test_non_finite_logits_keep_ids_distinct_and_weights_finite():
    logits = numpy.random.default_rng(2).standard_normal((16, 128)).astype(numpy.float32)
    logits[:, ::9] = numpy.nan
    logits[3, :] = -numpy.inf
    logits[4, :] = numpy.nan
    logits[5, 7] = numpy.inf
    weights, ids, _ = ops.topk_softmax(logits, 8)
    assert numpy.isfinite(weights).all()
    assert ((ids >= 0) & (ids < 128)).all()
    assert all(len(set(row)) == 8 for row in ids.tolist())
    usual = [t for t in range(16) if t not in (3, 4, 5)]
    assert not numpy.isnan(numpy.take_along_axis(logits, ids.astype(numpy.int64), 1)[usual]).any()


@pytest.mark.parametrize("experts,k", [(16, 1), (128, 1), (128, 8)])
def test_topk_sigmoid(experts, k):
    logits = numpy.random.default_rng(k).standard_normal((65, experts)).astype(numpy.float32)
    weights, ids = ops.topk_sigmoid(logits, k)
    assert (ids == best(logits, k)).all()
    chosen = numpy.take_along_axis(logits.astype(numpy.float64), ids.astype(numpy.int64), 1)
    numpy.testing.assert_allclose(weights, 1 / (1 + numpy.exp(-chosen)), rtol=1e-6)


@pytest.mark.parametrize("experts,groups,kept,k,scale",
                         [(256, 8, 4, 8, 2.5), (384, 1, 1, 8, 2.827), (896, 1, 1, 16, 1.0)])
def test_grouped_topk_with_bias(experts, groups, kept, k, scale):
    rng = numpy.random.default_rng(experts)
    logits = rng.standard_normal((50, experts)).astype(numpy.float32)
    bias = (rng.standard_normal(experts) * 2).astype(numpy.float32)  # negative choice scores too
    weights, ids = ops.grouped_topk(logits, k, True, groups, kept, scoring_func="sigmoid",
                                    correction_bias=bias, routed_scaling_factor=scale)
    score = torch.sigmoid(torch.from_numpy(logits)).numpy().astype(numpy.float64)
    choice = score + bias
    grouped = choice.reshape(50, groups, -1)
    strength = numpy.sort(grouped, axis=2)[:, :, -2:].sum(axis=2)
    allowed = numpy.zeros((50, groups), bool)
    numpy.put_along_axis(allowed, best(strength, kept).astype(numpy.int64), True, 1)
    masked = numpy.where(allowed[:, :, None], grouped, -numpy.inf).reshape(50, experts)
    want_ids = best(masked, k).astype(numpy.int64)
    # f32 scores may order two that differ by less than their rounding the other way.
    chosen = numpy.take_along_axis(masked, ids.astype(numpy.int64), 1)
    close = numpy.abs(chosen - numpy.take_along_axis(masked, want_ids, 1)) < 1e-5
    assert ((ids == want_ids) | close).all()
    want = numpy.take_along_axis(score, ids.astype(numpy.int64), 1)
    want = want / want.sum(axis=1, keepdims=True) * scale
    numpy.testing.assert_allclose(weights, want, rtol=3e-6)


def align(ids, block, experts, expert_map=None):
    """vLLM's contract, with the stable order."""
    flat = ids.reshape(-1)
    pairs, blocks = [], []
    local = expert_map if expert_map is not None else numpy.arange(experts)
    by_local = {}
    for f, e in enumerate(flat):
        if 0 <= e < experts and local[e] >= 0:
            by_local.setdefault(int(local[e]), []).append(f)
    for e in sorted(by_local):
        run = by_local[e]
        run += [flat.size] * (-len(run) % block)
        pairs += run
        blocks += [e] * (len(run) // block)
    return pairs, blocks


@pytest.mark.parametrize("experts", [8, 64, 128, 256])
@pytest.mark.parametrize("block", [16, 32, 64, 128, 256])
def test_moe_align_block_size(experts, block):
    rng = numpy.random.default_rng(experts * block)
    for tokens, k in ((0, 2), (1, 1), (5, 8), (300, 4)):
        ids = rng.integers(-1, experts + 1, (tokens, k)).astype(numpy.int32)
        for case in (ids, numpy.full_like(ids, experts - 1)):
            pairs, blocks, padded = ops.moe_align_block_size(case, block, experts)
            want_pairs, want_blocks = align(case, block, experts)
            assert padded[0] == len(want_pairs)
            assert pairs[:len(want_pairs)].tolist() == want_pairs
            assert blocks[:len(want_blocks)].tolist() == want_blocks
            assert (pairs[len(want_pairs):] == case.size).all()
            assert (blocks[len(want_blocks):] == -1).all()


def test_moe_align_block_size_with_an_expert_map():
    ids = numpy.random.default_rng(5).integers(0, 8, (40, 2)).astype(numpy.int32)
    expert_map = numpy.array([-1, 0, -1, 1, 2, -1, -1, 3], numpy.int32)
    pairs, blocks, padded = ops.moe_align_block_size(ids, 16, 8, expert_map)
    want_pairs, want_blocks = align(ids, 16, 8, expert_map)
    assert padded[0] == len(want_pairs)
    assert pairs[:padded[0]].tolist() == want_pairs
    assert blocks[:len(want_blocks)].tolist() == want_blocks


def test_moe_sorting_example():
    ids = numpy.array([[0, 2], [2, 0], [3, 0]], numpy.int32)
    weights = numpy.arange(1, 7, dtype=numpy.float32).reshape(3, 2)
    pairs, sorted_weights, blocks, valid = ops.moe_sorting(ids, weights, 4, 4)
    pad = 2 << 24 | 3

    def at(token, slot):
        return token | slot << 24

    assert valid.tolist() == [12, 3]
    assert pairs[:12].tolist() == [at(0, 0), at(1, 1), at(2, 1), pad, at(0, 1), at(1, 0), pad, pad,
                                   at(2, 0), pad, pad, pad]
    assert sorted_weights[:12].tolist() == [1, 4, 6, 0, 2, 3, 0, 0, 5, 0, 0, 0]
    assert blocks[:3].tolist() == [0, 2, 3]


def test_moe_sorting_live_tokens_and_mask():
    rng = numpy.random.default_rng(6)
    ids = numpy.stack([rng.permutation(16)[:4] for _ in range(30)]).astype(numpy.int32)
    weights = rng.random((30, 4)).astype(numpy.float32)
    mask = (rng.random(16) < 0.5).astype(numpy.int32)
    local = numpy.where(mask == 1, numpy.cumsum(mask) - 1, -1).astype(numpy.int32)
    pairs, _, blocks, valid = ops.moe_sorting(ids, weights, 16, 8, mask, 21)
    want_pairs, want_blocks = align(ids[:21], 8, 16, local)
    want = [4 << 24 | 21 if f == 84 else f // 4 | f % 4 << 24 for f in want_pairs]
    assert valid.tolist() == [len(want), 21]
    assert pairs[:len(want)].tolist() == want
    assert blocks[:len(want_blocks)].tolist() == want_blocks


def test_moe_create_indices():
    ids = numpy.random.default_rng(7).integers(0, 9, 100).astype(numpy.int32)
    order, starts, restore, counts = ops.moe_create_indices(ids, 9)
    assert (order == numpy.argsort(ids, kind="stable")).all()
    assert (counts == numpy.bincount(ids, minlength=9)).all()
    assert starts.tolist() == [0] + numpy.cumsum(counts).tolist()
    assert (order[restore] == numpy.arange(100)).all()


ACTIVATIONS = {
    "silu": lambda g, u: torch.nn.functional.silu(g) * u,
    "gelu_tanh": lambda g, u: torch.nn.functional.gelu(g, approximate="tanh") * u,
    "gelu_erf": lambda g, u: torch.nn.functional.gelu(g) * u,
    "swiglu_oai": lambda g, u: (u.clamp(-7, 7) + 1) * g.clamp(max=7) *
    torch.sigmoid(1.702 * g.clamp(max=7)),
}


def layer(x, w1, w2, weights, ids, activation, b1=None, b2=None):
    """The expert layer in float64, token by token."""
    x, w1, w2 = (torch.from_numpy(a).double() for a in (x, w1, w2))
    out = torch.zeros(x.shape[0], w2.shape[1], dtype=torch.float64)
    width = w2.shape[2]
    for t in range(x.shape[0]):
        for k in range(ids.shape[1]):
            e = int(ids[t, k])
            gu = w1[e] @ x[t] + (0 if b1 is None else torch.from_numpy(b1[e]).double())
            y = w2[e] @ ACTIVATIONS[activation](gu[:width], gu[width:])
            out[t] += float(weights[t, k]) * (y + (0 if b2 is None else
                                                   torch.from_numpy(b2[e]).double()))
    return out.numpy()


def problem(seed, tokens, experts, k, d, width):
    rng = numpy.random.default_rng(seed)

    def normal(*shape):
        return rng.standard_normal(shape, dtype=numpy.float32)

    x = normal(tokens, d)
    w1 = normal(experts, 2 * width, d) / numpy.float32(d ** 0.5)
    w2 = normal(experts, d, width) / numpy.float32(width ** 0.5)
    weights, ids, _ = ops.topk_softmax(normal(tokens, experts), k)
    return x, w1, w2, weights, ids


def relative(got, want):
    return numpy.sqrt(((got - want) ** 2).mean() / (want ** 2).mean())


# d and width of mixtral (cut), Qwen3-30B-A3B, Qwen3-235B-A22B, Gemma 4, gpt-oss; odd ones of AITER.
@pytest.mark.parametrize("d,width,activation", [(512, 256, "silu"), (2048, 768, "silu"),
                                                (4096, 1536, "silu"), (2816, 704, "gelu_tanh"),
                                                (2880, 720, "swiglu_oai"), (800, 400, "gelu_erf")])
def test_fused_experts(d, width, activation):
    x, w1, w2, weights, ids = problem(d, 8, 8, 2, d, width)
    want = layer(x, w1, w2, weights, ids, activation)
    for fmt, compute, most in (("f32", "f32", 20 * EPS * d ** 0.5), ("bf16", "bf16", 1e-2),
                               ("int8", "bf16", 3e-2), ("int4", "bf16", 0.2)):
        packed = ops.pack_experts(w1, w2, format=fmt)
        got = ops.fused_experts(x, packed, weights, ids, activation=activation, compute=compute)
        assert relative(got, want) < most, fmt
        for t in (0, 5):  # a token's bits do not depend on the batch
            one = ops.fused_experts(x[t:t + 1], packed, weights[t:t + 1], ids[t:t + 1],
                                    activation=activation, compute=compute)
            assert (one[0] == got[t]).all(), fmt


def test_layouts_and_biases():
    x, w1, w2, weights, ids = problem(3, 5, 4, 2, 96, 48)
    rng = numpy.random.default_rng(4)
    b1 = rng.standard_normal((4, 96)).astype(numpy.float32)
    b2 = rng.standard_normal((4, 96)).astype(numpy.float32)
    plain = ops.fused_experts(x, ops.pack_experts(w1, w2, format="f32", w1_bias=b1, w2_bias=b2),
                              weights, ids, compute="f32")
    want = layer(x, w1, w2, weights, ids, "silu", b1, b2)
    assert relative(plain, want) < 1e-5
    swapped = numpy.concatenate([numpy.arange(48, 96), numpy.arange(48)])
    woven = numpy.stack([numpy.arange(48), numpy.arange(48, 96)], 1).reshape(-1)
    for layout, rows in (("up_first", swapped), ("interleaved", woven)):
        packed = ops.pack_experts(w1[:, rows], w2, format="f32", layout=layout,
                                  w1_bias=b1[:, rows].copy(), w2_bias=b2)
        assert (ops.fused_experts(x, packed, weights, ids, compute="f32") == plain).all(), layout
    transposed = numpy.ascontiguousarray(w1.transpose(0, 2, 1)).transpose(0, 2, 1)  # stored KN
    packed = ops.pack_experts(transposed, w2, format="f32", w1_bias=b1, w2_bias=b2)
    assert (ops.fused_experts(x, packed, weights, ids, compute="f32") == plain).all()


def test_threads_do_not_change_bits():
    x, w1, w2, weights, ids = problem(9, 70, 8, 2, 256, 128)
    packed = ops.pack_experts(w1, w2)
    try:
        results = []
        for threads in (1, 2, 3):
            ops.set_num_threads(threads)
            results.append(ops.fused_experts(x, packed, weights, ids))
    finally:
        ops.set_num_threads(0)
    assert all((r == results[0]).all() for r in results)


@pytest.mark.parametrize("tokens,k,d", [(400, 8, 128), (840, 5, 512), (4, 64, 33)])
def test_moe_sum(tokens, k, d):
    y = numpy.random.default_rng(k).standard_normal((tokens, k, d)).astype(numpy.float32)
    want = y[:, 0].copy()
    for i in range(1, k):
        want += y[:, i]
    assert (ops.moe_sum(y) == want).all()


def test_mistakes_are_exceptions_with_a_sentence():
    logits = numpy.zeros((2, 8), numpy.float32)
    for call in (lambda: ops.topk_softmax(logits, 9), lambda: ops.topk_softmax(logits[0], 2),
                 lambda: ops.grouped_topk(logits, 2, True, 3, 1),
                 lambda: ops.moe_align_block_size(numpy.zeros((2, 2), numpy.int32), 0, 4),
                 lambda: ops.pack_experts(numpy.zeros((2, 6, 4), numpy.float32),
                                          numpy.zeros((2, 4, 2), numpy.float32))):
        with pytest.raises(ValueError, match=r"\w+: .*expected"):
            call()
    with pytest.raises(TypeError):
        ops.topk_softmax(numpy.zeros((2, 8), numpy.int64), 2)
