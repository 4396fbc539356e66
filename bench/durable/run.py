"""What it costs that a run can be gone on with: commits, journal, rows kept in front of sinks, and the way back after a kill.

One pipeline, source -> work -> JSON lines, by the installed command; the work is a chain of multiplications, so that a run takes
some seconds. All subjects take turns.

Commits: with commit_interval 1s beside "off" (one hour: the commits at the start and the end are made all the same), processor time
and wall time. A percent of such a run is less than what a shared machine disturbs it by. So a run that commits as often as the
engine looks (commit_interval 10ms) is beside them, too: what it takes more, divided by its commits, is what one commit costs, and
at one a second that is its share of a run's time. Recovery: a run is killed (SIGKILL) when ten million rows of it are committed;
from the start of `stepmill resume` to its first batch in a step.
"""
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "common"))
from report import Report, interleave  # noqa: E402

BATCH = 64
HEAD = struct.Struct("<4sIQQQQII")  # docs/durable-runs.md, Files


def commits(journal):
    """Bytes of each commit record of a journal, heads and padding included."""
    data, at, sizes = journal.read_bytes(), 0, []
    while at + HEAD.size <= len(data):
        magic, kind, _, _, _, n, _, _ = HEAD.unpack_from(data, at)
        if magic != b"SMJ1":
            break
        size = (HEAD.size + n + 15) // 16 * 16
        if kind == 2:
            sizes.append(size)
        at += size
    return sizes


