"""Kill a run while it writes parts of a format that can be gone on with at some rows only; what was complete stays, and nothing is
lost or doubled.

usage: parts.py STEPMILL SHIM WORK TYPE EXTENSION [PARAMETERS]

The files are compared with those of an undisturbed run, byte for byte. A part that was complete before the last commit is not
written again: its inode is the same after the next process. How many there are depends on when commits came, so some must be, over
all kills; a sink that began over would keep none.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys

stepmill, shim, work, step, extension = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), sys.argv[4], sys.argv[5]
more = "".join(", " + p for p in sys.argv[6:])
ROWS, PART = 3000, 350

PIPELINE = f"""stepmill: 1
name: parts
commit_interval: 0.01s
steps:
  src: {{type: read_jsonl, path: in.jsonl, columns: {{id: int64, text: utf8, tags: list<utf8>}}, extra: "", batch_size: 64}}
  slow: {{type: command, from: src, input_batch_size: 64, process: per_batch, argv: [sh, -c, "sleep 0.02; cat"], send: [id]}}
  label: {{type: template, from: slow, input_batch_size: 50, template: "{{id}}: {{text}}", output: label}}
  out: {{type: {step}, from: label, path: rows.{extension}, part_rows: {PART}{more}}}
"""


def run(folder, kill=None):
    env = dict(os.environ, NO_COLOR="1")
    (work / "phase").unlink(missing_ok=True)
    if kill:
        env.update(LD_PRELOAD=shim, STM_KILL=kill, STM_KILL_LOG=str(work / "phase"))
    done = subprocess.run([stepmill, "run", work / "parts.yaml", "--run", folder], env=env, capture_output=True, text=True,
                          timeout=300, check=False)
    return done.returncode, done.stderr


def outputs(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob(f"rows-*.{extension}"))}


def inodes(folder):
    return {p.name: p.stat().st_ino for p in folder.glob(f"rows-*.{extension}")}


shutil.rmtree(work, ignore_errors=True)
work.mkdir(parents=True)
with open(work / "in.jsonl", "w", encoding="utf-8") as f:
    for i in range(ROWS):
        f.write(json.dumps({"id": i, "text": "w" * (i % 37) if i % 11 else None, "tags": [f"t{i % 5}"] * (i % 4)}) + "\n")
(work / "parts.yaml").write_text(PIPELINE)
code, text = run(work / "undisturbed")
if code != 0:
    sys.exit(f"the undisturbed run ends with {code}: {text}")
want = outputs(work / "undisturbed")
if len(want) != -(-ROWS // PART):
    sys.exit(f"{len(want)} parts: {sorted(want)}")
manifest = json.loads((work / "undisturbed" / "manifest.json").read_text())
rows = [p["rows"] for p in manifest["outputs"][0]["parts"]]
if sum(rows) != ROWS or rows[0] != PART:
    sys.exit(f"the manifest lists {rows}")

resumed = kept = renewed = 0
for kill in ["both-rename:10", "both-rename:7;both-rename:12", "both-commit:25", "both-commit:40", "child-rename:17"]:
    folder = work / "killed"
    shutil.rmtree(folder, ignore_errors=True)
    for at in [*kill.split(";"), None]:
        before = inodes(folder)
        code, text = run(folder, at)
        if at and not (work / "phase").exists():
            sys.exit(f"{at}: nobody was killed")
        resumed += "going on where" in text
        same = sum(inodes(folder).get(name) == inode for name, inode in before.items())
        kept += same
        renewed += len(before) - same
        if code == 0:
            break
    if code != 0:
        sys.exit(f"{kill}: the last run ends with {code}: {text}")
    if outputs(folder) != want:
        got = outputs(folder)
        sys.exit(f"{kill}: other output: " + ", ".join(k for k in sorted(set(got) | set(want)) if got.get(k) != want.get(k)))
    if left := [p.name for p in folder.rglob("*.tmp")]:
        sys.exit(f"{kill}: {left} are left")
print(f"{step}: {len(want)} parts of {ROWS} rows, {resumed} resumed, {kept} complete parts kept, {renewed} written again, 0 differences")
if resumed < 4 or kept == 0:
    sys.exit("hardly anything was gone on with")
