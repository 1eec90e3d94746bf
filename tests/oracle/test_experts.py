"""Expert layers and their pieces at the upstreams' shapes, against f64 oracles written from their
contracts (docs/ops.md names ours) and against transformers itself.

Ids are exact, sums in a given order equal bits, floats held to bounds derived here, never to the
upstreams' own slack (1e-2, 5e-2, 5 % of elements). Shapes are published ones; where memory or time says
so experts, their width or rows are fewer (SLUICE_WHOLE_SHAPES=1: none are; up to 20 GB), and a sample of
the tokens is checked: a token does not depend on the others, which is checked as well.
"""
import os

import numpy
import pytest

ops = pytest.importorskip("sluice_ops", reason="the Python module is not built")
torch = pytest.importorskip("torch")

U32, U16 = 2.0 ** -24, 2.0 ** -9  # half an ulp at 1 of f32 and of bf16


def whole(published, cut):
    return published if os.environ.get("SLUICE_WHOLE_SHAPES") == "1" else cut


def generator(seed):
    return torch.Generator().manual_seed(seed)


def bf16(a):
    """Rounded to bf16, as float32."""
    return torch.as_tensor(a).to(torch.bfloat16).to(torch.float32).numpy()


def normal(seed, *shape, scale=1.0):
    return torch.randn(*shape, generator=generator(seed)).mul_(scale).bfloat16().float()


def softmax64(a):
    return torch.softmax(torch.as_tensor(a).double(), dim=-1)


def activation64(name, g, u):
    if name == "silu":
        return g * torch.sigmoid(g) * u
    if name == "gelu_tanh":
        return torch.nn.functional.gelu(g, approximate="tanh") * u
    return torch.nn.functional.gelu(g) * u


class Layer:
    """bf16 weights and inputs of one published shape."""

    def __init__(self, seed, tokens, experts, k, d, width, activation="silu"):
        self.k, self.activation = k, activation
        self.x = normal(seed, tokens, d)
        self.w1 = normal(seed + 1, experts, 2 * width, d, scale=d ** -0.5)
        self.w2 = normal(seed + 2, experts, d, width, scale=width ** -0.5)
        self.logits = torch.randn(tokens, experts, generator=generator(seed + 3))
        self.weights, self.ids, _ = ops.topk_softmax(self.logits.numpy(), k)

    def pack(self, **how):
        return ops.pack_experts(self.w1.numpy(), self.w2.numpy(), **how)

    def run(self, packed, **how):
        return ops.fused_experts(self.x.numpy(), packed, self.weights, self.ids, **how)

    def oracle(self, rows):
        """f64: the layer's output for those tokens, and the bound of ours against it.

        Inputs and weights are bf16 already, so that the first product rounds only in f32:
        D terms, 2^-24 each. The hidden row is rounded to bf16, each unit by at most 2^-9 of itself.
        Both errors pass linearly through the second product: worst case, all of one sign.
        """
        width, d = self.w2.shape[2], self.x.shape[1]
        want, bound = numpy.zeros((len(rows), d)), numpy.zeros((len(rows), d))
        for e in numpy.unique(self.ids[rows]):
            at, slot = numpy.nonzero(self.ids[rows] == e)
            w = torch.from_numpy(self.weights[rows][at, slot]).double()[:, None]
            x, up, down = self.x[rows][at].double(), self.w1[e].double(), self.w2[e].double()
            both, spread = x @ up.T, x.abs() @ up.abs_().T
            g, u = both.chunk(2, dim=1)
            h = activation64(self.activation, g, u)
            # |act'| <= 1.13 for silu and gelu, and |act(g)| <= |g|
            f32 = d * U32 * (1.13 * spread[:, :width] * u.abs() + g.abs() * spread[:, width:])
            want[at] += (w * (h @ down.T)).numpy()  # an expert has a token once
            bound[at] += (w * ((h.abs() * (U16 + width * U32) + f32) @ down.abs_().T)).numpy()
        return want, bound


def check(layer, got, rows):
    want, bound = layer.oracle(rows)
    error = numpy.abs(got[rows] - want)
    assert (error <= bound).all()
    # Independent roundings: rms 2^-9 / sqrt(3) of the output, where the worst case is all of one sign.
    assert numpy.sqrt((error ** 2).mean() / (want ** 2).mean()) <= U16


