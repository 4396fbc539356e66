"""Rows that failed run again: the outputs must be those of a run in which they had not failed, byte for byte.

usage: retry.py STEPMILL FLAKY.so WORK parquet|none SHIM KILLS

SHIM (kill_at.c, `none`: there is none) ends a retry at a moment of its own, KILLS times; it is then called again. KILLS 0: not
that, and only one case of each kind, as under sanitizers, where starting a process is slow.
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

stepmill, plugin, work = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
parquet, shim, kills = sys.argv[4] == "parquet", sys.argv[5], int(sys.argv[6])
shutil.rmtree(work, ignore_errors=True)
work.mkdir(parents=True)
faults = []
HEAD = f"stepmill: 1\nname: retry\ncommit_interval: 0.02s\nmax_errors: 0\nplugins: [{plugin}]\nsteps:\n"
SOURCE = '  src: {type: read_jsonl, path: in.jsonl, columns: {id: int64, tags: list<utf8>, embedding: "fixed_list<float32>[2]"}, extra: "", batch_size: 64}\n'


def expect(what, got, want):
    if got != want:
        faults.append(f"{what}: {str(got)[:900]}, not {str(want)[:900]}")


def call(*args, env=None):
    p = subprocess.run([stepmill, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60,
                       env=dict(os.environ, NO_COLOR="1", **(env or {})))
    return p.returncode, p.stderr


def broken(rows, name="bad"):
    """rows: {id: class}: those that fail from here on."""
    (work / name).write_text("".join(f"{i} {c}\n" for i, c in rows.items()))


def outputs(run):
    """What its sinks wrote, by manifest.json; and nothing else may lie there."""
    m = json.loads((run / "manifest.json").read_text())
    files = [f["path"] for o in m["outputs"] for f in o["parts"]]
    left = [p.name for p in run.iterdir() if p.name.endswith(".tmp")]
    return m["complete"], left, {f: (run / f).read_bytes() for f in files}, [{k: v for k, v in o.items() if k != "parts"} for o in m["outputs"]]


def errors(run):
    return sorted((e["step"], e["class"], e["first_key"], e["rows"], e["message"])
                  for e in map(json.loads, (run / "errors.jsonl").read_text().splitlines()))


def same(what, run, want):
    a, b = outputs(run), outputs(want)
    for name in sorted(set(a[2]) | set(b[2])):
        x, y = a[2].get(name), b[2].get(name)
        if x != y:
            one = next((i for i, (p, q) in enumerate(zip((x or b"").split(b"\n"), (y or b"").split(b"\n"))) if p != q), None)
            faults.append(f"{what}: {name} differs: {x and len(x)} bytes, not {y and len(y)}, first at line {one}: {(x or b'').split(chr(10).encode())[one or 0][:200]!r}, not {(y or b'').split(chr(10).encode())[one or 0][:200]!r}")
    expect(f"{what}: manifest", (a[0], a[1], a[3]), (b[0], b[1], b[3]))


ROWS = 1500
with open(work / "in.jsonl", "w") as f:
    for i in range(ROWS):
        f.write(json.dumps({"id": i, "tags": [f"t{k}" for k in range(i % 4)], "embedding": [i % 13 + 1, i % 7 + 1]}) + "\n")


def pipeline(name, steps):
    path = work / f"{name}.yaml"
    path.write_text(HEAD + SOURCE + steps.replace("FLAKY", f"type: flaky, list: {work / 'bad'}").replace("SECOND", f"type: flaky, list: {work / 'bad2'}"))
    return path


SOME = {i: "transient" if i % 2 else "permanent" for i in range(100, ROWS, 37)}


def case(name, steps, bad=None, after=(), *flags, first=3, code=0):
    """A run with `bad` rows, then a retry when only `after` of them are; the same as a run where only those were ever bad."""
    file, run, want = pipeline(name, steps), work / f"{name}.run", work / f"{name}.want"
    bad = SOME if bad is None else bad
    broken(bad)
    got, said = call("run", file, "--run", run)
    expect(f"{name}: run ({said})", got, first)
    broken({i: bad[i] for i in after})
    got, said = call("run", file, "--run", want)
    expect(f"{name}: undisturbed ({said})", got, 3 if after else 0)
    got, said = call("retry", run, *flags)
    expect(f"{name}: retry ({said})", got, code)
    same(name, run, want)
    expect(f"{name}: errors", errors(run), errors(want))
    return file, run, want


PLAIN = """  flaky: {FLAKY, from: src, outputs: {value: three}}
  label: {type: template, from: flaky, template: "{id}: {three}", output: label}
  out: {type: write_jsonl, from: label, path: out.jsonl, part_rows: 400, errors: true}
