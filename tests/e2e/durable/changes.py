"""What runs again when something changed, who may write a run directory, and what a stop leaves.

usage: changes.py STEPMILL PLUGIN WORK
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import zlib

stepmill, plugin, work = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
shutil.rmtree(work, ignore_errors=True)
work.mkdir(parents=True)
faults = []


def expect(what, got, want):
    if got != want:
        faults.append(f"{what}: {got!r}, not {want!r}")


def write(**changes):
    v = {"template": "{id}!", "nulls": "false", "kept": "true", "argv": "[cat]", **changes}
    (work / "p.yaml").write_text(f"""stepmill: 1
name: p
commit_interval: 0.02s
steps:
  src: {{type: read_jsonl, path: in.jsonl, columns: {{id: int64}}, extra: "", batch_size: 10}}
  slow: {{type: command, from: src, argv: {v["argv"]}, send: [id], columns: {{id: int64}}, outputs: {{id: same}}}}
  label: {{type: template, from: slow, template: "{v["template"]}", output: label, cache: {v["kept"]}}}
  out: {{type: write_jsonl, from: label, path: out.jsonl, omit_nulls: {v["nulls"]}}}
""")


def write_input(n, extra=""):
    (work / "in.jsonl").write_text("".join(json.dumps({"id": i}) + "\n" for i in range(n)) + extra)


def start(*args, run="run"):
    command = [stepmill, "run", work / "p.yaml", "--run", work / run, "--json", *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ, NO_COLOR="1"))


def read_now(said):
    """Rows that this call has read: those of a run that was complete are of the one that did the work."""
    return 0 if said.get("complete_already") else said.get("rows_in")


def finish(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, read_now(json.loads(out)) if out else None, err


def go(*args, run="run"):
    return finish(start(*args, run=run))


def output(run="run"):
    return (work / run / "out.jsonl").read_bytes()


# Signatures.
write_input(300)
write()
expect("a first run", go()[:2], (0, 300))
whole = output()
code, rows, text = go()
expect("nothing changed", (code, rows, output() == whole), (0, 0, True))
write(nulls="true")
code, rows, text = go()
expect("the last step changed", (code, rows), (0, 0))
if "step out: omit_nulls was false, is true" not in text:
    faults.append(f"the last step changed, but it says: {text}")
if any("label" in line for line in text.splitlines() if " again: " in line):
    faults.append(f"more than the last step runs again: {text}")
write(nulls="true", template="{id}?")
code, rows, text = go()
expect("a step in the middle changed", (code, rows, output() == whole.replace(b"!", b"?")), (0, 300, True))
write_input(300, '{"id": 7}\n')
code, rows, text = go()
expect("the input changed", (code, rows), (0, 301))
if "in.jsonl changed" not in text:
    faults.append(f"the input changed, but it says: {text}")
expect("fresh", go("--fresh")[:2], (0, 301))
script = work / "answer.py"
for named in ("answer.py", str(script)):  # relative ones are from the folder in which it runs
    script.write_text("import sys\nfor line in sys.stdin: print(line, end='', flush=True)\n")
    write(argv=f"[python3, {named}], cwd: {work}")
    code, rows, text = go()
    expect(f"{named}: a program", (code, rows), (0, 301))
    expect(f"{named}: nothing changed", go()[:2], (0, 0))
    script.write_text("import sys\nfor line in sys.stdin: print(line.replace('1', '2'), end='', flush=True)\n")
    code, rows, text = go()
    expect(f"{named}: its script changed", (code, rows, b'"label":"222?"' in output().replace(b"!", b"?")), (0, 301, True))
    if "answer.py changed" not in text:
        faults.append(f"{named}: its script changed, but it says: {text}")
write()
go()
write(kept="false")
expect("cache: false", [go()[:2], go()[:2]], [(0, 301), (0, 301)])

# The last step alone, without a word in the file; and each thing that changed by its name.
def plain(path, template="{id}", out="", more="", argv="[cat]"):
    (work / path).write_text(f"""stepmill: 1
{more}
steps:
  src: {{type: read_jsonl, path: in.jsonl, columns: {{id: int64}}, extra: "", batch_size: 10}}
  label: {{type: template, from: src, template: "{template}", output: label}}
  other: {{type: filter, from: src, where: "id % 2 == 0"}}
  out: {{type: write_jsonl, from: label, path: out.jsonl{out}}}
  half: {{type: write_jsonl, from: other, path: half.jsonl}}
