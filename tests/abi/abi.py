"""Checks of the library's outside.

  abi.py headers --source DIR --cc CC --cxx CXX   each public header compiles alone, as C17 and as C++17; each internal one as C17
  abi.py symbols --source DIR --library SO        the library exports mill_* and nothing else, and all that the headers promise
"""
import argparse
import pathlib
import re
import subprocess
import sys

INTERNAL = ["engine", "queues", "placement", "kernels", "models"]
# Included several times, each time under other macros that name the processor's form: no header of their own.
TEXTUAL = {"kernels/attention_form.h", "kernels/gelu_form.h", "kernels/lanes.h", "kernels/row_ops_form.h"}
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wundef", "-Werror", "-fsyntax-only"]


def of_nvcc(header):
    """The tools of .cu files, and what is made of them."""
    tools = r'#include "kernels/(launch|stm_\w+)\.h"|#include <cuda_'
    return header.name == "launch.h" or header.name.startswith("stm_") or re.search(tools, header.read_text(encoding="utf-8")) is not None


def headers(args):
    source = pathlib.Path(args.source)
    public = sorted((source / "include").rglob("*.h"))
    # Headers of the CUDA module are C++ of nvcc, or need a toolkit: the module's build reads them.
    cuda = {"engine/device/cuda_module.h"} | {p.relative_to(source).as_posix() for p in (source / "kernels").glob("*.h")
                                              if of_nvcc(p)}
    internal = [h for folder in INTERNAL for h in sorted((source / folder).rglob("*.h"))
                if h.relative_to(source).as_posix() not in {*TEXTUAL, *cuda}]
    strict = WARNINGS + [f"-I{source}/include"]
    inside = ["-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-D_GNU_SOURCE"]
    inside += [f"-I{source}/{d}" for d in ("include", "engine", "")]
    jobs = [([args.cc, "-std=c17", "-xc", *strict], h, "C17") for h in public]
    jobs += [([args.cxx, "-std=c++17", "-xc++", *strict], h, "C++17") for h in public]
    jobs += [([args.cc, "-std=gnu17", "-xc", *inside], h, "C17") for h in internal]
    bad = 0
    for command, header, language in jobs:
        # Through standard input, so that the header is not the main file; a second time, so that its guard is tried.
        text = f'#include "{header}"\n#include "{header}"\ntypedef int not_empty;\n'
        done = subprocess.run([*command, "-"], input=text, text=True, capture_output=True)
        if done.returncode != 0:
            bad += 1
            print(f"{header.relative_to(source)} does not compile alone as {language}:\n{done.stderr}")
    print(f"{len(public)} public headers, {len(internal)} internal ones, {bad} do not compile alone")
    return bad == 0 and len(public) > 0


def promised(source):
    """Names that the public headers declare with MILL_API."""
    names = set()
    for header in sorted((source / "include").rglob("*.h")):
        text = re.sub(r"/\*.*?\*/|//[^\n]*|^\s*#[^\n]*(\\\n[^\n]*)*", "", header.read_text(), flags=re.S | re.M)
        for declaration in re.findall(r"\bMILL_API\b([^;{]*)", text):
            match = re.search(r"\b(mill_\w+)\s*(\(|$|\[)", declaration.strip())
            if match:
                names.add(match.group(1))
    return names


def symbols(args):
    listed = subprocess.run(["nm", "-D", "--defined-only", args.library], check=True, text=True, capture_output=True).stdout
    exported = {line.split()[-1].split("@")[0] for line in listed.splitlines() if line.strip()}
    exported = {name for name in exported if not re.fullmatch(r"STEPMILL_[0-9.]+", name)}
    strangers = sorted(name for name in exported if not name.startswith("mill_"))
    want = promised(pathlib.Path(args.source))
    missing, unannounced = sorted(want - exported), sorted(n for n in exported - want if n.startswith("mill_"))
    for title, names in (("exported, but not ours", strangers), ("declared in a public header, but not exported", missing),
                         ("exported, but in no public header", unannounced)):
        for name in names:
            print(f"{title}: {name}")
    print(f"{len(exported)} symbols exported, {len(want)} declared")
    return not (strangers or missing or unannounced) and len(want) > 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["headers", "symbols"])
    for option in ("source", "cc", "cxx", "library"):
        parser.add_argument("--" + option)
    args = parser.parse_args()
    sys.exit(0 if {"headers": headers, "symbols": symbols}[args.what](args) else 1)


main()