"""
TWO = """  flaky: {FLAKY, from: src, outputs: {value: three}}
  other: {SECOND, from: flaky, outputs: {value: more}, cache: true}
  label: {type: template, from: other, template: "{id}: {more}", output: label}
  out: {type: write_jsonl, from: label, path: out.jsonl.gz, errors: true}
  early: {type: write_jsonl, from: flaky, path: early.jsonl, errors: true}
"""
GRAPH = """  flaky: {FLAKY, from: src, outputs: {value: three}, replicas: 2}
  words: {type: explode, from: flaky, input_batch_size: 33, column: tags}
  short: {type: select, from: src, input_batch_size: 21, keep: [id], rename: {id: other}}
  joined: {type: template, from: {join: [flaky, short]}, input_batch_size: 40, template: "{other} {three}", output: joined}
  both: {type: select, from: {union: [joined, flaky]}, keep: [id, three]}
  groups: {type: deduplicate, from: flaky, threshold: 0.999999, output: rows}
  after: {type: template, from: groups, template: "{id} {three}", output: text2}
  out: {type: write_jsonl, from: words, path: words.jsonl, part_rows: 500, errors: true}
  out2: {type: write_jsonl, from: joined, path: sub/joined.jsonl, errors: true}
  out3: {type: write_jsonl, from: after, path: groups.jsonl, part_rows: 300, errors: true}
  out4: {type: write_jsonl, from: both, path: both.jsonl, errors: true}
  out5: {type: write_jsonl, from: src, path: source.jsonl}
"""
PERMANENT = [i for i, c in SOME.items() if c == "permanent"]

case("plain", PLAIN)
case("class", PLAIN, None, PERMANENT, "--class", "transient", code=3)
if kills:
    case("some stay", PLAIN, None, sorted(SOME)[::3], code=3)
    case("classes", PLAIN, None, (), "--class", "transient", "--class", "permanent")
    case("batches", PLAIN.replace("FLAKY,", "FLAKY, whole: true, on_error: impute, input_batch_size: 20,"))
case("graph", GRAPH)
case("border", """  a: {type: select, from: src, keep: [id]}
  b: {type: select, from: src, keep: [id]}
  flaky: {FLAKY, from: {union: [a, b]}, whole: true, on_error: impute, input_batch_size: 1600, outputs: {value: three}}
  out: {type: write_jsonl, from: flaky, path: out.jsonl}
""", {1400: "data"})  # a batch that ends in the second input of a union, in front of where it began in the first
if kills:
    case("formats", """  flaky: {FLAKY, from: src, outputs: {value: three}}
  out: {type: write_arrow, from: flaky, path: out.arrow, part_rows: 400, batch_rows: 40}
