"""kt-kernel's side: the layer of layer_data.h through its compiled module, as a co-process
(coprocess.h says what is asked and answered). Runs under the Python environment that holds the wheel.

    kt_experts.py LIBRARY --shape D,I,E,K,act --weights int4|int8|bf16 --routing R --threads N --bytes B
"""
import ctypes
import glob
import importlib.machinery
import importlib.metadata
import importlib.util
import json
import math
import pathlib
import sys
import time

import numpy as np

CLASSES = {"int4": "AMXInt4_MOE", "int8": "AMXInt8_MOE", "bf16": "AMXBF16_MOE"}
CONTENTS, ERROR_TOKENS = 8, 16  # as in layer_data.h


def say(**reply):
    print(json.dumps(reply), flush=True)


def load_extension():
    """The AMX module of the wheel, loaded by itself: the package's own import wants torch."""
    folders = [p for p in sys.path if p.endswith("site-packages")]
    found = [f for p in folders for f in glob.glob(p + "/kt_kernel/_kt_kernel_ext_amx*.so")]
    if not found:
        raise SystemExit(say(failed="kt-kernel's AMX module is not installed"))
    loader = importlib.machinery.ExtensionFileLoader("kt_kernel_ext", found[0])
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("kt_kernel_ext", loader))
    loader.exec_module(module)
    return module


def to_bf16(f32):
    """Rounded to nearest even, as uint16."""
    bits = f32.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(u16):
    return (u16.astype(np.uint32) << 16).view(np.float32)


class Data:
    """layer_data.h through ctypes."""

    def __init__(self, library, shape, routing):
        self.lib = ctypes.CDLL(library)
        self.shape, self.routing = shape.encode(), routing.encode()
        self.d, self.i, self.e, self.k = (int(v) for v in shape.split(",")[:4])

    @staticmethod
    def pointer(array):
        return array.ctypes.data_as(ctypes.c_void_p)

    def matrix(self, content, which):
        out = np.empty(self.d * self.i, np.float32)
        assert self.lib.peers_fill_matrix(self.shape, ctypes.c_int64(content), which,
                                          self.pointer(out))
        return out

    def x(self, rows):
        out = np.empty((rows, self.d), np.float32)
        assert self.lib.peers_fill_x(self.shape, ctypes.c_int64(rows), self.pointer(out))
        return out

    def route(self, call, first, rows):
        ids, weights = np.empty((rows, self.k), np.int32), np.empty((rows, self.k), np.float32)
        assert self.lib.peers_route(self.shape, self.routing, ctypes.c_int64(call),
                                    ctypes.c_int64(first), ctypes.c_int64(rows), self.pointer(ids),
                                    self.pointer(weights))
        return ids.astype(np.int64), weights

    def reference(self):
        out = np.empty(ERROR_TOKENS * self.d, np.float64)
        assert self.lib.peers_reference(self.shape, self.routing, self.pointer(out))
        return out.reshape(ERROR_TOKENS, self.d)


class Layer:
    MAX_TOKENS = 4096

    def __init__(self, kt, data, weights, threads, total_bytes):
        self.kt, self.data = kt, data
        workers = kt.WorkerPoolConfig()
        workers.subpool_count = 1
        workers.subpool_numa_map = [0]
        workers.subpool_thread_count = [threads]
        self.cpu = kt.CPUInfer(workers)
        per_weight = {"int4": 0.5, "int8": 1, "bf16": 2}[weights]
        self.expert_bytes = int(3 * data.d * data.i * per_weight)
        self.copies = max(1, math.ceil(total_bytes / (self.expert_bytes * data.e)))
        self.best = {}
        stacks = [self.stack(which) for which in range(3)]
        self.mask = np.zeros(data.e, np.uint8)
        self.map = np.arange(data.e, dtype=np.int64)
        self.moes = [self.make(CLASSES[weights], stacks) for _ in range(self.copies)]

    def stack(self, which):
        """bf16 [E, rows, columns] of one projection: what the module quantises from."""
        d = self.data
        contents = [to_bf16(d.matrix(c, which)) for c in range(min(d.e, CONTENTS))]
        return np.stack([contents[e % CONTENTS] for e in range(d.e)])

    def make(self, name, stacks):
        d = self.data
        config = self.kt.moe.MOEConfig(d.e, d.k, d.d, d.i, self.mask.ctypes.data)
        config.pool = self.cpu.backend_
        config.max_len = self.MAX_TOKENS
        config.gate_proj, config.up_proj, config.down_proj = (s.ctypes.data for s in stacks)
        moe = getattr(self.kt.moe, name)(config)
        self.cpu.submit(moe.load_weights_task(self.map.ctypes.data))
        self.cpu.sync()
        return moe

    def call(self, copy, x, ids, weights, out):
        """Microseconds. `sync` spins on a core that the workers need: sleep through most of it."""
        m = len(x)
        rows = np.array([m], np.int32)
        task = self.moes[copy].forward_task(rows.ctypes.data, self.data.k, ids.ctypes.data,
                                            weights.ctypes.data, x.ctypes.data, out.ctypes.data, False)
        start = time.perf_counter()
        self.cpu.submit(task)
        if m in self.best:
            time.sleep(0.8 * self.best[m])
        self.cpu.sync()
        took = time.perf_counter() - start
        self.best[m] = min(self.best.get(m, took), took)
        return took * 1e6


def serve(layer, data):
    reference = None
    for line in sys.stdin:
        word, *numbers = line.split()
        if word == "quit":
            break
        m = int(numbers[0])
        x, out = to_bf16(data.x(m)), np.empty((m, data.d), np.uint16)
        if word == "time":
            first, count = int(numbers[1]), int(numbers[2])
            routed = [data.route(c, 0, m) for c in range(first, first + count)]
            us = [layer.call((first + i) % layer.copies, x, *routed[i], out) for i in range(count)]
            say(us=us, experts=[len(np.unique(ids)) for ids, _ in routed])
        else:
            reference = data.reference() if reference is None else reference
            found, rows = np.empty((ERROR_TOKENS, data.d), np.float32), data.x(ERROR_TOKENS + m)
            for t in range(0, ERROR_TOKENS, m):
                ids, weights = data.route(-1, t, m)
                layer.call(0, to_bf16(rows[t:t + m]), ids, weights, out)
                n = min(m, ERROR_TOKENS - t)
                found[t:t + n] = from_bf16(out[:n])
            say(error=float(np.linalg.norm(found - reference) / np.linalg.norm(reference)))


def main(argv):
    options = dict(zip(argv[2::2], argv[3::2]))
    shape, weights = options["--shape"], options["--weights"]
    if weights not in CLASSES:
        return say(failed=f"kt-kernel has no type {weights} here")
    if not shape.endswith(",silu"):
        return say(failed="kt-kernel's module knows SiLU only here")
    kt = load_extension()
    data = Data(argv[1], shape, options.get("--routing", "uniform"))
    threads = int(options.get("--threads", 2))
    layer = Layer(kt, data, weights, threads, float(options.get("--bytes", 2.3e9)))
    say(type=weights, buffer=CLASSES[weights], version=f"kt-kernel {importlib.metadata.version('kt-kernel')}",
        flags="wheel, module loaded directly, sleeping through 80 % of a call", isa=kt.__cpu_variant__,
        threads=threads, copies=layer.copies, expert_bytes=layer.expert_bytes,
        settle_s=0.1)  # its workers spin on for a while after a call
    serve(layer, data)


if __name__ == "__main__":
    main(sys.argv)
