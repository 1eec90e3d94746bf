"""The peer comparison's statistics and refusals, with co-processes that only pretend to compute."""
import contextlib
import importlib.machinery
import importlib.util
import io
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
         "threads": 2, "copies": 3, "expert_bytes": 1000000, "unit": "int8", "cpu": "A CPU"}


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

    def rows(self, subjects, clock=None, m=1, tables=(), wanted=7, deadline=math.inf, **more):
        setting = compare.Setting([2048, 768, 128, 8], "s", "uniform", "llama.cpp", "k", tables,
                                  wanted)
        rounds = compare.Rounds(subjects, m, clock or QuietClock(), 2, turn=0.1, settle=0,
                                patience=0, deadline=deadline)
        return compare.compare_rows(subjects, m, compare.errors(subjects, m), setting, rounds)

    def row(self, ours, peer, *others, **more):
        return self.rows([compare.Subject(ours, peer, list(others))], **more)[0]


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
        row = self.row(self.side(1000), self.side(2500), clock=QuietClock(noise=[0, 50]))
        self.assertEqual((row["pairs"], row["pairs_dropped"], row["ratio"]), (7, 1, 2.5))

    def test_waiting_ends_when_others_do(self):
        self.assertTrue(compare.wait_for_calm(QuietClock([0, 50, 50]), 2, 5, window=0.001))
        self.assertFalse(compare.wait_for_calm(QuietClock([50] * 10000), 2, 0.02, window=0.001))

    def test_a_row_of_disturbed_pairs_is_void(self):
        row = self.row(self.side(1000), self.side(2500), clock=QuietClock(noise=[50] * 100))
        self.assertIsNone(row["ratio"])
        self.assertIn("only 0 of 7 pairs undisturbed (foreign CPU time: 100 ticks", row["void_reason"])
        row = self.row(self.side(1000), self.side(2500), clock=QuietClock(steal=60))
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
    def test_the_fastest_type_of_the_same_rounds_decides(self):
        row = self.row(self.side(1000), self.side(2500),
                       self.side(1500, error=0.2, type="iq4_xs", buffer="CPU"),
                       self.side(4000, type="q4_k"))
        self.assertEqual((row["ratio"], row["ratio_best"]), (2.5, 1.5))
        self.assertEqual((row["best_type"], row["best_buffer"], row["best_us"]),
                         ("iq4_xs", "CPU", 1500))
        self.assertEqual([o["peer_us"] for o in row["others"]], [1500, 4000])

    def test_the_slower_ones_stop_early(self):
        subject = compare.Subject(self.side(1000), self.side(2500),
                                  [self.side(1500), self.side(4000)])
        rounds = compare.Rounds([subject], 1, QuietClock(), 2, turn=0.1, settle=0, patience=0)
        rounds.measure(7)
        self.assertEqual([rounds.count(subject.ours, p) for p in subject.peers()],
                         [7, 7, compare.PRUNE_AFTER])

    def test_disturbed_others_and_void_rows_have_no_best(self):
        # A round has three turns and the clock is read twice in each: the others' turns alone.
        row = self.row(self.side(1000), self.side(2500), self.side(10),
                       clock=QuietClock(noise=[0, 0, 0, 0, 0, 50] * 100))
        self.assertEqual((row["ratio"], row["ratio_best"]), (2.5, 2.5))
        void = self.row(self.side(1000), self.side(2500, error=0.01), self.side(1500))
        self.assertIsNone(void["ratio_best"])

    def test_without_other_types_there_is_no_best(self):
        self.assertIsNone(self.row(self.side(1000), self.side(2500))["ratio_best"])

    def test_several_of_ours_share_the_rounds(self):
        peer, other = self.side(2500), self.side(5000, type="q8_0")
        rows = self.rows([compare.Subject(self.side(1000), peer, [other]),
                          compare.Subject(self.side(2000, type="int8"), other)])
        self.assertEqual([(r["weights"], r["type"], r["ratio"]) for r in rows],
                         [("q4_0", "q4_0", 2.5), ("int8", "q8_0", 2.5)])

    def test_a_type_measured_in_other_rounds_joins(self):
        row = self.row(self.side(1000), self.side(2500), self.side(3000))
        self.assertEqual(row["ratio_best"], 2.5)
        more = [{"type": "iq4_xs", "buffer": "CPU", "peer_us": 2000.0, "ratio_measured": 2.0,
                 "peer_error": 0.1, "void_reason": None}]
        self.assertEqual(compare.add_best(row, row["others"] + more)["ratio_best"], 2.0)

    def test_no_round_begins_after_the_deadline(self):
        row = self.row(self.side(1000), self.side(2500), deadline=0.0)
        self.assertEqual((row["pairs"], row["ratio"]), (0, None))


