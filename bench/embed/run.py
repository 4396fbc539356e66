"""Embeddings of all-MiniLM-L6-v2 on the CPU beside their peers: text in, vector out, documents per second.

300 real package descriptions (cut at 256 tokens), all cores. Peers run in batches of 1, of 32 as they come, of 32 and of 128
sorted by length once, and go on in the best of these; stepmill needs no sorting. A peer counts for the goal of bf16 if the cosine
of every vector to sentence-transformers f32 is at least 0.9999. Subjects of a table take turns. Ratios are of speeds.
"""
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "common"))
from report import Report, interleave, summary  # noqa: E402

FLOP_PER_TOKEN = 2 * 6 * (4 * 384 * 384 + 2 * 384 * 1536)  # of the products, without attention
BATCHES = {"1": (1, False), "32 as is": (32, False), "32 sorted": (32, True), "128 sorted": (128, True)}


class Peers:
    """sentence-transformers, torch and onnxruntime on one model, in this process. llama.cpp has no package that holds it built, and
    no file of this model: it is left out (its best was 0.9 of sentence-transformers f32 where it was tried)."""

    def __init__(self, model, threads, scratch):
        import numpy
        import onnxruntime
        import onnxruntime.quantization
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers import AutoTokenizer

        torch.set_num_threads(threads)
        self.numpy, self.torch = numpy, torch
        self.f32 = SentenceTransformer(model, device="cpu")
        self.bf16 = SentenceTransformer(model, device="cpu").to(torch.bfloat16)
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        path = str(scratch / "model.onnx")
        inner = self.f32[0].auto_model.eval()

        class Hidden(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = inner

            def forward(self, ids, mask):
                return self.inner(input_ids=ids, attention_mask=mask).last_hidden_state

        example = self.tokenizer(["one two three", "four"], padding=True, return_tensors="pt")
        axes = {"ids": {0: "rows", 1: "tokens"}, "mask": {0: "rows", 1: "tokens"}, "hidden": {0: "rows", 1: "tokens"}}
        with torch.no_grad():
            torch.onnx.export(Hidden(), (example["input_ids"], example["attention_mask"]), path, input_names=["ids", "mask"],
                              output_names=["hidden"], dynamic_axes=axes, opset_version=17, dynamo=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        small = str(scratch / "model-int8.onnx")
        onnxruntime.quantization.quantize_dynamic(path, small, weight_type=onnxruntime.quantization.QuantType.QInt8)
        self.small = onnxruntime.InferenceSession(small, options, providers=["CPUExecutionProvider"])
        self.int8 = SentenceTransformer(model, device="cpu")
        torch.ao.quantization.quantize_dynamic(self.int8, {torch.nn.Linear}, dtype=torch.qint8, inplace=True)

    def sentence(self, model, texts, batch):
        out = []
        with self.torch.no_grad():
            for first in range(0, len(texts), batch):
                out.append(model.encode(texts[first:first + batch], batch_size=batch, show_progress_bar=False,
                                        convert_to_tensor=True).float())
        return self.torch.cat(out).numpy()

    def onnx(self, session, texts, batch):
        numpy, out = self.numpy, []
        for first in range(0, len(texts), batch):
            t = self.tokenizer(texts[first:first + batch], padding=True, truncation=True, max_length=256, return_tensors="np")
            mask = t["attention_mask"].astype("int64")
            hidden = session.run(None, {"ids": t["input_ids"].astype("int64"), "mask": mask})[0]
            mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
            out.append(mean / numpy.linalg.norm(mean, axis=1, keepdims=True))
        return numpy.concatenate(out)

    def systems(self):
        return {"onnxruntime f32": lambda t, b: self.onnx(self.session, t, b),
                "sentence-transformers f32": lambda t, b: self.sentence(self.f32, t, b),
                "sentence-transformers bf16": lambda t, b: self.sentence(self.bf16, t, b),
                "torch dynamic int8": lambda t, b: self.sentence(self.int8, t, b),
                "onnxruntime int8": lambda t, b: self.onnx(self.small, t, b)}


class Bench:
    def __init__(self, report, scratch):
        import tokenizers

        self.report, self.args, self.scratch = report, report.args, pathlib.Path(scratch)
        self.bin = self.args.build.resolve() / "bin"
        self.threads = self.args.threads
        self.model = str(self.args.model.resolve())
        with open(self.args.texts, encoding="utf-8") as lines:
            self.all = [json.loads(line)["text"] for line in lines]
        self.texts = self.all[:self.args.docs]
        self.theirs = tokenizers.Tokenizer.from_file(self.model + "/tokenizer.json")
        self.theirs.no_padding()
        self.theirs.enable_truncation(256)
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self.counts = [len(self.theirs.encode(t).ids) for t in self.texts]

    def write(self, name, texts):
        path = self.scratch / name
        path.write_bytes(b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in texts))
        return path

    def ours(self, mode, texts, precision="f32", threads=None, batch=64):
        words = [self.bin / "bench_embed", mode, self.model, texts, precision, threads or self.threads, batch]
        done = subprocess.run([str(w) for w in words], capture_output=True, check=False)
        if done.returncode != 0:
            sys.exit(done.stderr.decode())
        return done.stdout if mode == "vectors" else float(done.stdout.split()[0])

    def encoders(self):
        """The table of systems and batch sizes."""
        import numpy

        report, args = self.report, self.args
        file = self.write("texts", self.texts)
        subjects = {}
        for precision in ("f32", "bf16"):
            for batch in (1, 32, 64):
                subjects[f"stepmill {precision}, batch {batch}"] = lambda p=precision, b=batch: self.ours("encode", file, p, batch=b)
            subjects[f"stepmill {precision}, 1 replica of {self.threads} threads"] = lambda p=precision: self.ours("inside", file, p)
            for rows in (64, 256):
                subjects[f"products {precision}, {rows} rows"] = lambda p=precision, r=rows: self.ours("gemm", file, p, batch=r)
                if (self.bin / "bench_peer_onednn").exists():
                    subjects[f"oneDNN {precision}, {rows} rows"] = lambda p=precision, r=rows: float(
                        subprocess.run([self.bin / "bench_peer_onednn", p, str(self.threads), str(r)], check=True,
                                       capture_output=True).stdout)
        peers = {} if args.no_peers else Peers(self.model, self.threads, self.scratch).systems()
        vectors = {}

        def peer(system, batch, by_length):
            texts = sorted(self.texts, key=len) if by_length else self.texts
            start = time.perf_counter()
            out = system(texts, batch)
            if not by_length:
                vectors.setdefault(system, out)
            return len(texts) / (time.perf_counter() - start)

        for name, system in peers.items():
            peer(system, 32, False)  # warms up, and gives its vectors
            settings = {f"{name}, batch {label}": (system, *setting) for label, setting in BATCHES.items()}
            once = {label: peer(*setting) for label, setting in settings.items()}
            fastest = max(once, key=once.get)
            subjects[fastest] = lambda setting=settings[fastest]: peer(*setting)
            for label in sorted(once.keys() - {fastest}):
                report.row(label + ", one pass", [once[label]], "docs/s")
        times = interleave(subjects, args.rounds)
        own = {p: numpy.frombuffer(self.ours("vectors", file, p), numpy.float32).reshape(len(self.texts), -1)
               for p in ("f32", "bf16")}
        exact = vectors[peers["sentence-transformers f32"]] if peers else own["f32"]

        def cosine(v):
            v = numpy.asarray(v, numpy.float64)
            return float(((v * exact).sum(1) / numpy.linalg.norm(v, axis=1) / numpy.linalg.norm(exact, axis=1)).min())

        for name, values in times.items():
            products = name.startswith(("products", "oneDNN"))
            report.row(name, values, "GFLOP/s" if products else "docs/s")
        for p in ("f32", "bf16"):
            report.row(f"least cosine of stepmill {p} to " + ("sentence-transformers f32" if peers else "itself in f32"),
                       [cosine(own[p])], "",
                       goal=">= 0.99999" if p == "f32" else ">= 0.9999")

        def best(names):
            return max(names, key=lambda n: summary(times[n])[0])

        mine = {p: best([n for n in times if n.startswith(f"stepmill {p}")]) for p in ("f32", "bf16")}
        tokens = sum(self.counts) / len(self.counts)
        for p in ("f32", "bf16"):
            top = best([n for n in times if n.startswith((f"products {p}", f"oneDNN {p}"))])
            ceiling = [v * 1e9 / (FLOP_PER_TOKEN * tokens) for v in times[top]]
            report.row(f"stepmill {p} beside the products alone", times[mine[p]], "docs/s", over=(top, ceiling))
        for name, system in peers.items():
            report.row(f"least cosine of {name} to sentence-transformers f32", [cosine(vectors[system])], "")
        if peers:
            fair = [n for n, s in peers.items() if cosine(vectors[s]) >= 0.9999]
            f32 = best([n for n in times if n.startswith(("onnxruntime f32", "sentence-transformers f32"))])
            every = best([n for n in times if n.startswith(tuple(fair))])
            report.row("stepmill f32 beside the best f32 peer", times[mine["f32"]], "docs/s", over=(f32, times[f32]), goal=">= 1.5")
            report.row("stepmill bf16 beside the best peer of cosine >= 0.9999", times[mine["bf16"]], "docs/s",
                       over=(every, times[every]), goal=">= 3")

    def tokenizer(self):
        some = self.all[:2000]
        file = self.write("more", some)

        def hf():
            start = time.perf_counter()
            for text in some:
                self.theirs.encode(text)
            return len(some) / (time.perf_counter() - start)

        t = interleave({"ours": lambda: self.ours("tokens", file), "hf": hf}, self.args.rounds)
        self.report.row("tokenizer, one thread", t["ours"], "docs/s", over=("HF tokenizers, one thread", t["hf"]), goal=">= 5")

    def ragged(self):
        """Texts of one length with as many tokens in all: what raggedness costs."""
        mean = round(sum(self.counts) / len(self.counts))
        even = self.write("even", ["word " * (mean - 2)] * len(self.texts))
        file = self.write("texts", self.texts)
        for p in ("f32", "bf16"):
            t = interleave({"ragged": lambda: self.ours("encode", file, p), "even": lambda: self.ours("encode", even, p)},
                           self.args.rounds)
            scale = sum(self.counts) / (mean * len(self.texts))
            self.report.row(f"tokens per second, ragged beside uniform, {p}", [v * scale for v in t["ragged"]],
                            "docs/s of mean length",
                            over=(f"uniform, {mean} tokens", t["even"]), goal=">= 0.95")

    def pipeline(self):
        """read_jsonl -> embed_text -> write_jsonl by the installed command, start and load included."""
        source = self.scratch / "in.jsonl"
        source.write_text("".join(json.dumps({"text": t}) + "\n" for t in self.all), encoding="utf-8")
        file = self.scratch / "pipeline.yaml"
        command = self.args.stepmill.resolve() / "bin/stepmill"
        for p in ("f32", "bf16"):
            count = min(len(self.all), 600 if p == "f32" else 2000)
            source.write_text("".join(json.dumps({"text": t}) + "\n" for t in self.all[:count]), encoding="utf-8")
            file.write_text(f"stepmill: 1\nname: bench\nsteps:\n  in: {{type: read_jsonl, path: {source}, batch_size: 256}}\n"
                            f"  embed: {{type: embed_text, from: in, model: {self.model}, precision: {p}, input_batch_size: 64, replicas: {self.threads}}}\n"
                            "  out: {type: write_jsonl, from: embed, path: out.jsonl}\n", encoding="utf-8")

            def run():
                shutil.rmtree(self.scratch / "run", ignore_errors=True)
                start = time.perf_counter()
                done = subprocess.run([command, "run", file, "--run", self.scratch / "run", "--quiet"], capture_output=True,
                                      text=True, check=False)
                if done.returncode != 0:
                    sys.exit(done.stderr)
                return count / (time.perf_counter() - start)

            texts = self.write("part", self.all[:count])
            t = interleave({"run": run, "encoder": lambda: self.ours("encode", texts, p),
                            "tokenizer": lambda: self.threads * self.ours("tokens", texts)}, self.args.rounds)
            slower = min("encoder", "tokenizer", key=lambda name: summary(t[name])[0])
            self.report.row(f"whole pipeline {p}, {count} documents, start included", t["run"], "docs/s",
                            over=(f"{slower} alone", t[slower]), goal=">= 0.9")

    def load(self):
        file = self.write("one", self.texts[:1])
        for p in ("f32", "bf16"):
            self.ours("load", file, p)
            self.report.row(f"model load to first vector, warm, {p}",
                            [1e3 * self.ours("load", file, p, 1) for _ in range(self.args.rounds)], "ms", goal="<= 50")


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    report = Report.from_command_line(
        "embed", __doc__, docs={"type": int, "default": 300}, rounds={"type": int, "default": 5},
        threads={"type": int, "default": len(os.sched_getaffinity(0))},
        model={"type": pathlib.Path, "default": root / "models-cache/all-MiniLM-L6-v2"},
        texts={"type": pathlib.Path, "default": root / "data/debian-2000.jsonl"},
        only={"default": "", "help": "tokenizer,encoders,ragged,pipeline,load"},
        no_peers={"action": "store_true", "help": "stepmill and products only"})
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(report, scratch)
        for part in (bench.tokenizer, bench.ragged, bench.pipeline, bench.load, bench.encoders):
            if not report.args.only or part.__name__ in report.args.only.split(","):
                part()
    report.finish()


main()
