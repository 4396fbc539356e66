"""What one phase found: figures as bench/common/report.py has them, tests, problems, what was left out and why. All phases of a
folder are in one file, phases.json, which is written anew with every finding: a command that is ended in the middle leaves what it
had found."""
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
import traceback

from place import NoTime
from report import Report


def found(place):
    """What the phases of a folder have found: {phase: what Rows.write writes}."""
    path = place.out / "phases.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


class Rows(Report):
    def __init__(self, phase, place):
        super().__init__(phase, place.out / "phases.json", None)
        self.place = place
        self.began = time.monotonic()
        self.whole = False
        self.problems, self.tests, self.left_out, self.facts = [], [], [], {}
        self.write()

    def problem(self, text):
        self.problems.append(text)
        self.write()
        print("  PROBLEM: " + text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def part(self, name):
        """What fails in here is told, and what follows is measured all the same."""
        try:
            yield
        except NoTime as none:
            self.missing(name, str(none))
        except Exception as error:  # pylint: disable=broad-except  # whatever it is
            self.problem(f"{name}: {error}" if isinstance(error, (RuntimeError, subprocess.SubprocessError))
                         else f"{name}: {traceback.format_exc()}")

    def test(self, **what):
        self.tests.append(what)
        self.write()

    def missing(self, name, why):
        """A figure that cannot be had here: said, never hidden."""
        self.left_out.append({"name": name, "why": why})
        self.write()
        print(f"  {name}: left out: {why}")

    def row(self, name, values, unit, over=None, goal=None):
        row = super().row(name, values, unit, over, goal)
        if self.place.dry:
            row["met"] = None  # nothing is met by a figure that means nothing
        verdict = {None: "", True: "met", False: "NOT MET"}[row["met"]]
        ratio = "" if row["ratio"] is None else f"  {row['ratio']:.3g} x {row['denominator']}"
        print(f"  {name}: {row['value']:.5g} {unit}{ratio}  {goal or ''} {verdict}".rstrip())
        return row

    def other(self, phase):
        """Medians of an earlier phase: {name: value}; empty where it was not run."""
        return {r["name"]: r["value"] for r in found(self.place).get(phase, {}).get("rows", [])}

    @staticmethod
    def importable(package):
        return "yes" if importlib.util.find_spec(package) else "not importable: its figures are left out"

    def write(self):
        phases = found(self.place)
        phases[self.name] = {"seconds": round(time.monotonic() - self.began, 1), "whole": self.whole, "dry": self.place.dry,
                             "facts": self.facts,
                             "rows": self.rows, "tests": self.tests, "left_out": self.left_out, "problems": self.problems}
        part = self.out.with_suffix(".part")
        part.write_text(json.dumps(phases, indent=1) + "\n", encoding="utf-8")
        os.replace(part, self.out)

    def finish(self):
        """The phase is over."""
        self.whole = True
        self.write()
