"""E1 to E10: pipelines of steps.c, run by the command with its default settings, beside the same work by hand (streams.c) and bare
calls (device.c)."""
import json
import pathlib
import tempfile
import time


ROWS = 64


class Pipelines:
    def __init__(self, place, scratch):
        self.place, self.scratch = place, scratch
        self.on_host = False

    def run(self, batches, spins, rows=ROWS, credit=4, timed=False, accept=(0,)):
        """A pipeline of gpu_spin steps; what the sink saw. spins: the text of each step's parameters."""
        steps = {"source": f"type: gpu_source, batches: {batches}, batch_size: {rows}, credit: {credit * rows}" + (", timed: true" if timed else "")}
        before = "source"
        for i, spin in enumerate(spins):
            name = f"s{i}"
            steps[name] = f"type: gpu_spin, from: {before}, input_batch_size: {rows}, resources: {{gpus: 1, share: true, devices: [0]}}, {spin}"
            before = name
        steps["sink"] = f"type: gpu_sink, from: {before}"
        path, report = self.scratch / "pipeline.yaml", self.scratch / "report.json"
        path.write_text(f"stepmill: 1\nname: bench\nplugins: [{self.place.plugin}]\nmax_errors: 1000000000\nsteps:\n" +
                        "".join(f"  {name}: {{{text}}}\n" for name, text in steps.items()), encoding="utf-8")
        report.unlink(missing_ok=True)
        done = self.place.run(self.place.command, "run", path, "--run", self.scratch / "run", "--fresh", "--quiet",
                              env={"BENCH_REPORT": str(report)}, check=False)
        if done.returncode not in accept:
            raise RuntimeError(f"the pipeline ended with {done.returncode}: {done.stderr[-1500:]}")
        seen = json.loads(report.read_text(encoding="utf-8"))
        self.on_host = self.on_host or seen["on_host"] > 0
        return seen

    def by_hand(self, mode, us, batches, floats=ROWS):
        return {name: values[0] for name, (_, values) in
                self.place.figures("bench_gpu_streams", mode, "--us", us, "--batches", batches, "--floats", floats).items()}


