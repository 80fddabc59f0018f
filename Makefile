# One command each, on a fresh machine with Python 3.11 or newer and make:
#
#     make demo         install what training needs, train the judge, say where the results are
#     make test         install everything for developers, then lint, types and tests
#
# and, for a checkout that is set up:
#
#     make lint         style only                          make format    let ruff rewrite the files
#     make types        types only                          make docs      the documentation, in site/
#     make test-slow    the tests that take minutes         make kernels   compile the C++ kernels again
#     make test-gpu     the tests that need a GPU           make bench     measure beside TRL (long; see bench/)
#     make clean        remove everything that was made
#
# Variables: PYTHON (interpreter of the environment), VENV (its folder), TORCH_INDEX (a package index to take torch
# from, such as PyTorch's index of CPU builds: on Linux the default build carries CUDA and is several times larger),
# ARGS (settings of the demo, such as train.steps=5), JOBS (processes that test at once; as many as cores).

SHELL := /bin/sh
PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
ARGS ?=
JOBS ?= $(shell nproc 2>/dev/null || echo 1)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

SOURCES := $(wildcard ratchet/kernels/native/*.cpp ratchet/kernels/native/*.hpp)
SETTINGS := pyproject.toml constraints.txt hatch_build.py

# Stamps: what was installed last, so that a second `make demo` trains at once.
CORE := $(VENV)/.ratchet-core
DEV := $(VENV)/.ratchet-dev
DOCS := $(VENV)/.ratchet-docs
BENCH := $(VENV)/.ratchet-bench

# pip shows its bars on a terminal and says only what went wrong elsewhere.
QUIET = $$(test -t 1 || echo --quiet)

.PHONY: demo test test-slow test-gpu lint types format docs bench kernels clean help

help:
	@sed -n '1,18s/^# \{0,1\}//p' Makefile

demo: $(CORE)
	@$(BIN)/ratchet train judge $(ARGS)

# All three run even if one fails; the last line then says which.
test: $(DEV)
	@failed=; \
	$(MAKE) --no-print-directory lint || failed="$$failed lint"; \
	$(MAKE) --no-print-directory types || failed="$$failed types"; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m "not slow and not gpu" || failed="$$failed tests"; \
	if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi

test-slow: $(DEV)
	$(BIN)/python -m pytest -m slow

test-gpu: $(DEV)
	$(BIN)/python -m pytest -m gpu

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV)
	$(BIN)/mypy

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DOCS)
	$(BIN)/python docs/make_config.py --check docs/configuration.md
	$(BIN)/python -m ratchet.core.metric | diff - docs/metrics.md
	$(BIN)/python -m ratchet.logs | diff - docs/foreign-keys.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(BENCH)
	$(BIN)/python bench/step.py

kernels: $(CORE)
	$(BIN)/python hatch_build.py

clean:
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f ratchet/kernels/native/ratchet_*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(CORE): $(SETTINGS) $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Ratchet needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
	    echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@echo "1/3  virtual environment in $(VENV)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "2/3  torch (the large one: 200 MB or more)"
	@$(PIP) install $(QUIET) -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	@echo "3/3  ratchet and the rest; compiles the C++ kernels if there is a compiler"
	@$(PIP) install $(QUIET) -c constraints.txt -e .
	@$(BIN)/python -c 'from ratchet.kernels.native import why_not; print("     kernels:", why_not() or "native")'
	@touch $@

# Ratchet itself is installed by now, so these add only the libraries of an extra and compile nothing again.
$(DEV): $(CORE)
	@echo "     developers' tools and the optional libraries"
	@$(PIP) install $(QUIET) -c constraints.txt "ratchet[dev]"
	@touch $@

$(DOCS): $(CORE)
	@echo "     documentation tools"
	@$(PIP) install $(QUIET) -c constraints.txt "ratchet[docs]"
	@touch $@

$(BENCH): $(CORE)
	@echo "     what the benchmarks compare with"
	@$(PIP) install $(QUIET) -c constraints.txt "ratchet[bench]"
	@touch $@
