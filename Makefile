# Everything sets itself up: `make ask Q="..."` and `make test` are all that a fresh machine needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
Q ?=
ROOM ?=
MINUTES ?= 10
TARGET ?=
# Four processes, also on two cores: tests of engines and nodes mostly wait. A file of tests stays with one process,
# those that take longest first (tests/conftest.py).
PARALLEL := -n 4 --dist loadfile --no-loadscope-reorder

INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCK := .venv-lock/bin/uv pip compile --quiet pyproject.toml --group build --universal --python-version 3.11 \
	--generate-hashes --no-annotate --no-emit-index-url --custom-compile-command "make lock" $(RENEW)
LOGIC = timeout 1200 $(BIN)/python -m pytest -q -n 2 -m "not real_model" \
	tests/text tests/settings tests/agents tests/models tests/pipeline tests/runtime

.DEFAULT_GOAL := help
.PHONY: help ask test quick logic newest lint docs engine collector bench lock sbom fuzz clean

help:  ## Show what there is.
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

ask: $(VENV)/.run  ## Answer a question: make ask Q="Explain how a heat pump works"
	@$(BIN)/python main.py $(if $(Q),-- "$$Q",)

test: $(VENV)/.dev lint engine collector  ## Run every check: lint, types, tests with coverage, examples.
	$(BIN)/python -m pytest $(PARALLEL) --cov --cov-report=term

quick: $(VENV)/.dev  ## Check a change in 90 seconds: the rooms it touches, and their neighbours (ROOM=settings names one).
	@$(BIN)/python tests/support/quick.py $(ROOM)

engine: $(VENV)/.dev  ## Build llama.cpp for distributed inference, once a machine (about 10 minutes on two cores).
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python main.py engine install || \
		echo "WARNING: no engine could be built here: the tests of distributed inference will be skipped" >&2

collector: $(VENV)/.dev  ## Build the collector that the tests of telemetry talk to, once a machine (takes Go; minutes).
	@$(BIN)/python tests/support/collector_build.py

lint: $(VENV)/.dev  ## Run ruff and mypy.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

logic: $(VENV)/.dev  ## Run the tests that start no model and no engine, for example: make logic PYTHON=python3.13 VENV=.venv-3.13
	$(LOGIC)

newest: $(VENV)/bin/python  ## Run them on the newest versions that pyproject.toml allows; .ci/run does it in .venv-newest.
	@$(INSTALL) --upgrade --upgrade-strategy eager --editable '.[local,cluster,ray,otel,parquet,dev]'
	@$(BIN)/python .ci/newer.py requirements/dev.txt
	$(LOGIC)

docs: $(VENV)/.docs  ## Build the site of docs/ in site/, strictly: a link that leads nowhere is an error.
	PYTHONPATH=.ci $(BIN)/zensical build --clean --strict

lock:  ## Write requirements/*.txt from pyproject.toml; RENEW=--upgrade takes the newest versions.
	@test -x .venv-lock/bin/uv || { $(PYTHON) -m venv .venv-lock && .venv-lock/bin/python -m pip install --quiet --disable-pip-version-check uv; }
	$(LOCK) --extra local --extra cluster --extra ray --extra otel --extra parquet --extra dev --output-file requirements/dev.txt
	$(LOCK) --extra local --extra cluster --constraints requirements/dev.txt --output-file requirements/run.txt
	$(LOCK) --group docs --constraints requirements/dev.txt --output-file requirements/docs.txt
	$(LOCK) --group fuzz --constraints requirements/dev.txt --output-file requirements/fuzz.txt

sbom: $(VENV)/.dev  ## Write what the program consists of to dist/sbom.cdx.json (CycloneDX), from the lock files and pins.
	@$(BIN)/python .ci/sbom.py dist/sbom.cdx.json

fuzz: $(VENV)/.fuzz  ## Look for inputs that break what is promised of every reader: make fuzz MINUTES=60 TARGET=http
	@$(BIN)/python tests/support/fuzz.py $(MINUTES) $(TARGET)

bench: $(VENV)/.dev  ## Run every benchmark; each prints JSON.
	@for script in benchmarks/*.py; do echo "# $$script" >&2; $(BIN)/python $$script || exit 1; done

clean:  ## Remove what was built here (never the user's cache).
	rm -rf .venv .venv-* build dist site .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml requirements/run.txt | $(VENV)/bin/python
	@echo "setting up (once): the program and its embedded engine" >&2
	@$(INSTALL) --require-hashes --requirement requirements/run.txt
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml requirements/dev.txt | $(VENV)/bin/python
	@$(INSTALL) --require-hashes --requirement requirements/dev.txt
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.run

$(VENV)/.docs: requirements/docs.txt | $(VENV)/.dev
	@$(INSTALL) --require-hashes --requirement requirements/docs.txt
	@touch $@

$(VENV)/.fuzz: requirements/fuzz.txt | $(VENV)/.dev
	@$(INSTALL) --require-hashes --requirement requirements/fuzz.txt
	@touch $@

export Q
