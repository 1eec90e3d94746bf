"""The training form of the model: Qwen3-MoE with stacked experts, written to train fast on a CPU.

Same mathematics as Qwen3MoeForCausalLM; export.py writes the published tensor names. What differs is how
it is computed: tokens are sorted by expert and go through grouped products, attention is done in blocks of
queries with its own backward, and the head is fused with the cross-entropy.
"""
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F

ATTENTION_BLOCK = 128
HEAD_CHUNK = 1024


@dataclass
class Config:
    vocabulary: int = 4032
    hidden: int = 256
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    experts: int = 16
    active: int = 2
    expert_width: int = 64
    context: int = 512
    theta: float = 10000.0
    eps: float = 1e-6

    def as_dict(self):
        return asdict(self)


def parameter_shapes(c):
    """Name -> shape, in the order in which they lie in the flat parameter vector."""
    shapes = {"embed": (c.vocabulary, c.hidden), "norm": (c.hidden,)}
    for i in range(c.layers):
        shapes |= {
            f"{i}.norm1": (c.hidden,), f"{i}.norm2": (c.hidden,),
            f"{i}.q_norm": (c.head_dim,), f"{i}.k_norm": (c.head_dim,),
            f"{i}.q": (c.heads * c.head_dim, c.hidden),
            f"{i}.k": (c.kv_heads * c.head_dim, c.hidden),
            f"{i}.v": (c.kv_heads * c.head_dim, c.hidden),
            f"{i}.o": (c.hidden, c.heads * c.head_dim),
            f"{i}.router": (c.experts, c.hidden),
            f"{i}.gate_up": (c.experts, 2, c.expert_width, c.hidden),
            f"{i}.down": (c.experts, c.hidden, c.expert_width),
        }
    return shapes


def views(flat, shapes):
    out, start = {}, 0
    for name, shape in shapes.items():
        size = torch.Size(shape).numel()
        out[name] = flat[start:start + size].view(shape)
        start += size
    return out


def initialise(c, seed):
    shapes = parameter_shapes(c)
    flat = torch.zeros(sum(torch.Size(s).numel() for s in shapes.values()))
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in views(flat, shapes).items():
        kind = name.split(".")[-1]
        if "norm" in kind:
            tensor.fill_(1.0)
        else:
            scale = 0.02 / (2 * c.layers) ** 0.5 if kind in ("o", "down") else 0.02
            tensor.normal_(0.0, scale, generator=generator)
    return flat


def rope_table(c):
    frequency = c.theta ** (-torch.arange(0, c.head_dim, 2).float() / c.head_dim)
    angle = torch.arange(c.context).float()[:, None] * frequency[None]
    angle = torch.cat([angle, angle], -1)
    return angle.cos(), angle.sin()


def rms(x, weight, eps):
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


class Linear(torch.autograd.Function):
    """x @ w.T in bf16 with a float32 gradient for the weight."""

    @staticmethod
    def forward(ctx, x, w):
        wb = w.bfloat16()
        ctx.save_for_backward(x, wb)
        return torch.mm(x, wb.t())

    @staticmethod
    def backward(ctx, grad):
        x, wb = ctx.saved_tensors
        grad = grad.bfloat16()
        return torch.mm(grad, wb), torch.mm(grad.t(), x).float()


