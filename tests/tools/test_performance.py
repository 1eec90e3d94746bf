"""The page of measured speeds: what is called reached, and what a miss must say."""
import importlib.machinery
import importlib.util
import json
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load_page():
    loader = importlib.machinery.SourceFileLoader("performance_page",
                                                  str(ROOT / "tools/performance_page"))
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader("performance_page", loader))
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


page = load_page()


def row(**more):
    return {"peer": "llama.cpp", "shape": "qwen3-30b-a3b", "weights": "int4", "ours_isa": "amx", "M": 512,
            "ours_us": 20000.0, "peer_us": 260000.0, "ratio": 13.0, "ratio_measured": 13.0,
            "ratio_min": 12.5, "ratio_max": 13.5, "ratio_best": 6.0, "best_type": "iq4_xs",
            "best_buffer": "CPU", "others": [{}], "roof_us": 10000.0, "experts": 128.0,
            "expert_bytes": 2343750, "read_gbs": 30.0, "gops_on_registers": 14000, "type": "q4_0",
            "buffer": "CPU_REPACK", "void_reason": None, "ours_error": 0.1, "peer_error": 0.2, **more}


GOAL = ("llama.cpp", "qwen3-30b-a3b", "int4", "", 512, 30, 12, 5, 21)


class Verdicts(unittest.TestCase):
    def word(self, **more):
        return page.verdict(GOAL, row(**more))[0]

    def test_words(self):
        self.assertEqual(self.word(), "aim reached")
        self.assertEqual(self.word(ours_us=21001.0), "reached")
        self.assertEqual(self.word(ours_us=30001.0), "missed")
        self.assertEqual(self.word(ratio=11.9), "missed")
        self.assertEqual(self.word(ratio_best=4.9), "missed")
        self.assertEqual(self.word(ratio_best=None), "missed")
        self.assertEqual(self.word(ratio=None, void_reason="our error"), "void")
        self.assertEqual(page.verdict(GOAL, None)[0], "not measured")

    def test_a_miss_says_what_binds(self):
        found = page.verdict(GOAL, row(ratio=11.0))[2]
        # 128 experts of 2.34 MB at 30 GB/s; 512 x 8 x 6 x 2048 x 768 operations at 14 TOP/s.
        self.assertIn("roof 10.00 ms, 50% of it reached: 128 experts at 30.0 GB/s take 10.00 ms", found)
        self.assertIn("the products at 14.0 TOP/s 2.76 ms", found)
        self.assertIn("at the roof it would be 26.0 times", found)
        self.assertIn("the time is reached, the peer took 260 ms", found)

    def test_avx2_and_other_routings_have_goals_of_their_own(self):
        rows = {i: r for i, r in enumerate([row(ours_isa="avx2"), row(routing="zipf")])}
        lines = "\n".join(page.goal_lines("xeon-amx", rows))
        self.assertRegex(lines, r"int4, 512 \|[^|]*\| not measured")
        self.assertRegex(lines, r"int4, 512, AVX2 on both sides \|[^|]*\| reached")


class Page(unittest.TestCase):
    def test_the_newest_row_about_a_thing_counts_and_void_rows_say_why(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name) / "bench/results/xeon-amx"
            folder.mkdir(parents=True)
            machine = {"cpu": "A CPU", "cores": 2, "memory_gb": 25, "system": "Linux"}
            for day, rows in (("2026-01-02", [row(ours_us=11000.0, M=16)]),
                              ("2026-01-01", [row(ours_us=99000.0, M=16),
                                              row(ratio=None, void_reason="the peer took long")])):
                (folder / f"{day}-experts-x.json").write_text(
                    json.dumps({"machine": machine, "rows": rows}))
            text = page.render(pathlib.Path(name))
        self.assertIn("| 16 | 11.00 |", text)
        self.assertNotIn("99.00", text)
        self.assertIn("void: the peer took long", text)

    def test_layers_and_packing_in_the_step_have_their_lines(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            ops = [{"op": "norm", "us": 5.0}, {"op": "q_proj", "us": 20.0}, {"op": "k_proj", "us": 10.0},
                   {"op": "experts", "us": 9000.0}]
            shape = {"name": "a-shape"}
            (folder / "d-layer.json").write_text(json.dumps({"runs": [
                {"shape": shape, "weights": "int4", "dense": "int8", "rows": [{"tokens": 128, "us": 9100.0, "ops": ops}]}]}))
            (folder / "d-prefused.json").write_text(json.dumps({"runs": [
                {"shape": shape, "weights": "bf16", "rows": [{"tokens": 1, "us": 2500.0, "raw_us": 50000.0,
                                                              "raw_ratio": 20.0}]}]}))
            text = "\n".join(page.step_lines(folder))
            self.assertEqual(page.step_lines(folder / "none"), [])
        self.assertIn("128 tokens, experts in int4, the rest in int8: 9.10 ms, most of it in experts 9.00, q_proj "
                      "0.02, k_proj 0.01", text)
        self.assertIn("50.0 ms and 2.50 at M = 1 (20 times)", text)


if __name__ == "__main__":
    unittest.main()
