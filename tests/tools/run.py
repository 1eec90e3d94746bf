#!/usr/bin/env python3
"""Runs the tests of tools/ with unittest and writes a JUnit report: no package needed."""
import argparse
import pathlib
import sys
import unittest
import xml.etree.ElementTree as ET


class Recorder(unittest.TextTestResult):
    """Keeps (name, outcome, detail) of every test for the report."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.rows = []

    def addSuccess(self, test):
        super().addSuccess(test)
        self.rows.append((test.id(), None, ""))

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.rows.append((test.id(), "failure", self._exc_info_to_string(err, test)))

    def addError(self, test, err):
        super().addError(test, err)
        self.rows.append((test.id(), "error", self._exc_info_to_string(err, test)))

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.rows.append((test.id(), "skipped", reason))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--xml", help="write a JUnit report here")
    args = parser.parse_args()
    here = pathlib.Path(__file__).resolve().parent
    suite = unittest.defaultTestLoader.discover(str(here), "test_*.py")
    result = unittest.TextTestRunner(resultclass=Recorder).run(suite)
    if args.xml:
        root = ET.Element("testsuite", name="tools", tests=str(len(result.rows)))
        for name, outcome, detail in result.rows:
            case = ET.SubElement(root, "testcase", name=name)
            if outcome:
                ET.SubElement(case, outcome, message=detail[:500])
        ET.ElementTree(root).write(args.xml, encoding="unicode")
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
