"""Exact nearest neighbours: top-k of 4,096 of 61,703 x 384 vectors against all of them.

With --queries 0 every vector asks, and all pairs above a threshold are found as well; that takes minutes a round.

Denominators of the same run: the float32 matrix product alone (our own, the same blocks, nothing done with the scores;
and the peer's BLAS by numpy, one product per 2,048 rows) and FAISS's flat index with the same number of threads. Ratios are
of speeds: above 1 = faster than the denominator. Rows that FAISS finds and we do not, or the reverse, are counted, and
may differ only where scores tie to float32.
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "common"))
from report import Report, interleave  # noqa: E402


def main():
    report = Report.from_command_line(
        "neighbours", __doc__, rows={"type": int, "default": 61703},
        queries={"type": int, "default": 4096, "help": "the first so many rows; 0 = all"}, dim={"type": int, "default": 384},
        k={"type": int, "default": 10}, rounds={"type": int, "default": 5},
        threads={"type": int, "default": len(os.sched_getaffinity(0))}, vectors={"help": "file of float32 [rows][dim]"})
    args = report.args
    threads = str(args.threads)
    count = args.queries if 0 < args.queries < args.rows else args.rows
    os.environ.update(OMP_NUM_THREADS=threads, OPENBLAS_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
    import faiss
    import numpy
    with tempfile.TemporaryDirectory() as scratch:
        vectors, found = args.vectors or scratch + "/vectors", scratch + "/rows"
        program = [args.build / "bin/bench_topk", "--rows", args.rows, "--dim", args.dim, "--k", args.k, "--threads", threads,
                   "--queries", count]

        def ours(kind, *more):
            line = subprocess.run([str(w) for w in [*program, "--vectors", vectors, "--reps", 1, "--only", kind, *more]],
                                  text=True, capture_output=True, check=True).stdout.split()
            return float(line[1]) if line else None

        if not args.vectors:
            subprocess.run([str(w) for w in [*program, "--reps", 0, "--write", vectors]], check=True)
        x = numpy.fromfile(vectors, numpy.float32).reshape(args.rows, args.dim)
        x = x / numpy.maximum(numpy.linalg.norm(x, axis=1, keepdims=True), 1e-30)
        faiss.omp_set_num_threads(args.threads)
        index = faiss.IndexFlatIP(args.dim)
        index.add(x)
        peer = {}

        def flat():
            start = time.perf_counter()
            peer["scores"], peer["rows"] = index.search(x[:count], args.k + 1)  # a row finds itself, too
            return time.perf_counter() - start

        def blas():
            start = time.perf_counter()
            for first in range(0, count, 2048):
                x[first:min(first + 2048, count)] @ x.T
            return time.perf_counter() - start

        pairs = {"pairs": lambda: ours("pairs")} if count == args.rows else {}
        t = interleave({"gemm f32": lambda: ours("gemm_f32"), "gemm bf16": lambda: ours("gemm_bf16"),
                        "top-k": lambda: ours("topk", "--results", found), "top-k f32": lambda: ours("topk_f32"),
                        **pairs, "flat": flat, "blas": blas}, args.rounds)
        rows = numpy.fromfile(found, numpy.int64).reshape(count, args.k)
        differ = 0
        for r in range(count):
            theirs = [int(n) for n in peer["rows"][r] if n != r][:args.k]
            missing = set(theirs) - set(int(n) for n in rows[r])
            if missing:
                worst = min(float(x[r] @ x[n]) for n in rows[r])
                differ += sum(float(x[r] @ x[n]) > worst + 1e-6 for n in missing)
    name = f"{count:,} of {args.rows:,} x {args.dim}, k = {args.k}"

    def speed(label, key, below, goal=None):
        report.row(label, [1 / v for v in t[key]], "1/s", over=(below, [1 / v for v in t[below]]), goal=goal)

    for key in ("gemm f32", "gemm bf16", "blas", "flat", "top-k", "top-k f32", "pairs"):
        if key in t and None not in t[key]:
            report.row(f"seconds: {key}, {name}", t[key], "s")
    speed("exact top-k beside the float32 product alone", "top-k", "gemm f32", ">= 0.8")
    speed("exact top-k beside numpy's product alone", "top-k", "blas", ">= 0.8")
    speed("exact top-k beside FAISS flat", "top-k", "flat", ">= 1")
    speed("screened in float32 only, beside the product alone", "top-k f32", "gemm f32", ">= 0.8")
    speed("screened in float32 only, beside FAISS flat", "top-k f32", "flat", ">= 1")
    if pairs:
        speed("pairs above 0.92 beside the top-k", "pairs", "top-k")
    report.row("neighbours that FAISS finds and we do not", [differ], "rows", goal="<= 0")
    report.finish()


main()
