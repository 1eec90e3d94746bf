"""The tools watch the tree; these tests plant what each must catch, and run the cheap ones on the tree."""
import importlib.machinery
import importlib.util
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load(name):
    """A script of tools/ as a module."""
    loader = importlib.machinery.SourceFileLoader(name, str(ROOT / "tools" / name))
    spec = importlib.util.spec_from_loader(name, loader)
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


class Tree(unittest.TestCase):
    """A throw-away tree of files."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = pathlib.Path(self.folder.name)

    def put(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def run_tool(self, name, *arguments):
        return subprocess.run([sys.executable, str(ROOT / "tools" / name), *arguments],
                              capture_output=True, text=True)


class Layers(Tree):
    def problems(self):
        return load("check_layers").check(self.root)[0]

    def test_the_tree_is_clean(self):
        done = self.run_tool("check_layers")
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_downward_is_fine(self):
        self.put("src/base/status.h", "#pragma once\n")
        self.put("src/engine/engine.cc", '#include "base/status.h"\n#include <vector>\n')
        self.assertEqual(self.problems(), [])

    def test_upward_is_caught_with_its_line(self):
        self.put("src/engine/engine.h", "#pragma once\n")
        self.put("src/model/model.cc", '#include <vector>\n#include "engine/engine.h"\n')
        found = self.problems()
        self.assertEqual(len(found), 1)
        self.assertTrue(found[0].startswith("src/model/model.cc:2: engine/engine.h: upward"), found)
        self.assertEqual(self.run_tool("check_layers", str(self.root)).returncode, 1)

    def test_sideways_is_caught(self):
        self.put("src/simd/vector.h", "")
        self.put("src/tensor/view.h", '#include "simd/vector.h"\n')
        self.assertIn("sideways", self.problems()[0])

    def test_ops_are_blind_to_each_other_but_for_the_list(self):
        self.put("src/ops/topk/topk.h", "")
        self.put("src/ops/kernel_table.h", "")
        self.put("src/ops/sample/sample.cc", '#include "ops/topk/topk.h"\n')
        self.put("src/ops/rope/rope.cc", '#include "ops/kernel_table.h"\n')
        self.assertEqual(self.problems(), [])
        self.put("src/ops/rope/rope.cc", '#include "ops/topk/topk.h"\n')
        self.assertIn("rope may not include op topk", self.problems()[0])
        # Never the reverse of a composite's arrow.
        self.put("src/ops/rope/rope.cc", "")
        self.put("src/ops/sample/sample.h", "")
        self.put("src/ops/topk/topk.cc", '#include "ops/sample/sample.h"\n')
        self.assertIn("topk may not include op sample", self.problems()[0])

    def test_cycles_are_caught(self):
        self.put("src/base/a.h", '#include "base/b.h"\n')
        self.put("src/base/b.h", '#include "base/c.h"\n')
        self.put("src/base/c.h", '#include "base/a.h"\n')
        self.assertIn("cycle of includes: base/a.h -> base/b.h -> base/c.h -> base/a.h",
                      self.problems()[0])

    def test_vendor_headers_stay_in_their_folders(self):
        self.put("src/device/cuda/stream.cc", "#include <cuda_runtime.h>\n")
        self.put("src/ops/matmul/cuda.cu", "#include <cuda_fp8.h>\n#include <cub/cub.cuh>\n")
        self.put("src/dist/mpi.cc", "#include <mpi.h>\n#include <nccl.h>\n")
        self.assertEqual(self.problems(), [])
        self.put("src/model/load.cc", "#include <cuda_runtime.h>\n#include <nccl.h>\n")
        found = self.problems()
        self.assertEqual(len(found), 2)
        self.assertIn("src/model/load.cc:1: cuda_runtime.h", found[0])

    def test_unknown_rooms_and_files_are_caught(self):
        self.put("src/utils/strings.h", "")
        self.put("src/base/log.cc", '#include "base/missing.h"\n// #include "engine/engine.h"\n')
        self.assertEqual(len(self.problems()), 2)


class Sizes(Tree):
    def over(self, path, text):
        return load("size_report").check_file(path, text)[2]

    def soft(self, path, text):
        return load("size_report").check_file(path, text)[1]

    @staticmethod
    def function(lines, head="int f(int x) {", comment=""):
        return comment + head + "\n" + "  x += 1;\n" * (lines - 2) + "}\n"

    def test_the_tree_is_within_its_limits(self):
        done = self.run_tool("size_report")
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_files(self):
        self.assertEqual(self.over("src/a.cc", "\n" * 800), [])
        self.assertEqual(len(self.over("src/a.cc", "\n" * 801)), 1)
        self.assertEqual(len(self.soft("src/a.cc", "\n" * 401)), 1)
        self.assertEqual(len(self.over("src/model/forward.cc", "\n" * 151)), 1)
        self.assertEqual(len(self.over("src/model/families/x.cc", "\n" * 131)), 1)
        self.assertEqual(len(self.over("src/engine/scheduler.cc", "\n" * 401)), 1)

    def test_functions(self):
        self.assertEqual(self.over("src/a.cc", self.function(60)), [])
        self.assertEqual(len(self.over("src/a.cc", self.function(61))), 1)
        reason = "// Long because the loop is one register tile.\n"
        self.assertEqual(self.over("src/a.cc", self.function(61, comment=reason)), [])
        self.assertEqual(len(self.over("src/a.cc", self.function(151, comment=reason))), 1)

    def test_a_reason_counts_for_its_own_function_only(self):
        text = self.function(61, comment="// Long because it is.\n") + "\n" + self.function(61)
        self.assertEqual(len(self.over("src/a.cc", text)), 1)

    def test_methods_templates_and_lambdas_are_seen(self):
        inside = "namespace n {\nclass C : public B {\n public:\n" + self.function(
            61, "  Status f(int x) const override {") + "};\n}\n"
        self.assertEqual(len(self.over("src/a.h", inside)), 1)
        template = "template <class V>\n" + self.function(61, "typename V::F g(V x) {")
        self.assertEqual(len(self.over("src/a.h", template)), 1)
        braces = "int f() {\n" + '  g("{{{", \'{\', [&](int x) {\n    return S{x};\n  });\n' + "}\n"
        found = load("size_report").find_functions(braces + self.function(5))
        self.assertEqual([(n, b - a + 1) for n, a, b in found], [("f", 5), ("f", 5)])

    def test_namespaces_and_classes_are_no_functions(self):
        body = "  int x = 0;\n" * 80
        self.assertEqual(self.over("src/a.h", "struct S {\n" + body + "};\n"), [])
        self.assertEqual(self.over("src/a.cc", "namespace {\n" + body + "}\n"), [])

    def test_wide_lines(self):
        self.assertEqual(self.over("src/a.h", "// " + "x" * 97 + "\n"), [])
        self.assertEqual(self.over("src/a.h", "int " + "x" * 98 + ";\n"), [])
        self.assertEqual(len(self.over("src/a.h", "// " + "x" * 98 + "\n")), 1)


class Isa(Tree):
    NM = """0000000000000000 W sluice::round_to_bf16(float)
