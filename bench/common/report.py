"""What every bench shares: rounds that take turns, medians with their spread, a table, and bench/out/NAME.json.

    report = Report.from_command_line("embed", __doc__)
    times = interleave({"stepmill": run_ours, "peer": run_peer}, rounds=7, warm_up=1)
    report.row("documents per second", times["stepmill"], "docs/s", over=("peer", times["peer"]), goal=">= 1.5")
    report.finish()

A goal speaks of the ratio to the denominator (of the value itself where there is none) and is met when the whole
interval of the spread meets it: a figure that only holds on a good day does not hold.
"""
import argparse
import json
import operator
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

COMPARE = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}


def interleave(subjects, rounds, warm_up=1, until=None):
    """Call each of {name: function} in turn, rounds times; {name: [result]}. What disturbs one round disturbs all alike. From three
    rounds on none begins that would not be over at until, a time.monotonic(), were it as long as those before."""
    results = {name: [] for name in subjects}
    began = time.monotonic()
    for turn in range(warm_up + rounds):
        if until is not None and turn >= warm_up + 3 and time.monotonic() + (time.monotonic() - began) / turn > until:
            break
        for name, function in subjects.items():
            value = function()
            if turn >= warm_up:
                results[name].append(value)
    return results


def machine():
    """What the figures were taken on."""
    info = {"system": platform.platform(), "cores": len(os.sched_getaffinity(0))}
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            field, _, value = line.partition(":")
            if field.strip() == "model name":
                info["processor"] = value.strip()
            elif field.strip() == "flags":
                known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8")
                info["features"] = [flag for flag in known if flag in value.split()]
                break
    info["memory_bytes"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return info


def commit(root):
    """The commit measured; with '+' when the tree differs from it."""
    def git(*words):
        return subprocess.run(["git", "-C", str(root), *words], text=True, capture_output=True, check=False).stdout.strip()
    return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def summary(values):
    """Median and the spread around it. With fewer than 5 values the spread is all of them, else the inner quarters."""
    values = sorted(values)
    if len(values) < 5:
        return statistics.median(values), values[0], values[-1]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return statistics.median(values), low, high


def number(value):
    if value is None:
        return ""
    if value and abs(value) < 0.001:
        return f"{value:.2e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


class Report:
    def __init__(self, name, out, root):
        self.name, self.out, self.root = name, pathlib.Path(out), root
        self.rows, self.origin = [], {"machine": machine(), "commit": commit(root)}

    @classmethod
    def from_command_line(cls, name, text, **options):
        """Reads what scripts/bench.sh passes; self.args has it. options: extra argparse arguments, by flag."""
        root = pathlib.Path(__file__).resolve().parents[2]
        parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--stepmill", type=pathlib.Path, default=root / "build/bench/installed", help="installed tree")
        parser.add_argument("--build", type=pathlib.Path, default=root / "build/bench", help="build tree: bench plugins")
        parser.add_argument("--out", type=pathlib.Path, default=root / f"bench/out/{name}.json")
        for flag, option in options.items():
            parser.add_argument("--" + flag.replace("_", "-"), **option)
        args = parser.parse_args()
        report = cls(name, args.out, root)
        report.args = args
        return report

    def row(self, name, values, unit, over=None, goal=None):
        """One figure. values: of each round. over: (denominator's name, its value each round, or one). goal: '<= 1.2'."""
        value, low, high = summary(values)
        row = {"name": name, "value": value, "unit": unit, "spread": [low, high], "denominator": None,
               "denominator_value": None, "ratio": None, "goal": goal, "met": None}
        judged = (value, low, high)
        if over is not None:
            below = over[1] if isinstance(over[1], (list, tuple)) else [over[1]] * len(values)
            row["denominator"], row["denominator_value"] = over[0], summary(below)[0]
            # Ratios of the same round where there is one for each: drift of the machine cancels out.
            pairs = zip(values, below) if len(below) == len(values) else ((v, row["denominator_value"]) for v in values)
            judged = summary([v / b for v, b in pairs])
            row["ratio"], row["ratio_spread"] = judged[0], list(judged[1:])
        if goal is not None:
            sign, bound = goal.split()
            row["met"] = all(COMPARE[sign](v, float(bound)) for v in judged[1:])
        self.rows.append(row)
        print(f"{name}: {number(value)} {unit}", file=sys.stderr, flush=True)
        self.write()
        return row

    def table(self):
        head = ["", "value", "spread", "unit", "beside", "its value", "ratio", "goal", ""]
        lines = [head]
        for r in self.rows:
            spread = f"{number(r['spread'][0])}–{number(r['spread'][1])}"
            verdict = {None: "", True: "met", False: "NOT MET"}[r["met"]]
            lines.append([r["name"], number(r["value"]), spread, r["unit"], r["denominator"] or "",
                          number(r["denominator_value"]), number(r["ratio"]), r["goal"] or "", verdict])
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)

    def write(self):
        """The JSON, of the rows so far: what was measured stays when a long bench is cut short."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps({**self.origin, "rows": self.rows}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def finish(self):
        """Print the table. Never a pass or fail: exit status 0."""
        self.write()
        print(self.table())
        print(f"written to {self.out}", file=sys.stderr)
