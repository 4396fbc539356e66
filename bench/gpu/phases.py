"""The phases of scripts/gpu.sh, which says what each is for. What they find goes to OUT/phases.json; `report` makes the table of
it."""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "common"))
import bundle  # noqa: E402
import results  # noqa: E402
from engine import engine  # noqa: E402
from models import encoder, neighbours  # noqa: E402
from place import BUNDLED, PHASE_SECONDS, ROOT, Place, sanitizer_program  # noqa: E402
from rows import Rows  # noqa: E402

TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")


def probe(place, rows):
    """Nothing here fails: what is missing is said, and left out later."""
    facts = {}
    smi = shutil.which("nvidia-smi")
    if place.dry:
        facts["device"] = "simulated"
    elif smi:
        query = "name,uuid,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit"
        done = subprocess.run([smi, f"--query-gpu={query}", "--format=csv,noheader"], text=True, capture_output=True, check=False)
        lines = done.stdout.strip().splitlines()
        if done.returncode == 0 and lines:
            facts.update(zip(query.split(","), [v.strip() for v in lines[0].split(",")]))
            facts["device"], facts["gpus"] = facts.pop("name"), len(lines)
    facts["compute-sanitizer"] = sanitizer_program(place.dry) or "none: the phase sanitizer is left out"
    facts["nvcc"] = shutil.which("nvcc") or "none in PATH"
    facts["cuda libraries"] = [str(place.sim)] if place.dry else place.cuda or ["none beside those that the loader knows"]
    for package in ("torch", "sentence_transformers"):
        facts[package] = rows.importable(package)
    for library, users in place.missing_libraries().items():
        rows.problem(f"{library} is not found; needed by {', '.join(users)}")
    if place.command.exists():
        done = place.run(place.command, "devices", check=False)
        facts["devices"] = done.stdout.strip().splitlines()
        if not any(line.startswith("cuda") and "none" not in line for line in facts["devices"]):
            rows.problem("no GPU that stepmill can use: " + " ".join(facts["devices"]))
    rows.facts.update(facts)
    for name, value in facts.items():
        print(f"  {name}: {'; '.join(value) if isinstance(value, list) else value}")


def architectures():
    """What the kernels are compiled for: what CI looks at, unless the GPU here is another."""
    smi = shutil.which("nvidia-smi")
    done = subprocess.run([smi, "--query-gpu=compute_cap", "--format=csv,noheader"], text=True, capture_output=True,
                          check=False) if smi else None
    here = set(done.stdout.split()) if done and done.returncode == 0 else set()
    return "80;90a" if here <= {"8.0", "9.0"} else "all"


