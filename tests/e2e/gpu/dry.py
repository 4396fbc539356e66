"""scripts/gpu.sh on simulated devices, from a bundle, in an empty environment, in a folder of its own: every phase runs, and what must be said is.

usage: dry.py ROOT BUILD SCRATCH
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys

PATH = "/usr/local/bin:/usr/bin:/bin"


def main():
    root, build, scratch = (pathlib.Path(p) for p in sys.argv[1:4])
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    bad = []

    def expect(truth, what):
        if not truth:
            bad.append(what)

    def script(where, *words, **env):
        done = subprocess.run([str(where / "scripts/gpu.sh"), *map(str, words)], env=dict({"PATH": PATH}, **env), cwd="/", text=True,
                              capture_output=True, timeout=280, check=False)
        return done.returncode, done.stdout + done.stderr

    bundle = scratch / "bundle"
    code, text = script(root, "--dry", "--out", scratch / "unused", "--bundle", bundle, STEPMILL_GPU_BUILD=str(build))
    expect(code == 0, f"--bundle ended with {code}:\n{text}")
    size = sum(f.stat().st_size for f in bundle.rglob("*") if f.is_file() and not f.is_symlink())
    expect(0 < size <= 60 << 20, f"the bundle has {size} bytes")
    moved = scratch / "elsewhere"
    bundle.rename(moved)
    out = scratch / "out"
    code, text = script(moved, "--dry", "--out", out)
    expect(code == 0, f"the dry run ended with {code}:\n{text}")
    for phase in ("probe", "build", "contract", "kernels", "sanitizer", "ceilings", "engine", "encoder", "neighbours"):
        expect((out / f"{phase}.json").exists(), f"phase {phase} left nothing")
    if not bad:
        result = json.loads((out / "simulated.json").read_text(encoding="utf-8"))
        names = [r["name"] for r in result["rows"]] + [m["name"] for m in result["left_out"]]
        for figure in [f"E{i}" for i in range(1, 11)] + [f"M{i}" for i in range(1, 7)] + ["K1", "K2", "K3", "HBM read", "PCIe up", "gemm bf16 8192^3"]:
            expect(any(figure in name.split() or name.startswith(figure) or f" {figure} " in f" {name} ".replace(",", " ") for name in names),
                   f"nothing is said of {figure}")
        for row in result["rows"]:
            expect({"name", "value", "unit", "spread", "denominator", "denominator_value", "ratio", "goal", "met"} <= row.keys(), f"row {row['name']}")
        tests = {t["name"]: t for t in result["tests"]}
        expect(sum(t.get("passed", 0) for t in tests.values()) > 0, "no test ran")
        for tool in ("memcheck", "racecheck", "synccheck", "initcheck"):
            expect(tests[f"{tool}: bench_gpu_mistake"]["verdict"] == "sees its mistake", f"{tool}: {tests[f'{tool}: bench_gpu_mistake']}")
        expect("E1 three kernels of 20 us" in (out / "simulated.md").read_text(encoding="utf-8"), "the page lacks E1")
    # A tool that finds something, one that reports nothing, a phase that there is not.
    code, text = script(moved, "--dry", "--out", scratch / "found", "sanitizer", FAKE_SANITIZER_ERRORS="racecheck")
    expect(code == 1 and "NOT CLEAN" in text and "Race reported" in text, f"a hazard in a test was not told ({code}):\n{text}")
    silent = scratch / "silent"
    silent.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    silent.chmod(0o755)
    code, text = script(moved, "--dry", "--out", scratch / "silent-out", "sanitizer", STEPMILL_COMPUTE_SANITIZER=str(silent))
    expect(code == 1 and "no report" in text, f"a tool that says nothing passed for clean ({code}):\n{text}")
    code, text = script(moved, "--dry", "nonsense")
    expect(code == 2 and "no phase 'nonsense'" in text, f"a wrong phase: {code} {text}")
    # Results of single phases go together later.
    code, text = script(moved, "--dry", "--out", out, "report")
    expect(code == 0 and "goals met" in text, f"report alone: {code} {text}")
    for line in bad:
        print(line)
    if not bad:
        shutil.rmtree(scratch)
    return 1 if bad else 0


if __name__ == "__main__":
    os.environ.pop("STEPMILL_GPU_BUILD", None)
    sys.exit(main())
