"""Where things are: in a checkout, or in a bundle that mirrors it; and the environment that programs run in."""
import glob
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

from report import interleave

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUNDLED = (ROOT / "BUNDLE").exists()


PHASE_SECONDS = 570  # machines that are lent end a command after ten minutes


class NoTime(RuntimeError):
    """The phase has used up its time: what it did not come to is left out."""


class Place:
    def __init__(self, dry, out, build=None):
        self.dry, self.out = dry, pathlib.Path(out)
        self.build = pathlib.Path(build or os.environ.get("STEPMILL_GPU_BUILD") or ROOT / "build/gpu")
        self.bin, self.lib, self.sim = self.build / "bin", self.build / "lib", self.build / "sim"
        self.command = self.bin / "stepmill"
        self.plugin = self.lib / "bench_gpu_steps.so"
        self.cuda = [] if dry else cuda_folders()
        self.until = time.monotonic() + PHASE_SECONDS  # of the phase
        self.out.mkdir(parents=True, exist_ok=True)

    def left(self):
        """Seconds of the phase that are left."""
        left = self.until - time.monotonic()
        if left < 1:
            raise NoTime("no time was left in this phase")
        return left

    def interleave(self, subjects, rounds, warm_up=1):
        return interleave(subjects, rounds, warm_up, self.until)

    def env(self, **more):
        env = dict(os.environ, STEPMILL_MODULES=str(self.lib / "stepmill"))
        paths = [str(self.lib), str(ROOT / "needed")] if BUNDLED else []
        if self.dry:
            env.update(STEPMILL_CUDA_LIBRARIES=str(self.sim), STM_TEST_DEVICES="required", STM_SIM_AT_EXIT="off",
                       STM_SIM_KERNELS=f"{self.sim / 'libstepmill-cuda.so'}:{self.sim / 'bench_gpu_bodies.so'}")
            paths.insert(0, str(self.sim))
        else:
            paths += self.cuda
        env["LD_LIBRARY_PATH"] = ":".join(paths + [p for p in [env.get("LD_LIBRARY_PATH")] if p])
        env.update(more)
        return env

    def run(self, *words, timeout=300, env=None, check=True):
        """Run a program; its CompletedProcess. A program that does not end in time, or fails where that is not expected, raises."""
        words = [str(w) for w in words]
        done = subprocess.run(words, env=self.env(**(env or {})), text=True, errors="replace", capture_output=True,
                              timeout=min(timeout, self.left()),
                              check=False)
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}:\n{(done.stderr or done.stdout)[-2000:]}")
        return done

    def figures(self, program, *words, timeout=300):
        """What a program of bench/gpu prints: {name: (unit, [value of each round])}."""
        result = {}
        for line in self.run(self.bin / program, *words, *(["--quick"] if self.dry and program != "bench_gpu_streams" else []),
                             timeout=timeout).stdout.splitlines():
            name, unit, values = line.split("\t")
            result[name] = (unit, [float(v) for v in values.split()])
        return result

    def missing_libraries(self):
        """What the loader does not find for our programs and modules: {library: [who needs it]}."""
        missing = {}
        for file in [self.command, self.plugin, *sorted(self.bin.glob("bench_gpu_*")), *sorted(self.bin.glob("test_*_cuda")),
                     *sorted((self.lib / "stepmill").glob("*.so"))]:
            if file.exists():
                text = subprocess.run(["ldd", str(file)], text=True, capture_output=True, env=self.env(), check=False).stdout
                for name in re.findall(r"^\s*(\S+) => not found", text, re.MULTILINE):
                    missing.setdefault(name, []).append(file.name)
        return missing

    def tests(self):
        """The test programs for a device, of kernels and others."""
        names = sorted(p.name for p in self.bin.glob("test_*_cuda"))
        return [n for n in names if "kernel" not in n], [n for n in names if "kernel" in n]


def cuda_folders():
    """Folders with CUDA's libraries: toolkits, then the PyPI wheels of this Python, then those that scripts/deps.sh cuda
    fetched."""
    found = []
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda", "/opt/cuda"]
    nvcc = shutil.which("nvcc")
    if nvcc:
        homes.append(str(pathlib.Path(nvcc).resolve().parents[1]))
    for home in homes:
        if home:
            found += [f"{home}/lib64", f"{home}/targets/x86_64-linux/lib"]
    for folder in sys.path:
        found += sorted(glob.glob(f"{folder}/nvidia/*/lib"))
    found += sorted(glob.glob(f"{ROOT}/.venv-cuda/lib/python3*/site-packages/nvidia/*/lib"))
    return [f for f in dict.fromkeys(found) if glob.glob(f + "/lib*.so*")]


def sanitizer_program(dry):
    """compute-sanitizer, or None. STEPMILL_COMPUTE_SANITIZER names another; the dry run's own is a fake of the tests."""
    named = os.environ.get("STEPMILL_COMPUTE_SANITIZER")
    if named or dry:
        return named or str(ROOT / "bench/gpu/fake_sanitizer.py")
    for home in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda", "/opt/cuda"):
        if home and os.access(f"{home}/bin/compute-sanitizer", os.X_OK):
            return f"{home}/bin/compute-sanitizer"
    return shutil.which("compute-sanitizer")
