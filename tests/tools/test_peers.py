"""The peer comparison's statistics and refusals, with co-processes that only pretend to compute."""
import importlib.util
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load_compare():
    spec = importlib.util.spec_from_file_location("compare", ROOT / "bench/peers/compare.py")
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True
    spec.loader.exec_module(module)
    return module


compare = load_compare()

# Answers as coprocess.h says: `us` microseconds a call (the first of a turn ten times that).
FAKE = """
import json, sys
us, error, probes = float(sys.argv[1]), float(sys.argv[2]), json.loads(sys.argv[3])
print("a library's chatter", flush=True)
print(json.dumps(json.loads(sys.argv[4])), flush=True)
for line in sys.stdin:
    word, *n = line.split()
    if word == "time":
        count = int(n[2])
        print(json.dumps({"us": [us * 10] + [us] * (count - 1), "experts": [8] * count}), flush=True)
    elif word == "error":
        print(json.dumps({"error": error}), flush=True)
    elif word == "probe":
        print(json.dumps({"read_gbs": probes.pop(0) if len(probes) > 1 else probes[0]}), flush=True)
    elif word == "rates":
        print(json.dumps({"int8": 1000.0}), flush=True)
    elif word == "quit":
        break
    else:
        print(json.dumps({"failed": "what is " + word}), flush=True)
"""
ABOUT = {"type": "q4_0", "buffer": "CPU_REPACK", "version": "1", "flags": "-O2", "isa": "x",
         "threads": 2, "expert_bytes": 1000000, "unit": "int8", "cpu": "A CPU"}


class QuietClock:
    """Nothing but the two sides runs; `noise` ticks of others come with each reading."""

    def __init__(self, noise=(), steal=0):
        self.noise, self.steal, self.now = list(noise), steal, {"busy": 0, "steal": 0, "own": 0}

    def read(self):
        foreign = self.noise.pop(0) if self.noise else 0
        self.now = {"busy": self.now["busy"] + 10 + foreign, "own": self.now["own"] + 10,
                    "steal": self.now["steal"] + self.steal}
        return dict(self.now)


class Peers(unittest.TestCase):
    def side(self, us, error=0.1, probes=(30.0,), **about):
        process = compare.Process([sys.executable, "-c", FAKE, str(us), str(error),
                                   json.dumps(probes), json.dumps({**ABOUT, **about})])
        self.addCleanup(process.close)
        return process

    def row(self, ours, peer, clock=None, m=1, **more):
        options = dict(m=m, shape=[2048, 768, 128, 8], shape_name="s", peer_name="llama.cpp",
                       kind="k", tables=[], wanted=7,
                       clock=clock or QuietClock(), cores=2, turn=0.001, settle=0, patience=0)
        return compare.compare_row(ours, peer, found_errors=compare.errors(ours, peer, m),
                                   **{**options, **more})


class Rows(Peers):
    def test_medians_ratio_and_roof(self):
        row = self.row(self.side(1000), self.side(2500))
        self.assertEqual((row["ours_us"], row["peer_us"], row["ratio"]), (1000, 2500, 2.5))
        self.assertEqual((row["pairs"], row["void_reason"]), (7, None))
        # 8 experts of 1 MB at 30 GB/s; the arithmetic would take 75 us.
        self.assertAlmostEqual(row["roof_us"], 8e6 / 30e9 * 1e6, delta=0.01)
        for key in ("peer", "shape", "weights", "M", "ours_error", "peer_error", "type", "buffer",
                    "version", "flags", "isa", "threads", "cpu"):
            self.assertIsNotNone(row[key], key)

    def test_arithmetic_is_the_other_half_of_the_roof(self):
        row = self.row(self.side(1000), self.side(2500), m=512)
        self.assertAlmostEqual(row["roof_us"], 2 * 512 * 8 * 3 * 2048 * 768 / 1e12 * 1e6, delta=1)

    def test_a_turn_is_as_many_calls_as_fill_it(self):
        self.assertEqual(compare.calls_per_turn(1000, 0.15), 150)
        self.assertEqual(compare.calls_per_turn(1e6, 0.15), 1)
        self.assertEqual(compare.calls_per_turn(0.1, 0.15), 400)

    def test_a_disturbed_pair_is_measured_again(self):
        row = self.row(self.side(1000), self.side(2500), QuietClock(noise=[0, 50]))
        self.assertEqual((row["pairs"], row["pairs_dropped"], row["ratio"]), (7, 1, 2.5))

    def test_waiting_ends_when_others_do(self):
        self.assertTrue(compare.wait_for_calm(QuietClock([0, 50, 50]), 2, 5, window=0.001))
        self.assertFalse(compare.wait_for_calm(QuietClock([50] * 10000), 2, 0.02, window=0.001))

    def test_a_row_of_disturbed_pairs_is_void(self):
        row = self.row(self.side(1000), self.side(2500), QuietClock(noise=[50] * 100))
        self.assertIsNone(row["ratio"])
        self.assertIn("only 0 of 7 pairs undisturbed (foreign CPU time: 50 ticks", row["void_reason"])
        row = self.row(self.side(1000), self.side(2500), QuietClock(steal=60))
        self.assertIn("stolen CPU time", row["void_reason"])

    def test_pairs_beside_a_slower_memory_are_dropped(self):
        # The fourth probe is slow: pairs three and four are measured again.
        row = self.row(self.side(1000, probes=[30, 30, 30, 20, 30]), self.side(2500))
        self.assertEqual((row["pairs"], row["pairs_dropped"], row["ratio"]), (7, 2, 2.5))
        row = self.row(self.side(1000, probes=[30, 20] * 30), self.side(2500))
        self.assertIn("the read bandwidth moved", row["void_reason"])

    def test_a_peer_off_the_tables_is_void(self):
        table = {"cpu": "k", "peer": "llama.cpp", "shape": "s", "type": "q4_0",
                 "buffer": "CPU_REPACK", "M": 1, "us": [5100]}
        row = self.row(self.side(1000), self.side(2500), tables=[table])
        self.assertIsNone(row["ratio"])
        self.assertEqual(row["ratio_measured"], 2.5)
        self.assertIn("outside 2550 .. 10200 of the tables", row["void_reason"])
        for other in ({"us": [4000]}, {"us": [1300, 9000]}, {"M": 2}, {"buffer": "CPU"}):
            row = self.row(self.side(1000), self.side(2500), tables=[{**table, **other}])
            self.assertEqual(row["ratio"], 2.5, other)

    def test_a_larger_error_is_void(self):
        slack = compare.error_slack([2048])
        self.assertAlmostEqual(slack, 1 + 3 / math.sqrt(16 * 2048))
        row = self.row(self.side(1000, error=0.1 * slack * 1.001), self.side(2500, error=0.1))
        self.assertIsNone(row["ratio"])
        self.assertIn("our error", row["void_reason"])
        row = self.row(self.side(1000, error=0.1 * slack * 0.999), self.side(2500, error=0.1))
        self.assertEqual(row["ratio"], 2.5)
        row = self.row(self.side(1000, error=float("nan")), self.side(2500, error=0.1))
        self.assertIsNone(row["ratio"])


