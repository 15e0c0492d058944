# The door. `make` or `make help` lists the verbs; a verb sets up what it needs.
#
# make test PYTHON=python3.13      with another interpreter: .venv is made anew for it (3.11 or newer)
# ARGS="experiment=baseline" make train

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TESTABLE := $(VENV)/.testable
ARGS ?= experiment=plus_layer
# Extras that the commands of README and docs need.
USED := backbones,sweeps,serve

# Two processes, since every test process loads torch anew; one thread each, since they share cores.
TEST_PROCESSES ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal
RING_1 := catalog models retrieval views

.PHONY: help
help: ## list the verbs
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

# An interpreter that is asked for by name is the one that runs: .venv is made anew for it.
ifneq ($(origin PYTHON),file)
MINOR := import sys; print("%d.%d" % sys.version_info[:2])
WANTED := $(shell $(PYTHON) -c '$(MINOR)' 2>/dev/null)
PRESENT := $(shell $(BIN)/python -c '$(MINOR)' 2>/dev/null)
ifneq ($(WANTED),$(PRESENT))
OTHER_PYTHON := yes
.PHONY: $(READY)
endif
endif

.PHONY: setup
setup: $(READY) ## make .venv and install the project into it (again when its dependencies change)

.PHONY: dev
dev: $(TESTABLE) ## setup, and what tests, checks and benchmarks need beside it

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: no $(PYTHON) here; expected Python 3.11 or newer;" \
	    "install it: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1); expected Python 3.11 or newer;" \
	    "name another one: make PYTHON=python3.12 setup" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot make virtual environments (no ensurepip);" \
	    "install them: apt-get install python3-venv" >&2; exit 1; }
	@{ [ -z "$(OTHER_PYTHON)" ] && $(BIN)/python -m pip --version >/dev/null 2>&1; } || { \
	  echo "making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv --clear $(VENV); }
	$(BIN)/python -m pip install -c constraints.txt -e ".[$(USED)]"
	@touch $@

$(TESTABLE): $(READY)
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev]"
	@touch $@

.PHONY: wheel
wheel: dev ## build dist/visual_search-VERSION-py3-none-any.whl
	$(BIN)/python -m build --wheel --no-isolation

.PHONY: demo
demo: setup ## two recipes and what learns nothing, on the same real pictures: five minutes on two cores
	$(BIN)/python -m visual_search.train experiment=plus_layer budget=demo
	$(BIN)/python -m visual_search.train experiment=best_pretrained budget=demo trainer.max_epochs=4 training.evaluate_every_n_epochs=4
	$(BIN)/python -m visual_search.leaderboard outputs

.PHONY: train
train: setup ## train: make train ARGS="experiment=baseline data=folder data.root=my_pictures"
	$(BIN)/python -m visual_search.train $(ARGS)

.PHONY: board
board: setup ## open TensorBoard over all runs
	$(BIN)/python -m visual_search.board outputs

.PHONY: test
test: dev ## all tests and every example in a docstring
	$(PYTEST)

.PHONY: test-fast
test-fast: dev ## catalogue, networks, retrieval and views only: seconds
	$(PYTEST) -m "not slow" $(addprefix tests/,$(RING_1))

.PHONY: fuzz
fuzz: dev ## decode 20,000 damaged pictures: each a picture or a named error, in seconds
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.catalog.damaged_pictures --files 20000

.PHONY: check
check: dev ## format, lint, types, and what may import what
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 0 tests/test_imports.py

.PHONY: bench
bench: dev ## measure speed, one after the other; PHOTOS=folder and BUNDLE=folder add those of pictures and serve
	$(BIN)/python benchmarks/statistics_coverage.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/epochs.py
	$(BIN)/python benchmarks/large_index.py --folder data/bench --num-items 100000
	$(if $(PHOTOS),$(BIN)/python benchmarks/pictures.py "$(PHOTOS)")
	$(if $(BUNDLE),$(BIN)/python benchmarks/serve.py --bundle "$(BUNDLE)")

.PHONY: results
results: dev ## make the tables of docs from benchmarks/results
	$(BIN)/python benchmarks/laboratory.py table
	$(BIN)/python -m benchmarks.reliability table

.PHONY: constraints
constraints: ## renew constraints.txt with the newest releases that pyproject.toml allows
	@work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; \
	$(PYTHON) -m venv "$$work/venv"; \
	"$$work/venv/bin/python" -m pip install ".[dev]"; \
	grep '^#' constraints.txt > "$$work/new"; \
	"$$work/venv/bin/python" -m pip freeze --all --exclude pip --exclude visual-search >> "$$work/new"; \
	cp "$$work/new" constraints.txt

.PHONY: clean
clean: ## remove caches and build products; runs, data and .venv stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find visual_search tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## clean, and remove .venv and data/ (downloads and the picture cache); runs stay
	rm -rf $(VENV) data