0000000000000000 t sluice::(anonymous namespace)::f()
0000000000000000 W void sluice::kernel<sluice::simd::Avx512>(float*)
0000000000000000 T sluice::matmul_avx512(int)
0000000000000000 W void sluice::kernel<sluice::simd::Avx2>(float*)
0000000000000000 W void sluice::kernel<sluice::simd::Avx512Vnni>(float*)
0000000000000000 W void sluice::kernel<sluice::simd::Avx512Bf16>(float*)
0000000000000000 W void sluice::kernel<sluice::simd::Amx>(float*)
"""

    def test_shared_inline_functions_are_caught(self):
        found = load("check_isa").violations("avx512", self.NM)
        self.assertEqual(found, ["sluice::round_to_bf16(float)",
                                 "void sluice::kernel<sluice::simd::Avx2>(float*)",
                                 "void sluice::kernel<sluice::simd::Avx512Vnni>(float*)",
                                 "void sluice::kernel<sluice::simd::Avx512Bf16>(float*)",
                                 "void sluice::kernel<sluice::simd::Amx>(float*)"])
        for isa in ("avx2", "avx512vnni", "avx512bf16", "amx"):
            self.assertEqual(len(load("check_isa").violations(isa, self.NM)), 5)


class Links(Tree):
    def test_the_tree_holds(self):
        done = self.run_tool("check_links")
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_broken_links_are_caught(self):
        self.put("src/base/status.h", "class Status {};  // see house.md\n")
        self.put("docs/a.md", "[ok](../src/base/status.h) `src/base/status.h:Status`\n\n"
                 "[gone](b.md) `src/base/status.h:Statu` `src/base/none.h:X` [w](https://x.org)\n")
        done = self.run_tool("check_links", str(self.root))
        self.assertEqual(done.returncode, 1)
        lines = done.stdout.splitlines()
        self.assertEqual(len(lines), 5, done.stdout)
        self.assertTrue(all("docs/a.md:3:" in l for l in lines[:3]), lines)
        self.assertIn("src/base/status.h:1: house.md", lines[3])

    def test_a_walk_page_without_links_is_caught(self):
        self.put("docs/walk/1-request.md", "words\n")
        self.assertEqual(self.run_tool("check_links", str(self.root)).returncode, 1)


class Catalogue(Tree):
    def test_contract_and_rows(self):
        self.put("src/ops/CMakeLists.txt", "add_op(norm)\n")
        self.put("src/ops/norm/norm.h", "// norm: makes rows\n// short.\n//\n//   y = x / |x|\n#pragma once\n")
        self.put("src/ops/norm/kernels.inc",
                 "// best first\nSLUICE_KERNEL(kAvx2, norm_f32_avx2, f32, none, any, \"\")\n")
        text = load("op_catalogue").render(self.root)
        self.assertIn("| [norm](#norm) | Makes rows short. | avx2 |", text)
        self.assertIn("```text\n  y = x / |x|\n```", text)
        self.assertIn("| avx2 | `norm_f32_avx2` | f32 | none | any |  |", text)


class Generated(Tree):
    """Documents that are written by tools are what the tools would write now."""

    def test_the_tree_is_up_to_date(self):
        for tool in ("op_catalogue", "draw_house", "readme_table"):
            done = self.run_tool(tool, "--check")
            self.assertEqual(done.returncode, 0, done.stdout)

    def test_a_family_becomes_a_row(self):
        self.put("src/model/families/x.cc", "// X-1: rows of\n// numbers.\n#include <a>\n"
                 'const Family kX = {"x", "x_text", read, declare};\n')
        self.put("src/model/families/families.cc", "// no family\n")
        self.assertEqual(load("readme_table").rows(self.root),
                         [("X-1", "`x`, `x_text`", "rows of numbers.",
                           "src/model/families/x.cc")])


class Readme(Tree):
    TEXT = "# A\n```sh\necho one\nmake test\n```\n```text\nfalse\n```\n```sh\nfalse\n```\n"

    def test_blocks_run_in_order_and_the_first_failure_ends_it(self):
        self.put("R.md", self.TEXT)
        done = self.run_tool("run_readme", str(self.root / "R.md"), "--except", "make test")
        self.assertEqual(done.returncode, 1)
        self.assertIn("\none\n", done.stdout)
        self.assertNotIn("make test", done.stdout)
        self.assertIn("R.md:9: exit code 1", done.stdout)

    def test_only_sh_blocks_run(self):
        self.assertEqual(load("run_readme").blocks(self.TEXT, ("make test", "false")),
                         [(2, "echo one")])


class Summary(Tree):
    def summary(self):
        done = self.run_tool("test_summary.py", str(self.root), "--oracle-sources",
                             str(self.root / "oracle"))
        return done.stdout.splitlines()[-1], done.returncode

    def write(self, *, ctest="", gtest=""):
        self.put("ctest.xml", f"<testsuite>{ctest}</testsuite>")
        self.put("gtest/base_test.xml", f"<testsuites><testsuite>{gtest}</testsuite></testsuites>")
        self.put("tools.xml", '<testsuite><testcase name="a"/></testsuite>')
        self.put("oracle/test_a.py", "def test_one():\n  pass\n\n\ndef test_two():\n  pass\n")

    PROGRAM = '<testcase name="base_test" status="run"/>'

    def test_cases_are_counted_and_missing_oracles_are_skips(self):
        self.write(ctest=self.PROGRAM + '<testcase name="isa_symbols" status="run"/>',
                   gtest='<testcase status="run" result="completed"/>'
                         '<testcase status="run" result="skipped"><skipped/></testcase>')
        self.assertEqual(self.summary(), ("3 passed, 0 failed, 3 skipped", 0))

    def test_failures_fail(self):
        self.write(ctest='<testcase name="base_test" status="fail"><failure/></testcase>',
                   gtest='<testcase status="run" result="completed"><failure/></testcase>')
        self.assertEqual(self.summary(), ("1 passed, 1 failed, 2 skipped", 1))

    def test_a_crash_is_a_failure(self):
        self.write(ctest='<testcase name="base_test" status="fail"><failure/></testcase>',
                   gtest='<testcase status="run" result="completed"/>')
        self.assertEqual(self.summary(), ("2 passed, 1 failed, 2 skipped", 1))

    def test_missing_or_broken_reports_are_failures(self):
        self.write(ctest=self.PROGRAM)
        self.put("tools.xml", "<testsuite>")
        (self.root / "gtest/base_test.xml").unlink()
        self.assertEqual(self.summary(), ("1 passed, 1 failed, 2 skipped", 1))
        (self.root / "ctest.xml").unlink()
        self.assertEqual(self.summary()[1], 1)

    def test_pytest_reports_are_added(self):
        self.write(ctest=self.PROGRAM, gtest='<testcase status="run" result="completed"/>')
        for name in "ab":
            self.put(f"oracle/test_{name}.xml", "<testsuites><testsuite><testcase/><testcase>"
                     "<skipped/></testcase></testsuite></testsuites>")
        self.assertEqual(self.summary(), ("4 passed, 0 failed, 2 skipped", 0))


if __name__ == "__main__":
    unittest.main()
