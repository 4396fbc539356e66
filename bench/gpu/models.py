"""M1 to M6: embed_text in a pipeline, on models of the true shapes with random weights. K1 to K3: the kernels of the neighbours, as the
engine calls them. PyTorch and sentence-transformers in the same rounds where this Python has them."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import make_model
from report import interleave

CORES = min(16, len(os.sched_getaffinity(0)))
PEERS = pathlib.Path(__file__).resolve().parent / "peers.py"


def flop_per_token(shape):
    layers, hidden, _, wide, _, _ = make_model.SHAPES[shape]
    return 2 * layers * (4 * hidden * hidden + 2 * hidden * wide)  # of the products, without attention


class Peer:
    """peers.py, kept running: a call is one round. Where it cannot start or fails, that is said and it is left out."""

    def __init__(self, *words):
        self.process = subprocess.Popen([sys.executable, "-B", str(PEERS), *map(str, words)], text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.ready = self.process.stdout.readline() == "ready\n"
        self.why = "" if self.ready else (self.process.communicate()[1].strip().splitlines() or ["it ended at once"])[-1]

    def __call__(self):
        self.process.stdin.write("round\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a peer ended: {self.process.communicate()[1][-1000:]}")
        return float(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)


def start_peers(rows, kinds):
    """{name: Peer} of those that start. kinds: {name: (package, words)}."""
    started = {}
    for name, (package, words) in kinds.items():
        if rows.place.dry or rows.importable(package) != "yes":
            rows.missing(f"beside {name}", "a dry run" if rows.place.dry else f"{package} is not importable")
            continue
        peer = Peer(*words)
        if peer.ready:
            started[name] = peer
        else:
            rows.missing(f"beside {name}", peer.why)
    return started


class Embedding:
    def __init__(self, place, scratch, shape, documents, tokens):
        self.place, self.scratch, self.shape = place, scratch, shape
        self.model = scratch / shape
        if not self.model.exists():
            make_model.make_model(self.model, shape)
        self.texts = scratch / f"{documents}-{tokens}.jsonl"
        self.documents = documents
        self.tokens = make_model.make_texts(self.texts, documents, tokens)
        self.path = scratch / f"{shape}.yaml"
        self.describe()
        said = place.run(place.command, "check", self.path)
        self.on_host = "computes on the host" in said.stderr + said.stdout

    def describe(self):
        self.path.write_text(f"stepmill: 1\nname: embed\nplugins: [{self.place.plugin}]\nsteps:\n"
                        f"  texts: {{type: read_jsonl, path: {self.texts}, columns: {{id: int64, text: utf8}}, batch_size: 256}}\n"
                        f"  embed: {{type: embed_text, from: texts, model: {self.model}, precision: bf16, input_batch_size: 256, resources: {{gpus: 1, cpus: {CORES}}}}}\n"
                        "  sink: {type: gpu_sink, from: embed}\n", encoding="utf-8")

    def run(self):
        """Tokens a second of the pipeline, text in, vectors out, its start left out."""
        report = self.scratch / "report.json"
        report.unlink(missing_ok=True)
        self.describe()
        done = self.place.run(self.place.command, "run", self.path, "--run", self.scratch / "embed-run", "--fresh", env={"BENCH_REPORT": str(report)})
        self.on_host = self.on_host or "computes on the host" in done.stderr
        return json.loads(report.read_text(encoding="utf-8"))["rows_per_s"] * self.tokens / self.documents


def encoder(place, rows):
    rounds, warm_up = (1, 0) if place.dry else (7, 1)
    peak = rows.other("ceilings").get("gemm bf16 8192^3")
    if place.dry:
        rows.missing("M3", "a dry run")
    shapes = [("tiny", "M1", None, 512, 16)] if place.dry else [
        ("minilm", "M1", 0.45, 100_000, 64), ("base", "M3", 0.60, 30_000, 64), ("large", "M3", 0.66, 10_000, 64)]
    ours = None
    with tempfile.TemporaryDirectory() as scratch:
        for shape, goal_id, share, documents, tokens in shapes:
            ours = Embedding(place, pathlib.Path(scratch), shape, documents, tokens)
            if ours.on_host and not place.dry:  # so that it ends: there is nothing of the GPU in it
                ours = Embedding(place, pathlib.Path(scratch), shape, documents // 200, tokens)
            peers = {}
            if goal_id == "M1":
                peers = start_peers(rows, {
                    "PyTorch eager": ("torch", ("eager", ours.model, ours.texts)), "PyTorch compiled": ("torch", ("compiled", ours.model, ours.texts)),
                    "sentence-transformers": ("sentence_transformers", ("sentence_transformers", ours.model, ours.texts))})
            t = interleave({"ours": ours.run, **peers}, rounds, warm_up)
            for each in peers.values():
                each.close()
            name = f"{goal_id} {shape}, median of {tokens} tokens, text to vector"
            if ours.on_host:
                rows.missing(f"{name} on the GPU", "embed_text computed on the host; the figures below are the host's")
            rows.row(f"{name}: tokens", t["ours"], "1/s")
            if peak:
                flop = flop_per_token(shape) * 1e-12
                rows.row(f"{name}: of the GEMM peak", [v * flop for v in t["ours"]], "TFLOP/s", ("gemm bf16 8192^3", peak), share and f">= {share}")
            torch_keys = [k for k in t if k.startswith("PyTorch")]
            if torch_keys:
                best = max(torch_keys, key=lambda k: sorted(t[k])[len(t[k]) // 2])
                rows.row(f"{name}: beside PyTorch", t["ours"], "tokens/s", (best, t[best]), ">= 1.5")
            if shape in ("tiny", "minilm", "base"):
                parts(place, rows, ours, t["ours"], goal_id == "M1")
            if "sentence-transformers" in t:
                rows.row(f"{name}: beside sentence-transformers", t["ours"], "tokens/s", ("sentence-transformers", t["sentence-transformers"]), ">= 8")
        shape, documents = ("tiny", 512) if place.dry else ("minilm", 500 if ours.on_host else 100_000)
        ragged = Embedding(place, pathlib.Path(scratch), shape, documents, 16 if place.dry else 64)
        uniform = Embedding(place, pathlib.Path(scratch), shape, documents, 16 if place.dry else 64)
        uniform.texts = pathlib.Path(scratch) / "uniform.jsonl"
        each = ragged.tokens // documents
        uniform.texts.write_text("".join(json.dumps({"id": i, "text": " ".join(f"w{(i * 7 + j) % 1000}" for j in range(each - 2))}) + "\n"
                                         for i in range(documents)), encoding="utf-8")
        uniform.tokens = each * documents
        t = interleave({"ragged": ragged.run, "uniform": uniform.run}, rounds, warm_up)
        rows.row("M4 ragged lengths", t["ragged"], "tokens/s", ("uniform lengths", t["uniform"]), ">= 0.95")


def parts(place, rows, ours, text_to_vector, first):
    """M2, M5, M6: the forward pass beside its products, attention alone, and the pipeline beside the slower of its two halves."""
    f = place.figures("bench_gpu_forward", ours.model, CORES, timeout=300)
    rows.row(f"M2 {ours.shape}, forward pass of a group", f["forward"][1], "ms", ("its products alone", f["products"][1]), "<= 1.35")
    if not first:
        return
    slower = min(("the tokenizer alone", f["tokenizer"][1]), ("the forward pass alone", f["tokens"][1]), key=lambda half: sorted(half[1])[len(half[1]) // 2])
    rows.row(f"M6 {ours.shape}, text to vector with {CORES} cores", text_to_vector, "tokens/s", slower, ">= 0.9")
    for name, (unit, values) in f.items():
        if not name.startswith("attention"):
            continue
        dim, length = int(name.split()[1]), int(name.split()[3])
        started = start_peers(rows, {f"SDPA, head dim {dim}, {length} tokens": ("torch", ("sdpa", dim, length))})
        if not started:
            rows.row(f"M5 {name} tokens", values, unit)
        for torch in started.values():
            t = interleave({"torch": torch}, len(values))
            torch.close()
            rows.row(f"M5 {name} tokens, the time of PyTorch's best back end", t["torch"], unit, ("ours", values), ">= 1.3" if length <= 256 else None)


def neighbours(place, rows):
    f = place.figures("bench_gpu_kernels", timeout=540)
    gemm = rows.other("ceilings").get("gemm bf16 4096x1048576x384")
    queries, corpus = (128, 1024) if place.dry else (4096, 1 << 20)
    size = f"{queries} x {corpus:,} x 384"
    if gemm:
        alone = 2 * queries * corpus * 384 / (gemm * 1e12) * 1e3
        rows.row(f"K1 exact top 32 of {size}", f["nearest"][1], "ms", ("its GEMM alone", alone), "<= 1.35")
    else:
        rows.row(f"K1 exact top 32 of {size}", f["nearest"][1], "ms")
        rows.missing("K1 beside its GEMM", "the phase ceilings was not run before")
    for torch in start_peers(rows, {"K1 torch matmul + topk": ("torch", ("topk", queries, corpus))}).values():
        t = interleave({"torch": torch}, len(f["nearest"][1]))
        torch.close()
        rows.row("K1 torch matmul + topk, its time", t["torch"], "ms", ("ours", f["nearest"][1]), ">= 2.5")
    rows.row("K2 all pairs above a threshold", f["pairs"][1], "ms", ("all rows' nearest, the full square", f["square"][1]), "<= 0.65")
    if "nearest mma" in f: # both forms of the products in the same rounds: the rows above are by wgmma
        for name, row in (("nearest", f"K1 exact top 32 of {size}"), ("pairs", "K2 all pairs above a threshold")):
            rows.row(f"{row}, by mma.sync", f[f"{name} mma"][1], "ms", ("by wgmma", f[name][1]))
    rows.row("K3 MinHash of 128", f["minhash"][1], "GB/s of text")
    link = rows.other("ceilings").get("PCIe up, pinned")
    if link:
        rows.row("K3 MinHash of 128, beside the text's way over the link", f["minhash"][1], "GB/s", ("PCIe up, pinned", link), ">= 0.85")
