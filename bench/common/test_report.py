"""The arithmetic of report.py: medians, ratios by round, and when a goal is met."""
import json
import pathlib
import tempfile
import unittest

import report

CASES = [
    # name, values, over, goal, ratio, met
    ("no goal", [1, 2, 3, 4, 5], None, None, None, None),
    ("a value within its goal", [1, 2, 3, 4, 5], None, "<= 4", None, True),
    ("the spread passes it", [1, 2, 3, 4, 5], None, "<= 3.5", None, False),
    ("a ratio by round", [10, 20, 30, 40, 50], [1, 2, 3, 4, 5], ">= 10", 10, True),
    ("drift cancels out", [10, 99, 10, 99, 10], [5, 49.5, 5, 49.5, 5], ">= 1.9", 2, True),
    ("one denominator", [8, 9, 10, 11, 12], 10, ">= 1", 1, False),
    ("few rounds: all count", [1, 9], None, "< 9", None, False),
]


class Rows(unittest.TestCase):
    def test_rows(self):
        for name, values, over, goal, ratio, met in CASES:
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                r = report.Report("x", pathlib.Path(folder) / "x.json", pathlib.Path("."))
                row = r.row(name, values, "s", ("peer", over) if over is not None else None, goal)
                self.assertEqual(row["ratio"] and round(row["ratio"], 9), ratio)
                self.assertEqual(row["met"], met)

    def test_rounds_take_turns(self):
        calls = []
        got = report.interleave({"a": lambda: calls.append("a") or 1, "b": lambda: calls.append("b") or 2}, 2, warm_up=1)
        self.assertEqual("".join(calls), "ababab")
        self.assertEqual(got, {"a": [1, 1], "b": [2, 2]})

    def test_file(self):
        with tempfile.TemporaryDirectory() as folder:
            r = report.Report("x", pathlib.Path(folder) / "out/x.json", pathlib.Path("."))
            r.row("speed", [1.0], "s", ("peer", [2.0]), "<= 1")
            r.finish()
            read = json.loads(r.out.read_text())
        self.assertEqual(set(read), {"machine", "commit", "rows"})
        self.assertLessEqual({"name", "value", "unit", "spread", "denominator", "denominator_value", "ratio", "goal", "met"},
                             set(read["rows"][0]))


if __name__ == "__main__":
    unittest.main()
