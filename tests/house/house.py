"""Rules of the source tree that a compiler does not check.

  house.py layers ROOT   an #include goes to the same folder or to a lower layer (docs/architecture.md)
  house.py listed ROOT   each source file is named in the CMakeLists.txt of its folder, or of one above it
  house.py sizes ROOT    no source file is longer than 800 lines
  house.py columns ROOT  no line of C, C++ or CUDA is longer than .clang-format says, but for what clang-format is told to leave alone
  house.py kernels ROOT  .cu files keep to what nvcc and the simulated devices both run (tests/sim/README.md)
"""
import pathlib
import re
import sys

# Lowest first. Folders of one row know nothing of each other.
LAYERS = [
    ["engine/core"],
    ["engine/device"],
    ["engine/memory"],
    ["engine/batch"],
    ["kernels", "placement", "engine/plugin", "engine/comm", "engine/flow", "engine/store", "engine/trace"],
    ["engine/supervise", "engine/search"],
    ["models", "engine/wrapper"],
    ["engine/exec"],
    ["engine/pipeline"],
    ["cli"],
]
RANK = {folder: rank for rank, row in enumerate(LAYERS) for folder in row}
# Built-in steps see what a user's plugin sees. The one file that hands their table to the registry sees its header, too.
STEPS_MAY = {"steps/builtin.c": {"engine/plugin/step.h"}}
CODE = {".c", ".cc", ".cpp", ".cu", ".h"}
TEXT = CODE | {".py", ".sh", ".cmake"}
MAX_LINES = 800
SKIP = {"build", ".deps", ".venv", ".git", "models-cache", "data", "runs"}


def files(root, suffixes, *folders):
    for folder in folders or [""]:
        for path in sorted((root / folder).rglob("*")):
            parts = path.relative_to(root).parts
            if path.suffix in suffixes and path.is_file() and not any(p in SKIP or p.startswith(".venv") for p in parts[:1]):
                yield path


def folder_of(path):
    """The row entry that a path belongs to: models/tokenizers/x.h is of models."""
    parts = path.parts
    for n in (2, 1):
        if "/".join(parts[:n]) in RANK and len(parts) > n:
            return "/".join(parts[:n])
    return parts[0] if len(parts) > 1 else None


def includes(path):
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if match:
            yield number, match.group(1)


def resolve(root, source, name):
    """Where an include leads inside the tree; None = elsewhere (generated, or of a library)."""
    for base in (source.parent, root / "include", root / "engine", root):
        if (base / name).is_file():
            return (base / name).resolve().relative_to(root.resolve())
    return None


def layers(root):
    faults, seen = [], 0
    tops = sorted({folder.split("/")[0] for folder in RANK} | {"steps", "include"})
    for path in files(root, CODE, *tops):
        here = path.relative_to(root)
        own = folder_of(here)
        for line, name in includes(path):
            there = resolve(root, path, name)
            seen += 1
            if there is None or there.parts[0] == "include":
                continue
            if own == "include":
                faults.append(f"{here}:{line}: a public header includes {there}")
                continue
            to = folder_of(there)
            if to == own or str(there) in STEPS_MAY.get(str(here), ()):
                continue
            if own == "steps":
                faults.append(f"{here}:{line}: a step includes {there}: built-in steps use the public headers only")
            elif to not in RANK:
                faults.append(f"{here}:{line}: includes {there}, which is in no layer below {own}")
            elif own not in RANK:
                faults.append(f"{here}:{line}: {own} is in no layer")
            elif RANK[to] >= RANK[own]:
                faults.append(f"{here}:{line}: {own} includes {there}, which is not below it")
    return faults, f"{seen} includes"


