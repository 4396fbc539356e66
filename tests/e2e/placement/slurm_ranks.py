"""Ranks of a real Slurm, which believes in four GPUs on this machine, see disjoint devices through stepmill.

usage: slurm_ranks.py STEPMILL TOPOLOGIES
Exit status 77: no Slurm (scripts/deps.sh test installs it), or not root, which its daemons need.

One controller and one node on the loopback interface, with a folder of their own for keys, state and logs; no systemd, no control
groups. The GPUs are null devices: Slurm hands out what gres.conf names, and sets CUDA_VISIBLE_DEVICES, without looking what it is.
"""
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time

os.environ["PATH"] += ":/usr/sbin:/sbin"
MACHINE = "dual-socket-pcie-4gpu.topo"
CONF = """ClusterName=stepmill
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={dir}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd.pid
SlurmctldLogFile={dir}/slurmctld.log
SlurmdLogFile={dir}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
PropagateResourceLimits=NONE
GresTypes=gpu
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8 RealMemory=500 Gres=gpu:4 State=UNKNOWN
PartitionName=all Nodes=node Default=YES MaxTime=10 State=UP
"""


def skip(why):
    print(why)
    sys.exit(77)


def free_ports(n):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Cluster:
    def __init__(self, folder):
        self.dir = folder
        self.daemons = []
        host = socket.gethostname().split(".")[0]
        for name in ("state", "spool", "dev"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        for i in range(4):
            try:
                os.mknod(folder / f"dev/gpu{i}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            except PermissionError:
                skip("this container may not make device files, which Slurm wants for GPUs")
        (folder / "slurm.conf").write_text(CONF.format(dir=folder, host=host, ports=free_ports(2)))
        (folder / "gres.conf").write_text(f"Name=gpu File={folder}/dev/gpu[0-3]\n")
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")

    def start(self, *command):
        log = open(self.dir / f"{command[0]}.out", "w", encoding="utf-8")  # for the life of the daemon
        self.daemons.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True))

    def up(self):
        d = self.dir
        self.start("munged", "--foreground", "--force", f"--key-file={d}/munge.key", f"--socket={d}/munge.socket", f"--pid-file={d}/munged.pid",
                   f"--log-file={d}/munged.log", f"--seed-file={d}/munge.seed")
        self.wait("munged", lambda: (d / "munge.socket").exists())
        self.start("slurmctld", "-D", "-f", d / "slurm.conf")
        self.start("slurmd", "-D", "-N", "node", "-f", d / "slurm.conf")
        self.wait("an idle node", lambda: "idle" in subprocess.run(["sinfo", "-h", "-o", "%T"], text=True, capture_output=True, check=False).stdout)

    def wait(self, what, ready):
        deadline = time.monotonic() + 100
        while not ready():
            dead = [p.args[0] for p in self.daemons if p.poll() is not None]
            if dead or time.monotonic() > deadline:
                for log in sorted(self.dir.glob("*.log")) + sorted(self.dir.glob("*.out")):
                    print(f"-- {log.name}\n{log.read_text(errors='replace')[-1500:]}")
                sys.exit(f"waiting for {what}: {'ended: ' + str(dead) if dead else 'too long'}")
            time.sleep(0.1)

    def down(self):
        for p in reversed(self.daemons):
            p.terminate()
            try:
                p.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(p.pid, signal.SIGKILL)
                p.wait()


def srun(folder, ranks, *arguments):
    """What each rank sees, by rank."""
    done = subprocess.run(["srun", "-N1", f"-n{ranks}", f"--output={folder}/rank.%t", *arguments], text=True, capture_output=True, check=False,
                          timeout=100)
    if done.returncode != 0:
        sys.exit(f"srun {arguments}: {done.stderr}")
    seen = [json.loads(pathlib.Path(f"{folder}/rank.{r}").read_text())["topology"]["gpus"] for r in range(ranks)]
    print(*arguments[:2], [[g["uuid"] for g in gpus] for gpus in seen])
    return [[g["uuid"] for g in gpus] for gpus in seen]


def main():
    stepmill, topology = sys.argv[1], str(pathlib.Path(sys.argv[2]) / MACHINE)
    for tool in ("slurmctld", "slurmd", "srun", "munged"):
        if shutil.which(tool) is None:
            skip(f"no {tool}: run scripts/deps.sh test")
    if os.geteuid() != 0:
        skip("not root, which Slurm's daemons need")
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        os.environ.pop(name, None)
    ask = [stepmill, "devices", "--devices", topology, "--json"]
    machine = [g["uuid"] for g in json.loads(subprocess.run(ask, text=True, capture_output=True, check=True).stdout)["topology"]["gpus"]]
    with tempfile.TemporaryDirectory(prefix="stm-slurm-", dir="/tmp") as name:  # short: sockets lie in it
        pathlib.Path(name).chmod(0o755)
        cluster = Cluster(pathlib.Path(name))
        try:
            cluster.up()
            each = srun(name, 4, "--gpus-per-task=1", *ask)
            turned = srun(name, 4, "--gres=gpu:4", "--gpu-bind=map_gpu:3,2,1,0", *ask)
            two = srun(name, 1, "--gres=gpu:2", *ask)
            none = srun(name, 1, *ask)
        finally:
            cluster.down()
    faults = []
    if [len(gpus) for gpus in each] != [1] * 4 or sorted(sum(each, [])) != sorted(machine):
        faults.append(f"four ranks with a GPU each: {each}")
    if turned != [[machine[i]] for i in (3, 2, 1, 0)]:
        faults.append(f"the scheduler's order: {turned}")
    if len(two[0]) != 2 or len(set(two[0])) != 2:
        faults.append(f"one rank with two: {two}")
    if none[0] != machine:  # the variable is not set, and the machine's own devices are not hidden
        faults.append(f"no GPUs asked for: {none}")
    for fault in faults:
        print(fault)
    print(f"4 ranks, {len(set(sum(each, [])))} devices, {len(faults)} faults")
    sys.exit(1 if faults else 0)


main()
