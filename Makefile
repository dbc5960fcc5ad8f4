# `make run` sets everything up and does the main job; `make help` lists the rest.

SHELL := /bin/bash
PYTHON ?= python3
DATA ?=
PROFILE ?= auto
ONLY ?=
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup run down status test test-unit lint bench bench-identity lock clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

setup: $(READY)  ## Make .venv with everything in requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info[:2] < (3, 14), f"Python 3.11 to 3.13 is needed, this is {sys.version}"'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(sed -n 's/^\(uv==[^ ;]*\).*/\1/p' requirements.lock)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

run: $(READY)  ## Import DATA, retrain under Airflow with PROFILE, promote, serve
	@$(BIN)/zdm run --profile $(PROFILE) $(if $(DATA),--data "$(DATA)")

down: $(READY)  ## Stop every process of the stack
	@$(BIN)/zdm down

status: $(READY)  ## Show health, URLs and the champion
	@$(BIN)/zdm status

test: $(READY)  ## All tests
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder

test-unit: $(READY)  ## Unit tests alone
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder -m "not integration and not e2e"

lint: $(READY)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## Measure the training engine beside the usual loop; ONLY="same recipe" a part
	$(BIN)/python benchmarks/speed.py $(if $(ONLY),--only "$(ONLY)")

bench-identity: $(READY)  ## Recognise rendered castings beside image hashes, and time it at scale
	$(BIN)/python benchmarks/identity.py

lock:  ## Resolve pyproject.toml into requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --all-extras --group dev --python-version 3.11 pyproject.toml --output-file requirements.lock

clean: ## Remove the environment and caches; data, runs and models stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