def engine(place, rows):
    rounds, warm_up, n = (1, 0, 12) if place.dry else (7, 3, 2000)
    with tempfile.TemporaryDirectory() as scratch:
        p = Pipelines(place, pathlib.Path(scratch))
        for us, goal in ((20, 1.15), (50, 1.05), (200, 1.02), (1000, 1.01)):
            if place.dry and us not in (20, 1000):
                continue
            with rows.part(f"E1 with {us} us"):
                batches = n if us < 1000 else n // 4
                t = place.interleave({"ours": lambda us=us, b=batches: p.run(b, [f"us: {us}"] * 3),
                                      "by hand": lambda us=us, b=batches: p.by_hand("chain", us, b)["chain"]}, rounds, warm_up)
                rows.row(f"E1 three kernels of {us} us, 4 in flight", [r["batch_us"] for r in t["ours"]], "us/batch",
                         ("by hand", t["by hand"]),
                         f"<= {goal}")
                if us == 20:
                    rows.row("E1 host time per batch and hop", [r["cpu_us"] / 4 for r in t["ours"]], "us", goal="<= 5")
        with rows.part("E2, E5, E6"):
            f = place.figures("bench_gpu_device")
            rows.row("E2 hop between streams, host time", f["hop"][1], "us", ("record + streamWaitEvent", f["hop, bare"][1]),
                     "<= 1.3")
            unloaded = [a + b for a, b in zip(f["64 KB alone"][1], f["one window alone"][1])]
            rows.row("E5 64 KB beside a copy of 256 MB, p99", f["64 KB beside a large copy, p99"][1], "us",
                     ("alone + one window", unloaded), "<= 1.0")
            rows.row("E6 allocations over 100,000 batches", f["allocations"][1], "", goal="<= 0")
            rows.row("E6 events made over 100,000 batches", f["events made"][1], "", goal="<= 0")
        with rows.part("E3"):
            t = place.interleave({"ours": lambda: p.run(n // 2, ["us: 50"], credit=1, timed=True),
                                  "spin": lambda: p.by_hand("one", 50, n // 2)["one"]},
                                 rounds, warm_up)
            rows.row("E3 one batch through one kernel of 50 us, p50", [r["p50_us"] for r in t["ours"]], "us",
                     ("dedicated spin", t["spin"]), "<= 1.2")
        with rows.part("E4"):
            floats = 4096 if place.dry else 4 << 20
            t = place.interleave({"ours": lambda: p.run(n // 10 + 5, ["us: 700"], rows=floats),
                                  "by hand": lambda: p.by_hand("overlap", 700, n // 10, floats)}, rounds, warm_up)
            slowest = [max(r["in"], r["kernel"], r["out"]) for r in t["by hand"]]
            rows.row("E4 copy in, compute, copy out of 16 MiB", [r["batch_us"] for r in t["ours"]], "us/batch",
                     ("slowest of the three", slowest),
                     "<= 1.05")
            rows.row("E4 the same by hand", [r["overlap"] for r in t["by hand"]], "us/batch", ("slowest of the three", slowest))
        with rows.part("E7"):
            t = place.interleave({"one": lambda: p.run(n, ["us: 50"], credit=8),
                                  "two": lambda: p.run(n, ["us: 50, replicas: 2"], credit=8)},
                                 rounds, warm_up)
            rows.row("E7 two replicas on one GPU, batches that under-fill it", [1e6 / r["batch_us"] for r in t["two"]], "batches/s",
                     ("one replica", [1e6 / r["batch_us"] for r in t["one"]]), ">= 1.25")
        with rows.part("E8"):
            t = place.interleave({"none": lambda: p.run(n, ["us: 50"]),
                                  "some": lambda: p.run(n, ["us: 50, fail_every: 100, on_error: impute"], accept=(0, 3))}, rounds,
                                  warm_up)
            rows.row("E8 one batch in a hundred fails and is imputed", [1e6 / r["batch_us"] for r in t["some"]], "batches/s",
                     ("no failures", [1e6 / r["batch_us"] for r in t["none"]]), ">= 0.985")
            if not place.dry and not any(r["failed"] for r in t["some"]):
                rows.problem("E8: no batch failed")
        with rows.part("E9"):
            t = place.interleave({"ours": lambda: p.run(n // 2, ["us: 200, graph: true"]),
                                  "bare": lambda: p.by_hand("graph", 200, n // 2)["graph"]},
                                 rounds, warm_up)
            rows.row("E9 three kernels of 200 us, captured as a graph by the step", [r["batch_us"] for r in t["ours"]], "us/batch",
                     ("bare graph", t["bare"]), "<= 1.02")
        with rows.part("E10"):
            begin_to_vector(place, rows, pathlib.Path(scratch), rows.other("ceilings"), rounds)
        if p.on_host:
            rows.problem("steps of the benches computed on the host: the figures above are not the GPU's")


def begin_to_vector(place, rows, scratch, earlier, rounds):
    """E10: the command with one text, beside a CUDA program that launches one kernel, and the weights' way over the link."""
    import make_model
    model = scratch / "model"
    make_model.make_model(model, "tiny" if place.dry else "minilm")
    (scratch / "one.jsonl").write_text('{"text": "w1 w2 w3"}\n', encoding="utf-8")
    (scratch / "one.yaml").write_text(
        "stepmill: 1\nname: one\nsteps:\n  texts: {type: read_jsonl, path: one.jsonl, columns: {text: utf8}}\n"
        "  embed: {type: embed_text, from: texts, model: model, resources: {gpus: 1}}\n"
        "  out: {type: write_jsonl, from: embed, path: out.jsonl}\n", encoding="utf-8")
    said = place.run(place.command, "check", scratch / "one.yaml")

    def ours():
        began = time.perf_counter()
        place.run(place.command, "run", scratch / "one.yaml", "--run", scratch / "one", "--fresh")
        return time.perf_counter() - began

    def hello():
        began = time.perf_counter()
        place.run(place.bin / "bench_gpu_streams", "one", "--batches", 1)
        return time.perf_counter() - began

    t = place.interleave({"ours": ours, "hello": hello}, rounds)
    weights = (model / "model.safetensors").stat().st_size / 2  # bf16 there
    link = earlier.get("PCIe up, pinned")
    more = weights / (0.8 * link * 1e9) if link else 0.0
    rows.row("E10 start to first vector, beyond CUDA's start and the weights' way",
             [a - b - more for a, b in zip(t["ours"], t["hello"])], "s", goal="<= 0.3")
    if "computes on the host" in said.stdout + said.stderr:
        rows.missing("E10 on the GPU", "embed_text computed on the host")