""" + ("  out2: {type: write_parquet, from: flaky, path: out.parquet, part_rows: 500}\n" if parquet else ""))

# Rows that fail again, with another cause, and are mended by the retry after that.
broken(SOME)
file, run, want = work / "plain.yaml", work / "again.run", work / "plain.want"
expect("again: run", call("run", file, "--run", run)[0], 3)
broken({i: "data" for i in SOME})
before = outputs(run)
expect("again: first retry", call("retry", run)[0], 3)
expect("again: the same output", outputs(run), before)
expect("again: causes", {c for _, c, *_ in errors(run)}, {"data"})
expect("again: failures", len(errors(run)), len(SOME))
broken({})
expect("again: second retry", call("retry", run, "--class", "data")[0], 0)
same("again", run, want)
expect("again: errors", errors(run), [])

# A second step; the first retry mends one, the second the other; then what was retried is what everything later reads.
two = {i: "data" for i in range(50, ROWS, 91)}
broken(two, "bad2")
file, run, want = pipeline("two", TWO), work / "two.run", work / "two.want"
broken(SOME)
expect("two: run", call("run", file, "--run", run)[0], 3)
broken({})
expect("two: want", call("run", file, "--run", want)[0], 3)
expect("two: retry of a step", call("retry", run, "--step", "flaky")[0], 3)
same("two, one mended", run, want)
expect("two, one mended: errors", errors(run), errors(want))
broken({}, "bad2")
shutil.rmtree(want)
expect("two: want", call("run", file, "--run", want)[0], 0)
expect("two: nothing of that class", call("retry", run, "--class", "transient")[0], 0)
expect("two: errors are as they were", len(errors(run)), len(two))
expect("two: retry of the rest", call("retry", run)[0], 0)
same("two, both mended", run, want)
expect("two: errors", errors(run), [])
expect("two: nothing is left", call("retry", run)[0], 0)
for change in (("path: out.jsonl.gz, errors: true", "path: out.jsonl.gz, omit_nulls: true"),
               ("{id}: {more}", "{more}, {id}"))[0 if kills else 1:]:
    file.write_text(file.read_text().replace(*change))
    for folder in (run, want):
        code, said = call("run", file, "--run", folder)
        expect(f"two, {change[1]}: run ({said})", code, 0)
    expect(f"two, {change[1]}: the steps before stay", [line for line in said.splitlines() if " again: " in line
                                                        and ("flaky" in line or "other" in line)], [])
    same(f"two, {change[1]}", run, want)


# What stands in front of the step that failed is kept: only the rows of that are read, also behind a global, whose output has keys
# of its own.
def behind(name, steps, rows):
    """rows: {step: rows that it gets in a retry}."""
    broken({})
    broken(two, "bad2")
    file, run, want = pipeline(name, steps), work / f"{name}.run", work / f"{name}.want"
    expect(f"{name}: run", call("run", file, "--run", run)[0], 3)
    broken({}, "bad2")
    expect(f"{name}: want", call("run", file, "--run", want)[0], 0)
    code, said = call("retry", run)
    expect(f"{name}: retry ({said})", code, 0)
    same(name, run, want)
    expect(f"{name}: errors", errors(run), [])
    ends = {e["step"]: e["text"] for e in map(json.loads, (run / "retry.1/log.jsonl").read_text().splitlines())
            if e.get("event") == "done" and "step" in e}
    expect(f"{name}: rows in", {k: int(ends[k].split(" rows in")[0].split()[-1]) for k in rows}, rows)


behind("behind", """  flaky: {FLAKY, from: src, outputs: {value: three}, cache: true}
  second: {SECOND, from: flaky, outputs: {value: more}, input_batch_size: 30}
  beside: {type: select, from: flaky, keep: [id], rename: {id: other}}
  joined: {type: template, from: {join: [beside, second]}, input_batch_size: 17, template: "{other} {more}", output: joined}
  out: {type: write_jsonl, from: joined, path: out.jsonl, errors: true}
""", {"flaky": 0, "second": len(two), "beside": len(two), "out": 0})
behind("global", """  groups: {type: deduplicate, from: src, threshold: 0.999999, output: rows}
  third: {SECOND, from: groups, outputs: {value: last}}
  beside: {type: select, from: groups, keep: [id], rename: {id: other}}
  joined: {type: template, from: {join: [beside, third]}, input_batch_size: 17, template: "{other} {last}", output: joined}
  out: {type: write_jsonl, from: joined, path: out.jsonl, errors: true}