# mixtral-8x7b: S 16, I 14336 cut to 1792 (8 of them are 5.6 GB). Qwen3-30B-A3B and -235B-A22B: T 512, E
# 128 cut to 16 and 10. Gemma 4 26B-A4B: E 128 cut to 12.
MIXTRAL_I, GEMMA4_E = whole(14336, 1792), whole(128, 12)
FUSED = [("mixtral_s16", 16, 8, 2, 4096, MIXTRAL_I, "silu"),
         ("qwen3_30b_t512", 512, whole(128, 16), 8, 2048, 768, "silu"),
         ("qwen3_235b_t512", 512, whole(128, 10), 8, 4096, 1536, "silu"),
         ("gemma4_t1", 1, GEMMA4_E, 8, 2816, 704, "gelu_tanh"),
         ("gemma4_t8", 8, GEMMA4_E, 8, 2816, 704, "gelu_tanh"),
         ("gemma4_t64", 64, GEMMA4_E, 8, 2816, 704, "gelu_tanh"),
         ("gemma4_t1024", 1024, GEMMA4_E, 8, 2816, 704, "gelu_tanh")]


@pytest.mark.parametrize("name,tokens,experts,k,d,width,activation", FUSED,
                         ids=[row[0] for row in FUSED])
def test_fused_moe_bf16(name, tokens, experts, k, d, width, activation):
    layer = Layer(len(name), tokens, experts, k, d, width, activation)
    packed = layer.pack(format="bf16")
    got = ops.fused_experts(layer.x.numpy(), packed, layer.weights, layer.ids, activation=activation)
    rows = sorted({0, tokens // 3, tokens // 2, tokens - 1})
    check(layer, got, rows)
    alone = ops.fused_experts(layer.x[rows].numpy(), packed, layer.weights[rows], layer.ids[rows],
                              activation=activation)
    assert (alone == got[rows]).all()


# Megablox' gmm: G, M, K, N, group offset; empty groups, a sum below M.
@pytest.mark.parametrize("groups", [16, 32])
@pytest.mark.parametrize("k,n", [(512, 512), (512, 1024), (1024, 512), (1024, 1024)])
@pytest.mark.parametrize("fmt", ["f32", "bf16"])
def test_grouped_gemm(groups, k, n, fmt):
    lhs, rhs = normal(groups + k, 128, k), normal(n, groups, n, k, scale=k ** -0.5)
    rng = numpy.random.default_rng(k + n + groups)
    cuts = numpy.sort(rng.integers(0, 121, groups - 1))  # 120 of 128 rows; some groups are empty
    sizes = numpy.diff(numpy.concatenate([[0], cuts, [120]])).astype(numpy.int32)
    sizes[3] += sizes[2]
    sizes[2] = 0
    owner = numpy.repeat(numpy.arange(groups), sizes)
    want, bound = numpy.zeros((128, n)), numpy.zeros((128, n))
    for g in range(groups):
        rows, w = numpy.flatnonzero(owner == g), rhs[g].double().numpy()
        want[rows] = lhs[rows].double().numpy() @ w.T
        bound[rows] = k * U32 * (lhs[rows].abs().double().numpy() @ numpy.abs(w).T)
    for offset in (0, 2, 3):
        local = ops.pack_groups(rhs[offset:].numpy(), format=fmt)
        got = ops.grouped_matmul(lhs.numpy(), local, sizes, group_offset=offset)
        mine = numpy.zeros(128, bool)
        mine[:120] = owner >= offset
        assert (got[~mine] == 0).all()
        assert (numpy.abs(got - want)[mine] <= bound[mine]).all()
    with pytest.raises(ValueError, match="group_sizes: expected a sum up to M"):
        ops.grouped_matmul(lhs.numpy(), local, sizes + 1, group_offset=3)
    with pytest.raises(ValueError, match="group_offset"):
        ops.grouped_matmul(lhs.numpy(), local, sizes, group_offset=4)


# Combine: rows, D, K of the dense gather and reduce. 16384 x 7168 and 32768 x 2880 are cut to 512 and 1024
# rows (117 and 47 MB for 3.8 and 1.5 GB); the last ones are no multiples of 16.
COMBINE = [(400, 128, 8), (400, 512, 5), (840, 512, 8), (840, 128, 5), (400, 8192, 8),
           (whole(16384, 512), 7168, 8), (whole(32768, 1024), 2880, 4), (77, 2889, 4), (33, 13, 64)]


@pytest.mark.parametrize("tokens,d,k", COMBINE)
def test_combine_is_bit_equal_in_ascending_k(tokens, d, k):
    y = normal(d + k, tokens, k, d).numpy() * numpy.float32(1.0009765625)
    w = torch.rand(tokens, k, generator=generator(k)).numpy()
    # Mutually independent of ours: f64 products of two f32 are exact, so that one rounding is a fma's.
    fused = numpy.zeros((tokens, d), numpy.float32)
    split, rounded, running = fused.copy(), fused.copy(), fused.copy()
    for i in range(k):
        weight = w[:, i, None]
        fused = (y[:, i].astype(numpy.float64) * weight + fused).astype(numpy.float32)
        split += y[:, i] * weight
        rounded += bf16(y[:, i] * weight)
        running = bf16(running + bf16(bf16(y[:, i]) * bf16(weight)))
    assert (ops.moe_sum(y, w) == fused).all()
    assert (ops.moe_sum(y, w, profile="aiter") == bf16(split)).all()
    assert (ops.moe_sum(y, w, profile="sglang") == bf16(rounded)).all()
    assert (ops.moe_sum(y, w, profile="hf") == running).all()  # slots ascend with k here


# Profiles. Inputs whose dot products are exact in f32 in any order (few bits, one exponent), so that what
# remains are the roundings that a profile names: those must agree but for the last bit of exp.
def coarse(seed, *shape, bits=2, scale=0):
    """Integers of [-2^bits, 2^bits] times 2^scale."""
    most = 2 ** bits
    return torch.randint(-most, most + 1, shape, generator=generator(seed)).float() * 2.0 ** scale


class Exact:
    def __init__(self, activation="silu", tokens=40, experts=8, k=4, d=64, width=32):
        self.activation = activation
        self.x = coarse(1, tokens, d, bits=3, scale=-2)
        self.w1 = coarse(2, experts, 2 * width, d, scale=-4) * 1.28125  # more bits than bf16 keeps
        self.w2 = coarse(3, experts, d, width, scale=-4)
        self.ids = torch.stack([torch.randperm(experts, generator=generator(t))[:k]
                                for t in range(tokens)]).int()
        self.weights = torch.rand(tokens, k, generator=generator(5))

    def ours(self, profile, **more):
        packed = ops.pack_experts(self.w1.numpy(), self.w2.numpy(), format="f32")
        return ops.fused_experts(self.x.numpy(), packed, self.weights.numpy(), self.ids.numpy(),
                                 activation=self.activation, compute="f32", profile=profile, **more)

    def rows(self, inputs, steps, result):
        """[T, K, D] f32, the second product unrounded."""
        r = lambda on, a: a.bfloat16().float() if on else a
        out = []
        for t in range(self.x.shape[0]):
            row = []
            for e in self.ids[t].tolist():
                g, u = r(inputs, self.w1[e] @ self.x[t]).chunk(2)
                if self.activation == "swiglu_oai":
                    g, u = g.clamp(max=7.0), u.clamp(-7.0, 7.0)
                    s = r(steps, torch.sigmoid(r(steps, g * 1.702).double()).float())
                    h = r(result, r(steps, u + 1) * r(steps, g * s))
                else:
                    act = activation64(self.activation, g.double(), 1.0).float()
                    h = r(result, r(steps, act) * u)
                row.append((self.w2[e].double() @ h.double()).float())
            out.append(torch.stack(row))
        return torch.stack(out)


def b(a):
    return a.bfloat16().float()


def by_expert(layer, y, w):
    """Terms in ascending expert id, as a loop over experts meets them."""
    order = layer.ids.argsort(dim=1, stable=True)
    return (torch.gather(y, 1, order.long()[:, :, None].expand_as(y)), torch.gather(w, 1, order))


def sequential(terms, after=lambda a: a):
    total = torch.zeros_like(terms[:, 0])
    for i in range(terms.shape[1]):
        total = after(total + terms[:, i])
    return total


def hf(layer):
    y, w = by_expert(layer, b(layer.rows(True, True, True)), b(layer.weights))
    return sequential(b(y * w[:, :, None]), b)


def aiter(layer):
    return b(sequential(layer.rows(False, False, True) * layer.weights[:, :, None]))


def max_(layer):
    y, w = b(layer.rows(True, False, True)).double(), b(layer.weights).double()
    total = torch.zeros(y.shape[0], y.shape[2])
    for i in range(y.shape[1]):  # products of two bf16 are exact: fused or not is the same
        total = (total.double() + y[:, i] * w[:, i, None]).float()
    return b(total)


def tpu(layer):
    return b(sequential(b(layer.rows(False, False, True)) * b(layer.weights)[:, :, None]))


def mojo(layer):
    y, w = by_expert(layer, b(layer.rows(False, False, False)), layer.weights)
    return b(sequential(y * w[:, :, None]))


def mojo_quant(layer):
    y, w = by_expert(layer, b(layer.rows(True, False, False)), layer.weights)
    return b(sequential(y * w[:, :, None]))


def sglang(layer):
    return b(sequential(b(layer.rows(True, False, True) * layer.weights[:, :, None])))


PROFILES = [hf, aiter, max_, tpu, mojo, mojo_quant, sglang]


@pytest.mark.parametrize("reference", PROFILES, ids=[f.__name__.strip("_") for f in PROFILES])
@pytest.mark.parametrize("activation", ["silu", "gelu_tanh", "gelu_erf", "swiglu_oai"])
def test_profile(reference, activation):
    layer = Exact(activation)
    want = reference(layer).numpy()
    got = layer.ours(reference.__name__.strip("_"))
    same = (got == want).mean()
    assert same > 0.995, same
    # One last bit of a bf16 anywhere on the way.
    assert numpy.abs(got - want).max() <= 4 * U16 * numpy.abs(want).max()
    # The test can fail: no other profile gives these bits.
    for other in PROFILES:
        if other is not reference:
            assert (layer.ours(other.__name__.strip("_")) == want).mean() < same, other


def test_hf_profile_is_transformers_in_bf16():
    modeling = pytest.importorskip("transformers.models.qwen3_moe.modeling_qwen3_moe")
    from transformers import Qwen3MoeConfig
    layer = Exact()
    layer.weights, layer.w1 = b(layer.weights), b(layer.w1)
    config = Qwen3MoeConfig(hidden_size=64, moe_intermediate_size=32, num_experts=8,
                            num_experts_per_tok=4, hidden_act="silu")
    config._experts_implementation = "eager"
    experts = modeling.Qwen3MoeExperts(config).bfloat16()
    with torch.no_grad():
        experts.gate_up_proj.copy_(layer.w1)
        experts.down_proj.copy_(layer.w2)
        want = experts(layer.x.bfloat16(), layer.ids.long(), layer.weights.bfloat16()).float().numpy()
    got = layer.ours("hf")
    assert (got == want).mean() > 0.995
    assert numpy.abs(got - want).max() <= 4 * U16 * numpy.abs(want).max()
    assert (layer.ours("f32") == want).mean() < 0.5


def test_weight_on_input():
    """apply_router_weight_on_input: the weight passes through the activation (Llama 4's experts)."""
    layer = Exact(k=1)
    got = layer.ours("f32", apply_router_weight_on_input=True)
    x = layer.x.double() * layer.weights.double()
    for t in range(0, 40, 7):
        e = int(layer.ids[t, 0])
        g, u = (layer.w1[e].double() @ x[t]).chunk(2)
        want = layer.w2[e].double() @ (g * torch.sigmoid(g) * u)
        numpy.testing.assert_allclose(got[t], want.numpy(), rtol=0, atol=64 * 64 * U32)
    assert not (layer.ours("f32") == got).any(axis=1).all()


@pytest.mark.parametrize("clamp", ["before", "after"])
def test_clamped_silu(clamp):
    """mojo_opset and the TPU kernels clamp before silu, SGLang and MAX behind it."""
    layer = Exact()
    layer.w1 = layer.w1 * 4
    limit = 1.5
    got = layer.ours("f32", clamp=clamp, limit=limit)
    plain = layer.ours("f32")
    for t in (0, 11, 39):
        total = torch.zeros(64, dtype=torch.float64)
        for w, e in zip(layer.weights[t].double(), layer.ids[t].tolist()):
            g, u = (layer.w1[e].double() @ layer.x[t].double()).chunk(2)
            u = u.clamp(-limit, limit)
            a = torch.nn.functional.silu(g.clamp(max=limit) if clamp == "before" else g)
            total += w * (layer.w2[e].double() @ ((a if clamp == "before" else a.clamp(max=limit)) * u))
        numpy.testing.assert_allclose(got[t], total.numpy(), rtol=0, atol=1e-5)
    assert not (got == plain).all()


@pytest.mark.parametrize("scoring", ["one", "sigmoid"])
@pytest.mark.parametrize("experts,shared,k", [(8, 2, 2), (16, 2, 4), (32, 4, 8), (64, 4, 16)])
def test_shared_experts(experts, shared, k, scoring):
    """The router appends S experts with ids and weights; the layer runs them like any other."""
    rng = numpy.random.default_rng(experts)
    tokens, d, width = 33, 96, 64
    columns = experts + (shared if scoring == "sigmoid" else 0)
    logits = rng.standard_normal((tokens, columns)).astype(numpy.float32)
    weights, ids, _ = ops.topk_softmax(logits, k, num_shared_experts=shared,
                                       shared_scoring_func=scoring)
    order = numpy.argsort(-logits[:, :experts], axis=1, kind="stable")[:, :k]
    assert (ids[:, :k] == order).all()
    assert (ids[:, k:] == experts + numpy.arange(shared)).all()
    chosen = softmax64(numpy.take_along_axis(logits[:, :experts], order, axis=1)).numpy()
    numpy.testing.assert_allclose(weights[:, :k], chosen, rtol=1e-6)
    want_shared = (1 / (1 + numpy.exp(-logits[:, experts:].astype(numpy.float64)))
                   if scoring == "sigmoid" else numpy.ones((tokens, shared)))
    numpy.testing.assert_allclose(weights[:, k:], want_shared, rtol=1e-6)
    x = rng.standard_normal((tokens, d)).astype(numpy.float32)
    w1 = rng.standard_normal((experts + shared, 2 * width, d)).astype(numpy.float32) / d ** 0.5
    w2 = rng.standard_normal((experts + shared, d, width)).astype(numpy.float32) / width ** 0.5
    packed = ops.pack_experts(w1.astype(numpy.float32), w2.astype(numpy.float32), format="f32")
    got = ops.fused_experts(x, packed, weights, ids, compute="f32")
    w1, w2, x = w1.astype(numpy.float64), w2.astype(numpy.float64), x.astype(numpy.float64)
    for t in range(tokens):
        want = numpy.zeros(d)
        for w, e in list(zip(chosen[t], order[t])) + list(zip(want_shared[t],
                                                              experts + numpy.arange(shared))):
            g, u = w1[e, :width] @ x[t], w1[e, width:] @ x[t]
            want += w * (w2[e] @ (g / (1 + numpy.exp(-g)) * u))
        # Two products of f32 terms and the weights' 1e-6, on outputs of size sqrt(K + S).
        numpy.testing.assert_allclose(got[t], want, rtol=0, atol=(d + width) * U32 * 4 * (k + shared))


def test_unknown_names_are_sentences():
    layer = Exact()
    with pytest.raises(ValueError, match="expected one of f32, hf, aiter, max, tpu, mojo"):
        layer.ours("vllm")
    layer.activation = "gelu"
    with pytest.raises(ValueError, match="expected silu, gelu_tanh, gelu_erf or swiglu_oai"):
        layer.ours("f32")
    layer.activation = "silu"
    with pytest.raises(ValueError, match="clamp: expected none, before or after"):
        layer.ours("f32", clamp="both")
