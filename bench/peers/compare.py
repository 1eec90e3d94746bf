"""The comparison: two co-processes that take turns, what the turns mean, and when a row is void.

Nothing here knows a peer: `run` starts the processes and writes the results.
"""
import contextlib
import fcntl
import json
import math
import os
import pathlib
import statistics
import subprocess
import time

ERROR_TOKENS = 16       # as in layer_data.h
PROBE_MOVED = 0.10      # a pair beside which the read bandwidth was off by more is dropped
FOREIGN_SHARE = 0.05    # of the processors' time during a pair that others may take
FOREIGN_TICKS = 3       # and what the coarse clocks of /proc cannot tell apart
TABLE_FACTOR = 2.0      # a peer may be this much faster or slower than the table


class Failed(Exception):
    """A sentence from a co-process, or about one."""


class Process:
    """A co-process: a line of text in, a line of JSON out (coprocess.h)."""

    def __init__(self, command, env=None):
        self.name = os.path.basename(command[0])
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL, text=True,
                                      env={**os.environ, **(env or {})})
        try:
            self.about = self.answer()
        except Failed:
            self.close()
            raise

    def answer(self):
        line = self.child.stdout.readline()
        while line and not line.startswith("{"):
            line = self.child.stdout.readline()  # a library's chatter
        if not line:
            raise Failed(f"{self.name} ended with code {self.child.wait()}")
        reply = json.loads(line)
        if "failed" in reply:
            raise Failed(f"{self.name}: {reply['failed']}")
        return reply

    def ask(self, line):
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()
        return self.answer()

    @property
    def pid(self):
        return self.child.pid

    def close(self):
        with contextlib.suppress(OSError, ValueError):
            self.child.stdin.write("quit\n")
            self.child.stdin.close()
        try:
            self.child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()


