"""gpu.sh --bundle DIR: what the phases need, in the folders that a checkout has, for machines that have a driver, CUDA's libraries
and Python."""
import os
import pathlib
import re
import shutil
import subprocess
import sys

from place import ROOT
from report import commit

MOST = 60 << 20
# What every machine has, or must have of its own: the C library, the loader, and CUDA's.
NOT_OURS = re.compile(r"(ld-linux|libc\.|libm\.|libpthread|libdl\.|librt\.|libresolv|libcuda|libcublas|libcudart|libnccl|libnv)")
SCRIPTS = ("scripts/gpu.sh", "bench/common/report.py")


def needed(files, env):
    """Shared libraries that the files need, as ldd finds them: {name: path}."""
    found = {}
    for file in files:
        text = subprocess.run(["ldd", str(file)], text=True, capture_output=True, env=env, check=False).stdout
        for name, path in re.findall(r"^\s*(\S+) => (/\S+)", text, re.MULTILINE):
            if not NOT_OURS.match(name) and not name.startswith("libstepmill"):
                found[name] = path
    return found


def make(place, target):
    if target.exists() and any(target.iterdir()) and not (target / "BUNDLE").exists():
        print(f"gpu.sh: {target} is there and is no bundle", file=sys.stderr)
        return 1
    shutil.rmtree(target, ignore_errors=True)
    into = {name: target / "build/gpu" / name for name in ("bin", "lib", "sim")}
    for folder in (*into.values(), into["lib"] / "stepmill", target / "needed", target / "scripts", target / "bench/gpu",
                   target / "bench/common"):
        folder.mkdir(parents=True, exist_ok=True)
    programs = [place.command, *sorted(place.bin.glob("bench_gpu_*")), *sorted(place.bin.glob("test_*_cuda"))]
    # Modules with libraries of their own that no phase uses stay behind.
    libraries = [*sorted(place.lib.glob("libstepmill.so*")), place.plugin]
    modules = [m for m in sorted((place.lib / "stepmill").glob("*.so")) if m.stem in ("libstepmill-cuda", "libstepmill-nccl")]
    simulated = sorted(f for f in place.sim.glob("*.so*") if not f.name.startswith("sim_self"))
    for files, folder in ((programs, into["bin"]), (libraries, into["lib"]), (modules, into["lib"] / "stepmill"),
                          (simulated, into["sim"])):
        for file in files:
            shutil.copy2(file, folder / file.name, follow_symlinks=False)
    for name, path in needed([*programs, *libraries, *modules], dict(os.environ)).items():
        shutil.copy2(pathlib.Path(path).resolve(), target / "needed" / name)
    strip = shutil.which("strip")
    for file in target.rglob("*"):
        if strip and file.is_file() and not file.is_symlink() and file.parent.name in ("bin", "lib", "stepmill", "sim", "needed"):
            subprocess.run([strip, "--strip-unneeded", str(file)], capture_output=True, check=False)
    for script in (*SCRIPTS, *(f"bench/gpu/{p.name}" for p in sorted((ROOT / "bench/gpu").glob("*.py")))):
        shutil.copy2(ROOT / script, target / script)
    (target / "BUNDLE").write_text(commit(ROOT) + "\n", encoding="utf-8")
    size = sum(f.stat().st_size for f in target.rglob("*") if f.is_file() and not f.is_symlink())
    print(f"{target}: {size / (1 << 20):.1f} MiB, {len(programs)} programs, {len(list((target / 'needed').iterdir()))} libraries; "
          f"there: scripts/gpu.sh")
    if size > MOST:
        print(f"gpu.sh: the bundle passes {MOST >> 20} MiB", file=sys.stderr)
        return 1
    return 0