""", {"groups": 0, "third": len(two), "out": 0})


def refused(name, steps, why, *flags, more="", change=None):
    broken(SOME)
    file, run = pipeline(name, steps), work / f"{name}.run"
    file.write_text(file.read_text().replace("steps:\n", more + "steps:\n", 1))
    expect(f"{name}: run", call("run", file, "--run", run)[0], 3)
    before = outputs(run), errors(run)
    broken({})
    if change:
        file.write_text(file.read_text().replace(*change))
    code, said = call("retry", run, *flags)
    expect(f"{name}: refused", code, 65)
    expect(f"{name}: says why: {said}", why in said, True)
    expect(f"{name}: nothing happened", (outputs(run), errors(run)), before)


if kills:
    refused("unkept", PLAIN, "out: cannot run rows of it again: the step writes rows that are not kept",
            more="keep_sink_rows: false\n")
    refused("changed", PLAIN, "cannot retry what has changed: step label: template", change=("{id}: {three}", "{id}, {three}"))
    refused("limit", """  flaky: {FLAKY, from: src, outputs: {value: three}}
  few: {type: limit, from: flaky, rows: 300}
  out: {type: write_jsonl, from: few, path: out.jsonl}
""", "few: cannot run rows of it again: the step gives results that depend on other rows")
    refused("position", """  flaky: {FLAKY, from: src, outputs: {value: three}}
  again: {type: read_jsonl, path: in.jsonl, columns: {id: int64}, extra: ""}
  both: {type: template, from: {join: [again, flaky]}, template: "{id} {three}", output: pair}
  out: {type: write_jsonl, from: both, path: out.jsonl}
""", "both: cannot run rows of it again: the step joins by position, which needs all rows")
refused("router", """  flaky: {FLAKY, from: src, outputs: {value: three}}
  deal: {type: round_robin, from: flaky, to: {a: left, b: right}}
  left: {type: template, from: deal, template: "A {three}", output: branch}
  right: {type: template, from: deal, template: "B {three}", output: branch}
  both: {type: template, from: {converge: [left, right]}, template: "{branch}!", output: shout}
  out: {type: write_jsonl, from: both, path: out.jsonl}
""", "deal: cannot run rows of it again: the step is a router")
line = subprocess.run([stepmill, "trace", work / "plain.run", "src:100", "--json"], capture_output=True, text=True,
                      timeout=60).stdout
expect(f"trace: a row that ran again: {line}", ("100: 301" in line, "not liked" in line), (True, False))
code, said = call("retry", work / "plain.run", "--step", "flakey")
expect("no such step", (code, "has no step" in said), (64, True))
code, said = call("retry", work / "plain.run", "--class", "transiant")
expect("no such class", (code, "did you mean 'transient'" in said), (64, True))

# While a retry works, nobody else does; a run that has not ended is finished first; and the shards of a run are merged with what
# was retried.
def start(*args, log=None, **env):
    return subprocess.Popen([stepmill, *args], stdout=subprocess.DEVNULL, stderr=open(log, "w") if log else subprocess.DEVNULL,
                            env=dict(os.environ, NO_COLOR="1", **env))


def until(what, is_so):
    end = time.monotonic() + 60
    while not is_so():
        if time.monotonic() > end:
            sys.exit(f"waited 60 s for {what}")
        time.sleep(0.01)


file, run, want = work / "plain.yaml", work / "plain.run", work / "plain.want"
hold = work / "bad.hold"
broken(SOME)
shutil.rmtree(run)
expect("held: run", call("run", file, "--run", run)[0], 3)
broken({})
hold.touch()
first = start("retry", run)
until("the first retry", lambda: (run / "retry.1/progress.json").exists())
expect("held: a second retry", call("retry", run)[0], 73)
expect("held: a run beside it", call("run", file, "--run", run)[0], 73)
hold.unlink()
expect("held: the first retry", first.wait(60), 0)
same("held", run, want)

broken(SOME)
hold.touch()
shutil.rmtree(run)
first = start("run", file, "--run", run)
until("the run", lambda: (run / "progress.json").exists())
first.kill()
first.wait(60)
code, said = call("retry", run)
expect(f"unfinished: {said}", (code, "has not ended" in said), (65, True))
hold.unlink()
expect("unfinished: resume", call("resume", run)[0], 3)
broken({})
expect("unfinished: retry", call("retry", run)[0], 0)
same("unfinished", run, want)

# A global gets the rows of all shards from their merge, so what a shard runs again, too; rows that fail behind the global do so in
# the merge.
if kills:
    file = pipeline("global_shards", """  work: {FLAKY, from: src}
  groups: {type: deduplicate, from: work, threshold: 0.9999, output: rows}
  more: {SECOND, from: groups, outputs: {value: other}}
  out: {type: write_jsonl, from: more, path: rows.jsonl, part_rows: 400}