def listed(root):
    faults, seen = [], 0
    tops = sorted({folder.split("/")[0] for folder in RANK} | {"steps", "tests", "bench", "examples"})
    lists = {path: path.read_text() for top in tops for path in (root / top).rglob("CMakeLists.txt")}
    lists[root / "cmake/functions.cmake"] = (root / "cmake/functions.cmake").read_text()
    for path in files(root, CODE - {".h"}, *tops):
        seen += 1
        here = path.relative_to(root).as_posix()
        named = False
        for where, text in lists.items():
            # By its path from the root, or from there; a folder named there may stand in a variable.
            names = [r"(?<![\w.-])" + re.escape(here)]
            if where.parent in path.parents:
                names.append(r"(?<![\w./-])" + re.escape(path.relative_to(where.parent).as_posix()))
            elif path.parent.relative_to(root).as_posix() in text:
                names.append(r"\$\{\w+\}/" + re.escape(path.name))
            named = named or any(re.search(name + r"(?![\w.-])", text) for name in names)
        if not named:
            faults.append(f"{here}: in no CMakeLists.txt, so nothing builds or tests it")
    return faults, f"{seen} source files"


def sizes(root):
    faults, seen = [], 0
    for path in files(root, TEXT):
        seen += 1
        lines = path.read_text(encoding="utf-8", errors="replace").count("\n")
        if lines > MAX_LINES:
            faults.append(f"{path.relative_to(root)}: {lines} lines; split by noun ({MAX_LINES} at most)")
    return faults, f"{seen} files"


def columns(root):
    """clang-format does not break comments, and runs only where somebody runs it."""
    limit = re.search(r"^ColumnLimit: (\d+)$", (root / ".clang-format").read_text(), flags=re.M)
    if not limit:
        return [".clang-format: no ColumnLimit"], "0 files"
    most, faults, seen = int(limit.group(1)), [], 0
    for path in files(root, CODE):
        seen += 1
        left_alone = False
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            switch = re.search(r"clang-format (on|off)\b", line)
            left_alone = switch.group(1) == "off" if switch else left_alone
            if len(line) > most and not left_alone:
                faults.append(f"{path.relative_to(root)}:{number}: {len(line)} columns; break the line ({most} at most)")
    return faults, f"{seen} files"


# What a .cu file must not say, and what to say instead. Inline PTX has its place: the wrappers in kernels/stm_*.h.
KERNEL_WORDS = [
    (r"<<<", "launch with STM_LAUNCH, which both compilers know"),
    (r"\b__shared__\b", "use STM_SHARED or STM_DYN_SHARED"),
    (r"\b(?:__)?asm(?:__)?\b", "inline PTX belongs into a wrapper in kernels/stm_sm80.h or stm_sm90.h, beside its emulation"),
    (r"\bstatic\s+(?:[\w<>]+\s+)*__global__", "a kernel is not static: the simulator finds it by its name"),
    (r"\bnamespace\s*\{", "no anonymous namespace: the simulator finds kernels by their names"),
    (r"\bvolatile\b(?!\s*\()", "flags between threads are atomics, not volatile"),
    (r"\bcuda(?:Device|Stream|Event)Synchronize\b|\bcuda(?:Malloc|Free)\w*\b",
     "a launch function queues; it neither waits nor allocates"),
]


def without_comments(text):
    """Comments blanked, lines kept."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: "\n" * m.group().count("\n"), text, flags=re.S)


def kernels(root):
    faults, seen = [], 0
    for path in files(root, {".cu"}):
        here = path.relative_to(root)
        text = without_comments(path.read_text(encoding="utf-8"))
        seen += 1
        for number, line in enumerate(text.splitlines(), 1):
            for pattern, remedy in KERNEL_WORDS:
                word = re.search(pattern, line)
                if word:
                    faults.append(f"{here}:{number}: {word.group().strip()}: {remedy}")
    return faults, f"{seen} .cu files"


RULES = {"layers": layers, "listed": listed, "sizes": sizes, "columns": columns, "kernels": kernels}


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in RULES:
        sys.exit(__doc__)
    faults, seen = RULES[sys.argv[1]](pathlib.Path(sys.argv[2]))
    for fault in faults:
        print(fault)
    print(f"{seen}, {len(faults)} faults")
    sys.exit(1 if faults or seen.startswith("0 ") else 0)


if __name__ == "__main__":
    main()