""")
    done = subprocess.run([stepmill, "run", work / path, "--run", work / "last", "--json"], capture_output=True, text=True, check=False)
    again = sorted(line.split("info: ")[1] for line in done.stderr.splitlines() if " again: " in line)
    return done.returncode, read_now(json.loads(done.stdout)), again


write_input(300)
expect("last: a first run", plain("last.yaml"), (0, 300, []))
want = output("last")
half = (work / "last" / "half.jsonl").stat()
expect("last: a sink changed", plain("last.yaml", out=", omit_nulls: true"), (0, 0, ["out runs again: step out: omit_nulls was false, is true"]))
expect("last: the same rows", output("last"), want)
expect("last: nothing changed", plain("last.yaml", out=", omit_nulls: true"), (0, 0, []))
now = (work / "last" / "half.jsonl").stat()
expect("last: the other sink is untouched", (now.st_ino, now.st_mtime_ns), (half.st_ino, half.st_mtime_ns))
expect("last: not kept", plain("last.yaml", more="keep_sink_rows: false")[:2], (0, 300))
code, rows, again = plain("last.yaml", out=", omit_nulls: true", more="keep_sink_rows: false")
expect("last: not kept, a sink changed", (code, rows, [a for a in again if "step out: omit_nulls was false, is true" not in a]), (0, 300, []))

# A model, a plugin, an input: each by its own name, and only what is behind it.
(work / "model").mkdir()
(work / "model" / "weights").write_text("1")
shutil.copy(plugin, work / "steps.so")
(work / "files.yaml").write_text(f"""stepmill: 1
plugins: [steps.so]
steps:
  src: {{type: read_jsonl, path: in.jsonl, columns: {{id: int64}}, extra: "", batch_size: 10}}
  kept: {{type: template, from: src, template: "{{id}}", output: label, cache: true}}
  work: {{type: e2e_work, from: kept, model: model}}
  out: {{type: write_jsonl, from: work, path: out.jsonl}}
""")


def files():
    done = subprocess.run([stepmill, "run", work / "files.yaml", "--run", work / "files", "--json"], capture_output=True, text=True, check=False)
    again = sorted(line.split("info: ")[1] for line in done.stderr.splitlines() if " again: " in line)
    return done.returncode, json.loads(done.stdout)["rows_in"] if done.stdout else done.stderr, again


expect("files: a first run", files(), (0, 300, []))
(work / "model" / "weights").write_text("2")
code, rows, again = files()
behind = ["out runs again", "work runs again"]
expect("files: the model changed", (code, rows, ["step work: model" in a and "model changed" in a for a in again], [a.split(":")[0] for a in again]), (0, 0, [True, True], behind))
with open(work / "steps.so", "ab") as f:
    f.write(b"another build")
code, rows, again = files()
expect("files: the plugin changed", (code, rows, ["step work: plugin" in a and "steps.so changed" in a for a in again], [a.split(":")[0] for a in again]), (0, 0, [True, True], behind))
expect("files: nothing changed", files(), (0, 0, []))
write_input(300, '{"id": 8}\n')
code, rows, again = files()
expect("files: the input changed", (code, rows, ["step src: path" in a and "in.jsonl changed" in a for a in again]), (0, 301, [True] * len(again)))
write_input(300)

# Steps and sinks behind one step: what changes one of them is nothing to the others. Each row that a program sees leaves a letter behind.
def beside(argv_b="", first="", more="", **sinks):
    v = {"outa": "", "outb": "", "other": "", "cache": "", "pause": "", **sinks}

    def program(name, more=""):
        return f"""[sh, -c, 'while read -r l; do {more}printf x >> {work}/{name}.seen; {v["pause"]}echo "$l"; done']"""

    (work / "beside.yaml").write_text(f"""stepmill: 1
