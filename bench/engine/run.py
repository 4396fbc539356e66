"""The engine beside its peers: cost per batch and hop, speed-up, latency, what it costs at rest, and a whole no-op job.

Linear pipeline source -> A -> B -> C -> sink; an item is a batch of 64 rows, in order at the sink, at most 16 under way at the
peers (stepmill: its own credit). stepmill runs as the installed command with its default settings, but that the rows which arrive
at the sink are not kept on disk (keep_sink_rows: false; no peer does that), except where a row says so; its steps are a plugin.
Work is a fixed number of dependent multiplications, calibrated in every round. Peers run at the best of their settings (oneTBB with
1 and 2 workers). All subjects of a table take turns.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "common"))
from report import Report, interleave, summary  # noqa: E402

HOPS = 4
ROWS = 64
DISTILABEL_ROWS = (500, 5500)  # its rate is that of the difference: start-up is not held against it


class Bench:
    def __init__(self, report, scratch):
        self.report, self.args, self.scratch = report, report.args, pathlib.Path(scratch)
        self.args.build, self.args.stepmill = self.args.build.resolve(), self.args.stepmill.resolve()
        self.bin = self.args.build / "bin"
        self.lib = self.args.build / "lib"
        self.command = self.args.stepmill / "bin/stepmill"
        self.peers = {}
        for name, program, workers, brake in (
                ("oneTBB, 1 worker", "tbb", 1, 1), ("oneTBB, 2 workers", "tbb", 2, 1), ("thread per stage", "threads", 2, 20),
                ("GStreamer", "gstreamer", 2, 40), ("StarPU", "starpu", 2, 100)):
            path = self.bin / f"bench_peer_{program}"
            if path.exists():
                self.peers[name] = (path, workers, brake)
            else:
                print(f"peer left out: {name} is not installed (scripts/deps.sh bench)", file=sys.stderr)

    # -- subjects ------------------------------------------------------------------------------------------------

    def run(self, *words, env=None):
        result = subprocess.run([str(w) for w in words], text=True, capture_output=True, check=False, timeout=300,
                                env={**os.environ, **(env or {})})
        if result.returncode != 0:
            sys.exit(f"{' '.join(map(str, words))}: exit {result.returncode}\n{result.stdout}{result.stderr}")
        return result.stdout

    def calibrate(self):
        return json.loads(self.run(self.bin / "bench_calibrate"))

    def peer(self, name, batches, steps=0, copies=1, latency=0):
        path, workers, brake = self.peers[name]
        n = max(batches // brake, 2000)
        return json.loads(self.run(path, "--batches", n, "--steps", steps, "--copies", copies, "--latency", latency, "--workers",
                                   workers))

    def pipeline(self, steps, keep=False):
        path = self.scratch / f"pipeline{'-kept' if keep else ''}.yaml"
        path.write_text(f"stepmill: 1\nname: bench\nkeep_sink_rows: {str(keep).lower()}\nplugins: [{self.lib / 'bench_steps.so'}]\nsteps:\n" +
                        "".join(f"  {name}: {{{text}}}\n" for name, text in steps.items()), encoding="utf-8")
        return path

    def stepmill(self, steps, count_mallocs=False, keep=False):
        """Run a pipeline with bench_sink; what the sink saw."""
        out = self.scratch / "report.json"
        out.unlink(missing_ok=True)
        env = {"BENCH_REPORT": str(out)}
        if count_mallocs:
            env["LD_PRELOAD"] = str(self.lib / "count_malloc.so")
        self.run(self.command, "run", self.pipeline(steps, keep), "--run", self.scratch / "run", "--fresh", "--quiet", env=env)
        return json.loads(out.read_text(encoding="utf-8"))

    @staticmethod
    def linear(batches, steps=0, copies=1, latency=False):
        work = f"type: bench_work, steps: {steps}"
        return {"source": f"type: bench_source, batches: {batches}, batch_size: {ROWS}" + (f", timed: true, credit: {ROWS}" if latency else ""),
                "a": f"{work}, from: source", "b": f"{work}, from: a, replicas: {copies}", "c": f"{work}, from: b",
                "sink": "type: bench_sink, from: c"}

    # -- tables --------------------------------------------------------------------------------------------------

    def best(self, times, pick=min):
        """Name of the peer with the best median among {name: [values]}."""
        return pick(times, key=lambda name: summary(times[name])[0])

    def hops(self):
        n = self.args.batches
        t = interleave({"stepmill": lambda: self.stepmill(self.linear(n)), "call": self.calibrate,
                        **{p: (lambda p=p: self.peer(p, n)) for p in self.peers}}, self.args.rounds)
        ours = [r["batch_ns"] / HOPS for r in t["stepmill"]]
        peers = {p: [r["batch_ns"] / HOPS for r in t[p]] for p in self.peers}
        self.report.row("batch and hop, no work: stepmill", ours, "ns", goal="<= 25")
        for p in self.peers:
            self.report.row(f"batch and hop, no work: beside {p}", ours, "ns", over=(p, peers[p]), goal="< 1")
        self.report.row("batch and hop, no work: processor time, all threads", [r["cpu_ns"] / HOPS for r in t["stepmill"]], "ns")
        kept = interleave({"stepmill": lambda: self.stepmill(self.linear(n // 4), keep=True)}, self.args.rounds)["stepmill"]
        self.report.row("batch and hop, no work, rows at the sink kept on disk: processor time", [r["cpu_ns"] / HOPS for r in kept],
                        "ns")
        self.report.row("batch and hop, no work: beside a plain call", ours, "ns", over=("call", [r["call_ns"] for r in t["call"]]))
        self.report.row("voluntary switches per batch", [r["switches"] for r in t["stepmill"]], "", goal="< 0.01")
        counted = interleave({"stepmill": lambda: self.stepmill(self.linear(n), count_mallocs=True)}, self.args.rounds)["stepmill"]
        self.report.row("allocator calls per batch, whole process", [r["mallocs"] for r in counted], "", goal="<= 0.001")
        for p in ("thread per stage", "GStreamer", "StarPU"):
            if p in self.peers:
                self.report.row(f"voluntary switches per batch: {p}", [r["switches"] for r in t[p]], "")

    def speed_up(self, micros, copies, goal):
        n = max(int(self.args.batches / 4 / micros), 3000)

        def subject(call):
            def timed():
                rate = self.calibrate()["steps_per_us"]
                steps = int(rate * micros)
                return 3 * steps / rate * 1000 / call(steps)["batch_ns"]
            return timed

        peers = {p: v for p, v in self.peers.items() if p.endswith("2 workers") or p in ("thread per stage", "StarPU")}
        if copies > 1:
            peers.pop("GStreamer", None)
        t = interleave({"stepmill": subject(lambda steps: self.stepmill(self.linear(n, steps, copies))),
                        **{p: subject(lambda steps, p=p: self.peer(p, n * self.peers[p][2] if self.peers[p][2] < 50 else n, steps,
                                                                   copies))
                           for p in peers}}, self.args.rounds)
        what = f"speed-up on {len(os.sched_getaffinity(0))} cores, stages of {micros} µs" + (", B twice" if copies > 1 else "")
        self.report.row(what, t["stepmill"], "x", goal=f">= {goal}")
        for p in peers:
            self.report.row(f"{what}, beside {p}", t["stepmill"], "x", over=(p, t[p]), goal="> 1" if micros < 10 else None)

    def latency(self):
        n = max(self.args.batches // 10, 2000)
        t = interleave({"stepmill": lambda: self.stepmill(self.linear(n, latency=True)),
                        **{p: (lambda p=p: self.peer(p, n, latency=1)) for p in self.peers}}, self.args.rounds)
        for key, goal in (("p50_ns", 150), ("p99_ns", 300)):
            ours = [r[key] for r in t["stepmill"]]
            self.report.row(f"one batch over {HOPS} hops, hot, {key[:3]}", ours, "ns", goal=f"<= {goal}")
            peers = {p: [r[key] for r in t[p]] for p in self.peers}
            if peers:
                p = self.best(peers)
                self.report.row(f"one batch over {HOPS} hops, hot, {key[:3]}, beside the best peer", ours, "ns", over=(p, peers[p]))

    def idle(self):
        steps = {"source": "type: bench_idle, batches: 2, batch_size: 1, sleep: 2s", "a": "type: bench_work, from: source",
                 "sink": "type: bench_sink, from: a"}
        r = [self.stepmill(steps) for _ in range(self.args.rounds)]
        share = [x["cpu_ns"] * x["batches"] / x["window_ns"] * 100 for x in r]
        self.report.row("processor at rest, of a core", share, "%", goal="<= 0.1")

    def start(self):
        path = self.pipeline({"source": f"type: bench_source, batches: 1, batch_size: {ROWS}"})

        def ours():
            start = time.perf_counter()
            self.run(self.command, "run", path, "--run", self.scratch / "run", "--fresh", "--quiet")
            return (time.perf_counter() - start) * 1000

        def nothing():
            start = time.perf_counter()
            self.run("/bin/true")
            return (time.perf_counter() - start) * 1000

        t = interleave({"stepmill": ours, "true": nothing}, self.args.rounds * 2)
        self.report.row("start and stop, one step, whole command", t["stepmill"], "ms", over=("/bin/true", t["true"]))
        self.report.rows[-1].update(goal="<= 10 ms", met=all(v <= 10 for v in self.report.rows[-1]["spread"]))

    def sleepers(self):
        for source, taken in ((64, 64), (64, 16), (50, 64), (16, 200), (200, 50)):
            batches = max(120 * taken // source, 1)
            steps = {"source": f"type: bench_source, batches: {batches}, batch_size: {source}",
                     "a": f"type: bench_sleep, from: source, sleep: 10ms, input_batch_size: {taken}, replicas: 4",
                     "sink": "type: bench_sink, from: a"}
            r = [self.stepmill(steps) for _ in range(self.args.rounds)]
            self.report.row(f"4 replicas that sleep, {source} rows made, {taken} taken at a time",
                            [x["sleeps"] * 1e7 / x["sleep_wall_ns"] for x in r], "x", goal=">= 3.9")

    def credit(self):
        plan = json.loads(self.run(self.command, "plan", self.pipeline(self.linear(2000, 100000)), "--json"))
        r = [self.stepmill(self.linear(2000, 100000)) for _ in range(self.args.rounds)]
        ahead = [x["most_rows"] for x in r]
        limit = next((s["credit_rows"] for s in plan.get("steps", []) if s.get("credit_rows")), None)
        if limit is None:
            self.report.row("rows ahead of the sink at most", ahead, "rows")
        else:
            self.report.row("rows ahead of the sink at most", ahead, "rows", over=("credit", limit), goal="<= 1")

    def job(self):
        rows, batch = self.args.rows, 50
        text = "a sentence of about the length of a title or a short instruction, as people write them " * 2
        data = self.scratch / "rows.jsonl"
        with open(data, "w", encoding="utf-8") as f:
            f.writelines(json.dumps({"id": i, "text": f"{i} {text}"}) + "\n" for i in range(rows))
        steps = {"source": f"type: read_jsonl, path: {data}, batch_size: {batch}, columns: {{id: int64, text: utf8}}",
                 "noop": "type: bench_work, from: source", "out": "type: write_jsonl, from: noop, path: out.jsonl"}

        def ours(path):
            start = time.perf_counter()
            child = subprocess.Popen([str(self.command), "run", str(path), "--run", str(self.scratch / "job"), "--fresh",
                                      "--quiet"])
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = status
            seconds = time.perf_counter() - start
            if status != 0:
                sys.exit("the no-op job failed")
            return {"rate": rows / seconds, "per_core": rows / (usage.ru_utime + usage.ru_stime), "peak": usage.ru_maxrss / 1024}

        def limit():
            r = json.loads(self.run(self.bin / "bench_simdjson", data))
            return {k: r["rows"] / r[k] for k in ("seconds", "parse", "copy")}

        subjects = {"stepmill": lambda: ours(self.pipeline(steps)), "kept": lambda: ours(self.pipeline(steps, keep=True)),
                    "simdjson": limit}
        t = interleave(subjects, self.args.rounds)
        out = self.scratch / "job" / "out.jsonl"
        if sum(1 for _ in open(out, "rb")) != rows:
            sys.exit(f"{out} has not {rows} rows")
        limits = {k: [r[k] for r in t["simdjson"]] for k in ("seconds", "parse", "copy")}
        per_core = [r["per_core"] for r in t["stepmill"]]
        self.report.row(f"no-op job, {rows:,} rows in batches of {batch}, JSONL to JSONL", [r["rate"] for r in t["stepmill"]],
                        "rows/s",
                        over=("simdjson, file read, one thread", limits["seconds"]))
        self.report.row("no-op job, per core used", per_core, "rows/s", over=("simdjson, file read, one thread", limits["seconds"]),
                        goal=">= 0.5")
        self.report.row("no-op job, rows at the sink kept on disk, per core used", [r["per_core"] for r in t["kept"]], "rows/s",
                        over=("simdjson, file read, one thread", limits["seconds"]), goal=">= 0.5")
        self.report.row("no-op job, per core used, beside parsing alone", per_core, "rows/s",
                        over=("simdjson, text in memory", limits["parse"]))
        self.report.row("no-op job, per core used, beside copying the file", per_core, "rows/s",
                        over=("read and write, no parsing", limits["copy"]))
        self.report.row("no-op job, peak memory", [r["peak"] for r in t["stepmill"]], "MiB", goal="<= 30")
        self.report.row("no-op job, rows at the sink kept on disk, peak memory", [r["peak"] for r in t["kept"]], "MiB",
                        goal="<= 30")
        self.distilabel([r["rate"] for r in t["stepmill"]], [r["peak"] for r in t["stepmill"]])

    def distilabel(self, rates, peaks):
        python = self.report.root / ".venv-distilabel/bin/python"
        if not python.exists() or subprocess.run([python, "-c", "import distilabel"], capture_output=True,
                                                 check=False).returncode != 0:
            print("peer left out: distilabel is not installed (scripts/deps.sh bench)", file=sys.stderr)
            return
        script = pathlib.Path(__file__).with_name("distilabel_noop.py")
        few, many = ([json.loads(self.run(python, script, n, 50, self.scratch / f"distilabel{n}.{i}").splitlines()[-1])
                      for i in range(3)]
                     for n in DISTILABEL_ROWS)
        theirs = summary([(m["rows"] - f["rows"]) / (m["seconds"] - f["seconds"]) for f, m in zip(few, many)])[0]
        self.report.row("no-op job beside distilabel (its start-up left out, ours included)", rates, "rows/s",
                        over=("distilabel", theirs),
                        goal=">= 1000")
        self.report.row("no-op job, peak memory beside distilabel's largest process", peaks, "MiB",
                        over=("distilabel", summary([m["peak_kib"] / 1024 for m in many])[0]))
        self.report.row("distilabel: imports, then start and stop with 500 rows", [f["import_seconds"] + f["seconds"] for f in few],
                        "s")


def main():
    report = Report.from_command_line("engine", __doc__, rounds={"type": int, "default": 5},
                                      batches={"type": int, "default": 400000},
                                      rows={"type": int, "default": 100000},
                                      only={"default": "", "help": "hops,speed_up,latency,idle,start,sleepers,credit,job"})
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(report, scratch)
        tables = {"hops": [bench.hops], "speed_up": [lambda: bench.speed_up(1, 1, 1.7), lambda: bench.speed_up(10, 1, 1.93),
                                                     lambda: bench.speed_up(10, 2, 1.93)],
                  "latency": [bench.latency], "idle": [bench.idle], "start": [bench.start], "sleepers": [bench.sleepers],
                  "credit": [bench.credit], "job": [bench.job]}
        for name, parts in tables.items():
            if not report.args.only or name in report.args.only.split(","):
                for part in parts:
                    part()
    report.finish()


main()
