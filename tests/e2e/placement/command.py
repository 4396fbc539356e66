"""`check`, `plan` and `devices` on machines that are files.

usage: command.py STEPMILL TOPOLOGIES
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

stepmill, topologies = sys.argv[1], pathlib.Path(sys.argv[2])
faults = []

PIPELINE = """stepmill: 1
steps:
  read:
    type: read_jsonl
    path: in.jsonl
    columns: {{name: utf8}}
  embed:
    type: template
    from: read
    template: "{{name}}"
    output: label
    {embed}
  judge:
    type: template
    from: embed
    template: "{{label}}"
    output: verdict
    {judge}
  out:
    type: write_jsonl
    from: judge
    path: out.jsonl
"""


def run(arguments, visible=None):
    env = {k: v for k, v in os.environ.items() if k not in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")}
    if visible is not None:
        env["CUDA_VISIBLE_DEVICES"] = visible
    return subprocess.run([stepmill, *arguments], text=True, capture_output=True, check=False, env=env, timeout=60)


def expect(name, condition, seen):
    if not condition:
        faults.append(f"{name}: {str(seen)[:800]}")


ONE, TWO, NONE = "resources: {gpus: 1}", "resources: {gpus: 2}", "replicas: 1"
# name, what embed and judge say, machine, CUDA_VISIBLE_DEVICES, exit code, what it says on standard error
CHECKS = [
    ("fits", ONE, TWO, "nvswitch-8gpu.topo", None, 0, ""),
    ("no_gpu_runs_on_processors", ONE, TWO, "no-gpu.topo", None, 0, "note: embed: resources: there is no GPU"),
    ("hidden_gpus_run_on_processors", ONE, NONE, "nvswitch-8gpu.topo", "", 0, "note: embed: resources: there is no GPU"),
    ("too_few", ONE, "resources: {gpus: 4}", "workstation-2gpu.topo", None, 65,
     "pipeline.yaml:18:5: judge: a replica takes 4 GPUs"),
    ("too_few_are_visible", NONE, TWO, "nvswitch-8gpu.topo", "5", 65, "pipeline.yaml:18:5: judge: a replica takes 2 GPUs"),
    ("too_large", "resources: {gpus: 1, memory: 100GiB}", NONE, "nvswitch-8gpu.topo", None, 65,
     "pipeline.yaml:12:5: embed: a replica needs 100 GiB"),
    ("both_on_one", ONE, ONE, "laptop-1gpu.topo", None, 65, "judge: embed and judge would both be on GPU 0"),
    ("both_share", "resources: {gpus: 1, share: true}", "resources: {gpus: 1, share: true}", "laptop-1gpu.topo", None, 0, ""),
    ("no_such_position", "resources: {devices: [9]}", NONE, "nvswitch-8gpu.topo", None, 65,
     "pipeline.yaml:12:27: embed: there is no GPU 9: this process sees 8"),
    ("no_such_uuid", "resources: {devices: [GPU-77]}", NONE, "nvswitch-8gpu.topo", None, 65, 'there is no GPU "GPU-77"'),
    ("uuid_not_unique", "resources: {devices: [GPU-0000]}", NONE, "nvswitch-8gpu.topo", None, 65, "GPUs 0 and 1 both begin"),
    ("explicit_without_devices", "resources: {devices: [0]}", ONE, "nvswitch-8gpu.topo", None, 65, "--placement"),
    ("instance_of_a_split_gpu", ONE, NONE, "mig-split.topo", "MIG-0000008c", 0, ""),
    ("not_a_machine", ONE, NONE, "../minilm/make.py", None, 65, "make.py:2:1: expected \"stepmill-topology 1\""),
]


def checks(folder):
    for name, embed, judge, machine, visible, code, says in CHECKS:
        path = folder / "pipeline.yaml"
        path.write_text(PIPELINE.format(embed=embed, judge=judge))
        more = ["--placement", "explicit"] if name.startswith("explicit") else []
        done = run(["check", path, "--devices", topologies / machine, *more], visible)
        says = "placement is explicit" if says == "--placement" else says
        told = "".join(line for line in done.stderr.splitlines(True) if not line.endswith("computes on the host\n"))
        expect(name, done.returncode == code and says in told and (says or not told), done)
        if name == "hidden_gpus_run_on_processors":
            expect("and_no_more", "judge" not in done.stderr, done)
    for asks in ("resources: {gpus: 1}", "resources: {devices: [1]}"):  # of a type that has no use for them
        path.write_text(PIPELINE.format(embed=NONE, judge=asks))
        done = run(["check", path, "--devices", topologies / "nvswitch-8gpu.topo"])
        expect(f"on_the_host_{asks[12:15]}", "note: judge: resources: step type" in done.stderr, done)


def plans(folder):
    path = folder / "pipeline.yaml"
    path.write_text(PIPELINE.format(embed="resources: {gpus: 1, memory: 3GiB}\n    replicas: 2", judge=TWO))
    done = run(["plan", path, "--devices", topologies / "nvlink-pairs-4gpu.topo", "--json"], "3,1,0,2")
    plan = json.loads(done.stdout or "{}")
    steps = {s["name"]: s for s in plan.get("steps", [])}
    machine = [g["uuid"] for g in json.loads(run(["devices", "--devices", topologies / "nvlink-pairs-4gpu.topo",
                                                  "--json"]).stdout)["topology"]["gpus"]]
    if not steps:
        faults.append(f"plan: {done}")
        return
    used = [[d["position"] for d in r["devices"]] for s in ("embed", "judge") for r in steps[s]["placement"]]
    expect("each_gpu_once", sorted(sum(used, [])) == [0, 1, 2, 3], used)
    judge = steps["judge"]["placement"][0]["devices"]
    # GPUs 0 and 2, 1 and 3 of the machine are linked; positions are those of CUDA_VISIBLE_DEVICES
    expect("linked_pair", sorted(machine.index(d["uuid"]) for d in judge) in ([0, 2], [1, 3]), judge)
    for s in steps.values():
        for replica in s["placement"]:
            for d in replica["devices"]:
                expect("position_is_of_the_variable", machine.index(d["uuid"]) == [3, 1, 0, 2][d["position"]], d)
    expect("memory_per_step", steps["embed"]["gpu_memory_bytes"] == 3 << 30, steps["embed"])
    expect("processors_too", all(r["cores"] != "none" for s in steps.values() for r in s["placement"]), steps)

    text = run(["plan", path, "--devices", topologies / "nvlink-pairs-4gpu.topo"]).stdout
    for part in ("GPU 0 -> GPU-0000003", " -> 0000:31:00.0", " -> node 0 -> cores ", "GPU memory: up to 3 GiB per replica"):
        expect("plan_text", part in text, text)
    done = run(["run", path, "--devices", "x"])
    expect("run_takes_no_machine", done.returncode == 64, done)


def devices():
    def gpus(machine, visible=None):
        done = run(["devices", "--devices", topologies / machine, "--json"], visible)
        return [g["pci"] for g in json.loads(done.stdout)["topology"]["gpus"]]

    everything = gpus("dual-socket-pcie-4gpu.topo")
    expect("devices_all", len(everything) == 4, everything)
    for visible, want in [("2,0", [2, 0]), ("GPU-0000005d,GPU-0000005b", [3, 1]), ("", []), ("-1", []), ("1,7,2", [1]),
                          ("0,0", [])]:
        seen = gpus("dual-socket-pcie-4gpu.topo", visible)
        expect(f"devices {visible!r}", seen == [everything[i] for i in want], seen)
    for machine in sorted(topologies.iterdir()):
        text, data = run(["devices", "--devices", machine]), run(["devices", "--devices", machine, "--json"])
        expect(f"devices {machine.name}", text.returncode == 0 and data.returncode == 0 and "node" in text.stdout, text)
        json.loads(data.stdout)
    here = run(["devices", "--json"])
    expect("this_machine", here.returncode == 0 and json.loads(here.stdout)["topology"]["nodes"], here)


with tempfile.TemporaryDirectory() as name:
    (pathlib.Path(name) / "in.jsonl").write_text('{"name": "a"}\n')
    checks(pathlib.Path(name))
    plans(pathlib.Path(name))
    devices()
for fault in faults:
    print(fault)
print(f"{len(CHECKS)} checks, {len(faults)} faults")
sys.exit(1 if faults else 0)
