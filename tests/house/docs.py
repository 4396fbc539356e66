"""What the documentation shows is true.

usage: docs.py ROOT STEPMILL WORK

Every key of a pipeline file is in docs/pipelines.md; every whole pipeline in README.md, docs/ and examples/ passes
`stepmill check`; every file that README.md and docs/ link to or name in backticks with a known ending is there; so is every test
they name.
"""
import pathlib
import re
import shutil
import subprocess
import sys

root, stepmill, work = (pathlib.Path(argument) for argument in sys.argv[1:4])
faults = []
pages = [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md"))]

# Keys: the table that validates files is the list.
keys = re.findall(r'^\s*\{"(\w+)", STM_SHAPE_', (root / "engine/pipeline/keys_table.c").read_text(), re.M)
said = (root / "docs/pipelines.md").read_text()
coded = " ".join(re.findall(r"`([^`]*)`", said))
for key in keys:
    if not re.search(rf"\b{key}\b", coded):
        faults.append(f"docs/pipelines.md does not say what the key {key} does")

# Pipelines: each in a folder where the paths of the examples lead somewhere.
shutil.rmtree(work, ignore_errors=True)
(work / "data").mkdir(parents=True)
for name in ("debian-2000.jsonl", "debian.jsonl"):
    (work / "data" / name).write_text('{"name": "a", "text": "A package. It does something."}\n')
model = root / "models-cache"
if not (model / "all-MiniLM-L6-v2/model.safetensors").exists():
    print("the model is not there: run scripts/model.sh")
    sys.exit(77)
(work / "models-cache").symlink_to(model.resolve())
pipelines = [(path.relative_to(root), path.read_text()) for path in sorted((root / "examples").glob("*.yaml"))]
for page in pages:
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.S):
        if block.startswith("stepmill: 1"):
            pipelines.append((page.relative_to(root), block))
for number, (where, text) in enumerate(pipelines):
    folder = work / f"pipeline-{number}"
    folder.mkdir()
    (folder / "pipeline.yaml").write_text(text)
    if "plugins:" in text:
        continue  # their plugins are built by their readers
    done = subprocess.run([stepmill, "check", folder / "pipeline.yaml"], text=True, capture_output=True, check=False)
    if done.returncode != 0:
        faults.append(f"{where}: a pipeline in it does not check out: {done.stderr.strip()}")

# Paths.
for page in pages:
    for name in set(re.findall(r"`((?:include|engine|kernels|models|steps|cli|tests|docs|scripts|cmake|examples)/[\w./-]+\.\w+)`",
                               page.read_text())):
        if not (root / name).exists():
            faults.append(f"{page.relative_to(root)}: {name} is not there")

# Tests: `Suite.Case` is one of ours.
cases = set()
for source in (root / "tests").rglob("*.cc"):
    cases.update(f"{suite}.{case}" for suite, case in re.findall(r"^TEST(?:_F|_P)?\((\w+), (\w+)\)", source.read_text(), re.M))
for page in pages:
    for name in set(re.findall(r"`([A-Z]\w+\.[A-Z]\w+)`", page.read_text())):
        if name not in cases and not (root / name).exists():
            faults.append(f"{page.relative_to(root)}: there is no test {name}")

for fault in faults:
    print(fault)
print(f"{len(keys)} keys, {len(pipelines)} pipelines, {len(pages)} pages, {len(faults)} faults")
sys.exit(1 if faults or len(keys) < 40 or len(pipelines) < 3 else 0)