name: beside
commit_interval: 0.02s
steps:
{first}  src: {{type: read_jsonl, path: in.jsonl, columns: {{id: int64}}, extra: "", batch_size: 10}}
  a: {{type: command, from: src, argv: {program("a")}, send: [id], columns: {{id: int64}}, outputs: {{id: same}}}}
  b: {{type: command, from: src, argv: {program("b", argv_b)}, send: [id], columns: {{id: int64}}, outputs: {{id: same}}{v["cache"]}}}
  again: {{type: template, from: b, template: "{{id}}", output: label}}
  outa: {{type: write_jsonl, from: a, path: outa.jsonl{v["outa"]}}}
  outb: {{type: write_jsonl, from: b, path: outb.jsonl{v["outb"]}}}
  other: {{type: write_jsonl, from: b, path: other.jsonl{v["other"]}}}
  third: {{type: write_jsonl, from: again, path: third.jsonl}}
{more}""")
    for name in "ab":
        (work / f"{name}.seen").unlink(missing_ok=True)
    return subprocess.Popen([stepmill, "run", work / "beside.yaml", "--run", work / "beside", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def seen(process):
    """Exit code, rows read, rows that each program saw, what the log says runs again."""
    out, err = process.communicate(timeout=120)
    rows = [(work / f"{name}.seen").stat().st_size if (work / f"{name}.seen").exists() else 0 for name in "ab"]
    return process.returncode, read_now(json.loads(out)) if out else err, *rows, sorted(line.split("info: ")[1] for line in err.splitlines() if " again: " in line)


def places():
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in (work / "beside").glob("*.jsonl") if p.name not in ("log.jsonl", "errors.jsonl")}


def untouched(what, before, *names):
    for name in names:
        expect(f"{what}: {name} is untouched", places().get(name), before[name])


expect("beside: a first run", seen(beside()), (0, 300, 300, 300, []))
both = {name: (work / "beside" / f"{name}.jsonl").read_bytes() for name in ("outa", "outb", "other", "third")}
was = places()
expect("beside: one of two sinks", seen(beside(other=", omit_nulls: true")), (0, 0, 0, 0, ["other runs again: step other: omit_nulls was false, is true"]))
untouched("beside: one of two sinks", was, "outa.jsonl", "outb.jsonl", "third.jsonl")
now = {"other": ", omit_nulls: true"}
(work / "beside" / "outb.jsonl").unlink()
expect("beside: a file is gone", seen(beside(**now)), (0, 0, 0, 0, []))
untouched("beside: a file is gone", was, "outa.jsonl", "third.jsonl")
code, rows, a, b, again = seen(beside(": again; ", **now))
expect("beside: one of two steps", (code, rows, a, b), (0, 300, 0, 300))
expect("beside: what is behind it", [line.split(" runs again")[0].split(" run again")[0] for line in again], ["outb, other", "src, b, again", "third"])
untouched("beside: one of two steps", was, "outa.jsonl")
expect("beside: the same rows", {name: (work / "beside" / f"{name}.jsonl").read_bytes() for name in both}, both)
for _ in range(2):
    last = seen(beside(": again; ", cache=", cache: false", **now))
expect("beside: cache: false of one of two steps", last[:4], (0, 300, 0, 300))
untouched("beside: cache: false of one of two steps", was, "outa.jsonl")
beside(": again; ", **now).wait()
# Other steps come, in front of all and behind one that is there: nothing of this one knows of them.
write_input(300)
(work / "first.jsonl").write_text('{"id": 1}\n' * 7)
more = {"first": "  first: {type: read_jsonl, path: first.jsonl, columns: {id: int64}}\n  one: {type: write_jsonl, from: first, path: one.jsonl}\n",
        "more": "  fourth: {type: write_jsonl, from: again, path: fourth.jsonl}\n"}
was = places()
code, rows, a, b, again = seen(beside(": again; ", **more))
expect("beside: steps come, one sink changes", (code, rows, a, b), (0, 7, 0, 0))
untouched("beside: steps come", was, "outa.jsonl", "outb.jsonl", "third.jsonl")
expect("beside: the same rows", {name: (work / "beside" / f"{name}.jsonl").read_bytes() for name in both}, both)
expect("beside: the new sink", (work / "beside" / "fourth.jsonl").read_bytes(), both["third"])
# Of a run that was stopped in the middle: what has not changed goes on from there.
shutil.rmtree(work / "beside")
slow = beside(pause="sleep 0.004; ")
while slow.poll() is None and not ((work / "a.seen").exists() and (work / "a.seen").stat().st_size > 100):
    time.sleep(0.01)
slow.send_signal(signal.SIGTERM)
code, rows, a, b, again = seen(slow)
expect("beside: a stop in the middle", (code, 0 < a < 300, 0 < b < 300), (75, True, True))
before = a
code, rows, a, b, again = seen(beside(": again; ", pause="sleep 0.004; "))
expect("beside: one of two steps, in the middle", (code, rows, b), (0, 300, 300))
if not 0 < a <= 300 - before + 30:  # of what it had done, batches that were not committed yet
    faults.append(f"beside: one of two steps, in the middle: the other saw {a} rows again, of 300, {before} done")
expect("beside: the same rows", {name: (work / "beside" / f"{name}.jsonl").read_bytes() for name in both}, both)

# Failures in front of both count once, also when they come again for one of them; those of the step that changed are others.
def failures(at):
    (work / "fails.yaml").write_text(f"""stepmill: 1
