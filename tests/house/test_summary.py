"""scripts/summary.py counts cases, and lets nothing that failed or was skipped pass as fine."""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts/summary.py"


def junit(*entries):
    rows = "".join(
        f'<testcase name="{name}" status="{status}"><properties><property name="cmake_labels" value="{labels}"/></properties>'
        + ('<skipped message="SKIP_RETURN_CODE=77"/>' if status == "notrun" else "") + f"<system-out>{out}</system-out></testcase>"
        for name, status, labels, out in entries)
    return f'<?xml version="1.0"?><testsuite>{rows}</testsuite>'


def gtest(*cases):
    rows = "".join(
        f'<testcase classname="Suite" name="{name}" status="run" result="completed">'
        + {"passed": "", "failed": '<failure message="no"/>', "skipped": '<skipped message="a.cc:1&#10;no such device"/>'}[what]
        + "</testcase>" for name, what in cases)
    return f"<testsuites><testsuite>{rows}</testsuite></testsuites>"


PASS = ("test_a", "run", "unit", "")
CASES = [
    # name, junit entries, gtest files, arguments, last line, exit status
    ("cases are counted", [PASS], {"test_a": gtest(("x", "passed"), ("y", "passed"))}, [], "2 passed, 0 failed, 0 skipped", 0),
    ("a script counts as one", [PASS], {}, [], "1 passed, 0 failed, 0 skipped", 0),
    ("a failed case", [("test_a", "fail", "unit", "")], {"test_a": gtest(("x", "passed"), ("y", "failed"))}, [],
     "1 passed, 1 failed, 0 skipped", 1),
    ("a crash leaves no file", [("test_a", "fail", "unit", ""), ("b", "run", "unit", "")], {}, [], "1 passed, 1 failed, 0 skipped",
     1),
    ("a leak after the cases", [("test_a", "fail", "unit", "")], {"test_a": gtest(("x", "passed"))}, [],
     "1 passed, 1 failed, 0 skipped", 1),
    ("a skip at home", [PASS], {"test_a": gtest(("x", "passed"), ("y", "skipped"))}, [], "1 passed, 0 failed, 1 skipped", 0),
    ("a skip in CI", [PASS], {"test_a": gtest(("x", "passed"), ("y", "skipped"))}, ["--ci"], "1 passed, 1 failed, 1 skipped", 1),
    ("a gpu skip in CI", [("test_a", "run", "unit;gpu", "")], {"test_a": gtest(("x", "passed"), ("y", "skipped"))}, ["--ci"],
     "1 passed, 0 failed, 1 skipped", 0),
    ("a program that was not run", [PASS, ("b", "notrun", "unit", "no network")], {}, ["--ci"], "1 passed, 1 failed, 1 skipped", 1),
    ("a stage that was not built", [PASS], {}, ["--failed"], "1 passed, 1 failed, 0 skipped", 1),
    ("nothing ran", [], {}, [], "0 passed, 0 failed, 0 skipped", 1),
]


class Summary(unittest.TestCase):
    def test_cases(self):
        for name, entries, files, arguments, last, status in CASES:
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                results = pathlib.Path(folder)
                (results / "dev").mkdir()
                (results / "dev.junit").write_text(junit(*entries))
                for program, text in files.items():
                    (results / "dev" / f"{program}.xml").write_text(text)
                done = subprocess.run([sys.executable, SCRIPT, results, *arguments], text=True, capture_output=True, check=False)
                self.assertEqual(done.stdout.splitlines()[-1], last, done.stdout + done.stderr)
                self.assertEqual(done.returncode, status)

    def test_material_outside_the_repository(self):
        for value, status in (("", 0), ("/somewhere", 1)):
            with self.subTest(value), tempfile.TemporaryDirectory() as folder:
                results = pathlib.Path(folder)
                (results / "dev").mkdir()
                (results / "dev.junit").write_text(junit(PASS, ("b", "notrun", "unit", "STEPMILL_SHARED leads nowhere")))
                done = subprocess.run([sys.executable, SCRIPT, results, "--ci"], text=True, capture_output=True, check=False,
                                      env={**os.environ, "STEPMILL_SHARED": value})
                self.assertEqual(done.returncode, status, done.stdout)

    def test_skips_say_why(self):
        with tempfile.TemporaryDirectory() as folder:
            results = pathlib.Path(folder)
            (results / "dev").mkdir()
            (results / "dev.junit").write_text(junit(PASS, ("b", "notrun", "unit", "no network")))
            (results / "dev/test_a.xml").write_text(gtest(("y", "skipped")))
            done = subprocess.run([sys.executable, SCRIPT, results], text=True, capture_output=True, check=False)
        self.assertIn("skipped  1: no such device", done.stdout)
        self.assertIn("skipped  1: no network", done.stdout)


if __name__ == "__main__":
    unittest.main()