def build(place, rows):
    if BUNDLED or place.dry:
        print("  nothing to do: " + ("a bundle" if BUNDLED else f"a dry run of {place.build}"))
    else:
        for words in (["cmake", "--preset", "bench", "-B", str(place.build), "-DSTEPMILL_TESTS=ON", "-DSTEPMILL_CUDA=ON",
                       f"-DSTEPMILL_CUDA_ARCHITECTURES={architectures()}"],
                      ["cmake", "--build", str(place.build), "-j", str(len(os.sched_getaffinity(0))), "--target", "gpu_programs",
                       "gpu_tests",
                       "gpu_simulated"]):
            done = subprocess.run(words, cwd=ROOT, text=True, errors="replace", capture_output=True, timeout=place.left(),
                                  check=False)
            if done.returncode != 0:
                rows.problem(f"{' '.join(words)}:\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
                return
    missing = [str(p) for p in (place.command, place.plugin, place.lib / "stepmill/libstepmill-cuda.so",
                                place.bin / "bench_gpu_ceilings")
               if not p.exists()]
    if missing:
        rows.problem("not built: " + ", ".join(missing))


def run_tests(place, rows, names):
    """Each program's cases, counted; a failure is named."""
    for name in names:
        report = place.out / f"{name}.json"
        report.unlink(missing_ok=True)
        env = {"GTEST_OUTPUT": f"json:{report}"}
        if place.dry:  # ctest runs the whole of them
            env.update(GTEST_TOTAL_SHARDS="8", GTEST_SHARD_INDEX="1")
        began = time.monotonic()
        try:
            done = place.run(place.bin / name, env=env, timeout=PHASE_SECONDS, check=False)
        except subprocess.TimeoutExpired as late:
            rows.test(name=name, passed=0, failed=[], skipped=0, verdict="DID NOT END")
            rows.problem(f"{name} did not end within {late.timeout:.0f} s\n{(late.stdout or b'').decode(errors='replace')[-1500:]}")
            continue
        counts = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
        report.unlink(missing_ok=True)
        cases = [case for suite in counts.get("testsuites", []) for case in suite["testsuite"]]
        skipped = sum(case.get("result") == "SKIPPED" for case in cases)
        ran = [case for case in cases if case.get("status") == "RUN"]
        failed = [case["name"] for case in ran if case.get("failures")]
        passed = len(ran) - len(failed) - sum(case.get("result") == "SKIPPED" for case in ran)
        verdict = "FAILED" if failed or done.returncode != 0 or not cases else "passed" if passed else "all skipped"
        rows.test(name=name, passed=passed, failed=failed, skipped=skipped, verdict=verdict)
        print(f"  {name}: {passed} passed, {len(failed)} failed, {skipped} skipped, {time.monotonic() - began:.1f} s: {verdict}")
        if verdict == "FAILED":
            rows.problem(f"{name} ended with {done.returncode}; failed: {', '.join(failed) or 'no case'}\n{(done.stdout + done.stderr)[-1500:]}")
        elif verdict == "all skipped":
            rows.problem(f"{name} skipped all of its cases: no device was tested")


def contract(place, rows):
    run_tests(place, rows, place.tests()[0])


def kernels(place, rows):
    run_tests(place, rows, place.tests()[1])
    with rows.part("each kernel's speed"):
        found = place.figures("bench_gpu_operations", timeout=300)
        best = {}  # product of each type
        for name, (_, values) in found.items():
            if name.startswith("linear "):
                best[name.split()[-1]] = max(best.get(name.split()[-1], []), values,
                                             key=lambda v: sorted(v)[len(v) // 2] if v else 0)
        for name, (unit, values) in found.items():
            if unit == "TFLOP/s":
                rows.row(name, values, unit, ("the best product", best[name.split()[-1]]))
            elif not name.endswith(" copy"):
                rows.row(name, values, unit, ("a copy", found[name + " copy"][1]))


def sanitizer_verdict(text):
    """(errors, what they are) of a report; None where it has no summary, which is no clean report."""
    found = [int(n) for n in re.findall(r"ERROR SUMMARY: (\d+) error", text)]
    found += [int(n) for n in re.findall(r"RACECHECK SUMMARY: (\d+) hazard", text)]
    if not found:
        return None
    lines = [line[9:].strip() for line in text.splitlines() if line.startswith("=========")]
    said = [line for line in lines
            if re.match(r"(Invalid|Error:|Warning:|Barrier error|Uninitialized|Program hit|Leaked|Misaligned)", line)]
    return sum(found), list(dict.fromkeys(said))[:10]


def sanitizer(place, rows):
    program = sanitizer_program(place.dry)
    if program is None:
        rows.missing("compute-sanitizer", "there is none on this machine; it comes with the CUDA toolkit")
        return
    tests = place.tests()[1] + [t for t in place.tests()[0] if "place" in t or "lane" in t]
    names = ["bench_gpu_mistake"] + (tests[:1] if place.dry else tests)
    pairs = [(name, tool) for name in names for tool in TOOLS]
    for i, (name, tool) in enumerate(pairs):
        seeded = name == "bench_gpu_mistake"
        env = {"GTEST_TOTAL_SHARDS": "8", "GTEST_SHARD_INDEX": "1"} if place.dry else {}
        try:
            # Calls that fail on purpose, and what no memory is left for, are the tests' own business: memcheck is not asked about
            # them.
            done = place.run(program, "--tool", tool, "--error-exitcode", "99", "--report-api-errors", "no", place.bin / name,
                             *([tool] if seeded else []), timeout=max(20, 3 * place.left() / (len(pairs) - i)), env=env,
                             check=False)
        except subprocess.TimeoutExpired as late:
            rows.missing(f"{tool}: {name}", f"did not end within {late.timeout:.0f} s")
            continue
        verdict = sanitizer_verdict(done.stdout + done.stderr)
        if verdict is None:
            state = "no report"
        elif seeded:
            state = "sees its mistake" if verdict[0] and done.returncode == 99 else "DOES NOT SEE ITS MISTAKE"
        else:
            state = "clean" if not verdict[0] and done.returncode == 0 else "NOT CLEAN" if verdict[0] else f"ended with {done.returncode}"
        rows.test(name=f"{tool}: {name}", verdict=state, found=verdict[1] if verdict else [])
        print(f"  {tool}: {name}: {state}")
        if state not in ("clean", "sees its mistake"):
            rows.problem(f"{tool}: {name}: {state}\n" + ("\n".join(verdict[1]) if verdict else (done.stdout + done.stderr)[-1000:]))


def ceilings(place, rows):
    for name, (unit, values) in place.figures("bench_gpu_ceilings", timeout=PHASE_SECONDS).items():
        rows.row(name, values, unit)
    if not any(r["name"].startswith("gemm") for r in rows.rows):
        rows.missing("gemm bf16", "no libcublas.so.13")


PHASES = {f.__name__: f for f in (probe, build, contract, kernels, sanitizer, ceilings, engine, encoder, neighbours)}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     usage="gpu.sh [--dry] [--out DIR] [--minutes N] [--bundle DIR] [PHASE...]")
    parser.add_argument("--dry", action="store_true", help="on simulated devices")
    parser.add_argument("--out", help="where results go (build/gpu-results)")
    parser.add_argument("--minutes", type=float, metavar="N", help="all phases together: what does not fit is left out")
    parser.add_argument("--bundle", metavar="DIR", help="make a bundle there")
    parser.add_argument("phases", nargs="*", metavar="PHASE", help=" ".join([*PHASES, "report"]) + " (default: all)")
    args = parser.parse_args()
    wrong = [p for p in args.phases if p not in PHASES and p != "report"]
    if wrong:
        parser.error(f"no phase '{wrong[0]}': {' '.join([*PHASES, 'report'])}")
    place = Place(args.dry, args.out or ROOT / "build/gpu-results")
    end = time.monotonic() + (args.minutes * 60 if args.minutes else 1e9)
    sys.stdout.reconfigure(line_buffering=True)  # what was printed is there, too, when the command is ended from outside
    if args.bundle:
        if not args.dry:
            place.until = time.monotonic() + 7200
            rows = Rows("build", place)
            build(place, rows)
            if rows.problems:
                return 1
        return bundle.make(place, pathlib.Path(args.bundle))
    bad = 0
    for name in args.phases or [*PHASES, "report"]:
        print(f"== {name}", flush=True)
        began = time.monotonic()
        if name == "report":
            bad += results.report(place)
            continue
        place.until = min(began + PHASE_SECONDS, end)
        rows = Rows(name, place)
        with rows.part("the phase"):
            place.left()
            PHASES[name](place, rows)
        rows.finish()
        bad += len(rows.problems)
        print(f"== {name}: {time.monotonic() - began:.1f} s", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