""")
    broken({7: "transient", 700: "permanent"}, "bad2")
    broken({})
    expect("global: undisturbed", call("run", file, "--run", work / "global.want")[0], 3)
    broken(SOME)
    sharded = work / "global_shards"
    for i in (1, 2, 3):
        expect(f"global: shard {i}", call("run", file, "--run", sharded, "--shard", f"{i}/3")[0], 3)
    expect("global: merge before", call("merge", sharded)[0], 3)
    expect("global: errors before", len(errors(sharded)), len(SOME) + 2)
    broken({})
    for i in (1, 2, 3):
        expect(f"global: shard {i}: retry", call("retry", sharded / f"shard-{i}-of-3")[0], 0)
    code, said = call("merge", sharded)
    expect(f"global: merge: {said}", code, 3)
    same("global: merge", sharded, work / "global.want")
    expect("global: errors", errors(sharded), errors(work / "global.want"))
    (work / "bad2").unlink()
    file = work / "plain.yaml"

sharded = work / "sharded"
broken(SOME)
for i in (1, 2, 3) if kills else ():
    expect(f"shard {i}", call("run", file, "--run", sharded, "--shard", f"{i}/3")[0], 3)
broken({})
if kills:
    for i in (1, 3):
        expect(f"shard {i}: retry", call("retry", sharded / f"shard-{i}-of-3")[0], 0)
    expect("merge before the last", call("merge", sharded)[0], 3)
    expect("shard 2: retry", call("retry", sharded / "shard-2-of-3")[0], 0)
    code, said = call("merge", sharded)
    expect(f"merge: {said}", code, 0)
    same("merge", sharded, want)
    expect("merge: errors", errors(sharded), [])

# Killed at any moment, either half of a retry goes on when it, or the run, is called again.
broken(SOME)
file, run, want, old, new, died = work / "graph.yaml", work / "killed", work / "graph.want", {}, {}, collections.Counter()
if kills:
    expect("kills: run", call("run", file, "--run", work / "kills.run")[0], 3)
    old, new = outputs(work / "kills.run")[2], outputs(want)[2]
broken({})
rng = random.Random(1)
for i in range(kills):
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(work / "kills.run", run)
    log = work / "phase"
    log.unlink(missing_ok=True)
    half, who = i % 2, rng.choice(["child", "parent", "both"])
    when = rng.choice([f"commit:{rng.randrange(1, 12)}", f"rename:{rng.randrange(1, 14)}", f"finish:{rng.randrange(1, 3)}",
                       f"time:{rng.randrange(1000, 150000)}"])
    code, said = call("retry", run, env={"LD_PRELOAD": shim, "STM_KILL": f"{who}-{when}", "STM_KILL_LOG": str(log),
                                         "STM_KILL_SKIP": str(half)})
    if log.exists():
        died[f"{'second' if half else 'first'} half, {log.read_text().split()[0]}"] += 1
    for name in old:
        got = (run / name).read_bytes() if (run / name).exists() else b""
        expect(f"kill {i}, {who} {when}: {name} can be read", got in (old[name], new.get(name)), True)
    for attempt in range(6):
        if code not in (0, 3, -9): # 3: the run before, which is as it was
            break
        code, said = call(rng.choice(["retry", "resume"]) if attempt < 4 else "retry", run)
        if code == 0 and not errors(run):
            break
    expect(f"kill {i}, {who} {when}, half {half}: {said}", code, 0)
    same(f"kill {i}, {who} {when}, half {half}", run, want)
    expect(f"kill {i}: errors", errors(run), [])
if kills:
    print("killed in", ", ".join(f"{k} {n}" for k, n in sorted(died.items())))
    expect("kills: both halves", {k.split()[0] for k in died}, {"first", "second"})

if faults:
    print("\n".join(faults))
    sys.exit(1)
print("every retry gave what a run without these failures gives")
