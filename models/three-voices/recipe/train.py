#!/usr/bin/env python3
"""Train the model: data-parallel processes of one thread each, Muon for the matrices and AdamW for the rest.

The schedule is driven by elapsed time, so that the run ends when it should: 1 % warm-up, constant, then linear to 0
over the last 60 %. A checkpoint is written every --save-every seconds; --resume goes on from one.
"""
import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")

import torch
import torch.multiprocessing as mp
from tokenizers import Tokenizer

import corpus
import data
import model

MASK_POOL = 8_000_000


def newton_schulz(g, steps=5):
    """Orthogonalise each matrix of a batch [n, rows, columns], in bf16."""
    x = g.bfloat16()
    turned = x.shape[1] > x.shape[2]
    if turned:
        x = x.transpose(1, 2)
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).bfloat16()
    for _ in range(steps):
        a = torch.bmm(x, x.transpose(1, 2))
        b = torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, b, x, beta=3.4445, alpha=1.0)
    return x.transpose(1, 2).float() if turned else x.float()


def is_matrix(name):
    return name.split(".")[-1] in ("q", "k", "v", "o", "gate_up", "down")


def update(name, p, grad, first, second, step, factor, args):
    """One optimizer step of one tensor, in place."""
    if is_matrix(name):
        first.mul_(0.95).add_(grad, alpha=0.05)
        direction = grad.lerp(first, 0.95)
        batch = direction.reshape(-1, *p.shape[-2:])
        direction = newton_schulz(batch).reshape(p.shape)
        rate = args.muon_lr * factor
        p.mul_(1 - rate * args.weight_decay)
        p.add_(direction, alpha=-rate * max(1.0, p.shape[-2] / p.shape[-1]) ** 0.5)
        return
    rate = args.adam_lr * factor
    first.lerp_(grad, 0.1)
    second.lerp_(grad.square(), 0.05)
    if "norm" not in name:
        p.mul_(1 - rate * 0.01)
    denominator = (second / (1 - 0.95 ** step)).sqrt_().add_(1e-8)
    p.addcdiv_(first, denominator, value=-rate / (1 - 0.9 ** step))


def owners(shapes, world):
    """Share the tensors among the processes by size."""
    load, out = [0] * world, {}
    for name, shape in sorted(shapes.items(), key=lambda item: -torch.Size(item[1]).numel()):
        rank = load.index(min(load))
        out[name] = rank
        load[rank] += torch.Size(shape).numel() * (2 if is_matrix(name) else 1)
    return out


def schedule(fraction, decay=0.6):
    if fraction < 0.01:
        return max(fraction, 0.0002) / 0.01
    return min(1.0, max(0.0, (1 - fraction) / decay))


@torch.no_grad()
def held_out_loss(p, c, tokenizer, held_out, cos, sin):
    """Bits per byte of each voice, and of all."""
    out, nats, size = {}, 0.0, 0
    for voice in corpus.VOICES:
        x, y, count = data.evaluation_windows(tokenizer, held_out[voice], c.context)
        total = 0.0
        for start in range(0, len(x), 6):
            xb, yb = torch.from_numpy(x[start:start + 6]), torch.from_numpy(y[start:start + 6])
            loss, _, _ = model.forward(p, c, xb, yb, cos, sin)
            total += loss.item() * (yb >= 0).sum().item()
        out[voice] = total / count / 0.6931471805599453
        nats, size = nats + total, size + count
    out["all"] = nats / size / 0.6931471805599453
    return out