class Attention(torch.autograd.Function):
    """Causal attention, query block by query block, so that half of the scores are never computed.

    q: [groups, rows-per-position, T, d]; k, v: [groups, T, d]; all bf16. Scores stay bounded because queries and keys
    are normalised, so no running maximum is needed (they are clamped at +-60 all the same).
    """

    @staticmethod
    def forward(ctx, q, k, v):
        groups, share, length, d = q.shape
        block, scale = ATTENTION_BLOCK, d ** -0.5
        position = torch.arange(length)
        outs, weights, sums = [], [], []
        for start in range(0, length, block):
            end = start + block
            rows = q[:, :, start:end].reshape(groups, share * block, d)
            score = torch.bmm(rows, k[:, :end].transpose(1, 2)).view(groups, share, block, end)
            score = (score.float() * scale).clamp(-60.0, 60.0)
            weight = torch.where(position[start:end, None] >= position[None, :end], score.exp(), 0.0)
            total = weight.sum(-1, keepdim=True)
            weight = weight.bfloat16()
            out = torch.bmm(weight.view(groups, share * block, end), v[:, :end]).view(groups, share, block, d)
            outs.append((out.float() / total).bfloat16())
            weights.append(weight)
            sums.append(total)
        out = torch.cat(outs, 2)
        ctx.save_for_backward(q, k, v, out, *weights, *sums)
        return out

    @staticmethod
    def backward(ctx, grad):
        q, k, v, out, *rest = ctx.saved_tensors
        groups, share, length, d = q.shape
        block, scale = ATTENTION_BLOCK, d ** -0.5
        weights, sums = rest[:len(rest) // 2], rest[len(rest) // 2:]
        grad_q, parts_k, parts_v = [], [], []
        for number, start in enumerate(range(0, length, block)):
            end = start + block
            rows = q[:, :, start:end].reshape(groups, share * block, d)
            upstream = grad[:, :, start:end].float() / sums[number]
            inner = (upstream * out[:, :, start:end].float()).sum(-1, keepdim=True)
            upstream = upstream.bfloat16().reshape(groups, share * block, d)
            weight = weights[number]
            flat = weight.view(groups, share * block, end)
            dp = torch.bmm(upstream, v[:, :end].transpose(1, 2)).view(groups, share, block, end)
            ds = (weight.float() * (dp.float() - inner) * scale).bfloat16().view(groups, share * block, end)
            grad_q.append(torch.bmm(ds, k[:, :end]).view(groups, share, block, d))
            parts_k.append(torch.bmm(ds.transpose(1, 2), rows))
            parts_v.append(torch.bmm(flat.transpose(1, 2), upstream))
        grad_k = sum(F.pad(part.float(), (0, 0, 0, length - part.shape[1])) for part in parts_k)
        grad_v = sum(F.pad(part.float(), (0, 0, 0, length - part.shape[1])) for part in parts_v)
        return torch.cat(grad_q, 2), grad_k.bfloat16(), grad_v.bfloat16()


@torch.library.custom_op("three_voices::grouped", mutates_args=())
def grouped(x: torch.Tensor, w: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Rows of x, sorted by expert, times that expert's w [E, in, out]."""
    out = x.new_empty(x.shape[0], w.shape[2])
    start = 0
    for expert, end in enumerate(ends.tolist()):
        if end > start:
            torch.mm(x[start:end], w[expert], out=out[start:end])
        start = end
    return out


@grouped.register_fake
def _(x, w, ends):
    return x.new_empty(x.shape[0], w.shape[2])


@torch.library.custom_op("three_voices::grouped_weight_grad", mutates_args=())
def grouped_weight_grad(grad: torch.Tensor, x: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """[E, out, in]: the gradient of each expert's weight (out x in)."""
    out = x.new_zeros(ends.shape[0], grad.shape[1], x.shape[1])
    start = 0
    for expert, end in enumerate(ends.tolist()):
        if end > start:
            torch.mm(grad[start:end].t(), x[start:end], out=out[expert])
        start = end
    return out


@grouped_weight_grad.register_fake
def _(grad, x, ends):
    return x.new_empty(ends.shape[0], grad.shape[1], x.shape[1])


class Grouped(torch.autograd.Function):
    """x[rows of e] @ w[e].T for w [E, out, in] in float32 masters."""

    @staticmethod
    def forward(ctx, x, w, ends):
        wb = w.bfloat16()
        ctx.save_for_backward(x, wb, ends)
        return grouped(x, wb.transpose(1, 2), ends)

    @staticmethod
    def backward(ctx, grad):
        x, wb, ends = ctx.saved_tensors
        grad = grad.bfloat16()
        return grouped(grad, wb, ends), grouped_weight_grad(grad, x, ends).float(), None


class Scatter(torch.autograd.Function):
    """Tokens to rows sorted by expert; order[r] = token * K + choice, inverse[token * K + choice] = r."""

    @staticmethod
    def forward(ctx, x, order, inverse, active):
        ctx.save_for_backward(inverse)
        ctx.active = active
        return x[order // active]

    @staticmethod
    def backward(ctx, grad):
        inverse, = ctx.saved_tensors
        return grad[inverse].view(-1, ctx.active, grad.shape[1]).float().sum(1).bfloat16(), None, None, None


class Gather(torch.autograd.Function):
    """Rows sorted by expert back to tokens, the K rows of a token added."""

    @staticmethod
    def forward(ctx, y, order, inverse, active):
        ctx.save_for_backward(order)
        ctx.active = active
        return y[inverse].view(-1, active, y.shape[1]).float().sum(1)

    @staticmethod
    def backward(ctx, grad):
        order, = ctx.saved_tensors
        return grad.bfloat16()[order // ctx.active], None, None, None


class HeadLoss(torch.autograd.Function):
    """Mean cross-entropy of the tied head; gradients are computed in the forward, in chunks of rows."""

    @staticmethod
    def forward(ctx, h, w, target):
        wb, rows = w.bfloat16(), h.shape[0]
        count = (target >= 0).sum().clamp(min=1).float()
        losses, grads, weight_grad = [], [], None
        for start in range(0, rows, HEAD_CHUNK):
            hc, tc = h[start:start + HEAD_CHUNK], target[start:start + HEAD_CHUNK]
            keep = (tc >= 0).float()[:, None]
            logits = torch.mm(hc, wb.t()).float()
            biggest = logits.amax(-1, keepdim=True)
            total = (logits - biggest).exp().sum(-1, keepdim=True)
            picked = logits.gather(1, tc.clamp(min=0)[:, None])
            losses.append(((biggest + total.log() - picked) * keep).sum())
            one = torch.arange(logits.shape[1])[None, :] == tc[:, None]
            grad = (((logits - biggest).exp() / total - one.float()) * (keep / count)).bfloat16()
            grads.append(torch.mm(grad, wb))
            part = torch.mm(grad.t(), hc).float()
            weight_grad = part if weight_grad is None else weight_grad + part
        ctx.save_for_backward(torch.cat(grads), weight_grad)
        return torch.stack(losses).sum() / count

    @staticmethod
    def backward(ctx, grad):
        h_grad, w_grad = ctx.saved_tensors
        return (h_grad * grad).bfloat16(), w_grad * grad, None


def forward(p, c, tokens, target, cos, sin, masks=None):
    """(cross-entropy, mean balance loss, expert counts [layers, E]); tokens [B, T], target [B, T] with -1 = not scored.

    masks: dropout factors [2 * layers + 1, B * T, hidden] or None.
    """
    batch, length = tokens.shape
    rows, d, share = batch * length, c.head_dim, c.heads // c.kv_heads
    x = p["embed"][tokens.reshape(-1)]
    if masks is not None:
        x = x * masks[0]
    balance, counts = 0.0, []

    def rotate(t):
        half = torch.cat([-t[..., d // 2:], t[..., :d // 2]], -1)
        return t * cos[:, None] + half * sin[:, None]

    for i in range(c.layers):
        h = rms(x, p[f"{i}.norm1"], c.eps).bfloat16()
        qkv = Linear.apply(h, torch.cat([p[f"{i}.q"], p[f"{i}.k"], p[f"{i}.v"]]))
        q, k, v = qkv.view(batch, length, -1, d).split([c.heads, c.kv_heads, c.kv_heads], 2)
        q = rotate(rms(q, p[f"{i}.q_norm"], c.eps)).bfloat16()
        k = rotate(rms(k, p[f"{i}.k_norm"], c.eps)).bfloat16()
        q = q.view(batch, length, c.kv_heads, share, d).permute(0, 2, 3, 1, 4).reshape(-1, share, length, d)
        k = k.permute(0, 2, 1, 3).reshape(-1, length, d)
        v = v.permute(0, 2, 1, 3).reshape(-1, length, d)
        out = Attention.apply(q, k, v).view(batch, c.heads, length, d).permute(0, 2, 1, 3).reshape(rows, -1)
        out = Linear.apply(out, p[f"{i}.o"]).float()
        x = x + (out if masks is None else out * masks[2 * i + 1])

        h = rms(x, p[f"{i}.norm2"], c.eps)
        probability = torch.softmax(F.linear(h, p[f"{i}.router"]), -1)
        gate, chosen = probability.topk(c.active, -1)
        gate = gate / gate.sum(-1, keepdim=True)
        flat = chosen.reshape(-1)
        with torch.no_grad():
            count = (flat[:, None] == torch.arange(c.experts)).sum(0)
            ends = count.cumsum(0)
            order = flat.argsort(stable=True)
            inverse = torch.empty_like(order)
            inverse[order] = torch.arange(order.shape[0])
        counts.append(count)
        share_of_rows = count.float() / flat.shape[0]
        balance = balance + c.experts * (share_of_rows * probability.mean(0)).sum() / c.layers
        rows_in = Scatter.apply(h.bfloat16(), order, inverse, c.active)
        gate_up = Grouped.apply(rows_in, p[f"{i}.gate_up"].view(c.experts, -1, c.hidden), ends).float()
        g, u = gate_up.split(c.expert_width, -1)
        inner = (F.silu(g) * u * gate.reshape(-1)[order][:, None]).bfloat16()
        out = Gather.apply(Grouped.apply(inner, p[f"{i}.down"], ends), order, inverse, c.active)
        x = x + (out if masks is None else out * masks[2 * i + 2])

    h = rms(x, p["norm"], c.eps).bfloat16()
    return HeadLoss.apply(h, p["embed"], target.reshape(-1)), balance, torch.stack(counts)
