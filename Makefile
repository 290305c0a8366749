# A fresh machine needs Python 3.11 or newer and make. Everything is installed into .venv, nothing elsewhere.
#   make run ARGS="--scenario byzantine-node"
# make ends in 2 whatever a recipe ends in; where the exit code matters, call .venv/bin/iace.

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
NEEDED := it takes Python 3.11 or newer with venv (Debian: apt install python3 python3-venv), or name one with PYTHON=
STEP := @printf '\n== %s\n'

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test lint wheel check bench explore simulate look clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## */  make \1	/p' $(firstword $(MAKEFILE_LIST))

run: $(VENV)/installed  ## the main job on the embedded plant; ARGS are handed to iace run
	@$(BIN)/iace run $(ARGS)

test: $(VENV)/installed-test  ## the whole test suite
	@$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(VENV)/installed-test  ## style, types, layers
	$(STEP) 'lint (budget: 2 minutes)'
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

wheel: $(VENV)/installed-test  ## build the wheel, and run it in a bare environment outside of this tree
	$(STEP) 'wheel (budget: 3 minutes)'
	@$(BIN)/python .ci/wheel.py

check: lint wheel  ## everything that CI runs
	$(STEP) 'tests (budget: 45 minutes)'
	@$(MAKE) --no-print-directory test

bench: $(VENV)/installed  ## what it costs, as ratios
	@failed=0; for bench in benchmarks/bench_*.py; do \
	  printf '\n== %s\n' $$bench; $(BIN)/python $$bench || failed=1; done; exit $$failed

look: $(VENV)/installed-test  ## draw the Grafana dashboards with real data into look/, or into ARGS
	@$(BIN)/python tests/dashboard_stage.py $(or $(ARGS),look)

explore: $(VENV)/installed-test  ## every state of the governor in ever larger worlds; ARGS: --seconds N --scope NAME --nodes N
	@$(BIN)/python tests/exploration/explore.py --seconds 1800 $(ARGS)

simulate: $(VENV)/installed  ## 10,000 simulated hours in the light world and 100 with the full plant; ARGS: --seed N
	@$(BIN)/iace simulate --hours 10000 $(ARGS)
	@$(BIN)/iace simulate --full --hours 100 $(ARGS)

clean:  ## remove the environment, caches and builds; journals (.iace) and reports stay
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/installed: $(BIN)/python pyproject.toml constraints.txt
	@echo 'installing iace into $(VENV) ...'
	@$(PIP) hatchling editables
	@$(PIP) --no-build-isolation -e .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	@echo 'installing what the tests need into $(VENV) ...'
	@$(PIP) --no-build-isolation -e '.[test]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'make: $(NEEDED)' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo 'make: $(NEEDED)' >&2; exit 1; }
