#!/usr/bin/env bash
# gpu.sh [--dry] [--out DIR] [--minutes N] [--bundle DIR] [PHASE...]: everything there is to know of stepmill on this machine's GPU. Phases, each within
# 10 minutes, in this order, or those named:
#   probe       GPUs, driver, toolkit, Python packages; what will be left out and why
#   build       build/gpu (not in a bundle)
#   contract    the contract suites of devices, memory, communication on the GPU
#   kernels     the kernels' tests on the GPU, and how fast each is beside a copy or a product
#   sanitizer   compute-sanitizer: memcheck, racecheck, synccheck, initcheck; first whether each sees a seeded mistake
#   ceilings    what the GPU and its link can do at all
#   engine      E1 to E10 of the goals;  encoder: M1 to M6;  neighbours: K1 to K3; beside PyTorch and sentence-transformers where they are
#   report      goal, figure, verdict: printed, and written to bench/results/<device>.md and .json
# --dry: on simulated devices, small; proves the script, its figures mean nothing. --out DIR: results go there (three files), as they are found.
# --minutes N: all phases together; what does not fit is left out and named.
# --bundle DIR: a folder of at most 60 MB with this script in it, for machines that have a driver, a toolkit and Python, and nothing else.
set -euo pipefail
root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
python=$(command -v python3 || true)
[ ! -x "$root/.venv/bin/python" ] || python=$root/.venv/bin/python # has PyTorch where scripts/deps.sh bench was run
if [ -z "$python" ]; then
    echo 'gpu.sh: no python3 in PATH' >&2
    exit 1
fi
exec "$python" -B "$root/bench/gpu/phases.py" "$@"
