# make demo   sorts a small tetrode recording, scores it and makes its figures
# make test   runs the tests; make test-fast those without a whole sort or a process
# make docs   builds the documentation as pages for a browser
# All build .venv on first use; afterwards nothing is installed again until the project file or the pins change.

PYTHON ?= python3
VENV ?= .venv
# One more place where pip looks for torch: the CPU or a CUDA index named on pytorch.org. See README, "CPU or GPU".
TORCH_INDEX ?=
# Further words for pytest: make test PYTEST_ARGS="-k score"
PYTEST_ARGS ?=

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast docs check hashes clean

help:
	@echo "make demo    sort the sample recording into demo-output/, score it and make its figures"
	@echo "make test    run the tests"
	@echo "make test-fast  run those that sort no whole recording and start no process"
	@echo "make docs    build the documentation into site/"
	@echo "make check   check style and types"
	@echo "make hashes  write requirements-hashed.txt anew, after a change of constraints.txt"
	@echo "make clean   remove the environment and what the commands above wrote"

demo: $(VENV)/.installed
	$(BIN)/spikecrsae sort sample_data/tetrode.h5 -o demo-output --overwrite
	$(BIN)/spikecrsae score demo-output --truth sample_data/tetrode.h5 --exhaustive
	@echo
	@echo "Spikes and units: demo-output/spikes.csv, demo-output/units.csv; figures: demo-output/figures/. Open this first:"
	@$(BIN)/spikecrsae report demo-output --truth sample_data/tetrode.h5 --figures demo-output/figures --overwrite --quiet

test: $(VENV)/.test-installed
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: $(VENV)/.test-installed
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

docs: $(VENV)/.docs-installed
	$(BIN)/mkdocs build --strict --clean
	@echo "Open site/index.html, or with its search: $(BIN)/python -m http.server -d site"

check: $(VENV)/.check-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

hashes: $(BIN)/python
	$(BIN)/python .ci/hashes.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is not Python 3.11 or later; name one that is: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e .
	@touch $@

$(VENV)/.test-installed: $(VENV)/.installed
	$(INSTALL) -e '.[test]'
	@touch $@

$(VENV)/.docs-installed: $(VENV)/.installed
	$(INSTALL) -e '.[docs]'
	@touch $@

$(VENV)/.check-installed: $(VENV)/.installed
	$(INSTALL) ruff mypy
	@touch $@

clean:
	rm -rf $(VENV) demo-output site build dist .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
