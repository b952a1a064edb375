#!/usr/bin/env bash
# Everything a machine with a GPU can tell, in one call of at most 9 minutes: tests, kernel timings, throughput.
#
#   bash bench/gpu_check.sh [FOLDER]
#
# EDGE is that of the synthetic volume (256), ALLOWED the seconds for all (530), STREAMS a folder of streams made before on any
# machine (`python -m bench.gpu --make STREAMS`), where a clip's clip-NAME.inrc may lie too.
# Runs from the source tree on synthetic volumes; needs torch, numpy and pytest, uses what else it finds and says what it does
# not. At most 8 files come into FOLDER ($OUT, or bench/results/DATE-GPU): environment.txt, tests.txt, kernels.md,
# kernels.json, throughput.md, throughput.csv, gpu.md, log.txt. The exit code is that of the tests.
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH=.:kernels:formats${PYTHONPATH:+:$PYTHONPATH}
export PYTHONDONTWRITEBYTECODE=1
PYTHON=${PYTHON:-$(if [ -x .venv/bin/python ]; then echo .venv/bin/python; else command -v python3; fi)}
GPU=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 | tr ' ' '-')
FOLDER=${1:-${OUT:-bench/results/$(date -u +%F)-${GPU:-no-gpu}}}
EDGE=${EDGE:-256}
END=$((SECONDS + ${ALLOWED:-530}))
# Deterministic sums of cuBLAS, which tests ask for.
export CUBLAS_WORKSPACE_CONFIG=:4096:8
mkdir -p "$FOLDER"
rm -f "$FOLDER/log.txt"

# step NAME SECONDS COMMAND...: run within its share of the time, and of what is left; a failure does not stop the rest.
step() {
  local name=$1 share=$2 left=$((END - SECONDS)) code=0
  shift 2
  [ "$left" -gt 5 ] || { echo "$name: no time left" | tee -a "$FOLDER/log.txt"; return 1; }
  [ "$share" -lt "$left" ] || share=$left
  local began=$SECONDS
  # Interrupted, pytest still says what failed.
  timeout --signal=INT --kill-after=30 "$share" "$@" 2> >(tail -n 40 >> "$FOLDER/log.txt") || code=$?
  echo "$name: exit code $code after $((SECONDS - began)) s" | tee -a "$FOLDER/log.txt"
  return "$code"
}

environment() {
  date -u
  echo "commit $(git log -1 --format=%h 2>/dev/null || echo unknown)"
  nvidia-smi 2>/dev/null || echo "no nvidia-smi here"
  "$PYTHON" -c 'from bench.machine import machine_lines; print("\n".join(machine_lines()))'
  "$PYTHON" -m bench.bare tests 2>&1 >/dev/null
}

tests() {
  local files
  files=$("$PYTHON" -m bench.bare tests 2>/dev/null) || return 1
  # The project's own options name plugins that may be missing here.
  "$PYTHON" -m pytest -q -p no:cacheprovider -o addopts="--import-mode=importlib" -o filterwarnings= -m "not slow" $(side_by_side) $files
}

has_device() {
  "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || { echo "no CUDA device here: $1 not run"; return 1; }
}

# The cases that the suite gives to Triton's interpreter, on the device.
device_tests() {
  has_device "kernels on the device" || return 0
  "$PYTHON" -m pytest -q -p no:cacheprovider -o addopts="--import-mode=importlib" -o filterwarnings= $(side_by_side) tests/kernels/interpreted/*.py
}

# Memory errors and races of every kernel, once, on the smallest cases; silent where the tool is not installed.
sanitizer() {
  local tool
  has_device sanitizer || return 0
  tool=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1)
  [ -n "$tool" ] || { echo "compute-sanitizer is not installed"; return 0; }
  "$tool" --tool memcheck --error-exitcode 9 "$PYTHON" -m pytest -q -x -p no:cacheprovider -o addopts="--import-mode=importlib" \
    -o filterwarnings= tests/kernels/interpreted/*.py -k "empty or limits or misfit or halves or samples_are"
}

# Compiling kernels takes most of the time of their tests: side by side, where pytest-xdist is installed.
side_by_side() {
  "$PYTHON" -c 'import xdist' 2>/dev/null && echo "-n $(($(nproc) * 3 / 4 + 1)) --dist worksteal"
}

export -f side_by_side environment tests has_device device_tests sanitizer
export PYTHON
step environment 60 bash -c environment > "$FOLDER/environment.txt"
step device-tests 200 bash -c device_tests > "$FOLDER/tests.txt"
DEVICE=$?
step kernels 60 "$PYTHON" -m bench.kernels --out "$FOLDER"
step gpu-decoders 160 "$PYTHON" -m bench.gpu --edge "$EDGE" --out "$FOLDER" ${STREAMS:+--streams "$STREAMS"}
step sanitizer 60 bash -c sanitizer >> "$FOLDER/tests.txt"
step tests 130 bash -c tests >> "$FOLDER/tests.txt"
RESULT=$?
[ "$DEVICE" -eq 0 ] || RESULT=$DEVICE
step throughput 80 "$PYTHON" -m bench throughput --signals "synthetic:$((EDGE / 2))" --repeats 3 --process-repeats 1 --out "$FOLDER"
tail -n 3 "$FOLDER/tests.txt"
cat "$FOLDER/log.txt"
exit "$RESULT"
