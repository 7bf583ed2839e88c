# Each target does its own set-up: a virtual environment in .venv, made again when pyproject.toml changes.
#
#   make check        format, lint, types, complete public types
#   make test         every test, each fault once
#   make test-matrix  the same on every version of the servers, with larger volumes, repeatedly: before a release
#   make demo         a text through real processes, without any server
#   make bench        the benchmarks
#
# PYTHON=/path/to/python chooses the interpreter; ARGS adds arguments to pytest and the benchmarks. Tests mostly wait:
# WORKERS processes run them, each whole files.

.DEFAULT_GOAL := check
.NOTPARALLEL:
.SUFFIXES:
.PHONY: check test test-matrix demo bench setup clean

VENV := .venv
BIN := $(VENV)/bin
EXTRAS := all,test,dev
STAMP := $(VENV)/.installed-$(shell cksum pyproject.toml | cut -d ' ' -f 1)
# For --verifytypes it looks for Python in PATH only.
PYRIGHT := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pyright
ROUNDS ?= 3
WORKERS ?= 3
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile tests
ARGS ?=

# The first Python that is new enough and can make a virtual environment with pip.
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	"$$name" -c "$(USABLE)" 2>/dev/null && echo "$$name" && break; done)

setup: $(STAMP)

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "needs Python 3.11 or newer, with its venv module"; exit 1; }
	$(BIN)/python -c pass 2>/dev/null || { rm -rf $(VENV) && "$(PYTHON)" -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
	@rm -f $(VENV)/.installed-*
	@touch $@

check: $(STAMP)
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(PYRIGHT)
	$(PYRIGHT) --verifytypes streamhub --ignoreexternal

test: $(STAMP)
	$(PYTEST) $(ARGS)

# Every version and topology of each server. Larger volumes find rarer interleavings; so do further rounds.
test-matrix: export STREAMHUB_MATRIX ?= 1
test-matrix: export STREAMHUB_MODEL_TIMES ?= 10
test-matrix: export STREAMHUB_CHAOS_SEEDS ?= 100
test-matrix: export STREAMHUB_FAULT_ROUNDS ?= 5
test-matrix: $(STAMP)
	for round in $$(seq $(ROUNDS)); do \
		echo "round $$round of $(ROUNDS)"; \
		$(PYTEST) -o timeout=1800 $(ARGS) || exit 1; \
	done

demo: $(STAMP)
	$(BIN)/streamhub demo

bench: $(STAMP)
	$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) build dist .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