class Merging(unittest.TestCase):
    def test_newer_rows_replace_older_ones_of_the_same_thing(self):
        def row(m, us, **more):
            return {"shape": "s", "weights": "int4", "ours_isa": "x", "M": m, "ours_us": us, **more}

        found = compare.merged([row(1, 5), row(2, 6)], [row(2, 7), row(3, 8)])
        self.assertEqual([(r["M"], r["ours_us"]) for r in found], [(1, 5), (2, 7), (3, 8)])
        found = compare.merged([row(1, 5)], [row(1, 6, routing="zipf")])
        self.assertEqual([r["ours_us"] for r in found], [5, 6])


class Table(unittest.TestCase):
    """`run all`: its list, what is left of it, and what fits beside each other."""

    def setUp(self):
        loader = importlib.machinery.SourceFileLoader("peers_run", str(ROOT / "bench/peers/run"))
        self.run = importlib.util.module_from_spec(
            importlib.util.spec_from_loader("peers_run", loader))
        loader.exec_module(self.run)

    def test_every_line_of_the_list_is_a_case(self):
        parser = self.run.make_parser()
        argv = ["all", "--lock", "x"]
        cases = self.run.cases_of(parser.parse_args(argv), parser, argv)
        self.assertGreater(len(cases), 5)
        for case, command in cases:
            self.assertTrue(case.save and case.lock == "x", command)
            self.assertTrue(command.startswith("bench/peers/run experts --"), command)
            types = self.run.LLAMA_TYPES if case.peer == "llama.cpp" else self.run.KT_TYPES
            self.assertLessEqual(set(case.weights.split()), set(types), command)
            self.assertLessEqual(set(case.shape.split()), set(self.run.SHAPES), command)

    def test_options_that_nothing_could_be_measured_with_are_sentences(self):
        for option, value, sentence in (
                ("--shape", "foo", "or D,I,E,K, got 'foo'"), ("--shape", "64,32,4", "or D,I,E,K"),
                ("--shape", "64,32,4,5", "K: expected at most E = 4, got 5"),
                ("--tokens", "1,0", "expected a whole number of 1 or more, got '0'"),
                ("--pairs", "0", "1 or more"), ("--threads", "-1", "1 or more"),
                ("--bytes", "1e6", "expected 1e8 or more")):
            said = io.StringIO()
            with self.assertRaises(SystemExit), contextlib.redirect_stderr(said):
                self.run.make_parser().parse_args(["experts", f"{option}={value}"])
            self.assertIn(sentence, said.getvalue())

    def test_what_is_measured_by_this_build_is_not_measured_again(self):
        parser = self.run.make_parser()
        case = parser.parse_args(["experts", "--weights", "int4 int8", "--tokens", "1,16"])
        ours = {"version": "2", "isa": "amx"}

        def row(weights, m, **more):
            return {"shape": "s", "weights": weights, "ours_isa": "amx", "M": m,
                    "ours_version": "2", "void_reason": None, **more}

        rows = [row("int4", 1), row("int4", 16), row("int8", 1)]
        self.assertEqual(self.run.left_of(case, "s", rows, ours), (["int8"], [16]))
        rows.append(row("int8", 16, void_reason="only 2 of 7 pairs undisturbed"))
        self.assertEqual(self.run.left_of(case, "s", rows, ours), (["int8"], [16]))
        rows[-1]["void_reason"] = "our error 2 exceeds the peer's 1"
        self.assertEqual(self.run.left_of(case, "s", rows, ours), ([], []))
        for other in ({"ours_version": "1"}, {"ours_isa": "avx2"}, {"routing": "zipf"}):
            rows[0] = row("int4", 1, **other)
            self.assertEqual(self.run.left_of(case, "s", rows, ours), (["int4"], [1]), other)

    def test_types_that_do_not_fit_have_runs_of_their_own(self):
        sizes = {"a": 3, "b": 4, "c": 2, "d": 20}
        self.assertEqual(self.run.batches(sizes, sizes.get, 6), [["a"], ["b", "c"], ["d"]])
        self.assertEqual(self.run.batches(sizes, sizes.get, 100), [["a", "b", "c", "d"]])
        self.assertEqual(self.run.batches([], sizes.get, 6), [[]])


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
