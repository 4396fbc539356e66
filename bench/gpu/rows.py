"""What one phase found: figures as bench/common/report.py has them, tests, problems, what was left out and why."""
import importlib.util
import json

from report import Report


class Rows(Report):
    def __init__(self, phase, place):
        super().__init__(phase, place.out / f"{phase}.json", None)
        self.place = place
        self.problems, self.tests, self.left_out, self.facts = [], [], [], {}

    def problem(self, text):
        self.problems.append(text)

    def missing(self, name, why):
        """A figure that cannot be had here: said, never hidden."""
        self.left_out.append({"name": name, "why": why})
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
        path = self.place.out / f"{phase}.json"
        if not path.exists():
            return {}
        return {r["name"]: r["value"] for r in json.loads(path.read_text(encoding="utf-8"))["rows"]}

    @staticmethod
    def importable(package):
        return "yes" if importlib.util.find_spec(package) else "not importable: its figures are left out"

    def save(self, seconds):
        self.out.write_text(json.dumps({"phase": self.name, "seconds": round(seconds, 1), "dry": self.place.dry, "facts": self.facts, "rows": self.rows,
                                        "tests": self.tests, "left_out": self.left_out, "problems": self.problems}, indent=1) + "\n",
                            encoding="utf-8")