class CpuClock:
    """Ticks of all processors, of the hypervisor's other guests, and of the processes `pids`."""

    def __init__(self, pids, proc="/proc"):
        self.pids, self.proc = list(pids), pathlib.Path(proc)

    def read(self):
        fields = [int(f) for f in (self.proc / "stat").read_text().split("\n")[0].split()[1:]]
        user, nice, system, _, _, irq, softirq, steal = fields[:8]
        own = 0
        for pid in self.pids:
            after_name = (self.proc / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
            own += int(after_name[11]) + int(after_name[12])
        return {"busy": user + nice + system + irq + softirq, "steal": steal, "own": own}


def foreign_ticks(before, after):
    """Processor time that was neither ours nor idle, and time that the hypervisor took away."""
    delta = {k: after[k] - before[k] for k in before}
    return max(0, delta["busy"] - delta["own"]), delta["steal"]


def disturbed(before, after, seconds, cores, ticks_per_second=100):
    """A sentence when something else ran, else None."""
    foreign, steal = foreign_ticks(before, after)
    allowed = max(FOREIGN_TICKS, FOREIGN_SHARE * seconds * cores * ticks_per_second)
    if foreign > allowed:
        return f"foreign CPU time: {foreign} ticks in {seconds:.2f} s"
    if steal > allowed:
        return f"stolen CPU time: {steal} ticks in {seconds:.2f} s"
    return None


@contextlib.contextmanager
def holding(lock):
    """Holds an exclusive lock on the file `lock` (None: nothing to hold)."""
    if lock is None:
        yield
        return
    with open(lock, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def calls_per_turn(us_of_a_call, turn_seconds, most=400):
    return max(1, min(most, math.ceil(turn_seconds * 1e6 / us_of_a_call)))


def wait_for_calm(clock, cores, seconds, window=0.3):
    """Returns once a window of time passes in which nobody else ran; at most `seconds` later."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before, start = clock.read(), time.monotonic()
        time.sleep(window)
        if not disturbed(before, clock.read(), time.monotonic() - start, cores):
            return True
    return False


class Row:
    """The pairs of one M. Each pair: our turn, the peer's turn, the same calls; a read probe before
    and after. A turn's first call only wakes the workers and is not counted."""

    def __init__(self, ours, peer, m, clock, cores, turn=0.15, settle=0.02, patience=20.0):
        self.ours, self.peer, self.m, self.clock, self.cores = ours, peer, m, clock, cores
        self.turn, self.settle, self.patience = turn, settle, patience  # seconds
        self.pairs, self.dropped, self.next_call = [], [], 0

    def timed(self, side, count):
        time.sleep(self.settle)  # the other side's workers go to sleep
        reply = side.ask(f"time {self.m} {self.next_call} {count + 1}")
        return reply["us"][1:], reply["experts"][1:]

    def probe(self):
        time.sleep(self.settle)
        return self.ours.ask("probe")["read_gbs"]

    def warm_up(self):
        slowest = max(min(side.ask(f"time {self.m} 0 3")["us"]) for side in (self.ours, self.peer))
        self.count = calls_per_turn(slowest, self.turn)

    def pair(self, probe_before):
        before, start = self.clock.read(), time.monotonic()
        ours, experts = self.timed(self.ours, self.count)
        peer, _ = self.timed(self.peer, self.count)
        probe = self.probe()
        why = disturbed(before, self.clock.read(), time.monotonic() - start, self.cores)
        self.next_call += self.count + 1
        found = {"ours": statistics.median(ours), "peer": statistics.median(peer),
                 "ours_best": min(ours), "peer_best": min(peer),
                 "experts": statistics.mean(experts), "probes": (probe_before, probe)}
        if why:
            self.dropped.append(why)
        else:
            self.pairs.append(found)
        return probe

    def undisturbed(self):
        """The pairs beside which the memory was as fast as in the row's median."""
        if not self.pairs:
            return []
        usual = statistics.median(p for pair in self.pairs for p in pair["probes"])
        return [pair for pair in self.pairs
                if all(abs(p / usual - 1) <= PROBE_MOVED for p in pair["probes"])]

    def measure(self, wanted, most=None):
        self.warm_up()
        probe = self.probe()
        for _ in range(most or 3 * wanted):
            dropped = len(self.dropped)
            probe = self.pair(probe)
            if len(self.undisturbed()) >= wanted:
                break
            if len(self.dropped) > dropped and self.patience > 0:
                start = time.monotonic()
                wait_for_calm(self.clock, self.cores, self.patience)
                self.patience -= time.monotonic() - start
                probe = self.probe()
        return self.undisturbed()


def error_slack(shape):
    """How far two relative errors of equal expectation lie apart by chance (three deviations of the
    ratio of two root mean squares over n values)."""
    return 1 + 3 / math.sqrt(ERROR_TOKENS * shape[0])


def roof_us(m, shape, experts, expert_bytes, read_gbs, gops):
    """The larger of the time to read the experts once and the time to multiply."""
    d, i, _, k = shape[:4]
    return max(experts * expert_bytes / read_gbs / 1e3, 2 * m * k * 3 * d * i / gops / 1e3)


def table_range(tables, kind, peer, shape, weights, buffer, m):
    """(low, high) microseconds that the tables give, or None."""
    for row in tables:
        key = (row["cpu"], row["peer"], row["shape"], row["type"], row["buffer"], row["M"])
        if key == (kind, peer, shape, weights.lower(), buffer, m):
            return row["us"][0] / TABLE_FACTOR, row["us"][-1] * TABLE_FACTOR
    return None


def void_reason(*, pairs, wanted, dropped, peer_us, expected, ours_error, peer_error, slack):
    """Why the row says nothing, or None."""
    if len(pairs) < wanted:
        why = dropped[-1] if dropped else "the read bandwidth moved"
        return f"only {len(pairs)} of {wanted} pairs undisturbed ({why})"
    if expected and not expected[0] <= peer_us <= expected[1]:
        return (f"the peer took {peer_us:.0f} us, outside {expected[0]:.0f} .. {expected[1]:.0f} "
                "of the tables")
    if not ours_error <= peer_error * slack:
        return f"our error {ours_error:.4g} exceeds the peer's {peer_error:.4g}"
    return None


def summary(pairs):
    """Medians over the pairs; None where there is no pair."""
    if not pairs:
        return dict.fromkeys(("ours_us", "peer_us", "ratio", "ratio_min", "ratio_max",
                              "ours_best_us", "peer_best_us", "experts", "read_gbs"))
    ratios = [p["peer"] / p["ours"] for p in pairs]
    return {"ours_us": statistics.median(p["ours"] for p in pairs),
            "peer_us": statistics.median(p["peer"] for p in pairs),
            "ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios),
            "ours_best_us": min(p["ours_best"] for p in pairs),
            "peer_best_us": min(p["peer_best"] for p in pairs),
            "experts": statistics.mean(p["experts"] for p in pairs),
            # The roof is what the memory can do: its best moment, not ours.
            "read_gbs": max(x for p in pairs for x in p["probes"])}


def errors(ours, peer, m):
    """(ours, the peer's): not timed, so that nobody need wait for it."""
    return tuple(side.ask(f"error {m}")["error"] for side in (ours, peer))


def compare_row(ours, peer, *, m, found_errors, shape, shape_name, peer_name, kind, tables, wanted,
                clock, cores, turn=0.15, settle=0.02, patience=20.0):
    """One M of one pair of sides -> the row."""
    ours_error, peer_error = found_errors
    row = Row(ours, peer, m, clock, cores, turn, settle, patience)
    gops = ours.ask("rates")[ours.about["unit"]]
    pairs = row.measure(wanted)
    found = summary(pairs)
    about, mine = peer.about, ours.about
    expected = table_range(tables, kind, peer_name, shape_name, about["type"], about["buffer"], m)
    why = void_reason(pairs=pairs, wanted=wanted, dropped=row.dropped, peer_us=found["peer_us"],
                      expected=expected, ours_error=ours_error, peer_error=peer_error,
                      slack=error_slack(shape))
    roof = None if not pairs else roof_us(m, shape, found["experts"], mine["expert_bytes"],
                                          found["read_gbs"], gops)
    rounded = {k: v if v is None else float(f"{v:.5g}") for k, v in found.items()}
    measured = rounded.pop("ratio")
    return {"peer": peer_name, "shape": shape_name, "weights": mine["type"], "M": m,
            "ours_us": rounded.pop("ours_us"), "peer_us": rounded.pop("peer_us"),
            "ratio": None if why else measured, "ratio_best": None,
            "ours_error": ours_error, "peer_error": peer_error,
            "roof_us": roof and float(f"{roof:.5g}"),
            "void_reason": why, "ratio_measured": measured, **rounded,
            "gops_on_registers": round(gops), "pairs": len(pairs), "pairs_dropped": len(row.dropped) + len(row.pairs) - len(pairs),
            "calls_per_turn": row.count,
            "type": about["type"], "buffer": about["buffer"], "version": about["version"],
            "flags": about["flags"], "isa": about["isa"], "threads": about["threads"],
            "cpu": mine["cpu"], "ours_isa": mine["isa"], "ours_mode": mine["flags"],
            "ours_version": mine["version"],
            "table_us": expected}


def add_best(row, others):
    """ratio_best: against the fastest of the peer's types, the row's own among them. `others` are
    rows of the same M; one that was disturbed does not count, its errors do not matter."""
    candidates = [(row["ratio_measured"], row)] + [
        (o["ratio_measured"], o) for o in others
        if o["ratio_measured"] is not None and not (o["void_reason"] or "").startswith("only ")]
    row["others"] = [{k: o[k] for k in ("type", "buffer", "peer_us", "ratio_measured", "peer_error",
                                        "void_reason")} for o in others]
    if row["void_reason"] or row["ratio"] is None:
        return row
    ratio, best = min(candidates, key=lambda c: c[0])
    row.update(ratio_best=ratio, best_type=best["type"], best_buffer=best["buffer"],
               best_us=best["peer_us"])
    return row


def subject(row):
    """What a row of one peer is about."""
    return row["shape"], row["weights"], row["ours_isa"], row["M"]


def merged(older, newer):
    """Rows of two runs; of rows about the same thing the newer one."""
    fresh = {subject(row) for row in newer}
    return [row for row in older if subject(row) not in fresh] + newer


def cpu_kind(name, features):
    """The kind of machine that the tables know, or a word for a folder."""
    if "amx_int8" in features:
        return "xeon-amx"
    if "EPYC" in name or "Ryzen" in name:
        return "zen-avx512" if "avx512_bf16" in features else "zen"
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-") or "unknown"
