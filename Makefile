# `make bench` and `make test` set up and run everything, on a machine with only Python, make and a package registry.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin

.PHONY: help bench test lint gpu clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

bench: $(BIN)/installed ## train every norm x regularizer on the embedded digits; tables in results/latest/tables
	$(BIN)/pytest bench --bench-tier smoke -n $(WORKERS)

test: lint ## the linters and the tests
	$(BIN)/pytest tests -W error -n $(WORKERS)

lint: $(BIN)/installed ## ruff, mypy and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

gpu: $(BIN)/installed ## all measurements on one GPU within nine minutes; MNIST in $NORMBENCH_DATA, tables in results/perf/speed-gpu.md
	$(BIN)/python perf/gpu.py $(GPU)

clean: ## remove the environment and what the tools left; results stay
	rm -rf $(VENV) .tox .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build *.egg-info

$(BIN)/installed: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'normbench needs Python 3.11 or later; name one with make PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@
