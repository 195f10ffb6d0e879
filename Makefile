# One line a task; each needs nothing before it. `make` lists them.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
APT_GET := $(if $(filter 0,$(shell id -u)),,sudo )env DEBIAN_FRONTEND=noninteractive apt-get -qq

.DEFAULT_GOAL := help

.PHONY: help setup demo test check unit lock bench qa soak clean

help:  ## list the tasks
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

setup: .venv/.complete  ## make .venv with everything that demo and test need

.venv/.complete: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'fitserve needs Python 3.11 or newer: make PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo 'installing python3-venv'; $(APT_GET) update && $(APT_GET) install -y python3-venv >/dev/null; }
	@echo 'setting up .venv (once; about a minute)'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup  ## train a model on real data, serve it, print how to call it
	@$(BIN)/fitserve demo

test: check unit  ## all checks and tests

check: setup  ## formatting, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup  ## the tests alone
	$(BIN)/pytest

lock: setup  ## renew requirements/*.txt from pyproject.toml
	$(BIN)/python scripts/lock.py

bench: setup  ## fitserve beside a hand-rolled server: throughput, latency, CPU; ARGS="--only iris"
	@command -v wrk >/dev/null || { $(APT_GET) update && $(APT_GET) install -y wrk >/dev/null; }
	@PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null || { $(APT_GET) update && $(APT_GET) install -y nginx-light >/dev/null; }
	$(BIN)/python -m bench.load $(or $(ARGS),--markdown docs/reference/benchmarks.md)

qa: setup  ## hostile and damaged model files: what becomes of them, how fast, at what memory (10 minutes)
	$(BIN)/python -m bench.qa --markdown docs/reference/trust.md $(ARGS)

soak: setup  ## switches, bad files, kills and stops under load, for long (an hour); ARGS="--only kills --scale 0.1"
	$(BIN)/python -m bench.soak $(or $(ARGS),--markdown docs/reference/soak.md)

clean:  ## remove what the other tasks made
	rm -rf .venv dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .cache
