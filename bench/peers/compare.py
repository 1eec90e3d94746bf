"""The comparison: co-processes that take turns, what the turns mean, and when a row is void.

Nothing here knows a peer: `run` starts the processes and writes the results.
"""
import contextlib
import dataclasses
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
PRUNE_AFTER = 3         # good pairs of every other type, then the fastest alone goes on


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


def disturbed(foreign, steal, seconds, cores, ticks_per_second=100):
    """A sentence when something else ran for more than it may, else None."""
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
        if not disturbed(*foreign_ticks(before, clock.read()), time.monotonic() - start, cores):
            return True
    return False


@dataclasses.dataclass
class Subject:
    """What one row of each M is about: our side, the peer's same type, its other types."""
    ours: Process
    same: Process
    others: list = dataclasses.field(default_factory=list)

    def peers(self):
        return [self.same, *self.others]


@dataclasses.dataclass
class Turn:
    us: list          # of each call that counts
    experts: list
    foreign: int      # ticks of processor time meanwhile
    steal: int
    seconds: float


class Rounds:
    """The rounds of one M: every side has a turn, from the same call on, with a read probe before and
    after. A turn is as many calls as fill it; before short ones comes one that only wakes the workers.
    After PRUNE_AFTER good pairs each subject goes on with its own type and the fastest other."""

    def __init__(self, subjects, m, clock, cores, turn=0.15, settle=0.02, patience=20.0,
                 deadline=math.inf):
        self.subjects, self.m, self.clock, self.cores = subjects, m, clock, cores
        self.turn, self.patience, self.deadline = turn, patience, deadline  # seconds; monotonic
        self.rounds, self.noise, self.next_call = [], [], 0
        self.sides = list(dict.fromkeys([s.ours for s in subjects] +
                                        [p for s in subjects for p in s.peers()]))
        self.settle = max([settle] + [side.about.get("settle_s", 0) for side in self.sides])
        self.last_turn = 0.0

    def ask(self, side, first, count):
        reply = side.ask(f"time {self.m} {first} {count}")
        return reply["us"], reply["experts"]

    def warm_up(self):
        self.calls, self.wakes = {}, {}
        for side in self.sides:
            us = min(self.ask(side, 0, 1)[0])
            if us < self.turn * 1e6:
                us = min(us, *self.ask(side, 1, 2)[0])
            self.calls[side] = calls_per_turn(us, self.turn)
            self.wakes[side] = int(us < self.turn * 1e6)

    def probe(self):
        time.sleep(self.settle)
        return self.subjects[0].ours.ask("probe")["read_gbs"]

    def take_turn(self, side):
        time.sleep(self.settle)  # the other sides' workers go to sleep
        before, start = self.clock.read(), time.monotonic()
        wake = self.wakes[side]
        us, experts = self.ask(side, self.next_call, self.calls[side] + wake)
        after, seconds = self.clock.read(), time.monotonic() - start
        return Turn(us[wake:], experts[wake:], *foreign_ticks(before, after), seconds)

    def round(self, sides, probe_before):
        turns = {side: self.take_turn(side) for side in sides}
        self.next_call += max(self.calls.values()) + 1
        probe = self.probe()
        self.rounds.append((turns, (probe_before, probe)))
        return probe

    def usual_probe(self):
        return statistics.median(p for _, probes in self.rounds for p in probes)

    def pairs(self, ours, peer):
        """(undisturbed pairs, sentences about the others). A pair beside which the memory was not as
        fast as in the median of this M is no better than one beside which something else ran."""
        good, dropped = [], []
        usual = self.usual_probe() if self.rounds else 0
        for turns, probes in self.rounds:
            if ours not in turns or peer not in turns:
                continue
            a, b = turns[ours], turns[peer]
            why = disturbed(a.foreign + b.foreign, a.steal + b.steal, a.seconds + b.seconds,
                            self.cores)
            if why is None and any(abs(p / usual - 1) > PROBE_MOVED for p in probes):
                why = "the read bandwidth moved"
            if why:
                dropped.append(why)
                continue
            good.append({"ours": statistics.median(a.us), "peer": statistics.median(b.us),
                         "ours_best": min(a.us), "peer_best": min(b.us),
                         "experts": statistics.mean(a.experts), "probes": probes})
        return good, dropped

    def count(self, ours, peer):
        return len(self.pairs(ours, peer)[0])

    def active(self, wanted):
        """The sides that still take part: none when every subject has its pairs."""
        open_subjects = [s for s in self.subjects if self.count(s.ours, s.same) < wanted]
        if not open_subjects:
            return []
        keep = {s.ours for s in open_subjects}
        for s in open_subjects:
            keep.update([s.same, *self.fastest(s)])
        return [side for side in self.sides if side in keep]

    def fastest(self, subject):
        """The other types that still take part: all at first, then the fastest."""
        done = {p: self.pairs(subject.ours, p)[0] for p in subject.others}
        late = [p for p, pairs in done.items() if len(pairs) >= PRUNE_AFTER]
        if len(late) < len(done):
            return [p for p in done if p not in late]
        return sorted(late, key=lambda p: statistics.median(x["peer"] for x in done[p]))[:1]

    def measure(self, wanted, most=None):
        self.warm_up()
        probe = self.probe()
        for _ in range(most or 3 * wanted):
            sides = self.active(wanted)
            # A round takes about as long as the one before: none begins that would end too late.
            if not sides or time.monotonic() + self.last_turn > self.deadline:
                break
            start = time.monotonic()
            good = sum(self.count(s.ours, s.same) for s in self.subjects)
            probe = self.round(sides, probe)
            self.last_turn = time.monotonic() - start
            if sum(self.count(s.ours, s.same) for s in self.subjects) == good and self.patience > 0:
                start = time.monotonic()
                wait_for_calm(self.clock, self.cores, min(self.patience, self.deadline - start))
                self.patience -= time.monotonic() - start
                probe = self.probe()


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


