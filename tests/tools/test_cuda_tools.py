"""What watches the CUDA kernels without a GPU: their code's whereabouts and their resources."""
import importlib.machinery
import importlib.util
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True


def load(name):
    loader = importlib.machinery.SourceFileLoader(name, str(ROOT / "tools" / name))
    spec = importlib.util.spec_from_loader(name, loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


class Index(unittest.TestCase):
    CU = """#include "device/cuda/launch.cuh"
void norm_f32_cuda(const Rows& a) {
  const NormBody<float> body{a, 3};
  launch(a.stream, "norm", NormBody<float>::blocks(a), body);
  // for (;;) x[threadIdx.x];
  each(a, [&] { launch(a.stream, "norm", Other<bf16, 2>{a}.blocks(), Other<bf16, 2>{a}, 64); });
}
"""
    HOST = """void norm_f32_cuda_host(const Rows& a) {
  const NormBody<float> body{a,
                             3};
  run_on_host(NormBody<float>::blocks(a), body);
  each(a, [&] { run_on_host(Other<bf16, 2>{a}.blocks(), Other<bf16, 2>{a}, 64); });
}
"""

    def problems(self, cu=CU, host=HOST, **others):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            op = root / "src/ops/norm"
            op.mkdir(parents=True)
            (op / "cuda.cu").write_text(cu)
            if host is not None:
                (op / "cuda_host.cc").write_text(host)
            for name, text in others.items():
                (op / name.replace("__", ".")).write_text(text)
            return load("check_cuda_index").check(root)[0]

    def test_the_tree_holds(self):
        done = subprocess.run([sys.executable, str(ROOT / "tools/check_cuda_index")],
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_twins_are_fine(self):
        self.assertEqual(self.problems(), [])

    def test_a_body_that_the_host_does_not_run_is_caught(self):
        self.assertIn("does not run the same bodies",
                      self.problems(host=self.HOST.replace("64", "32"))[0])
        self.assertIn("does not make the same bodies",
                      self.problems(host=self.HOST.replace("3}", "4}"))[0])
        self.assertIn("has no cuda_host.cc", self.problems(host=None)[0])
        self.assertIn("launches nothing", self.problems(cu="int x;\n", host="int x;\n")[0])

    def test_device_code_outside_a_body_is_caught_with_its_line(self):
        for line, word in (("__global__ void f();", "__global__"), ("f<<<1, 2>>>();", "<<<"),
                           ("float v = a.x[3];", "x["), ("int i = threadIdx.x;", "threadIdx"),
                           ('asm("");', "asm")):
            found = self.problems(cu=line + "\n" + self.CU)
            self.assertEqual(len(found), 1, found)
            self.assertTrue(found[0].startswith(f"src/ops/norm/cuda.cu:1: {word}"), found)

    def test_bodies_may_not_ask_which_compiler_pass_they_are_in(self):
        for text in ("#if defined(__CUDA_ARCH__)\n", "int i = blockIdx.x;\n", "__syncthreads();\n",
                     "v = __shfl_sync(1, v, 0);\n"):
            self.assertEqual(len(self.problems(cuda_body__h=text)), 1, text)
        self.assertEqual(self.problems(cuda_body__h="// __syncthreads() is each()'s end\n"), [])


class Resources(unittest.TestCase):
    REPORT = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN6sluice8run_bodyINS_8NormBodyEEEvT_' for 'sm_80'
ptxas info    : Function properties for _ZN6sluice8run_bodyINS_8NormBodyEEEvT_
    24 bytes stack frame, 20 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 40 registers, used 2 barriers, 24 bytes cumulative stack size, 512 bytes smem, 400 bytes cmem[0]
ptxas info    : Compiling entry function '_ZN6sluice8run_bodyINS_8NormBodyEEEvT_' for 'sm_90a'
ptxas info    : Function properties for _ZN6sluice8run_bodyINS_8NormBodyEEEvT_
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers
"""
    ROWS = [("norm", "NormBody", "sm_80", 40, 24, 36, 512, 2), ("norm", "NormBody", "sm_90a", 32, 0, 0, 0, 1)]

    def setUp(self):
        self.tool = load("cuda_resources")

    def test_reports_are_read(self):
        kernels = self.tool.parse(self.REPORT)
        self.assertEqual([k[1:] for k in kernels], [r[2:] for r in self.ROWS])
        names = self.tool.demangle([kernels[0][0]])
        self.assertEqual(self.tool.short(names[kernels[0][0]]), "NormBody")

    def test_a_table_comes_back_as_it_was_written(self):
        self.assertEqual(self.tool.read(self.tool.render(self.ROWS, "13.0.88")), (self.ROWS, "13.0.88"))

    def test_differences_under_the_same_compiler_all_count(self):
        changed = [self.ROWS[0], self.ROWS[1][:3] + (33, 0, 0, 0, 1)]
        problems, notes = self.tool.differences(changed, "13", self.ROWS, "13")
        self.assertEqual((len(problems), notes), (1, []))
        self.assertIn("norm NormBody sm_90a: registers 33", problems[0])
        self.assertEqual(self.tool.differences(self.ROWS, "13", self.ROWS, "13"), ([], []))
        self.assertIn("absent", self.tool.differences(self.ROWS[:1], "13", self.ROWS, "13")[0][0])
        self.assertIn("absent", self.tool.differences(self.ROWS, "13", self.ROWS[:1], "13")[0][0])

    def test_under_another_compiler_only_new_spills_count(self):
        changed = [self.ROWS[0][:3] + (50, 0, 4, 0, 1), self.ROWS[1][:3] + (33, 8, 8, 0, 1)]
        problems, notes = self.tool.differences(changed, "14", self.ROWS, "13")
        self.assertEqual(problems, ["norm NormBody sm_90a: spills 8 bytes"])
        self.assertIn("only spills compared", notes[0])

    def test_a_build_without_cuda_has_nothing_to_compare(self):
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "compile_commands.json").write_text("[]")
            done = subprocess.run([sys.executable, str(ROOT / "tools/cuda_resources"), folder, "--check"],
                                  capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout),
                         (0, "cuda_resources: this build has no CUDA, nothing to compare\n"))


if __name__ == "__main__":
    unittest.main()