class Bench:
    def __init__(self, report, scratch):
        self.report, self.args, self.scratch = report, report.args, pathlib.Path(scratch)
        self.command = self.args.stepmill.resolve() / "bin/stepmill"
        self.plugin = self.args.build.resolve() / "lib/bench_steps.so"
        self.steps = 0  # of work per batch
        self.record_sizes = []

    def pipeline(self, name, interval, batches, keep=False, steps=None):
        path = self.scratch / f"{name}.yaml"
        path.write_text(
            f"stepmill: 1\nname: durable\ncommit_interval: {interval}\nkeep_sink_rows: {str(keep).lower()}\nplugins: [{self.plugin}]\nsteps:\n"
            f"  source: {{type: bench_source, batches: {batches}, batch_size: {BATCH}}}\n"
            f"  work: {{type: bench_work, from: source, steps: {self.steps if steps is None else steps}}}\n"
            "  out: {type: write_jsonl, from: work, path: out.jsonl}\n", encoding="utf-8")
        return path

    def run(self, path):
        """Seconds, processor seconds and commits of a run from its first row."""
        run = self.scratch / "run"
        shutil.rmtree(run, ignore_errors=True)
        start = time.perf_counter()
        child = subprocess.Popen([str(self.command), "run", str(path), "--run", str(run), "--quiet"])
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = status
        seconds = time.perf_counter() - start
        if status != 0:
            sys.exit(f"{path}: the run failed")
        sizes = commits(run / "journal.1")
        self.record_sizes.append(sizes)
        return {"wall": seconds, "cpu": usage.ru_utime + usage.ru_stime, "commits": len(sizes)}

    def calibrate(self):
        """Work per batch, so that a run takes about --seconds."""
        batches = self.args.batches
        once = self.run(self.pipeline("probe", "1h", batches // 10, steps=10000))["cpu"]
        base = self.run(self.pipeline("probe", "1h", batches // 10, steps=0))["cpu"]
        per_step = max(once - base, 1e-3) / (batches // 10) / 10000
        self.steps = max(int((self.args.seconds - base * 10) / batches / per_step), 0)
        self.record_sizes = []

    def commit_costs(self):
        self.calibrate()
        n = self.args.batches
        t = interleave({"off": lambda: self.run(self.pipeline("off", "1h", n)),
                        "1 s": lambda: self.run(self.pipeline("each-second", "1s", n)),
                        "10 ms": lambda: self.run(self.pipeline("often", "10ms", n))}, self.args.rounds)
        for key, what in (("cpu", "processor time"), ("wall", "wall time")):
            off = [r[key] for r in t["off"]]
            self.report.row(f"{what} with a commit a second", [r[key] for r in t["1 s"]], "s", over=("commits off", off))
            cost = [(r[key] - o) / (r["commits"] - f["commits"]) for r, o, f in zip(t["10 ms"], off, t["off"])]
            self.report.row(f"{what} of one commit, of {sum(r['commits'] for r in t['10 ms']) // len(t['10 ms'])} a run",
                            [c * 1000 for c in cost], "ms")
            self.report.row(f"one commit a second, share of a run's {what}", [c * 100 for c in cost], "%", goal="<= 1")
        sizes = [s for run in self.record_sizes for s in run]
        self.report.row(f"journal bytes of a commit, {len(sizes)} of them", sizes, "bytes")
        self.report.row("the largest beside the smallest of one run", [max(r) for r in self.record_sizes if len(r) > 1], "bytes",
                        over=("the smallest", [min(r) for r in self.record_sizes if len(r) > 1]), goal="<= 1")

    def kept(self):
        n = self.args.batches
        t = interleave({"without": lambda: self.run(self.pipeline("plain", "1s", n, steps=0)),
                        "kept": lambda: self.run(self.pipeline("kept", "1s", n, True, 0))},
                       self.args.rounds)
        for key, what in (("cpu", "processor time"), ("wall", "wall time")):
            self.report.row(f"{what}, rows at the sink kept, no work", [r[key] for r in t["kept"]], "s",
                            over=("not kept", [r[key] for r in t["without"]]))
        extra = [(k["cpu"] - w["cpu"]) / (n * BATCH) * 1e6 for k, w in zip(t["kept"], t["without"])]
        self.report.row("what keeping a row of one number costs", extra, "us")

    # -- recovery ------------------------------------------------------------------------------------------------------

    @staticmethod
    def done(run):
        try:
            return json.loads((run / "progress.json").read_text())["steps"][-1]["rows_in"]
        except (OSError, ValueError, KeyError, IndexError):
            return 0

    def killed(self, path, run, rows):
        """A run that is killed once @rows are committed."""
        shutil.rmtree(run, ignore_errors=True)
        child = subprocess.Popen([str(self.command), "run", str(path), "--run", str(run), "--quiet"])
        journal = run / "journal.1"
        deadline = time.monotonic() + 600
        while child.poll() is None and self.done(run) < rows and time.monotonic() < deadline:
            time.sleep(0.05)
        seen = journal.stat().st_size if journal.exists() else 0
        while child.poll() is None and journal.stat().st_size == seen and time.monotonic() < deadline:
            time.sleep(0.01)
        if child.poll() is not None or time.monotonic() >= deadline:
            sys.exit("the run that was to be killed ended before")
        child.send_signal(signal.SIGKILL)  # its worker goes with it
        child.wait()
        return len(commits(journal))

    def resumed(self, run):
        """Seconds from the call to the first batch in a step; the batch that the source went on with."""
        first = self.scratch / "first"
        first.unlink(missing_ok=True)
        start = time.monotonic_ns()
        child = subprocess.Popen([str(self.command), "resume", str(run), "--quiet"], env={**os.environ, "BENCH_FIRST": str(first)})
        lines = {}
        while child.poll() is None and "work" not in lines:
            time.sleep(0.005)
            if first.exists():
                lines = {line.split()[0]: line.split()[1:] for line in first.read_text().splitlines() if len(line.split()) == 3}
        child.send_signal(signal.SIGKILL)
        child.wait()
        if "work" not in lines:
            sys.exit("the run did not go on")
        return (int(lines["work"][1]) - start) / 1e9, int(lines["source"][0])

    def recovery(self):
        rows = self.args.rows
        for keep in (False, True):
            # some seconds until then, so that there are commits
            path = self.pipeline("long", "1s", rows * 5 // BATCH, keep, steps=20000)
            run = self.scratch / "killed"
            n = self.killed(path, run, rows)
            times = []
            for _ in range(self.args.rounds):
                seconds, batch = self.resumed(run)
                if batch * BATCH < rows * 9 // 10:
                    sys.exit(f"the run went on at row {batch * BATCH}: it was not committed as far as it should have been")
                times.append(seconds)
            kept = ", rows at the sink kept" if keep else ""
            self.report.row(f"from `resume` of a run of {rows:,} rows, {n} commits, to its first batch{kept}", times, "s",
                            goal="<= 2")
            shutil.rmtree(run, ignore_errors=True)


def main():
    report = Report.from_command_line(
        "durable", __doc__, rounds={"type": int, "default": 5},
        batches={"type": int, "default": 20000, "help": "of 64 rows, of a run"},
        seconds={"type": float, "default": 5.0, "help": "of work in a run"},
        rows={"type": int, "default": 10_000_000, "help": "of the run that is killed"},
        only={"default": "", "help": "commits,kept,recovery"})
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(report, scratch)
        for name, part in (("commits", bench.commit_costs), ("kept", bench.kept), ("recovery", bench.recovery)):
            if not report.args.only or name in report.args.only.split(","):
                part()
    report.finish()


main()
