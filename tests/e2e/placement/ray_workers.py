"""Four actors of a real Ray, which believes in four GPUs, see four different devices through stepmill.

usage: ray_workers.py STEPMILL TOPOLOGIES ROOT      Exit status 77: no environment with Ray (scripts/deps.sh test makes it).
"""
import json
import os
import pathlib
import subprocess
import sys

MACHINE = "dual-socket-pcie-4gpu.topo"


def main():
    import ray

    stepmill, topology = sys.argv[1], str(pathlib.Path(sys.argv[2]) / MACHINE)
    os.environ["RAY_AUTH_MODE"] = "disabled"  # else it leaves a token in the home folder
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=4, num_gpus=4, include_dashboard=False, configure_logging=False, logging_level="error",
             object_store_memory=80 << 20, _system_config={"enable_metrics_collection": False})

    @ray.remote(num_gpus=1, num_cpus=0.5)
    class Worker:
        def devices(self):
            done = subprocess.run([stepmill, "devices", "--devices", topology, "--json"], text=True, capture_output=True,
                                  check=True)
            return [g["uuid"] for g in json.loads(done.stdout)["topology"]["gpus"]], os.environ.get("CUDA_VISIBLE_DEVICES")

    workers = [Worker.remote() for _ in range(4)]
    seen = ray.get([w.devices.remote() for w in workers], timeout=150)
    ray.shutdown()
    everything = subprocess.run([stepmill, "devices", "--devices", topology, "--json"], text=True, capture_output=True, check=True,
                                env={k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"})
    machine = [g["uuid"] for g in json.loads(everything.stdout)["topology"]["gpus"]]
    for uuids, visible in seen:
        print(visible, uuids)
        if len(uuids) != 1 or machine.index(uuids[0]) != int(visible):
            sys.exit(f"a worker with CUDA_VISIBLE_DEVICES={visible} sees {uuids}")
    if sorted(sum((uuids for uuids, _ in seen), [])) != sorted(machine):
        sys.exit("the workers' devices are not disjoint")
    print("4 workers, 4 devices")


if __name__ == "__main__":
    if "STM_RAY" in os.environ:
        main()
    else:  # again, by the environment that has Ray
        python = pathlib.Path(os.environ.get("STEPMILL_RAY_ENV", pathlib.Path(sys.argv[3]) / ".venv-ray")) / "bin/python"
        if not python.exists():
            print("no environment with Ray: run scripts/deps.sh test")
            sys.exit(77)
        sys.exit(subprocess.run([python, "-B", *sys.argv], env={**os.environ, "STM_RAY": "1"}, check=False).returncode)
