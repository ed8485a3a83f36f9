# `make demo` and `make test` need only Python >= 3.11 and make: everything else is installed into .venv.
# Set PYTHON=/path/to/python to choose the interpreter of a new .venv.

VENV := .venv
BIN := $(VENV)/bin
# One stamp for each content of pyproject.toml: a touched file reinstalls nothing, a changed one does.
STAMP := $(VENV)/.installed-$(firstword $(shell cksum < pyproject.toml))
LINKS := build/typing/mnemoscope

# Small models and arrays: one thread a process is faster than two that wait for each other, and keeps bits stable.
export OMP_NUM_THREADS ?= 1
# Every worker compiles every test with its assertions rewritten: ten seconds each, unless the bytecode is kept.
unexport PYTHONDONTWRITEBYTECODE

PYTEST := $(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist loadfile

.PHONY: help setup links demo test quick slow lint types clean

help:
	@echo "make demo    audit four ways of deleting records, about three minutes"
	@echo "make test    everything CI runs: lint, types, quick tests, slow stage"
	@echo "make quick   tests without the slow stage, about two minutes"
	@echo "make lint | types | slow | links | setup | clean"

setup: $(STAMP)

$(STAMP):
	@test -x $(BIN)/python || { \
	  for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	    command -v $$python >/dev/null 2>&1 || continue; \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || continue; \
	    $$python -m venv $(VENV) && exit 0; \
	  done; \
	  rm -rf $(VENV); \
	  echo "no Python >= 3.11 with the venv module was found: install one, or run make PYTHON=/path/to/python" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@rm -f $(VENV)/.installed-*
	@touch $@

# The import name mnemoscope.audit lives in the folder audit: type checkers find it through these links.
links:
	@mkdir -p $(LINKS)
	@for folder in audit attacks unlearning reports; do ln -sfn ../../../$$folder $(LINKS)/$$folder; done
	@for file in mnemoscope/*.py mnemoscope/py.typed; do ln -sfn ../../../$$file $(LINKS)/$${file#mnemoscope/}; done
	@find -L $(LINKS) -maxdepth 1 -type l -exec rm {} +

demo: $(STAMP)
	$(BIN)/python -m mnemoscope demo --out runs/demo

lint: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

types: $(STAMP) links
	$(BIN)/python -m mypy

quick: $(STAMP)
	$(PYTEST) -m "not slow"

slow: $(STAMP)
	$(PYTEST) -m slow

# One after the other, so that two cores are not shared by two stages, and the cheapest fault is told first.
test: $(STAMP)
	$(MAKE) lint
	$(MAKE) types
	$(MAKE) quick
	$(MAKE) slow

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