def errors(subjects, m):
    """Of every side; not timed, so that nobody need wait for it."""
    sides = {p for s in subjects for p in [s.ours, *s.peers()]}
    return {side: side.ask(f"error {m}")["error"] for side in sides}


@dataclasses.dataclass
class Setting:
    """What the rows of one run have in common."""
    shape: list                 # D, I, E, K
    shape_name: str
    routing: str
    peer_name: str
    kind: str                   # of CPU
    tables: list
    wanted: int


def compare_rows(subjects, m, found_errors, setting, rounds):
    """One M of all subjects -> a row each."""
    gops = {s.ours: s.ours.ask("rates")[s.ours.about["unit"]] for s in subjects}
    rounds.measure(setting.wanted)
    return [row_of(s, m, found_errors, setting, rounds, gops[s.ours]) for s in subjects]


def row_of(subject, m, found_errors, setting, rounds, gops):
    def against(peer, wanted):
        pairs, dropped = rounds.pairs(subject.ours, peer)
        found = summary(pairs)
        expected = table_range(setting.tables, setting.kind, setting.peer_name, setting.shape_name,
                               peer.about["type"], peer.about["buffer"], m)
        why = void_reason(pairs=pairs, wanted=wanted, dropped=dropped, peer_us=found["peer_us"],
                          expected=expected, ours_error=found_errors[subject.ours],
                          peer_error=found_errors[peer], slack=error_slack(setting.shape))
        rounded = {k: v if v is None else float(f"{v:.5g}") for k, v in found.items()}
        return pairs, dropped, found, expected, why, rounded

    pairs, dropped, found, expected, why, rounded = against(subject.same, setting.wanted)
    about, mine = subject.same.about, subject.ours.about
    roof = None if not pairs else roof_us(m, setting.shape, found["experts"], mine["expert_bytes"],
                                          found["read_gbs"], gops)
    measured = rounded.pop("ratio")
    row = {"peer": setting.peer_name, "shape": setting.shape_name, "weights": mine["type"], "M": m,
           "routing": setting.routing,
           "ours_us": rounded.pop("ours_us"), "peer_us": rounded.pop("peer_us"),
           "ratio": None if why else measured, "ratio_best": None,
           "ours_error": found_errors[subject.ours], "peer_error": found_errors[subject.same],
           "roof_us": roof and float(f"{roof:.5g}"),
           "void_reason": why, "ratio_measured": measured, **rounded,
           "gops_on_registers": round(gops), "pairs": len(pairs), "pairs_dropped": len(dropped),
           "calls_per_turn": [rounds.calls[subject.ours], rounds.calls[subject.same]],
           "type": about["type"], "buffer": about["buffer"], "version": about["version"],
           "flags": about["flags"], "isa": about["isa"], "threads": about["threads"],
           "copies": [mine["copies"], about["copies"]], "expert_bytes": mine["expert_bytes"],
           "cpu": mine["cpu"], "ours_isa": mine["isa"], "ours_mode": mine["flags"],
           "ours_version": mine["version"],
           "table_us": expected}
    others = []
    for peer in subject.others:
        _, _, _, _, other_why, other = against(peer, min(PRUNE_AFTER, setting.wanted))
        others.append({"type": peer.about["type"], "buffer": peer.about["buffer"],
                       "peer_us": other["peer_us"], "ratio_measured": other["ratio"],
                       "peer_error": found_errors[peer], "void_reason": other_why})
    return add_best(row, others)


def add_best(row, others):
    """ratio_best: against the fastest of the peer's types of the same rounds, the row's own among
    them. One that was disturbed does not count; the error of one does not matter."""
    if not others:
        return row
    row["others"] = others
    if row["void_reason"] or row["ratio"] is None:
        return row
    candidates = [row] + [o for o in others if o["ratio_measured"] is not None
                          and not (o["void_reason"] or "").startswith("only ")]
    best = min(candidates, key=lambda c: c["ratio_measured"])
    row.update(ratio_best=best["ratio_measured"], best_type=best["type"],
               best_buffer=best["buffer"], best_us=best["peer_us"])
    return row


def subject(row):
    """What a row of one peer is about."""
    return row["shape"], row["weights"], row["ours_isa"], row.get("routing", "uniform"), row["M"]


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
