"""Kill a pipeline again and again; after resuming, its output must be what an undisturbed run writes, byte for byte.

usage: kills.py STEPMILL SHIM PLUGIN WORK KILLS [SEED]

The pipeline has a filter, an expansion, a router with replicas and a convergence, a join, a global, rows that fail, three
sinks, and a step that sleeps two milliseconds per batch: a run lasts for many commits on a fast machine, too. The shim (kill_at.c)
ends the worker, its supervisor, or both at a random time, at a sync, at a rename, or as the run is finished. After a worker another
one goes on by itself, after a supervisor the command is called again.
"""
import collections
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time

stepmill, shim, plugin, work, kills = sys.argv[1], sys.argv[2], sys.argv[3], pathlib.Path(sys.argv[4]), int(sys.argv[5])
rng = random.Random(int(sys.argv[6]) if len(sys.argv) > 6 else 1)
ROWS = 12000

PIPELINE = f"""stepmill: 1
name: kills
commit_interval: 0.01s
plugins: [{plugin}]
steps:
  src:
    type: read_jsonl
    path: in.jsonl
    columns: {{id: int64, kind: int64, text: utf8, tags: list<utf8>, embedding: "fixed_list<float32>[4]"}}
    extra: ""
    batch_size: 64
  paced: {{type: e2e_work, from: src, pause: 2ms}}
  keep: {{type: filter, from: paced, where: "kind != 3", nulls: pass}}
  label: {{type: template, from: keep, input_batch_size: 50, replicas: 2, template: "{{id}}: {{text}}", output: label}}
  deal: {{type: round_robin, from: label, to: {{a: left, b: right}}}}
  left: {{type: template, from: deal, replicas: 2, template: "A {{label}}", output: branch}}
  right: {{type: template, from: deal, input_batch_size: 17, template: "B {{label}}", output: branch}}
  both: {{type: template, from: {{converge: [left, right]}}, template: "{{branch}}!", output: shout}}
  words: {{type: explode, from: both, input_batch_size: 33, column: tags}}
  short: {{type: select, from: keep, input_batch_size: 21, keep: [id], rename: {{id: other}}}}
  joined: {{type: template, from: {{join: [both, short]}}, input_batch_size: 40, template: "{{other}} {{shout}}", output: joined}}
  groups: {{type: deduplicate, from: src, threshold: 0.999999, output: rows}}
  out: {{type: write_jsonl, from: words, path: words.jsonl, part_rows: 2000, errors: true}}
  out2: {{type: write_jsonl, from: joined, path: sub/joined.jsonl}}
  out3: {{type: write_jsonl, from: groups, path: groups.jsonl, part_rows: 1500}}
"""


def make_input(path):
    r = random.Random(2)
    with open(path, "w", encoding="utf-8") as f:
        for i in range(ROWS):
            row = {
                "id": f"not a number {i}" if i % 997 == 500 else i,
                "kind": r.randrange(7),
                "text": "w" * r.randrange(1, 40),
                "tags": [f"t{r.randrange(50)}" for _ in range(r.randrange(4))],
                "embedding": [r.choice([-1.0, 0.5, 1.0, 0.25]) for _ in range(4)],
            }
            f.write("{broken\n" if i % 2003 == 7 else json.dumps(row) + "\n")


