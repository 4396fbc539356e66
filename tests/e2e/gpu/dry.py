"""scripts/gpu.sh on simulated devices, from a bundle, in an empty environment, in a folder of its own: every phase runs, and what
must be said is.

usage: dry.py ROOT BUILD SCRATCH
"""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

PATH = "/usr/local/bin:/usr/bin:/bin"
TOOLKIT = {name: os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ}
PHASES = ("probe", "build", "contract", "kernels", "sanitizer", "ceilings", "engine", "encoder", "neighbours")


def strangers(bundle, build):
    """What programs of a bundle would take from the build tree, or not find: on another machine there is no such tree."""
    ask = "import sys; sys.path[:0] = ['bench/gpu', 'bench/common']; from place import Place; print(Place(True, sys.argv[1]).env()['LD_LIBRARY_PATH'])"
    paths = subprocess.run([sys.executable, "-B", "-c", ask, str(bundle / "asked")], cwd=bundle, text=True, capture_output=True,
                           check=True,
                           env={"PATH": PATH}).stdout.strip()
    found = []
    for file in sorted((bundle / "build/gpu").rglob("*")):
        if file.is_symlink() or not file.is_file() or file.read_bytes()[:4] != b"\x7fELF":
            continue
        text = subprocess.run(["ldd", str(file)], text=True, capture_output=True, env={"PATH": PATH, "LD_LIBRARY_PATH": paths},
                              check=False).stdout
        for line in text.splitlines():
            where = re.search(r"=> (/\S+)", line)
            if "not found" in line or (where and where[1].startswith(f"{build}/") and not where[1].startswith(f"{bundle}/")):
                found.append(f"{file.name}: {line.strip()}")
    return found


def main():
    root, build, scratch = (pathlib.Path(p) for p in sys.argv[1:4])
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    bad = []

    def expect(truth, what):
        if not truth:
            bad.append(what)

    def script(where, *words, **env):
        done = subprocess.run([str(where / "scripts/gpu.sh"), *map(str, words)], env=dict(TOOLKIT, PATH=PATH, **env), cwd="/",
                              text=True,
                              capture_output=True, timeout=280, check=False)
        return done.returncode, done.stdout + done.stderr

    bundle = scratch / "bundle"
    code, text = script(root, "--dry", "--out", scratch / "unused", "--bundle", bundle, STEPMILL_GPU_BUILD=str(build))
    expect(code == 0, f"--bundle ended with {code}:\n{text}")
    size = sum(f.stat().st_size for f in bundle.rglob("*") if f.is_file() and not f.is_symlink())
    expect(0 < size <= 60 << 20, f"the bundle has {size} bytes")
    moved = scratch / "elsewhere"
    bundle.rename(moved)
    for line in strangers(moved, build):
        expect(False, "the bundle is not whole: " + line)
    out = scratch / "out"
    code, text = script(moved, "--dry", "--out", out)
    expect(code == 0, f"the dry run ended with {code}:\n{text}")
    phases = json.loads((out / "phases.json").read_text(encoding="utf-8")) if (out / "phases.json").exists() else {}
    for phase in PHASES:
        expect(phases.get(phase, {}).get("whole"), f"phase {phase} is not over")
    expect(len(list(out.iterdir())) <= 3, f"more files than three: {list(out.iterdir())}")
    if not bad:
        result = json.loads((out / "simulated.json").read_text(encoding="utf-8"))
        names = [r["name"] for r in result["rows"]] + [m["name"] for m in result["left_out"]]
        for figure in [f"E{i}" for i in range(1, 11)] + [f"M{i}" for i in range(1, 7)] + ["K1", "K2", "K3", "HBM read", "PCIe up", "gemm bf16 8192^3"]:
            expect(any(figure in name.split() or name.startswith(figure) or f" {figure} " in f" {name} ".replace(",", " ")
                       for name in names),
                   f"nothing is said of {figure}")
        for row in result["rows"]:
            expect({"name", "value", "unit", "spread", "denominator", "denominator_value", "ratio", "goal", "met"} <= row.keys(),
                   f"row {row['name']}")
        tests = {t["name"]: t for t in result["tests"]}
        expect(sum(t.get("passed", 0) for t in tests.values()) > 0, "no test ran")
        for tool in ("memcheck", "racecheck", "synccheck", "initcheck"):
            expect(tests[f"{tool}: bench_gpu_mistake"]["verdict"] == "sees its mistake",
                   f"{tool}: {tests[f'{tool}: bench_gpu_mistake']}")
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
    # Without a GPU, and not in a dry run: everything is found but the GPU.
    code, text = script(moved, "--out", scratch / "none", "probe")
    expect(code == 1 and "no GPU that stepmill can use" in text and "is not found" not in text, f"without a GPU: {code} {text}")
    # What a phase had found stays when it is ended from outside, and what no time is left for is named.
    command = subprocess.Popen([str(moved / "scripts/gpu.sh"), "--dry", "--out", str(scratch / "ended"), "contract"],
                               env={"PATH": PATH}, cwd="/",
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in command.stdout:
        if ": passed" in line:
            break
    command.send_signal(signal.SIGKILL)
    command.stdout.close()
    command.wait()
    left = json.loads((scratch / "ended/phases.json").read_text(encoding="utf-8"))["contract"]
    expect(left["tests"] and not left["whole"], f"a phase that was ended left {left}")
    began = time.monotonic()
    code, text = script(moved, "--dry", "--out", scratch / "late", "--minutes", "0.001", "contract", "engine")
    expect(code == 0 and text.count("no time was left") == 2 and time.monotonic() - began < 60, f"without time: {code} {text}")
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
