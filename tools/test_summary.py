#!/usr/bin/env python3
"""Adds up the tests of one run: `N passed, N failed, N skipped` as the last line.

Reads, in the results folder that tools/run_tests writes:
  ctest.xml       one entry per program (JUnit, from ctest)
  gtest/*.xml     the cases inside each GoogleTest program
  tools.xml       the tests of tools/ (JUnit)
  oracle/*.xml    pytest, one per file (JUnit); when absent, each test function in the oracle folder is a skip
A program that failed without a failed case (a crash, a timeout) counts as one failure.
Exit code 1 when anything failed or nothing ran.
"""
import argparse
import collections
import pathlib
import re
import sys
import xml.etree.ElementTree as ET

Counts = collections.namedtuple("Counts", "passed failed skipped")
ZERO = Counts(0, 0, 0)


def add(a, b):
    return Counts(a.passed + b.passed, a.failed + b.failed, a.skipped + b.skipped)


def case_outcome(case):
    """Which of the three a <testcase> of gtest, ctest or pytest is."""
    if case.find("failure") is not None or case.find("error") is not None:
        return Counts(0, 1, 0)
    status, result = case.get("status", ""), case.get("result", "")
    if status == "fail":
        return Counts(0, 1, 0)
    if case.find("skipped") is not None or "skip" in result or status in (
            "notrun", "disabled", "skipped") or result == "suppressed":
        return Counts(0, 0, 1)
    return Counts(1, 0, 0)


def read_cases(path):
    """Sum over the test cases of one XML report; a report that does not parse is one failure."""
    try:
        root = ET.parse(path).getroot()
    except (ET.ParseError, OSError) as error:
        print(f"summary: {path}: {error}", file=sys.stderr)
        return Counts(0, 1, 0)
    total = ZERO
    for case in root.iter("testcase"):
        total = add(total, case_outcome(case))
    return total


def ctest_counts(results):
    """Cases of every GoogleTest program, and one per program that has no report of its own."""
    path = results / "ctest.xml"
    if not path.exists():
        print("summary: ctest left no report", file=sys.stderr)
        return Counts(0, 1, 0)
    try:
        programs = list(ET.parse(path).getroot().iter("testcase"))
    except ET.ParseError as error:
        print(f"summary: {path}: {error}", file=sys.stderr)
        return Counts(0, 1, 0)
    total = ZERO
    for program in programs:
        outcome = case_outcome(program)
        report = results / "gtest" / f"{program.get('name')}.xml"
        if not report.exists():
            total = add(total, outcome)
            continue
        cases = read_cases(report)
        total = add(total, cases)
        if outcome.failed and not cases.failed:
            total = add(total, Counts(0, 1, 0))
    return total


def oracle_counts(results, sources):
    reports = sorted((results / "oracle").glob("*.xml"))
    if reports:
        total = ZERO
        for report in reports:
            total = add(total, read_cases(report))
        return total
    functions = 0
    for source in sorted(pathlib.Path(sources).glob("test_*.py")):
        functions += len(re.findall(r"^ *def test_", source.read_text(), re.M))
    return Counts(0, 0, functions)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=pathlib.Path)
    parser.add_argument("--oracle-sources", default="tests/oracle")
    args = parser.parse_args()
    total = ctest_counts(args.results)
    tools = args.results / "tools.xml"
    total = add(total, read_cases(tools) if tools.exists() else Counts(0, 1, 0))
    total = add(total, oracle_counts(args.results, args.oracle_sources))
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
