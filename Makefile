# Everything sets itself up: `make ask Q="..."` and `make test` are all that a fresh machine needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
Q ?=
ROOM ?=
# A file of tests stays with one process, those that take longest first (tests/conftest.py).
PARALLEL := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help ask test quick lint engine bench clean

help:  ## Show what there is.
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

ask: $(VENV)/.run  ## Answer a question: make ask Q="Explain how a heat pump works"
	@$(BIN)/python main.py $(if $(Q),-- "$$Q",)

test: $(VENV)/.dev lint engine  ## Run every check: lint, types, tests with coverage, examples.
	$(BIN)/python -m pytest $(PARALLEL) --cov --cov-report=term

quick: $(VENV)/.dev  ## Check a change in 90 seconds: the rooms it touches, and their neighbours (ROOM=settings names one).
	@$(BIN)/python tests/support/quick.py $(ROOM)

engine: $(VENV)/.dev  ## Build llama.cpp for distributed inference, once a machine (15 to 30 minutes on two cores).
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python main.py engine install || \
		echo "WARNING: no engine could be built here: the tests of distributed inference will be skipped" >&2

lint: $(VENV)/.dev  ## Run ruff and mypy.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev  ## Run every benchmark; each prints JSON.
	@for script in benchmarks/*.py; do echo "# $$script" >&2; $(BIN)/python $$script || exit 1; done

clean:  ## Remove what was built here (never the user's cache).
	rm -rf $(VENV) build dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml | $(VENV)/bin/python
	@echo "setting up (once): the program and its embedded engine" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[local]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[local,dev]'
	@touch $@ $(VENV)/.run

export Q
