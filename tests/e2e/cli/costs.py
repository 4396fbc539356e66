"""What the command costs as it is delivered: calls of the allocator per batch, and an idle run.

usage: costs.py STEPMILL COUNT_MALLOC MODEL WORK copy|embed|idle

Allocations: the same pipeline over few and over many rows. What a batch costs is the difference divided by the batches more. Pools
grow to what is once in flight, which chance decides: `memory_limit` bounds it, so that it has been reached after few rows, and the
best of some tries counts. One call of the allocator per batch would be 1.
Idle: a run that waits for a program. Processor time of all threads of both processes, and how often they went to sleep, from the
kernel's accounts. What a wake costs is the machine's; how many there are is ours.
"""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

stepmill, preload, model = (pathlib.Path(a).absolute() for a in sys.argv[1:4])
work, what = pathlib.Path(sys.argv[4]).absolute(), sys.argv[5]
BATCH = 16
MOST_CALLS = 0.25   # per batch
MOST_IDLE = 0.001   # of a core
MOST_WAKES = 6.5    # a second: main thread, beat, coordinator and observer wake once, supervisor and `command` once in two seconds
shutil.rmtree(work, ignore_errors=True)
work.mkdir(parents=True)


def pipeline(name, text):
    (work / f"{name}.yaml").write_text(f"stepmill: 1\nname: {name}\nmemory_limit: 1MiB\nsteps:\n{text}")
    return work / f"{name}.yaml"


def calls(file):
    """Of the process that does the work: the largest number."""
    counted = work / "calls"
    counted.unlink(missing_ok=True)
    env = {**os.environ, "LD_PRELOAD": str(preload), "COUNT_MALLOC_FILE": str(counted)}
    subprocess.run([stepmill, "run", file, "--run", work / "run", "--fresh", "--quiet"], check=True, env=env, timeout=120)
    return max(int(line) for line in counted.read_text().split())


def allocations(steps, few_rows, many_rows):
    for rows in (few_rows, many_rows):
        (work / f"in-{rows}.jsonl").write_text("".join(f'{{"id": {i}, "text": "word {i % 97}"}}\n' for i in range(rows)))
    files = [pipeline(f"rows-{rows}",
                      f"  in: {{type: read_jsonl, path: in-{rows}.jsonl, columns: {{id: int64, text: utf8}}, batch_size: {BATCH}}}\n{steps}"
                      "  out: {type: write_jsonl, from: last, path: out.jsonl}\n") for rows in (few_rows, many_rows)]
    best = None
    for _ in range(6):
        few, many = map(calls, files)
        per_batch = (many - few) * BATCH / (many_rows - few_rows)
        print(f"{few} calls of the allocator over {few_rows // BATCH} batches, {many} over {many_rows // BATCH}: {per_batch:.3f} per batch")
        assert few > 100, "the counter does not count"
        best = per_batch if best is None else min(best, per_batch)
        if best <= MOST_CALLS:
            return
    sys.exit(f"{best:.3f} calls of the allocator per batch, more than {MOST_CALLS}")


def family(pid):
    """The process and its children that are stepmill, too."""
    pids = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if os.readlink(f"/proc/{child}/exe") == os.readlink(f"/proc/{pid}/exe"):
                pids += family(int(child))
    return pids


def spent(pids):
    """Nanoseconds on a processor, and how often a thread went to sleep."""
    ns = sleeps = 0
    for pid in pids:
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            ns += int((task / "schedstat").read_text().split()[0])
            sleeps += int((task / "status").read_text().split("nonvoluntary")[0].split("voluntary_ctxt_switches:")[1])
    return ns, sleeps


def idle():
    (work / "one.jsonl").write_text('{"id": 1}\n')
    file = pipeline("idle", "  in: {type: read_jsonl, path: one.jsonl, columns: {id: int64}}\n"
                    "  wait: {type: command, from: in, argv: [sleep, '60'], columns: {id: int64}, outputs: {id: same}}\n"
                    "  out: {type: write_jsonl, from: wait, path: out.jsonl}\n")
    run = subprocess.Popen([stepmill, "run", file, "--run", work / "run", "--quiet"], stderr=subprocess.DEVNULL)
    best, fewest = None, None
    try:
        time.sleep(3)  # what is done at the start, and the ticks that begin short
        pids = family(run.pid)
        assert len(pids) == 2, f"supervisor and child, not {pids}"
        for _ in range(10):
            before, start = spent(pids), time.monotonic()
            time.sleep(2)
            after, seconds = spent(pids), time.monotonic() - start
            share, wakes = (after[0] - before[0]) / seconds / 1e9, (after[1] - before[1]) / seconds
            print(f"{100 * share:.3f} % of a core, {wakes:.1f} wakes a second")
            best = share if best is None else min(best, share)
            fewest = wakes if fewest is None else min(fewest, wakes)
            if best <= MOST_IDLE and fewest <= MOST_WAKES:
                return
    finally:
        run.send_signal(signal.SIGINT)
        time.sleep(0.3)  # two at once are one
        run.send_signal(signal.SIGINT)
        run.wait(30)
    sys.exit(f"an idle run takes {100 * best:.3f} % of a core and {fewest:.1f} wakes a second, more than {100 * MOST_IDLE} % or {MOST_WAKES}")


if what == "idle":
    idle()
elif what == "copy":
    allocations("  last: {type: select, from: in, keep: [id, text]}\n", 100000, 400000)
else:
    for precision in ("f32", "bf16"):
        allocations(f"  last: {{type: embed_text, from: in, model: '{model}', precision: {precision}, input_batch_size: {BATCH}, replicas: 2}}\n", 2000, 6000)
