# `make demo` and `make test` need Python 3.11 or newer and make, nothing else.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JS := tssan_viz/views/js

.PHONY: help demo lint test test-slow test-all bundle docs clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:3]; sys.exit(0 if v >= (3, 11) else "tssan-viz needs Python 3.11 or newer; $(PYTHON) is %d.%d.%d. Name another one: make PYTHON=python3.12 …" % v)'
	$(PYTHON) -m venv $(VENV)

# torch is installed by itself first, so that nothing else decides which build of it comes.
$(VENV)/installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all]"
	@touch $@

# timm asks for torchvision, of which the index has no build that fits PyTorch's CPU build; see
# tests/timm_without_torchvision.py.
$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps timm
	@touch $@

# The bundle of the views is committed; node is needed only to check that it is what the sources give.
$(JS)/node_modules: $(JS)/package.json
	@if command -v npm >/dev/null; then npm install --prefix $(JS) --no-package-lock --no-audit --no-fund --silent && touch $@; \
	else echo "npm is not here: the test that rebuilds the bundle of the views will skip"; fi

demo: $(VENV)/installed ## train on synthetic skeletons, record, compare, draw: about three minutes
	$(BIN)/tssan-viz demo
	@echo
	@echo "Activate the environment to go on:  . $(BIN)/activate"

lint: $(VENV)/installed-dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint $(JS)/node_modules ## style, types and every test but the slow ones
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/installed-dev $(JS)/node_modules ## the slow tests alone
	$(BIN)/python -m pytest -m slow

test-all: test test-slow ## everything

bundle: $(JS)/node_modules ## rebuild the committed bundle of the views from its sources
	npm run build --prefix $(JS)

docs: $(VENV)/installed-dev ## the API documentation from the docstrings, into build/docs
	$(BIN)/python docs/build.py build/docs

clean: ## remove what make made, except the environment
	rm -rf build dist $(JS)/node_modules .pytest_cache .ruff_cache .mypy_cache .hypothesis
