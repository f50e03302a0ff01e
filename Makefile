# What CI runs, a person runs by the same name. `make` lists the targets.
PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install -q

.DEFAULT_GOAL := help
.PHONY: help demo test test-aerospike torture bench lint clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## Keep a long agent thread in one file: make demo ARGS="--turns 50 --json"
	@$(BIN)/python -m demo $(ARGS)

test: $(VENV)/.test ## Run the tests: make test ARGS="-k resume"
	@$(BIN)/python -m pytest $(ARGS)

test-aerospike: $(VENV)/.test ## Run the Aerospike suites; fails without a server
	@command -v asd >/dev/null || [ -n "$$FOLDPOINT_TEST_AEROSPIKE" ] || \
		{ echo "no Aerospike: put asd on PATH or set FOLDPOINT_TEST_AEROSPIKE=host:port/namespace" >&2; exit 1; }
	@$(BIN)/python -m pytest -k aerospike $(ARGS)

torture: $(VENV)/.torture ## Try for two hours to lose something: make torture ARGS="machine --runs 500"
	@$(BIN)/python -m torture $(ARGS)

bench: $(VENV)/.bench ## Measure beside other savers: make bench ARGS="--trace FILE --plots docs/plots"
	@$(BIN)/python -m benchmarks --json build/bench.json $(ARGS)

lint: $(VENV)/.test ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

clean: ## Remove the environment and all caches
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -m venv $(VENV)

# Stamps: installed again only when one of these is newer.
INSTALLED := pyproject.toml setup.py $(wildcard src/foldpoint/*/*.[ch])
$(VENV)/.demo: $(INSTALLED) | $(BIN)/python
	@$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/.test: $(INSTALLED) | $(BIN)/python
	@$(PIP) -e '.[test,lint]'
	@touch $@

$(VENV)/.torture: $(INSTALLED) | $(BIN)/python
	@$(PIP) -e '.[torture]'
	@touch $@

$(VENV)/.bench: $(INSTALLED) | $(BIN)/python
	@$(PIP) -e '.[bench]'
	@touch $@
