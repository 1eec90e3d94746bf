"""gpu_check's plan, limits and refusals, with programs that only pretend to need a GPU."""
import array
import importlib.machinery
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest
import unittest.mock

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True


def load(name):
    loader = importlib.machinery.SourceFileLoader(name.removesuffix(".py"), str(ROOT / "tools" / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


check = load("gpu_check")
bundle = check.gpu_bundle
goldens = load("gpu_goldens.py")
HAS_DRIVER = check.find_device()[0] is not None


class Folder(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = pathlib.Path(temporary.name)

    def script(self, name, text):
        path = self.root / name
        path.write_text("#!/bin/sh\n" + text + "\n")
        path.chmod(0o755)
        return path

    def make_bundle(self, **more):
        names = ["sluice", "ops_rms_norm_test", "ops_rope_test", "device_block_test", "probe_wgmma",
                 "bench_ops", "tests_device_test"]
        files = {n: self.script(n, "echo '[  PASSED  ] 2 tests.'") for n in names}
        facts = {"git": "abc", "date": "now", "nvcc": "13", "tests": names[1:3], "suites": [names[3], names[6]],
                 "probes": names[4:5], "programs": [names[0], names[5]], **more}
        bundle.pack(self.root / "bundle", files, facts)
        return self.root / "bundle"

    def run_check(self, *arguments):
        return subprocess.run([sys.executable, str(ROOT / "tools/gpu_check"), *map(str, arguments)],
                              capture_output=True, text=True)

    def summary(self, out):
        return json.loads(next(out.glob("*-summary.json")).read_text())


class Bundles(Folder):
    def test_a_bundle_comes_back_as_it_went(self):
        made = self.make_bundle()
        manifest = bundle.unpack(made, self.root / "there")
        self.assertEqual(manifest["tests"], ["ops_rms_norm_test", "ops_rope_test"])
        done = subprocess.run([self.root / "there/sluice"], capture_output=True)
        self.assertEqual(done.returncode, 0)

    def test_what_is_too_large_is_refused_and_not_left(self):
        file = self.root / "noise"
        file.write_bytes(bytes((i * i * 31 + i // 251) % 256 for i in range(20000)))
        for limits in ({"bundle_limit": 100}, {"tree": 10 ** 6, "total_limit": 10 ** 6}):
            with self.assertRaisesRegex(bundle.Refused, "the limits are"):
                bundle.pack(self.root / "b", {"noise": file}, {}, **limits)
            self.assertFalse((self.root / "b/bundle.tar.xz").exists())
            self.assertFalse((self.root / "b/manifest.json").exists())

    def test_a_changed_bundle_is_refused(self):
        made = self.make_bundle()
        archive = made / "bundle.tar.xz"
        archive.write_bytes(archive.read_bytes()[:-1] + b"x")
        done = self.run_check("run", "--bundle", made, "--out", self.root / "out")
        self.assertEqual(done.returncode, 2)
        self.assertIn("not the archive that its manifest names", done.stderr)

    def test_no_bundle_is_a_sentence(self):
        done = self.run_check("run", "--bundle", self.root / "none", "--dry-run")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("tools/gpu_check prepare makes one", done.stderr)

    def test_libraries_beyond_glibc_are_named(self):
        self.assertEqual(bundle.foreign_libraries(pathlib.Path("/bin/true").resolve()), [])
        lines = "\tlinux-vdso.so.1 (0x1)\n\tlibfmt.so.9 => /lib/libfmt.so.9 (0x2)\n\tlibc.so.6 => x\n" \
                "\t/lib64/ld-linux-x86-64.so.2 (0x3)\n\tlibstdc++.so.6 => /lib/x (0x4)\n"
        path = self.root / "bin/ldd"
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\nprintf '{lines}'\n")
        path.chmod(0o755)
        with unittest.mock.patch.dict("os.environ", {"PATH": f"{path.parent}:/usr/bin:/bin"}):
            self.assertEqual(bundle.foreign_libraries("x"), ["libfmt.so.9", "libstdc++.so.6"])

    def test_ops_with_cuda_rows_are_found(self):
        folder = self.root / "src/ops/norm"
        folder.mkdir(parents=True)
        (folder / "kernels.inc").write_text(
            '// SLUICE_KERNEL(kCuda, comment, f32)\nSLUICE_KERNEL(kCudaHost, norm_cuda_host, f32, "")\n'
            '#if defined(SLUICE_CUDA)\nSLUICE_KERNEL(kCuda, norm_cuda, f32, none, any, "")\n#endif\n')
        self.assertEqual(bundle.cuda_ops(self.root), {"norm": ["norm_cuda"]})
        self.assertIn("rms_norm", bundle.cuda_ops(ROOT))

    def test_prepare_stops_at_the_first_command_that_fails(self):
        def ask(command, **_):
            return subprocess.CompletedProcess(command, 1, "", "no preset")
        with self.assertRaisesRegex(bundle.Refused, "cmake --preset gpu failed:\nno preset"):
            bundle.build(self.root, self.root / "out", 1, ask)


class Commands(Folder):
    def test_a_hanging_part_is_killed_with_its_children(self):
        mark = self.root / "alive"
        hang = self.script("hang", f"trap '' TERM\n(sleep 3; touch {mark}) &\necho begun\nwait")
        begin = time.monotonic()
        code, output = check.run_command([str(hang)], 0.5, self.root)
        self.assertIsNone(code)
        self.assertIn("begun", output)
        self.assertLess(time.monotonic() - begin, 2.5)
        time.sleep(3)
        self.assertFalse(mark.exists())

    def test_a_missing_program_is_a_failure(self):
        self.assertEqual(check.run_command([str(self.root / "none")], 5, self.root)[0], 127)

    def run_steps(self, *steps, minutes=1.0, part="tests", clock=time.monotonic):
        results = check.Results(self.root / "out", "d", {})
        counts = check.run_parts([(part, "", list(steps))], results, minutes, clock)
        outcomes = [s["outcome"] for s in self.summary(self.root / "out")["parts"][part]["steps"]]
        return counts, outcomes

    def test_outcomes(self):
        ok = "[  PASSED  ] 3 tests."
        counts, outcomes = self.run_steps(
            check.Step("a", [self.script("a", f"echo '{ok}'")], 9, must_run=True),
            check.Step("b", [self.script("b", "echo '[  PASSED  ] 0 tests.'")], 9, must_run=True),
            check.Step("c", [self.script("c", "exit 1")], 9),
            check.Step("d", [self.script("d", "echo needs Hopper; exit 77")], 9),
            check.Step("e", [self.script("e", "sleep 60")], 0.3),
            check.Step("f", ["x"], 9, needs="surely-not-here"),
            check.Step("g", [self.script("g", "exit 1")], 9, optional=True))
        self.assertEqual(outcomes, ["passed", "failed: no CUDA row ran", "failed: exit code 1",
                                    "skipped: needs Hopper", "killed after 0 s",
                                    "skipped: no surely-not-here here", "failed: exit code 1"])
        self.assertEqual(counts, {"passed": 1, "failed": 3, "not run": 0})

    def test_what_a_sanitizer_finds_fails_although_it_may_be_absent(self):
        counts, _ = self.run_steps(check.Step("m", [self.script("m", "exit 9")], 9, optional=True),
                                   part="sanitizer")
        self.assertEqual(counts["failed"], 1)
        counts, _ = self.run_steps(check.Step("m", [self.script("slow", "sleep 60")], 0.2, optional=True),
                                   part="sanitizer")
        self.assertEqual((counts["failed"], counts["not run"]), (0, 1))

    def test_time_runs_out_and_what_was_done_stays(self):
        now = [0.0]

        def clock():
            now[0] += 10
            return now[0]

        steps = [check.Step(str(i), [self.script("ok", "true")], 60) for i in range(8)]
        counts, outcomes = self.run_steps(*steps, minutes=1, clock=clock)
        self.assertEqual(outcomes[0], "passed")
        self.assertEqual(outcomes[-1], "not run: out of time")
        self.assertEqual(counts["failed"], 0)
        self.assertEqual(counts["passed"] + counts["not run"], 8)

    def test_results_stay_within_a_file(self):
        results = check.Results(self.root / "out", "d", {})
        results.room["log.txt"] = 100
        results.record("tests", "x", "passed", 1.0, "y" * 1000)
        results.record("probes", "p", "passed", 1.0, '{"probe": "p"}\n  words\n[1]\n')
        log = (self.root / "out/d-log.txt").read_text()
        self.assertLess(len(log), 200)
        self.assertIn("[the rest was dropped]", log)
        self.assertEqual((self.root / "out/d-probes.jsonl").read_text(), '{"probe": "p"}\n')
        self.assertLessEqual(len(list((self.root / "out").iterdir())), 8)


class Plans(Folder):
    def test_dry_run_lists_every_part_with_its_time(self):
        done = self.run_check("run", "--bundle", self.make_bundle(), "--dry-run")
        self.assertEqual(done.returncode, 0, done.stderr)
        parts = [line.split()[0] for line in done.stdout.splitlines()]
        self.assertEqual(parts[:9], ["facts", "smoke", "tests", "probes", "models", "suites",
                                     "sanitizer", "bench", "clocks"])
        self.assertIn("stops after 9 minutes", done.stdout)

    def test_only_repeats_one_part_and_knows_the_others(self):
        made = self.make_bundle()
        done = self.run_check("run", "--bundle", made, "--dry-run", "--only", "probes")
        self.assertEqual([line.split()[0] for line in done.stdout.splitlines()][:-1], ["probes"])
        done = self.run_check("run", "--bundle", made, "--dry-run", "--only", "dance")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--only dance: the parts are facts, smoke,", done.stderr)

    @unittest.skipIf(HAS_DRIVER, "this machine has a CUDA device")
    def test_without_a_driver_every_part_is_skipped_and_the_code_says_so(self):
        out = self.root / "out"
        done = self.run_check("run", "--bundle", self.make_bundle(), "--out", out)
        self.assertEqual(done.returncode, 77, done.stdout + done.stderr)
        summary = self.summary(out)
        self.assertEqual(summary["exit_code"], 77)
        self.assertEqual(len(summary["parts"]), 9)
        for part in summary["parts"].values():
            self.assertRegex(part["skipped"], "^no CUDA device")
            self.assertEqual(part["steps"], [])

    def test_goldens_and_scripts_that_the_plan_names_exist(self):
        manifest = json.loads((self.make_bundle() / "manifest.json").read_text())
        parts = {p[0]: p[2] for p in check.plan(manifest, self.root)}
        self.assertGreaterEqual(len(parts["models"]), 6)
        self.assertEqual(parts["models"][0].name, "tests_device_test")
        self.assertNotIn("tests_device_test", [s.name for s in parts["suites"]])
        for step in [*parts["models"][1:], parts["bench"][-1]]:
            self.assertTrue(pathlib.Path(step.command[1]).is_file(), step.command)


class Goldens(unittest.TestCase):
    GOLDEN = {"input_ids": ("I32", array.array("i", [1])), "greedy": ("I32", array.array("i", [5, 6])),
              "logits": ("F32", array.array("f", [1.0, 2.0]))}

    def device(self, **changes):
        return {"greedy": self.GOLDEN["greedy"], "logits": self.GOLDEN["logits"], **changes}

    def test_equal_is_equal(self):
        self.assertEqual(goldens.compare(self.GOLDEN, self.device(), self.device()), ([], 0.0, 0))

    def test_ids_are_exact_and_values_within_the_limit(self):
        near = ("F32", array.array("f", [1.0, 2.0001]))
        far = ("F32", array.array("f", [1.0, 2.01]))
        nan = ("F32", array.array("f", [float("nan"), 2.0]))
        problems, worst, differ = goldens.compare(self.GOLDEN, self.device(logits=near), self.device())
        self.assertEqual((problems, differ), ([], 1))
        self.assertAlmostEqual(worst, 1e-4, delta=1e-6)
        self.assertIn("logits: differs by 0.01",
                      goldens.compare(self.GOLDEN, self.device(logits=far), self.device())[0][0])
        self.assertTrue(goldens.compare(self.GOLDEN, self.device(logits=nan), self.device())[0])
        other = self.device(greedy=("I32", array.array("i", [5, 7])))
        self.assertEqual(goldens.compare(self.GOLDEN, other, other)[0], ["greedy: other ids"])
        self.assertIn("greedy: other ids than the CPU's",
                      goldens.compare(self.GOLDEN, self.device(), other)[0])
        missing = {"greedy": self.GOLDEN["greedy"]}
        self.assertEqual(goldens.compare(self.GOLDEN, missing, missing)[0],
                         ["logits: missing, or of another size"])


if __name__ == "__main__":
    unittest.main()