max_errors: 9
plugins: [{plugin}]
steps:
  src: {{type: e2e_count, rows: 100, batch_size: 10}}
  both: {{type: e2e_work, from: src, mode: fail, at: 13, outputs: {{doubled: first}}}}
  a: {{type: e2e_work, from: both, mode: fail, at: 20}}
  b: {{type: e2e_work, from: both, mode: fail, at: {at}}}
  outa: {{type: write_jsonl, from: a, path: a.jsonl, errors: true}}
  outb: {{type: write_jsonl, from: b, path: b.jsonl, errors: true}}
""")
    done = subprocess.run([stepmill, "run", work / "fails.yaml", "--run", work / "fails", "--quiet"], check=False)
    said = sorted(json.loads(line)["message"] for line in (work / "fails" / "errors.jsonl").read_text().splitlines())
    rows = {name: [(row["id"], row["_error"]) for row in map(json.loads, (work / "fails" / f"{name}.jsonl").read_text().splitlines()) if row["_error"]] for name in "ab"}
    return done.returncode, said, rows


ends = ("errors.jsonl", "report.html")
for at in (30, 40, 40):
    bad = {n: f"row {n} is bad" for n in (13, 20, at)}
    expect(f"fails: b at {at}", failures(at), (0, list(bad.values()), {"a": [(13, bad[13]), (20, bad[20])], "b": [(13, bad[13]), (at, bad[at])]}))
    if at == 30:
        before = {name: pathlib.Path(shutil.copy2(work / "fails" / name, work)) for name in ends}
    else:  # killed before it had written them: those of the attempt before are there still
        for name in ends:
            shutil.copy2(before[name], work / "fails" / name)
failures(40)
for name in ends:
    expect(f"fails: {name} is of the attempt that did the work", (work / "fails" / name).read_bytes() != before[name].read_bytes(), True)

# A sink keeps up with what is in front of it, with one thread, too: its rows are on disk and need not wait in memory. But while a
# commit syncs the sink, which on a busy disk takes long, rows do wait: there is none in the middle of this run, however slow it is.
(work / "wide.jsonl").write_text("".join(json.dumps({"id": i, "text": "x" * 1000}) + "\n" for i in range(8000)))
(work / "wide.yaml").write_text("""stepmill: 1
name: wide
commit_interval: 1h
steps:
  src: {type: read_jsonl, path: wide.jsonl, columns: {id: int64, text: utf8}, batch_size: 10}
  label: {type: template, from: src, template: "{id}!", output: label}
  out: {type: write_jsonl, from: label, path: out.jsonl}