def work(rank, args, shared, barrier):
    torch.set_num_threads(1)
    torch.manual_seed(args.seed * 1000 + rank)
    c = model.Config()
    shapes = model.parameter_shapes(c)
    flat, grads, first, second, average, control = shared
    p = {name: tensor.detach().requires_grad_() for name, tensor in model.views(flat, shapes).items()}
    raw = model.views(flat, shapes)
    mine = [name for name, owner in owners(shapes, args.processes).items() if owner == rank]
    grad_views = [model.views(grads[r], shapes) for r in range(args.processes)]
    first, second, mean = (model.views(t, shapes) for t in (first, second, average))
    cos, sin = model.rope_table(c)
    tokenizer = Tokenizer.from_file(str(Path(args.model) / "tokenizer.json"))
    texts = corpus.load(Path(args.work) / "corpus.json")
    start_step, spent = int(control[2].item()), control[3].item()
    windows = data.Windows(tokenizer, texts["documents"], c.context, args.seed * 1_000_003 + start_step,
                           args.dialogue_share, opening_share=args.opening_share)
    if rank == 0:
        print(f"{flat.numel():,} parameters, {windows.size:,} training tokens an epoch", flush=True)
    keep = 1 - args.dropout
    pool = (torch.rand(MASK_POOL) < keep).to(torch.bfloat16) / keep
    rows = args.batch // args.processes

    def loss_of(p, tokens, target, masks):
        loss, balance, counts = model.forward(p, c, tokens, target, cos, sin, masks)
        return loss + args.balance * balance, loss, counts

    compiled = torch.compile(loss_of, dynamic=False) if args.compile else loss_of
    area = rows * c.context * c.hidden
    began = saved = evaluated = logged = None
    step, tokens_seen, log_from = start_step, start_step * args.batch * c.context, start_step
    loss_sum, count_sum = 0.0, torch.zeros(c.layers, c.experts)
    while True:
        inputs, targets = (torch.from_numpy(side[rank * rows:(rank + 1) * rows]).long()
                           for side in windows.batch(args.batch))
        masks = None
        if args.dropout > 0:
            at = (torch.randint(0, (MASK_POOL - area) // 64, (2 * c.layers + 1,)) * 64).tolist()
            masks = [pool[a:a + area].view(-1, c.hidden) for a in at]
        for tensor in p.values():
            tensor.grad = None
        total, loss, counts = compiled(p, inputs, targets, masks)
        total.backward()
        for name, tensor in p.items():
            grad_views[rank][name].copy_(tensor.grad)
        loss_sum += loss.item()
        count_sum += counts
        if rank == 0:
            now = time.time()
            if began is None:
                began = now - spent
                saved = evaluated = logged = now
                print(f"first step done, {args.seconds - spent:.0f} s of training follow", flush=True)
            control[0] = (now - began) / args.seconds
        barrier.wait()
        fraction, step = control[0].item(), step + 1
        factor = args.peak * schedule(fraction, args.decay)
        if fraction > 1 - args.decay:
            windows.dialogue_share = args.late_dialogue_share
        with torch.no_grad():
            for name in mine:
                grad = grad_views[0][name].clone()
                for other in grad_views[1:]:
                    grad += other[name]
                grad /= args.processes
                update(name, raw[name], grad, first[name], second[name], step, factor, args)
                if step % 10 == 0:
                    mean[name].lerp_(raw[name], 1 - min(0.98, step / (step + 100)))
        barrier.wait()
        tokens_seen += args.batch * c.context
        done = fraction >= 1
        if rank == 0:
            if step % 50 == 0 or done:
                now = time.time()
                speed = (step - log_from) * args.batch * c.context / (now - logged + 1e-9)
                ratio = (count_sum.max(1).values / count_sum.mean(1)).tolist()
                print(f"{now - began:6.0f} s  step {step:6}  {tokens_seen / 1e6:6.2f} M tokens "
                      f"({tokens_seen / windows.size:.2f} epochs)  loss {loss_sum / max(1, step - log_from):.3f}  "
                      f"rate x{factor:.3f}  {speed:6.0f} tok/s  load {' '.join(f'{r:.2f}' for r in ratio)}", flush=True)
                loss_sum, log_from, logged = 0.0, step, now
                count_sum.zero_()
            now = time.time()
            if now - saved > args.save_every or done:
                saved = now
                path = Path(args.work) / "checkpoint.pt"
                torch.save({"config": c.as_dict(), "step": step, "seconds": now - began, "tokens": tokens_seen,
                            "epochs": tokens_seen / windows.size, "flat": flat, "first": shared[2],
                            "second": shared[3], "average": average, "arguments": vars(args),
                            "resumed_at": start_step}, str(path) + ".new")
                os.replace(str(path) + ".new", path)
            if args.evaluate_every and (now - evaluated > args.evaluate_every or done):
                result = held_out_loss(raw, c, tokenizer, texts["held_out"], cos, sin)
                evaluated = logged = time.time()
                log_from, loss_sum = step, 0.0
                line = {"seconds": round(now - began), "step": step, "tokens": tokens_seen} | result
                print("held out, bits per byte: " + "  ".join(f"{k} {v:.4f}" for k, v in result.items()), flush=True)
                with open(Path(args.work) / "curve.jsonl", "a") as file:
                    file.write(json.dumps(line) + "\n")
        if done:
            break


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", default="work")
    parser.add_argument("--model", default="..", help="the directory with tokenizer.json (default: ..)")
    parser.add_argument("--seconds", type=float, default=4200, help="length of the run; the schedule follows it")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch", type=int, default=12, help="windows of 512 tokens a step, over all processes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=4e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1, help="of the matrices, times their rate")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--balance", type=float, default=0.04, help="weight of the balance loss")
    parser.add_argument("--dialogue-share", type=float, default=0.04, help="share of windows that hold dialogues")
    parser.add_argument("--late-dialogue-share", type=float, default=0.06, help="the same while the rate falls")
    parser.add_argument("--save-every", type=float, default=120)
    parser.add_argument("--evaluate-every", type=float, default=600)
    parser.add_argument("--resume", help="a checkpoint to go on from")
    parser.add_argument("--finish", action="store_true", help="resume with a schedule of its own, --seconds long")
    parser.add_argument("--peak", type=float, default=1.0, help="factor on both learning rates")
    parser.add_argument("--decay", type=float, default=0.6, help="the last part of the run, in which the rate falls")
    parser.add_argument("--opening-share", type=float, default=0.0, help="share of windows that pack many openings")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="run without torch.compile")
    args = parser.parse_args()
    flat = model.initialise(model.Config(), args.seed)
    size = flat.numel()
    first, second, average = torch.zeros(size), torch.zeros(size), flat.clone()
    control = torch.zeros(8, dtype=torch.float64)
    if args.resume:
        saved = torch.load(args.resume, weights_only=False)
        flat, first, second, average = (saved[name] for name in ("flat", "first", "second", "average"))
        control[2], control[3] = saved["step"], 0 if args.finish else saved["seconds"]
    shared = [t.share_memory_() for t in (flat, torch.zeros(args.processes, size), first, second, average, control)]
    context = mp.get_context("spawn")
    barrier = context.Barrier(args.processes)
    others = [context.Process(target=work, args=(rank, args, shared, barrier), daemon=True)
              for rank in range(1, args.processes)]
    for process in others:
        process.start()
    work(0, args, shared, barrier)
    for process in others:
        process.join()


if __name__ == "__main__":
    main()
