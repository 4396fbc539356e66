#!/usr/bin/env python3
"""A real Slurm on one machine: munge, a controller, several nodes with GPUs that are none, all in a scratch folder.

usage: cluster.py [--nodes N] [--gpus N] COMMAND [ARGUMENT...]
Runs COMMAND with SLURM_CONF set to the cluster's, then takes the cluster down; its exit status. 77: no Slurm (scripts/deps.sh test
installs it).

No systemd, no control groups, no name spaces, and no root: the daemons run as whoever calls. Ports, sockets, keys, state and logs
are the cluster's own, so that several run beside each other. A GPU is a link to /dev/null: Slurm hands out the devices that
gres.conf names, and sets CUDA_VISIBLE_DEVICES, without looking what they are.

Whatever happens, nothing stays: a *janitor*, in a session of its own, waits for the end of a pipe that only the caller holds, and
then kills every process that the cluster started and removes the folder. So it also cleans up behind a caller that was killed.
Processes are known by their environment, which has the cluster's SLURM_CONF, and the node's name.
"""
import contextlib
import os
import pathlib
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

# Times: a node is given up after SlurmdTimeout; a job that is requeued starts again after cred_expire at the earliest (5 s is the
# least that there is); KillWait is between TERM and KILL.
CONF = """ClusterName=stepmill
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={dir}/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool/%n
TmpFS={dir}/tmp/%n
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd.%n.pid
SlurmctldLogFile={dir}/slurmctld.log
SlurmdLogFile={dir}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout={node_timeout}
KillWait=5
MinJobAge=300
JobRequeue=1
MpiDefault=none
PropagateResourceLimits=NONE
GresTypes=gpu
NodeName=DEFAULT CPUs=32 RealMemory=1000 Gres=gpu:{gpus} State=UNKNOWN
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=UNLIMITED DefaultTime=5 State=UP
"""
TOOLS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol", "squeue", "sinfo", "scancel")
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


class Missing(Exception):
    """There is no Slurm here."""


def free_port():
    """A port that nobody has, outside of the range from which the kernel gives them out for connections."""
    while True:
        port = random.randrange(10000, 32000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def processes(marks):
    """Those whose environment has all of these lines."""
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if marks <= set((entry / "environ").read_bytes().split(b"\0")):
                    yield int(entry.name)


def kill(marks):
    """Ends them, and what they start meanwhile."""
    found = True
    while found:
        found = list(processes(marks))
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Cluster:
    """`with Cluster(nodes=4) as c:`; nodes are n1, n2, ...; `c.env` is what Slurm's commands need."""

    def __init__(self, nodes=4, gpus=4, node_timeout=300):
        for tool in TOOLS:
            if shutil.which(tool, path=PATH) is None:
                raise Missing(f"no {tool}: run scripts/deps.sh test")
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="stm-slurm-", dir="/tmp"))  # short: sockets lie in it
        self.nodes = [f"n{i + 1}" for i in range(nodes)]
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "CUDA_"))}
        self.env.update(PATH=PATH, SLURM_CONF=str(self.dir / "slurm.conf"))
        self.mark = f"SLURM_CONF={self.dir}/slurm.conf".encode()
        self.daemons = {}
        self.held, self.janitor = self._hire()
        for name in ("state", "gpu", *(f"{what}/{n}" for what in ("spool", "tmp") for n in self.nodes)):
            (self.dir / name).mkdir(parents=True)
        key = self.dir / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        for i in range(gpus):
            (self.dir / f"gpu/{i}").symlink_to("/dev/null")
        host = socket.gethostname().split(".")[0]
        lines = [f"NodeName={n} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()}" for n in self.nodes]
        (self.dir / "slurm.conf").write_text(CONF.format(dir=self.dir, user=os.geteuid(), host=host, port=free_port(),
                                                         gpus=gpus, nodes="\n".join(lines), node_timeout=node_timeout))
        (self.dir / "gres.conf").write_text(f"Name=gpu File={self.dir}/gpu/[0-{gpus - 1}]\n")

    def _hire(self):
        end, held = os.pipe()
        pid = os.fork()
        if pid > 0:
            os.close(end)
            return held, pid
        os.setsid()
        os.close(held)
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(sig, signal.SIG_IGN)
        os.read(end, 1)  # returns when the last holder of the other end has gone
        kill({self.mark})
        if "STEPMILL_KEEP" not in os.environ:
            shutil.rmtree(self.dir, ignore_errors=True)
        os._exit(0)

    def __enter__(self):
        try:
            d = self.dir
            self.start("munged", "munged", "--foreground", "--force", f"--key-file={d}/munge.key", f"--socket={d}/munge.socket",
                       f"--pid-file={d}/munged.pid", f"--log-file={d}/munged.log", f"--seed-file={d}/munge.seed")
            self.wait("munge's socket", (d / "munge.socket").exists)
            self.start("slurmctld", "slurmctld", "-D")
            for n in self.nodes:
                self.start_node(n)
            self.wait("nodes", lambda: self.states() == {n: "idle" for n in self.nodes})
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_):
        self.down()

    def start(self, name, *command, **more):
        with open(self.dir / f"{name}.out", "w", encoding="utf-8") as out:
            self.daemons[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                                  start_new_session=True,
                                                  env={**self.env, **more}, cwd=self.dir)

    def start_node(self, node):
        self.start(node, "slurmd", "-D", "-N", node, SLURMD_NODENAME=node)

    def kill_node(self, node):
        """As if its power went: the daemon, its shepherds and all tasks at once."""
        daemon = self.daemons.pop(node)
        kill({self.mark, f"SLURMD_NODENAME={node}".encode()})
        daemon.wait()

    def processes(self, mark):
        """Those of the cluster that have this in their environment, too."""
        return list(processes({self.mark, mark.encode()}))

    def states(self):
        done = self.ask("sinfo", "-h", "-N", "-o", "%N %T")
        return dict(line.split() for line in done.splitlines())

    def ask(self, *command, check=False, **more):
        """What a command says."""
        done = subprocess.run(command, text=True, capture_output=True, env=self.env, check=False, timeout=100, **more)
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, command))}: exit code {done.returncode}: {done.stderr}")
        return done.stdout

    def wait(self, what, ready, seconds=100):
        deadline = time.monotonic() + seconds
        while not ready():
            dead = [name for name, p in self.daemons.items() if p.poll() is not None]
            if dead or time.monotonic() > deadline:
                raise RuntimeError(f"waiting for {what}: {'ended: ' + ', '.join(dead) if dead else 'too long'}\n{self.logs()}")
            time.sleep(0.1)

    def logs(self):
        names = sorted(self.dir.glob("*.log")) + sorted(self.dir.glob("*.out"))
        return "\n".join(f"-- {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in names)

    def down(self):
        os.close(self.held)
        os.waitpid(self.janitor, 0)
        for p in self.daemons.values():
            p.wait()


def main(arguments):
    """`cluster.py [--nodes N] [--gpus N] COMMAND...`"""
    numbers = {"--nodes": 4, "--gpus": 4}
    while arguments and arguments[0] in numbers:
        numbers[arguments[0]] = int(arguments[1])
        arguments = arguments[2:]
    if not arguments:
        sys.exit(__doc__)
    try:
        with Cluster(numbers["--nodes"], numbers["--gpus"]) as c:
            return subprocess.run(arguments, env=c.env, check=False).returncode
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 77


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