""")
subprocess.run([stepmill, "run", work / "wide.yaml", "--run", work / "wide", "--threads", "1", "--quiet"], check=True)
peak = json.loads((work / "wide" / "progress.json").read_text())["memory"]["peak"]
expect("wide: rows in memory", (peak, peak < 2 << 20), (peak, True))

# A stop, and going on.
write_input(300)
write(argv="[sh, -c, 'while read -r l; do sleep 0.01; echo \"$l\"; done']", kept="auto")
expect("a slow run", go(run="reference")[:2], (0, 300))
for number in (signal.SIGINT, signal.SIGTERM):
    shutil.rmtree(work / "stopped", ignore_errors=True)
    process = start(run="stopped")
    time.sleep(1.0)
    process.send_signal(number)
    code, rows, text = finish(process)
    expect(f"{number.name}: exit code", code, 75)
    code, more, text = go(run="stopped")
    expect(f"{number.name}: after going on", (code, output("stopped") == output("reference")), (0, True))
    if more is None or not 0 < more < 300:
        faults.append(f"{number.name}: {more} of 300 rows read when going on: {text}")

# Two writers, and one that sleeps.
shutil.rmtree(work / "shared", ignore_errors=True)
first = start(run="shared")
time.sleep(0.7)
code, _, text = go(run="shared")
expect("a second writer", code, 73)
if f"process {first.pid}" not in text:
    faults.append(f"the second writer is told: {text}")
both = [first.pid] + [int(n) for n in pathlib.Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()]
for n in both:  # supervisor and worker
    os.kill(n, signal.SIGSTOP)
heir = start(run="shared")
time.sleep(6.5)  # it waits for an answer for 5 s
for n in both:
    os.kill(n, signal.SIGCONT)
zombie, heir = finish(first), finish(heir)
expect("the heir of a stopped run", (heir[0], output("shared") == output("reference")), (0, True))
if zombie[0] == 0 or "taken over" not in zombie[2]:
    faults.append(f"the run that slept ends with {zombie[0]}: {zombie[2]}")
expect("the directory it shared", (go(run="shared")[:2], output("shared") == output("reference")), ((0, 0), True))

# The list of files, and what an earlier, longer output leaves.
def manifest(run):
    m = json.loads((work / run / "manifest.json").read_text())
    for out in m["outputs"]:
        for part in out["parts"]:
            data = (work / run / part["path"]).read_bytes()
            expect(f"manifest: {part['path']}", (part["bytes"], part["crc32"]), (len(data), f"{zlib.crc32(data):08x}"))
            if part["path"].endswith(".jsonl"):
                expect(f"manifest: rows of {part['path']}", part["rows"], data.count(b"\n"))
    return m


def parts(n, path, rows):
    write_input(n)
    (work / "parts.yaml").write_text(f"""stepmill: 1
steps:
  src: {{type: read_jsonl, path: in.jsonl, columns: {{id: int64}}, batch_size: 10}}
  out: {{type: write_jsonl, from: src, path: {path}, part_rows: {rows}}}
""")
    done = subprocess.run([stepmill, "run", work / "parts.yaml", "--run", work / "parts", "--quiet"], check=False)
    expect("parts: exit code", done.returncode, 0)
    return sorted(p.name for p in (work / "parts").glob("rows*"))


m = manifest("shared")
expect("manifest of a finished run", (m["complete"], [(o["step"], o["complete"], o["rows"]) for o in m["outputs"]]), (True, [("out", True, 300)]))
expect("parts", parts(95, "rows.jsonl", 10), [f"rows-{i:05}.jsonl" for i in range(10)])
(work / "parts" / "rows-00009.jsonl.txt").write_text("not ours")
expect("fewer parts", parts(25, "rows.jsonl", 10), ["rows-00000.jsonl", "rows-00001.jsonl", "rows-00002.jsonl", "rows-00009.jsonl.txt"])
expect("manifest of fewer parts", [p["rows"] for p in manifest("parts")["outputs"][0]["parts"]], [10, 10, 5])
expect("one file", parts(25, "rows.jsonl", 0), ["rows-00009.jsonl.txt", "rows.jsonl"])
expect("manifest of one file", [p["path"] for p in manifest("parts")["outputs"][0]["parts"]], ["rows.jsonl"])

print("\n".join(faults) or "nothing to complain of")
sys.exit(1 if faults else 0)
