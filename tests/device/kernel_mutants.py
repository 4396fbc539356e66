"""Puts each fault of kernel_mutants.txt into a copy of kernels/, builds the CUDA module for the simulated devices with it, and runs
the test that the list names over that module, in several orders. Prints killed or ALIVE for each; fails when fewer than 95 of 100
are found.

usage: kernel_mutants.py --check ROOT                     only whether each fault has its place, once, and its test
       kernel_mutants.py ROOT BUILD OBJECTS [NAME]        OBJECTS: file with the objects of the module, one a line; NAME: part of a name
"""
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

MODES = (("fwd", "0"), ("rev", "0"), ("rand:1", "1"))
FEWEST = 24


def read_list(root):
    """[(name, file, test, old, new)]"""
    found, current = [], None
    for line in (root / "tests/device/kernel_mutants.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("= "):
            name, file, test = (part.strip() for part in line[2:].split("|"))
            current = [name, file, test, [], []]
            found.append(current)
        elif line[:2] in ("- ", "+ ", "+"):
            current[3 if line[0] == "-" else 4].append(line[2:])
    return [(name, file, test, "\n".join(old), "\n".join(new)) for name, file, test, old, new in found]


def check(root, mutants):
    bad = 0
    tests = (root / "tests/device/CMakeLists.txt").read_text(encoding="utf-8")
    for name, file, test, old, new in mutants:
        count = (root / file).read_text(encoding="utf-8").count(old) if old else 0
        if count != 1 or old == new:
            print(f"{name}: its text is {count} times in {file}")
            bad += 1
        if f"stm_backend_test({test.removesuffix('_sim')} " not in tests:
            print(f"{name}: there is no test {test}")
            bad += 1
    print(f"{len(mutants)} mutants looked at")
    return 1 if bad or len(mutants) < FEWEST else 0


class Builder:
    def __init__(self, root, build, objects):
        self.root, self.build = root, build
        self.objects = [pathlib.Path(line) for line in objects.read_text(encoding="utf-8").splitlines() if line]
        self.commands = {}
        for entry in json.loads((build / "compile_commands.json").read_text(encoding="utf-8")):
            if entry["file"].endswith(".cu") and "stepmill_kernels_sim" in entry["command"]:
                self.commands[pathlib.Path(entry["file"]).relative_to(root).as_posix()] = shlex.split(entry["command"])

    def module(self, scratch, file, old, new):
        """The module with the fault in scratch; None where it does not compile."""
        shutil.copytree(self.root / "kernels", scratch / "kernels")
        source = scratch / file
        source.write_text(source.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
        touched = [file] if file.endswith(".cu") else [
            f"kernels/{cu.name}" for cu in (scratch / "kernels").glob("*.cu") if f'"{file}"' in cu.read_text(encoding="utf-8")]
        objects = list(self.objects)
        for cu in touched:
            words = self.commands[cu]
            out = scratch / (pathlib.Path(cu).name + ".o")
            into, source_at = words.index("-o") + 1, words.index("-c") + 1
            objects = [o for o in objects if not o.as_posix().endswith(f"kernels_sim.dir/__/__/{cu}.o")] + [out]
            line = [words[0], f"-I{scratch}", "-w", *words[1:into], str(out), *words[into + 1:source_at], str(scratch / cu)]
            if subprocess.run(line, cwd=self.build, capture_output=True, check=False).returncode != 0:
                return None
        done = subprocess.run([self.commands[touched[0]][0], "-shared", "-o", str(scratch / "libstepmill-cuda.so"),
                               *map(str, objects),
                               f"-L{self.build / 'sim'}", "-l:libcudart.so.13"], cwd=self.build, capture_output=True, text=True,
                               check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return scratch / "libstepmill-cuda.so"


def survives(build, test, modules):
    """"" when the test finds the fault, else the modes it passed in. A test that hangs, or cannot start, has found it."""
    for order, lazy in MODES:
        env = dict(os.environ, STEPMILL_MODULES=str(modules), STEPMILL_CUDA_LIBRARIES=str(build / "sim"),
                   STM_TEST_DEVICES="required",
                   STM_SIM_ORDER=order, STM_SIM_LAZY=lazy, GTEST_FAIL_FAST="1")
        try:
            done = subprocess.run([str(build / "bin" / test)], env=env, capture_output=True, timeout=120, check=False)
        except subprocess.TimeoutExpired:
            return False
        if done.returncode != 0:
            return False
    return True


def main():
    if sys.argv[1] == "--check":
        root = pathlib.Path(sys.argv[2]).resolve()
        return check(root, read_list(root))
    root, build, objects = (pathlib.Path(p).resolve() for p in sys.argv[1:4])
    mutants = [m for m in read_list(root) if len(sys.argv) < 5 or sys.argv[4] in m[0]]
    builder = Builder(root, build, objects)
    for test in sorted({m[2] for m in mutants}):
        if not survives(build, test, build / "sim"):
            print(f"{test} fails without any fault")
            return 1

    def one(mutant):
        name, file, test, old, new = mutant
        with tempfile.TemporaryDirectory() as scratch:
            module = builder.module(pathlib.Path(scratch), file, old, new)
            return None if module is None else survives(build, test, pathlib.Path(scratch))

    alive = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for (name, file, test, _, _), lives in zip(mutants, pool.map(one, mutants)):
            if lives is None:
                print(f"{name}: does not compile")
                return 1
            alive += lives
            print(f"{'ALIVE ' if lives else 'killed'}  {name} ({re.sub('.*/', '', file)}, {test})", flush=True)
    print(f"{len(mutants)} mutants, {len(mutants) - alive} killed, {alive} alive")
    return 0 if alive * 20 <= len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())
