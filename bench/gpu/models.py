"""M1 to M6: embed_text in a pipeline, on models of the true shapes with random weights. K1 to K3: the kernels of the neighbours, as
the engine calls them. PyTorch and sentence-transformers in the same rounds where this Python has them."""
import contextlib
import json
import os
import pathlib
import select
import subprocess
import sys
import tempfile

import make_model

CORES = min(16, len(os.sched_getaffinity(0)))
PEERS = pathlib.Path(__file__).resolve().parent / "peers.py"


def flop_per_token(shape):
    layers, hidden, _, wide, _, _ = make_model.SHAPES[shape]
    return 2 * layers * (4 * hidden * hidden + 2 * hidden * wide)  # of the products, without attention


class Peer:
    """peers.py, kept running: a call is one round. Where it cannot start or fails, that is said and it is left out."""

    def __init__(self, place, *words):
        self.place = place
        # What it says goes to a file: a pipe that nobody reads would hold it up. It is to look for nothing in a network.
        self.said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        env = dict(os.environ, HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="true")
        self.process = subprocess.Popen([sys.executable, "-B", str(PEERS), *map(str, words)], text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.said, env=env)
        try:
            self.ready = self.line(240) == "ready"
            self.why = "" if self.ready else self.last_words()
        except RuntimeError as error:
            self.ready, self.why = False, str(error)

    def line(self, seconds):
        """Its next line; None: it ended. RuntimeError, and it is ended, when none comes in time."""
        if not select.select([self.process.stdout], [], [], min(seconds, self.place.left()))[0]:
            self.process.kill()
            self.process.wait()
            raise RuntimeError(f"a peer said nothing for so long; before that: {self.last_words()}")
        return self.process.stdout.readline().strip() or None

    def last_words(self):
        self.said.seek(0)
        return ([line for line in self.said.read().splitlines() if line.strip()] or ["it ended at once"])[-1]

    def __call__(self, *words):
        try:
            self.process.stdin.write(" ".join(map(str, words)) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.line(180)
        if line is None:
            raise RuntimeError(f"a peer ended: {self.last_words()}")
        return float(line)

    def close(self):
        try:
            self.process.stdin.close()
            self.process.wait(timeout=30)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.said.close()


@contextlib.contextmanager
def peers_of(rows, kinds):
    """{name: Peer} of those that start. kinds: {name: (package, words)}."""
    started = {}
    try:
        for name, (package, words) in kinds.items():
            if rows.place.dry or rows.importable(package) != "yes":
                rows.missing(f"beside {name}", "a dry run" if rows.place.dry else f"{package} is not importable")
                continue
            started[name] = Peer(rows.place, *words)
            if not started[name].ready:
                rows.missing(f"beside {name}", started[name].why)
                started.pop(name).close()
        yield started
    finally:
        for each in started.values():
            each.close()


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
        done = self.place.run(self.place.command, "run", self.path, "--run", self.scratch / "embed-run", "--fresh",
                              env={"BENCH_REPORT": str(report)})
        self.on_host = self.on_host or "computes on the host" in done.stderr
        return json.loads(report.read_text(encoding="utf-8"))["rows_per_s"] * self.tokens / self.documents


def encoder(place, rows):
    rounds, warm_up = (1, 0) if place.dry else (7, 1)
    if place.dry:
        rows.missing("M3", "a dry run")
    shapes = [("tiny", "M1", None, 512, 16)] if place.dry else [
        ("minilm", "M1", 0.45, 100_000, 64), ("base", "M3", 0.60, 30_000, 64), ("large", "M3", 0.66, 10_000, 64)]
    with tempfile.TemporaryDirectory() as scratch:
        for shape in shapes:
            with rows.part(f"{shape[1]} {shape[0]}"):
                text_to_vector(place, rows, pathlib.Path(scratch), shape, rounds, warm_up)
        with rows.part("M4"):
            ragged_and_uniform(place, rows, pathlib.Path(scratch), rounds, warm_up)
        with rows.part("M5"):
            attention(place, rows)


def text_to_vector(place, rows, scratch, kind, rounds, warm_up):
    shape, goal_id, share, documents, tokens = kind
    first, name = goal_id == "M1", f"{goal_id} {shape}, median of {tokens} tokens, text to vector"
    peak = rows.other("ceilings").get("gemm bf16 8192^3")
    ours = Embedding(place, scratch, shape, documents, tokens)
    if ours.on_host and not place.dry:  # so that it ends: there is nothing of the GPU in it
        ours = Embedding(place, scratch, shape, documents // 200, tokens)
    with peers_of(rows, {
            "PyTorch eager": ("torch", ("eager", ours.model, ours.texts)),
            "PyTorch compiled": ("torch", ("compiled", ours.model, ours.texts)),
            "sentence-transformers": ("sentence_transformers", ("sentence_transformers", ours.model, ours.texts))} if first
            else {}) as peers:
        able = dict(peers)
        for peer, call in peers.items():  # one that fails takes no other's figures with it
            try:
                call()
            except RuntimeError as error:
                rows.missing(f"beside {peer}", str(error))
                del able[peer]
        t = place.interleave({"ours": ours.run, **able}, rounds, warm_up)
    if ours.on_host:
        rows.missing(f"{name} on the GPU", "embed_text computed on the host; the figures below are the host's")
    rows.row(f"{name}: tokens", t["ours"], "1/s")
    if peak:
        flop = flop_per_token(shape) * 1e-12
        rows.row(f"{name}: of the GEMM peak", [v * flop for v in t["ours"]], "TFLOP/s", ("gemm bf16 8192^3", peak),
                 share and f">= {share}")
    torch_keys = [k for k in t if k.startswith("PyTorch")]
    if torch_keys:
        best = max(torch_keys, key=lambda k: sorted(t[k])[len(t[k]) // 2])
        rows.row(f"{name}: beside PyTorch", t["ours"], "tokens/s", (best, t[best]), ">= 1.5")
    if "sentence-transformers" in t:
        rows.row(f"{name}: beside sentence-transformers", t["ours"], "tokens/s",
                 ("sentence-transformers", t["sentence-transformers"]), ">= 8")
    if shape in ("tiny", "minilm", "base"):
        with rows.part(f"M2 {shape}" + ", M6" * first):
            halves(place, rows, ours, t["ours"], first)


def ragged_and_uniform(place, rows, scratch, rounds, warm_up):
    shape, documents, tokens = ("tiny", 512, 16) if place.dry else ("minilm", 100_000, 64)
    ragged = Embedding(place, scratch, shape, documents, tokens)
    if ragged.on_host and not place.dry:
        documents = 500
        ragged = Embedding(place, scratch, shape, documents, tokens)
    uniform = Embedding(place, scratch, shape, documents, tokens)
    uniform.texts = scratch / "uniform.jsonl"
    each = ragged.tokens // documents
    uniform.texts.write_text("".join(json.dumps({"id": i, "text": " ".join(f"w{(i * 7 + j) % 1000}" for j in range(each - 2))}) + "\n"
                                     for i in range(documents)), encoding="utf-8")
    uniform.tokens = each * documents
    t = place.interleave({"ragged": ragged.run, "uniform": uniform.run}, rounds, warm_up)
    rows.row("M4 ragged lengths", t["ragged"], "tokens/s", ("uniform lengths", t["uniform"]), ">= 0.95")


def halves(place, rows, ours, pipeline, first):
    """M2: the forward pass beside its products; M6: the pipeline beside the slower of its two halves."""
    f = place.figures("bench_gpu_forward", ours.model, CORES)
    rows.row(f"M2 {ours.shape}, forward pass of a group", f["forward"][1], "ms", ("its products alone", f["products"][1]),
             "<= 1.35")
    if first:
        slower = min(("the tokenizer alone", f["tokenizer"][1]), ("the forward pass alone", f["tokens"][1]),
                     key=lambda half: sorted(half[1])[len(half[1]) // 2])
        rows.row(f"M6 {ours.shape}, text to vector with {CORES} cores", pipeline, "tokens/s", slower, ">= 0.9")


def attention(place, rows):
    """M5: attention alone."""
    with peers_of(rows, {"SDPA": ("torch", ("sdpa",))}) as peers:
        for name, (unit, values) in place.figures("bench_gpu_forward", "--attention").items():
            dim, length = int(name.split()[1]), int(name.split()[3])
            for torch in peers.values():
                t = place.interleave({"torch": lambda torch=torch, d=dim, n=length: torch(d, n)}, len(values))
                rows.row(f"M5 {name} tokens, the time of PyTorch's best back end", t["torch"], unit, ("ours", values),
                         ">= 1.3" if length <= 256 else None)
            if not peers:
                rows.row(f"M5 {name} tokens", values, unit)


def neighbours(place, rows):
    with rows.part("K1 to K3"):
        f = place.figures("bench_gpu_kernels", timeout=480)
        queries, corpus = (128, 1024) if place.dry else (4096, 1 << 20)
        gemm = rows.other("ceilings").get("gemm bf16 4096x1048576x384")
        alone = 2 * queries * corpus * 384 / (gemm * 1e12) * 1e3 if gemm else None
        rows.row(f"K1 exact top 32 of {queries} x {corpus:,} x 384", f["nearest"][1], "ms", alone and ("its GEMM alone", alone),
                 alone and "<= 1.35")
        if not gemm:
            rows.missing("K1 beside its GEMM", "the phase ceilings was not run before")
        rows.row("K2 all pairs above a threshold", f["pairs"][1], "ms", ("all rows' nearest, the full square", f["square"][1]),
                 "<= 0.65")
        if "nearest mma" in f:  # both forms of the products in the same rounds: the rows above are by wgmma
            for name, row in (("nearest", "K1 exact top 32"), ("pairs", "K2 all pairs above a threshold")):
                rows.row(f"{row}, by mma.sync", f[f"{name} mma"][1], "ms", ("by wgmma", f[name][1]))
        rows.row("K3 MinHash of 128", f["minhash"][1], "GB/s of text")
        read = rows.other("ceilings").get("HBM read")
        rows.row("lengths and hashes of vectors, before a search", f["lengths"][1], "GB/s", read and ("HBM read", read))
        link = rows.other("ceilings").get("PCIe up, pinned")
        if link:
            rows.row("K3 MinHash of 128, beside the text's way over the link", f["minhash"][1], "GB/s", ("PCIe up, pinned", link),
                     ">= 0.85")
        with rows.part("K1 beside PyTorch"), peers_of(rows, {"K1 torch matmul + topk": ("torch", ("topk", queries, corpus))}) as peers:
            for torch in peers.values():
                t = place.interleave({"torch": torch}, len(f["nearest"][1]))
                rows.row("K1 torch matmul + topk, its time", t["torch"], "ms", ("ours", f["nearest"][1]), ">= 2.5")
