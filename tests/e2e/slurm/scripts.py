"""The job scripts of examples/slurm/ on a real Slurm: whatever befalls a job, the output is what an undisturbed run writes, byte
for byte.

usage: scripts.py STEPMILL ROOT CASE...
Exit status 77: no Slurm (scripts/deps.sh test installs it). The cases run at the same time, since most of what they do is wait.
"""
import concurrent.futures
import contextlib
import json
import os
import pathlib
import signal
import sys
import time

import cluster

stepmill, root = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
scripts, here = root / "examples/slurm", pathlib.Path(__file__).parent
ROWS = 400
slurm = None  # the cluster
work = None   # a folder in it
want = None   # what the undisturbed run wrote


def outputs(run):
    return {p.name: p.read_bytes() for p in sorted((work / run).glob("out*.jsonl"))}


def submit(name, script, *arguments, pace="0", options=(), **env):
    """The job's number. Its log is NAME.log."""
    env = ",".join(f"{k}={v}" for k, v in {"PACE": pace, **env}.items())
    options = [f"--chdir={work}", f"--output={work}/{name}.log", f"--export=ALL,{env}", *options]
    return slurm.ask("sbatch", "--parsable", *options, scripts / script, *arguments, check=True).strip()


def log(name):
    path = work / f"{name}.log"
    return path.read_text(errors="replace") if path.exists() else ""


def job(number):
    """State, exit code, node and so on, as Slurm tells them."""
    text = slurm.ask("scontrol", "-o", "show", "job", number, check=True)
    return dict(field.split("=", 1) for field in text.split() if "=" in field)


def under_way(run, files="out-00001.jsonl*"):
    """Whether something is in one of these files, the second part of the output: much has been committed, and much is to come."""
    with contextlib.suppress(FileNotFoundError):  # renamed in between
        return any(p.stat().st_size > 0 for p in (work / run).glob(files))
    return False


def completed(name, number, seconds=100):
    def over():
        return job(number)["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

    slurm.wait(f"job {name}", over, seconds)
    seen = job(number)
    if seen["JobState"] != "COMPLETED" or seen["ExitCode"] != "0:0":
        raise AssertionError(f"job {name}: {seen['JobState']}, exit code {seen['ExitCode']}\n{log(name)}")
    return seen


def same(run, name, restarts):
    """The run was disturbed so often, took up partial work each time, and nobody can tell from the output."""
    if outputs(run) != want:
        raise AssertionError(f"{run}: other output\n{log(name)}")
    resumed = log(name).count("going on where")
    if resumed != restarts:
        raise AssertionError(f"{run}: {resumed} times resumed, not {restarts}\n{log(name)}")


def one_node():
    """Put into the queue again, as by preemption."""
    number = submit("one", "one-node.sh", "pipeline.yaml", "one", pace="0.05")
    slurm.wait("rows of one", lambda: under_way("one"))
    slurm.ask("scontrol", "requeue", number, check=True)
    seen = completed("one", number)
    same("one", "one", 1)
    return f"requeued {seen['Restarts']} time, same bytes"


def lose_node(name, told):
    """The node that a job is on loses its power; the job goes on on another one."""
    # nobody else's job dies with it
    number = submit(name, "one-node.sh", "pipeline.yaml", name, pace="0.05", options=["--exclusive"])
    slurm.wait(f"rows of {name}", lambda: under_way(name))
    node = job(number)["NodeList"]
    slurm.kill_node(node)
    if told:
        slurm.ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=power", check=True)
    seen = completed(name, number)
    same(name, name, 1)
    if seen["NodeList"] == node:
        raise AssertionError(f"the job ran on {node} again, which was dead")
    return f"{node} killed, went on on {seen['NodeList']}, same bytes"


def node_killed():
    """Whoever watches over the nodes tells Slurm."""
    return lose_node("killed", told=True)


def node_lost():
    """Slurm notices by itself."""
    return lose_node("lost", told=False)


def requeue():
    """The run is stopped with exit code 75, as it does itself ahead of its time limit; it is the script that puts the job into the
    queue again."""
    number = submit("again", "requeue.sh", "pipeline.yaml", "again", pace="0.05")
    slurm.wait("rows of again", lambda: under_way("again"))
    for pid in slurm.processes(f"SLURM_JOB_ID={number}"):
        with contextlib.suppress(OSError):  # others of the job come and go
            if pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"stepmill\0run\0"):
                os.kill(pid, signal.SIGTERM)
    seen = completed("again", number)
    same("again", "again", 1)
    return f"requeued itself {seen['Restarts']} time, same bytes"


