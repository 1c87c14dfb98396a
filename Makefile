# Every target works in a fresh clone: it makes the virtual environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 5000
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# Processes of the tests find compiled what one of them has compiled.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest $(PARALLEL)

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check format ui bench results scaling chaos docs-pictures clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/\t/' | expand -t 14

# The stamp is newer than what it was made from, so that changed pins are installed.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v == (3, 11) else "pneumonia pins its packages for Python 3.11, and `$(PYTHON)` is %d.%d: make PYTHON=python3.11 ..." % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed ## a complete search on generated chest phantoms, offline
	@$(BIN)/pneumonia experiment=demo

test: $(VENV)/.installed ## all tests but the slow ones
	@$(PYTEST)

test-slow: $(VENV)/.installed ## the slow tests
	@$(PYTEST) -m slow

check: $(VENV)/.installed ## format, lint, types, layering
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.installed ## put the code in its format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

ui: $(VENV)/.installed ## the MLflow UI on the local results
	@$(BIN)/pneumonia ui port=$(PORT)

bench: $(VENV)/.installed ## measure beside others on the real data (DATA=<folder with pneumoniamnist.npz>)
	@PYTHONPATH=.:tests/support $(BIN)/python tests/bench/run.py

results: $(VENV)/.installed ## run the study of docs/results.md, seed by seed; it goes on where it was stopped
	@PYTHONPATH=. $(BIN)/python tests/bench/results.py

scaling: $(VENV)/.installed ## forecast what 1 to 1,000 workers give, beside real runs (docs/scaling.md)
	@PYTHONPATH=. $(BIN)/python tests/bench/scaling.py

chaos: $(VENV)/.installed ## kill searches at 50 random moments, resume each, compare with uninterrupted ones (EXECUTOR=ray)
	@PYTHONPATH=tests $(BIN)/python -m chaos.run --executor $(or $(EXECUTOR),local)

docs-pictures: $(VENV)/.installed ## make the pictures of the README again, with chromium and chromedriver
	@PYTHONPATH=.:tests $(BIN)/python docs/pictures/make.py

clean: ## remove the virtual environment and caches; results stay
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
