# `make help` lists what is here. Everything runs in .venv, made from pyproject.toml at the first need.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help run test lint check interop soak bench fix clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "wellhead needs Python 3.11 or newer; say which: make PYTHON=python3.12 …")'
	@echo "making $(VENV) (once, half a minute)…"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "installing what tests and checks need…"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@

run: $(VENV)/.run  ## heartbeats into the event display, in the terminal and on a web page
	@$(BIN)/wellhead run --demo $(ARGS)

test: $(VENV)/.dev  ## the tests (ARGS="-k name" for some)
	@$(BIN)/python -m pytest -q $(ARGS)

lint: $(VENV)/.dev  ## format, lint, types, layers
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

check: lint test  ## what has to be green at each commit

interop: $(VENV)/.dev  ## tests against real peers: the Go SDK, images, Knative's programs where KNATIVE_BIN is given
	@$(BIN)/python -m pytest -q tests/interop $(ARGS)

soak: $(VENV)/.dev  ## the long faults: a thousand simulated worlds (ARGS="--seeds 20000", "--seed 7"), then a Kafka cluster in chaos (CHAOS=…), then 5,000 objects of an API server
	@$(BIN)/python -m tests.faults.soak $(ARGS)
	@$(BIN)/python tests/faults/kafka_chaos.py $(CHAOS)
	@GAP_OBJECTS=5000 GAP_SINK_DOWN=60 $(BIN)/python -m pytest -q -s tests/interop/test_kubernetes_gaps.py

bench: $(VENV)/.dev  ## speed, memory and start-up, as ratios to a peer in the same run
	@$(BIN)/python tests/bench/run.py $(ARGS)

fix: $(VENV)/.dev  ## format, and mend what the linter can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## remove what was made here
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
