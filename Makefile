# What a person types more than once. Needs Python >= 3.11 and make; nothing is installed outside .venv.
#
#   make demo    install hone and watch the whole story on the embedded model
#   make test    install the tools, run every check and every test
#   make check   the quick part of it: lint, format, types, arrows
#   make bench   the measurements behind the numbers in the README
#
# PYTHON=... names the interpreter, WORKERS=... the number of test processes.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= 2
# One thread a process: two processes on two cores that each start two threads are slower than one.
QUIET := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

.DEFAULT_GOAL := help
.PHONY: help demo test check bench format clean

help:
	@sed -n 's/^#   //p' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.base
	@$(BIN)/hone demo

test: check
	$(QUIET) $(BIN)/pytest -n $(WORKERS)

check: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev
	@for name in startup sft dpo grpo infer; do echo "== $$name"; HF_HUB_OFFLINE=1 $(BIN)/python -m bench.$$name || exit 1; done

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist

# The files below say what is installed, so that a second call has nothing to do.

$(VENV)/.base: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $(VENV)/.base $@

$(VENV)/.created:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14 python; do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "creating $(VENV) with $$($$python --version)"; \
	    $$python -m venv $(VENV) && touch $@; exit; \
	  fi; \
	done; \
	echo "hone needs Python 3.11 or newer with its venv module, and found none on the PATH." >&2; \
	echo "Install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python)," >&2; \
	echo "or name the one that you have: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
	exit 1
