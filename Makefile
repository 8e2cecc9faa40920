# Every target makes its own .venv first; nothing outside the folder is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

TRL := .venv-trl
BENCH ?=

.PHONY: demo test lint install quick bench clean

demo: $(VENV)/.installed ## train the embedded model on the embedded preferences
	$(BIN)/burnish dpo

test: lint ## lint, then every test
	$(BIN)/python -m pytest

quick: $(VENV)/.installed-test ## the tests without the slow ones
	$(BIN)/python -m pytest -m "not slow" -q

lint: $(VENV)/.installed-test ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

bench: $(VENV)/.installed-fast $(TRL)/.installed ## compare with TRL 1.16; flags in BENCH, e.g. make bench BENCH=--quick
	$(BIN)/python benchmarks/compare.py $(BENCH)

install: $(VENV)/.installed ## burnish and what it needs, into .venv

# torch alone first: another package's open range would otherwise pick a newer build with several GB of GPU libraries.
$(VENV)/.installed: requirements/run.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "burnish needs Python 3.11 or newer; give one with: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q "$$(grep '^torch==' requirements/run.txt)"
	$(PIP) install -q -r requirements/run.txt
	$(PIP) install -q --no-deps -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed requirements/test.txt
	$(PIP) install -q -r requirements/test.txt
	touch $@

$(VENV)/.installed-fast: $(VENV)/.installed requirements/fast.txt
	$(PIP) install -q -r requirements/fast.txt
	touch $@

$(TRL)/.installed: requirements/run.txt requirements/trl.txt
	$(PYTHON) -m venv $(TRL)
	$(TRL)/bin/python -m pip --disable-pip-version-check install -q "$$(grep '^torch==' requirements/run.txt)"
	$(TRL)/bin/python -m pip --disable-pip-version-check install -q -r requirements/trl.txt
	touch $@

clean: ## remove the environment and caches
	rm -rf $(VENV) $(TRL) build .pytest_cache .ruff_cache .hypothesis
