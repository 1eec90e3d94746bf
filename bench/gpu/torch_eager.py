#!/usr/bin/env python3
"""The permanent peer on a GPU: what torch reaches for the shapes of the three families.

Each case is timed eagerly (between events, queue full) and replayed from a CUDA graph, over several
input sets so that the weights do not stay in the cache. Prints one JSON line per case and mode.
"""
import json
import sys

try:
    import torch
except ImportError:
    sys.exit("no torch here")
if not torch.cuda.is_available():
    print("torch sees no CUDA device")
    sys.exit(77)

CACHE = 4 * torch.cuda.get_device_properties(0).L2_cache_size
RUNS = 25


def sets(make, nbytes):
    """Enough input sets to be larger than the cache together, at most 16."""
    return [make() for _ in range(max(1, min(16, 1 + CACHE // max(1, nbytes))))]


def median_us(work, runs=RUNS):
    times = []
    for i in range(runs + 3):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work(i)
        end.record()
        end.synchronize()
        if i >= 3:
            times.append(1e3 * begin.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def report(name, mode, us, flops=0.0, nbytes=0.0, **more):
    line = {"bench": "torch", "case": name, "mode": mode, "us": round(us, 3), **more}
    if flops:
        line["tflops"] = round(flops / us * 1e-6, 2)
    if nbytes:
        line["gb_per_s"] = round(nbytes / us * 1e-3, 1)
    print(json.dumps(line), flush=True)


def case(name, call, inputs, flops=0.0, nbytes=0.0):
    try:
        report(name, "eager", median_us(lambda i: call(*inputs[i % len(inputs)])), flops, nbytes)
        # One graph per input set, replayed in turn.
        graphs = []
        stream = torch.cuda.Stream()
        for values in inputs:
            with torch.cuda.stream(stream):
                call(*values)
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                call(*values)
            graphs.append(graph)
        report(name, "graph", median_us(lambda i: graphs[i % len(graphs)].replay()), flops, nbytes)
    except Exception as error:  # one case must not cost the others
        print(json.dumps({"bench": "torch", "case": name, "failed": str(error).splitlines()[0][:300]}),
              flush=True)
    torch.cuda.empty_cache()


def randn(*shape, dtype=torch.bfloat16):
    return torch.randn(*shape, device="cuda", dtype=dtype)


def matmuls():
    n = 8192
    case("matmul_8192", torch.matmul, [(randn(n, n), randn(n, n))], 2.0 * n ** 3)
    for model, d, width in (("qwen3", 2048, 4096), ("gemma4", 2816, 4096), ("gptoss", 2880, 4096)):
        for m in (1, 8, 64, 512, 4096):
            weight = 2 * d * width
            inputs = sets(lambda: (randn(m, d), randn(width, d)), weight)
            case(f"linear_{model}_m{m}", torch.nn.functional.linear, inputs, 2.0 * m * d * width,
                 weight + 2 * m * (d + width))
    for name, rows, d in (("qwen3_head", 151936, 2048), ("gemma4_head", 262144, 2816)):
        case(f"linear_{name}_m1", torch.nn.functional.linear, [(randn(1, d), randn(rows, d))],
             2.0 * rows * d, 2.0 * rows * d)


def attention():
    def sdpa(q, k, v):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1,
                                                                enable_gqa=True)

    for heads, groups, size in ((32, 4, 128), (16, 8, 256), (16, 2, 512), (64, 8, 64)):
        t = 4096
        case(f"sdpa_prefill_{t}_hd{size}", sdpa,
             [(randn(1, heads, t, size), randn(1, groups, t, size), randn(1, groups, t, size))],
             2.0 * heads * t * t * size)
        for batch in (1, 16):
            n = 8192
            nbytes = 4.0 * batch * groups * n * size
            case(f"sdpa_decode_b{batch}_{n}_hd{size}", sdpa, sets(
                lambda: (randn(batch, heads, 1, size), randn(batch, groups, n, size),
                         randn(batch, groups, n, size)), nbytes), 0, nbytes)


def routing_and_sampling():
    def route(logits):
        weights, ids = torch.topk(torch.softmax(logits, -1), 8)
        return weights / weights.sum(-1, keepdim=True), ids

    for t in (1, 32, 128, 256):
        for experts in (128, 256):
            case(f"route_t{t}_e{experts}", route, [(randn(t, experts, dtype=torch.float32),)])

    def sample(logits):
        values, ids = torch.topk(logits, 75)
        probability = torch.softmax(values, -1)
        kept = torch.where(probability.cumsum(-1) - probability <= 0.95, probability, 0.0)
        return ids.gather(-1, torch.multinomial(kept, 1))

    for rows in (1, 64):
        logits = [(randn(rows, 262144, dtype=torch.float32),) for _ in range(4)]
        case(f"softmax_{rows}x262144", lambda x: torch.softmax(x, -1), logits, 0, 8.0 * rows * 262144)
        case(f"topk75_{rows}x262144", lambda x: torch.topk(x, 75), logits, 0, 4.0 * rows * 262144)
        case(f"sample_{rows}x262144", sample, logits, 0, 4.0 * rows * 262144)
    for rows in (1, 512):
        d = 2816
        weight = randn(d, dtype=torch.float32)
        case(f"rms_norm_{rows}x{d}", lambda x: torch.nn.functional.rms_norm(x, (d,), weight),
             [(randn(rows, d, dtype=torch.float32),) for _ in range(4)], 0, 8.0 * rows * d)


def experts():
    # torch's grouped product over rows sorted by expert, without gather, activation and combine.
    for name, d, width in (("gemma4", 2816, 704), ("qwen3", 2048, 768)):
        count, per_token = 128, 8
        weights = randn(count, 2 * width, d)
        for m in (1, 8, 64, 4096):
            chosen = torch.randint(0, count, (m * per_token,), device="cuda")
            ends = torch.cumsum(torch.bincount(chosen, minlength=count), 0).to(torch.int32)
            case(f"grouped_mm_{name}_m{m}",
                 lambda x, e: torch._grouped_mm(x, weights.transpose(1, 2), offs=e),
                 [(randn(m * per_token, d), ends)], 4.0 * m * per_token * d * width,
                 4.0 * int(torch.unique(chosen).numel()) * d * width)


torch.manual_seed(0)
with torch.no_grad():
    matmuls()
    routing_and_sampling()
    attention()
    experts()