def outputs(folder):
    """What the sinks wrote; errors.jsonl and log.jsonl are of the run itself."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.jsonl*"))
            if p.name not in ("errors.jsonl", "log.jsonl")}


def errors(folder):
    """Which rows failed where; numbers, replicas and attempts may differ."""
    lines = [json.loads(line) for line in (folder / "errors.jsonl").read_text().splitlines()]
    return sorted((e["step"], e["first_key"], e["last_key"], e["rows"], e["message"]) for e in lines)


def run(folder, kill=None):
    """Exit code, what it said, [(phase, who)] for each kill."""
    env = dict(os.environ, NO_COLOR="1")
    log = work / "phase"
    log.unlink(missing_ok=True)
    if kill:
        env.update(LD_PRELOAD=shim, STM_KILL=kill, STM_KILL_LOG=str(log))
    done = subprocess.run([stepmill, "run", work / "kills.yaml", "--run", folder], env=env, capture_output=True, text=True,
                          timeout=300, check=False)
    return done.returncode, done.stderr, [tuple(line.split()) for line in log.read_text().splitlines()] if log.exists() else []


def moment(kinds):
    kind = rng.choice(kinds)
    return {
        "time": lambda: f"time:{int(rng.uniform(0.25, 1.0) * seconds * 1e6)}",
        "load": lambda: f"time:{int(rng.uniform(0, 0.015) * 1e6)}",
        "soon": lambda: f"time:{int(rng.uniform(0.01, 0.1) * 1e6)}",
        "commit": lambda: f"commit:{rng.randrange(10, 60)}",
        "first": lambda: f"commit:{rng.randrange(1, 7)}",
        "rename": lambda: f"rename:{rng.randrange(3, 40)}",
        "finish": lambda: f"finish:{rng.randrange(1, 3)}",
    }[kind]()


def kills_of_a_run():
    """Up to three workers in a row, as many as --restarts allows without getting anywhere. The first has mostly committed something
    by then; every other time those that follow die before they have got far."""
    who = [rng.choice(["child", "child", "parent", "both"]) for _ in range(3)]
    any_time = ("time", "time", "time", "commit", "commit", "commit", "rename", "rename", "finish")
    later = rng.choice([(*any_time, "load"), ("load", "soon", "first", "first")])
    first = ("load",) if rng.random() < 0.1 else any_time
    return ";".join(f"{w}-{moment(later if i > 0 else first)}" for i, w in enumerate(who))


shutil.rmtree(work, ignore_errors=True)
work.mkdir(parents=True)
make_input(work / "in.jsonl")
(work / "kills.yaml").write_text(PIPELINE)
start = time.time()
code, text, _ = run(work / "undisturbed")
seconds = time.time() - start
if code != 3:  # rows that could not be read
    sys.exit(f"the undisturbed run ends with {code}, not 3: {text}")
want, want_errors = outputs(work / "undisturbed"), errors(work / "undisturbed")
rows = sum(data.count(b"\n") for data in want.values())
if rows < 10000 or not want_errors:
    sys.exit(f"the undisturbed run has {rows} rows and {len(want_errors)} error records")

phases, victims, resumed, runs, done = collections.Counter(), collections.Counter(), 0, 0, 0
while done < kills:
    folder = work / "killed"
    shutil.rmtree(folder, ignore_errors=True)
    runs += 1
    for attempt in range(1, 200):
        at = kills_of_a_run() if attempt < 40 else None
        code, text, deaths = run(folder, at)
        resumed += text.count("going on where") + text.count("complete already, ")
        phases.update(phase for phase, _ in deaths)
        victims.update(who for _, who in deaths)
        done += len(deaths)
        if code != -9:
            break
    fault = None
    if code != 3:
        fault = f"exit code {code}, not 3: {text}"
    elif outputs(folder) != want:
        got = outputs(folder)
        fault = "other output: " + ", ".join(k for k in sorted(set(got) | set(want)) if got.get(k) != want.get(k))
    elif errors(folder) != want_errors:
        fault = "other error records"
    if fault:
        shutil.copytree(folder, work / "failed", dirs_exist_ok=True)
        sys.exit(f"after {done} kills, run {runs} ({at}): {fault}; kept in {work / 'failed'}")

print(f"{done} kills in {runs} runs of {rows} rows, {resumed} resumed partial work, 0 differences")
print("killed: " + ", ".join(f"{who} {victims[who]}" for who in ("child", "parent", "both")))
print("killed in: " + ", ".join(f"{phase} {phases[phase]}" for phase in ("load", "run", "commit", "rename", "finalise")))
missing = [p for p in ("load", "run", "commit", "rename", "finalise") if phases[p] == 0]
if missing and kills >= 50:
    sys.exit(f"never killed in {', '.join(missing)}")
if len(victims) < 3 and kills >= 50:
    sys.exit("not everybody was killed")
unfinished = done - phases["finalise"]
if resumed <= unfinished / 2:
    sys.exit(f"only {resumed} of {unfinished} resumes found partial work")
