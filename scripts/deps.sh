#!/usr/bin/env bash
# deps.sh [GROUP...]: installs what stepmill needs on Debian 12. Groups:
#   core   build and run on a CPU (default)
#   test   core, cuda, and what else scripts/test.sh needs
#   slow   test, and a browser, which the slow tests open a report in (660 MB)
#   bench  core, and the peers of scripts/bench.sh (several GB)
#   cuda   where the machine has no CUDA toolkit, one from PyPI, in .venv-cuda/ (Debian's main section has none): it compiles the
#          kernels, and has the headers that simulated devices are built with
# Debian packages need root or sudo, and only when one is missing. Python packages are locked by hash and go to .venv/
# (distilabel to .venv-distilabel/, Ray to .venv-ray/, litellm's proxy to .venv-server/, CUDA to .venv-cuda/), sources to ${STEPMILL_DEPS:-.deps}. Quick when everything is there.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

CORE_PACKAGES=(build-essential ca-certificates ccache cmake ninja-build pkg-config python3 python3-venv
    libcurl4-openssl-dev libfyaml-dev libhwloc-dev libjemalloc-dev libpcre2-dev libsimdjson-dev libutf8proc-dev libzstd-dev zlib1g-dev)
TEST_PACKAGES=(clang clang-format clang-tidy git libclang-rt-14-dev libgtest-dev lld llvm shellcheck time
    munge slurm-client slurm-wlm-basic-plugins slurmctld slurmd) # a real scheduler for tests/e2e/slurm: 3 MB; not configured, so its services stay down (munge's starts where systemd runs)
SLOW_PACKAGES=(chromium)
BENCH_PACKAGES=(libbenchmark-dev libdnnl-dev libgstreamer1.0-dev libstarpu-dev libtbb-dev time)
REQ=scripts/requirements

debian_packages() {
    local p log missing=()
    for p in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "Debian packages: ${missing[*]}"
    log=$(mktemp)
    if ! { as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        die "apt-get failed; $log has all that it said"
    fi
    rm "$log"
}

# python_packages ENV FILE...: an environment that holds the union of those lock files. A stamp of their hash says that
# it does; each group adds to what is there. Wheels only, and no bytecode: of most of these modules nobody imports one in ten.
python_packages() {
    local env=$1 f stamp want
    shift
    [ -x "$env/bin/python" ] || "$(system_python)" -m venv "$env"
    for f in "$@"; do
        stamp=$env/.locked-$(basename "$f" .txt)
        want=$(sha256sum <"$f")
        [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && continue
        say "Python packages of $f into ${env#"$ROOT"/}"
        rm -f "$stamp"
        "$env/bin/python" -m pip install -q --disable-pip-version-check --require-hashes --no-deps --only-binary :all: --no-compile -r "$f"
        echo "$want" >"$stamp"
    done
}

# The C sources of nanoarrow come inside its Python source package; scripts/sdist/ says how pip gives it to us unbuilt.
nanoarrow_source() {
    local dir=$STEPMILL_DEPS/nanoarrow-0.9.0 tmp
    [ -e "$dir/.complete" ] && return 0
    say "nanoarrow sources into $dir"
    mkdir -p "$STEPMILL_DEPS"
    tmp=$(mktemp -d "$STEPMILL_DEPS/.fetch-XXXXXX")
    # shellcheck disable=SC2064 # expand now
    trap "rm -rf '$tmp'" EXIT
    PYTHONPATH=$ROOT/scripts/sdist "$ROOT/.venv/bin/python" -m pip download -q --disable-pip-version-check --no-deps \
        --no-binary nanoarrow --no-build-isolation --require-hashes -r "$REQ/nanoarrow.txt" -d "$tmp"
    tar -xzf "$tmp"/nanoarrow-0.9.0.tar.gz -C "$tmp"
    touch "$tmp/nanoarrow-0.9.0/.complete"
    rm -rf "$dir"
    mv "$tmp/nanoarrow-0.9.0" "$dir"
    rm -rf "$tmp"
    trap - EXIT
}

group_core() {
    debian_packages "${CORE_PACKAGES[@]}"
    python_packages "$ROOT/.venv" "$REQ/core.txt"
    nanoarrow_source
}
group_test() {
    local pid pids=() bad=0
    debian_packages "${CORE_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
    # pip keeps one processor busy at most: the environments are filled beside each other.
    (group_core; python_packages "$ROOT/.venv" "$REQ/test.txt") & pids+=($!)
    python_packages "$ROOT/.venv-ray" "$REQ/ray.txt" & pids+=($!)
    python_packages "$ROOT/.venv-server" "$REQ/server.txt" & pids+=($!) # 118 packages, 600 MB: apart, since they pin much
    group_cuda & pids+=($!)
    for pid in "${pids[@]}"; do wait "$pid" || bad=1; done
    return $bad
}
group_slow() {
    group_test
    debian_packages "${SLOW_PACKAGES[@]}"
}
group_bench() {
    debian_packages "${CORE_PACKAGES[@]}" "${BENCH_PACKAGES[@]}"
    group_core
    python_packages "$ROOT/.venv" "$REQ/bench.txt"
    python_packages "$ROOT/.venv-distilabel" "$REQ/distilabel.txt"
}
# The machine's own compiler, where cmake/cuda.cmake looks for one.
own_nvcc() {
    local folder
    for folder in "${CUDA_HOME:+$CUDA_HOME/bin}" "${CUDA_PATH:+$CUDA_PATH/bin}" /usr/local/cuda/bin /opt/cuda/bin; do
        if [ -n "$folder" ] && [ -x "$folder/nvcc" ]; then echo "$folder/nvcc" && return; fi
    done
    command -v nvcc
}
# The wheels share a folder that is nearly a toolkit: what it lacks are the names that a linker looks for, and NCCL, which has a folder of its own.
cuda_wheels() {
    local home lib
    python_packages "$ROOT/.venv-cuda" "$REQ/cuda.txt"
    home=$(echo "$ROOT"/.venv-cuda/lib/python3*/site-packages/nvidia/cu13)
    [ -x "$home/bin/nvcc" ] || die "no nvcc in $home: remove .venv-cuda and try again"
    ln -sfn lib "$home/lib64"
    ln -sf ../../nccl/include/nccl.h "$home/include/"
    ln -sf ../../nccl/lib/libnccl.so.2 "$home/lib/"
    for lib in "$home"/lib/lib*.so.*; do ln -sf "$(basename "$lib")" "${lib%.so.*}.so"; done
}
group_cuda() {
    local nvcc
    if ! nvcc=$(own_nvcc); then
        if [ "$(uname -m)" != x86_64 ]; then
            say 'no CUDA toolkit found, and none is fetched for this processor; stepmill builds and runs without one'
            return
        fi
        debian_packages "${CORE_PACKAGES[@]}"
        cuda_wheels
        nvcc=$(echo "$ROOT"/.venv-cuda/lib/python3*/site-packages/nvidia/cu13/bin/nvcc)
    fi
    say "CUDA compiler: $nvcc ($("$nvcc" --version | grep -o 'release [0-9.]*'))"
}

for group in "${@:-core}"; do
    case $group in
    core | test | slow | bench | cuda) "group_$group" ;;
    -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0" ;;
    *) die "no group '$group': core, test, slow, bench, cuda" ;;
    esac
done