class Best(Peers):
    def test_the_fastest_type_decides(self):
        ours = self.side(1000)
        row = self.row(ours, self.side(2500))
        faster = self.row(ours, self.side(1500, error=0.2, type="iq4_xs", buffer="CPU"))
        slower = self.row(ours, self.side(4000, type="q4_k"))
        row = compare.add_best(row, [faster, slower])
        self.assertEqual((row["ratio"], row["ratio_best"]), (2.5, 1.5))
        self.assertEqual((row["best_type"], row["best_us"]), ("iq4_xs", 1500))
        self.assertEqual(len(row["others"]), 2)

    def test_disturbed_others_and_void_rows_have_no_best(self):
        ours = self.side(1000)
        row = self.row(ours, self.side(2500))
        disturbed = self.row(ours, self.side(10), QuietClock(noise=[0] * 2 + [50] * 100))
        self.assertEqual(compare.add_best(row, [disturbed])["ratio_best"], 2.5)
        void = self.row(ours, self.side(2500, error=0.01))
        self.assertIsNone(compare.add_best(void, [])["ratio_best"])


class Merging(unittest.TestCase):
    def test_newer_rows_replace_older_ones_of_the_same_thing(self):
        def row(m, us):
            return {"shape": "s", "weights": "int4", "ours_isa": "x", "M": m, "ours_us": us}

        found = compare.merged([row(1, 5), row(2, 6)], [row(2, 7), row(3, 8)])
        self.assertEqual([(r["M"], r["ours_us"]) for r in found], [(1, 5), (2, 7), (3, 8)])


class Processes(Peers):
    def test_failures_are_sentences(self):
        with self.assertRaisesRegex(compare.Failed, "what is dance"):
            self.side(1).ask("dance")
        with self.assertRaisesRegex(compare.Failed, "ended with code 3"):
            compare.Process([sys.executable, "-c", "raise SystemExit(3)"])

    def test_the_clock_reads_processes_with_any_name(self):
        with tempfile.TemporaryDirectory() as folder:
            proc = pathlib.Path(folder)
            (proc / "7").mkdir()
            (proc / "stat").write_text("cpu  100 10 20 900 5 1 2 3 50 0\ncpu0 1 1 1\n")
            (proc / "7/stat").write_text("7 (a) b) S 1 1 1 0 -1 0 0 0 0 0 40 2 0 0 20 0 1 0\n")
            self.assertEqual(compare.CpuClock([7], proc).read(),
                             {"busy": 133, "steal": 3, "own": 42})

    def test_our_own_work_is_not_foreign(self):
        clock = compare.CpuClock([os.getpid()])
        before = clock.read()
        sum(i for i in range(10**6))
        after = clock.read()
        self.assertGreaterEqual(after["own"], before["own"])
        self.assertEqual(compare.foreign_ticks({"busy": 5, "own": 5, "steal": 0},
                                               {"busy": 25, "own": 25, "steal": 2}), (0, 2))


class Files(unittest.TestCase):
    def test_the_tables_are_what_their_script_writes(self):
        committed = (ROOT / "bench/peers/tables.json").read_text()
        spec = importlib.util.spec_from_file_location("tables", ROOT / "bench/peers/tables.py")
        tables = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tables)
        self.assertEqual(json.loads(committed), list(tables.rows()))

    def test_cpus_are_named_by_what_they_can(self):
        self.assertEqual(compare.cpu_kind("Intel(R) Xeon(R) Processor", "avx2 amx_int8"), "xeon-amx")
        self.assertEqual(compare.cpu_kind("AMD EPYC 9B14", "avx2 avx512_bf16"), "zen-avx512")
        self.assertEqual(compare.cpu_kind("Odd (R) CPU", ""), "odd--r--cpu")

    def test_a_side_that_is_not_there_is_a_sentence(self):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([sys.executable, str(ROOT / "bench/peers/run"), "experts",
                                   "--peer", "llama.cpp"], capture_output=True, text=True,
                                  env={**os.environ, "SLUICE_PEERS": folder})
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, "bench/peers/build makes it")


if __name__ == "__main__":
    unittest.main()