def array():
    """Four shards, one of which is put into the queue again, and a job that merges them when all are done."""
    number = submit("shard-%a", "array.sh", "pipeline.yaml", "shards", pace="0.05", options=["--array=1-4"])
    merge = submit("merge", "merge.sh", "shards", options=[f"--dependency=afterok:{number}"])
    slurm.wait("rows of a shard", lambda: under_way("shards/shard-2-of-4", "out-*.jsonl*"))
    slurm.ask("scontrol", "requeue", f"{number}_2", check=True)
    completed("merge", merge)
    if outputs("shards") != want:
        raise AssertionError(f"merged: {sorted(outputs('shards'))}\n{log('merge')}")
    if log("shard-2").count("going on where") != 1:
        raise AssertionError(f"shard 2 did not go on\n{log('shard-2')}")
    return "4 shards, one of them requeued, merged by a job behind them: same bytes"


def time_limit():
    """The same with a limit that Slurm would enforce: the least there is, a minute."""
    number = submit("limit", "requeue.sh", "pipeline.yaml", "limit", pace="0.3", options=["--time=1"])
    seen = completed("limit", number, 240)
    same("limit", "limit", 1)
    return f"requeued {seen['Restarts']} time ahead of its limit, same bytes"


def ranks():
    """Four ranks of a step with a GPU each see four devices through stepmill, in the scheduler's order."""
    ask = [stepmill, "devices", "--devices", root / "tests/data/topologies/dual-socket-pcie-4gpu.topo", "--json"]

    def uuids(text):
        return [g["uuid"] for g in json.loads(text)["topology"]["gpus"]]

    def srun(n, *options):
        slurm.ask("srun", "-N1", f"-n{n}", f"--output={work}/rank.%t", *options, *ask, check=True)
        return [uuids((work / f"rank.{r}").read_text()) for r in range(n)]

    machine = uuids(slurm.ask(*ask, check=True))
    cases = [
        (4, ["--gpus-per-task=1"], [[u] for u in machine]),
        (4, ["--gres=gpu:4", "--gpu-bind=map_gpu:3,2,1,0"], [[u] for u in reversed(machine)]),
        (1, ["--gres=gpu:2"], [machine[:2]]),
        (1, [], [machine]),  # the variable is not set, and the machine's own devices are not hidden
    ]
    for n, options, expected in cases:
        seen = srun(n, *options)
        if seen != expected and not (options == ["--gpus-per-task=1"] and sorted(seen) == sorted(expected)):
            raise AssertionError(f"srun -n{n} {' '.join(options)}: {seen}, not {expected}")
    return f"{len(cases)} ways to hand out {len(machine)} devices"


CASES = {case.__name__: case for case in (one_node, node_killed, node_lost, requeue, array, time_limit, ranks)}


def timed(case):
    begin = time.monotonic()
    return f"{case.__name__}: {case()} ({time.monotonic() - begin:.0f} s)"


def main(names):
    global slurm, work, want
    with cluster.Cluster(nodes=4, gpus=4, node_timeout=2 if "node_lost" in names else 300) as slurm:
        work = slurm.dir / "work"
        work.mkdir()
        slurm.env["PATH"] = f"{stepmill.parent}:{slurm.env['PATH']}"
        (work / "pipeline.yaml").write_text((here / "pipeline.yaml").read_text())
        (work / "in.jsonl").write_text("".join(f'{{"id": {i}, "text": "{"x" * (i % 17)}"}}\n' for i in range(ROWS)))
        slurm.ask(stepmill, "run", "pipeline.yaml", "--run", "undisturbed", cwd=work, check=True)
        want = outputs("undisturbed")
        rows = b"".join(want.values()).count(b"\n")
        if rows != ROWS - 1:
            sys.exit(f"the undisturbed run has {rows} rows")
        with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
            running = {pool.submit(timed, CASES[name]): name for name in names}
            faults = 0
            for done in concurrent.futures.as_completed(running):
                fault = done.exception()
                faults += fault is not None
                print(f"{running[done]}: {fault!r:.6000}" if fault else done.result(), flush=True)
    print(f"{len(names)} cases, {faults} faults")
    return 1 if faults else 0


try:
    sys.exit(main(sys.argv[3:]))
except cluster.Missing as missing:
    print(missing)
    sys.exit(77)
