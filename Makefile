# issgd: `make reproduce` and `make test` do everything on a fresh machine with Python 3.11 and make.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Where torch comes from, if not from the default index: for instance the index of its CPU builds.
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ISSGD := $(BIN)/issgd
EXPERIMENT ?= experiments/quick.toml
# Of its runs at a time.
JOBS ?= 2
# Of the soak: its seed, how many faults in all, and upon which runs.
SEED ?= 0
FAULTS ?= 110
MODES ?= exact relaxed
# Of tests in parallel processes each has its part, a file's together, for what they share; who is done takes of another's.
PYTEST := $(BIN)/python -m pytest
PARALLEL := -n auto --dist worksteal
# What bears nothing beside it: it times real processes.
TIMED := tests/end_to_end/test_agreement.py
# Else each of the tests' hundreds of processes compiles issgd anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup test test-fast test-soak test-clusters lint types check bench bench-gpu conformance chaos reproduce figures clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16

setup: $(READY) ## make the environment in .venv: issgd, what it needs, and the tools of its tests

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No python3 found. Install Python 3.11 or later."; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11. Name a newer one: make setup PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Making $(VENV) and installing issgd (torch is large: this can take some minutes)"
	@"$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt setuptools
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  --no-build-isolation --editable '.[dev]'
	@touch $(READY)
	@echo "Ready: $(ISSGD) --help"

test: setup ## run all tests but the long ones (8 to 10 minutes on two slow cores)
	$(PYTEST) $(PARALLEL) -m "not long and not soak"

test-fast: setup ## run the tests that take no seconds, for while you edit (2 to 4 minutes on two cores)
	$(PYTEST) $(PARALLEL) -m "not long and not soak and not slow"

lint: setup ## style: ruff's checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## types: mypy --strict
	$(BIN)/mypy

check: lint types test ## what CI runs: all of these, then the long tests, two at a time (some 20 minutes on two cores)
	$(PYTEST) -n 2 --dist worksteal -m "long and not soak and not cluster" --ignore $(TIMED)
	$(PYTEST) $(TIMED)

test-soak: setup ## run the tests that take minutes, alone: faults upon long runs, all benchmarks in short (some 15 minutes)
	$(PYTEST) -m soak

test-clusters: setup ## install Slurm (Debian, as root) and Ray, and run the tests that need them, on two nodes here (6 minutes)
	@command -v slurmctld slurmd munged > /dev/null || { apt-get update && apt-get install --yes slurm-wlm munge; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  --no-build-isolation --editable '.[dev,ray]'
	$(PYTEST) -m cluster -rs

bench: setup ## time every hot path beside the peers; ONLY="scoring drawing" for some (about 20 minutes in all)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  --no-build-isolation --editable '.[dev,bench]'
	$(BIN)/python -m tests.benchmarks $(ONLY)

bench-gpu: ## time steps and scoring on the GPU; ONLY="gpu" needs nothing but a Python with torch: PYTHON=python3
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m tests.benchmarks.gpu $(ONLY)

conformance: setup ## who gives right gradient norms where: issgd and its peers in 53 situations (about a minute)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  --no-build-isolation --editable '.[dev,bench]'
	$(BIN)/python -m tests.benchmarks.conformance

chaos: setup ## 110 faults of all kinds upon exact and relaxed runs: what is lost? SEED=1 FAULTS=200 MODES=peers (some 15 s a fault)
	$(BIN)/python -m tests.chaos --seed $(SEED) --faults $(FAULTS) --modes $(MODES)

reproduce: setup ## the paper in small: data, 40 simulated runs, 2 with real processes, report (about 10 minutes)
	$(ISSGD) prepare house-numbers
	$(ISSGD) reproduce $(EXPERIMENT) --jobs $(JOBS)

figures: setup ## draw an experiment's figures and report again from its traces
	$(ISSGD) plot $(EXPERIMENT)

clean: ## remove the environment and the caches; data/ and results/ stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
