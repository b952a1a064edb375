# One virtual environment, made once and again when its recipe changes.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# One process a core, each with one thread; a file's tests stay together, as they share fits.
# In the order of the files: sorted by their number of tests, the longest ones, which have few, would come last and on one core.
IN_PARALLEL = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-all lint bench bench-micro clean

demo: $(STAMP)  ## encode and decode a sample volume, with a picture and a report
	$(BIN)/inrcodec demo

test: $(STAMP)  ## the whole default suite
	$(IN_PARALLEL)

test-all: $(STAMP)  ## with the slow tests
	$(IN_PARALLEL) -m ""

lint: $(STAMP)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

$(STAMP): pyproject.toml constraints.txt setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "expected Python 3.11 or newer, found $$($(PYTHON) --version 2>&1); run make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	touch $@

SIGNALS ?= example4d synthetic:96
# SCI takes minutes more: `make bench METHODS=tinc,sci`.
METHODS ?= tinc
OUT ?= bench/results/$(shell date -u +%F)-local

bench: $(STAMP)  ## rate and distortion, speed and lossless size against the peers; two small volumes, 10 minutes
	$(BIN)/python -m bench rd --signals $(SIGNALS) --methods $(METHODS) --out $(OUT)
	$(BIN)/python -m bench throughput --signals $(SIGNALS) --methods $(METHODS) --repeats 3 --process-repeats 1 --out $(OUT)
	$(BIN)/python -m bench lossless --signals $(SIGNALS) --methods $(METHODS) --repeats 3 --out $(OUT)

bench-micro: $(STAMP)  ## the hot operations alone
	$(BIN)/python -m pytest bench/micro --benchmark-enable --benchmark-only -q

clean:  ## remove everything that make, the tools and the demo have made
	rm -rf .venv build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
