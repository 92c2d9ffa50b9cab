# Every command of this project. `make` alone lists them.
#
# The first one makes .venv from the exact versions in .requirements/dev.txt and builds the native kernel
# into it (or, without a Rust compiler, says so and goes on with the pure one). SYNCD_KERNEL=native insists
# on the compiler, SYNCD_KERNEL=pure leaves it alone.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
CARGO := cargo
MANIFEST := --manifest-path native/Cargo.toml --locked
# The Rust tests and lints of the Python module ask an interpreter for its version: ours, not any on PATH.
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python

RUST_SOURCES := $(shell find native -path native/target -prune -o \( -name '*.rs' -o -name Cargo.toml -o -name Cargo.lock \) -print 2>/dev/null)
HAVE_RUST = [ "$${SYNCD_KERNEL:-auto}" != pure ] && $(BIN)/python native/build_backend.py --rust

.PHONY: FORCE help setup venv lock check test demo bench-quick bench torture docs clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: $(VENV)/.installed ## make .venv and build the native kernel into it
venv: setup

$(VENV)/.tools: .requirements/dev.txt
	@echo "== .venv: exact versions of tools and libraries"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r .requirements/dev.txt
	@touch $@

# Which body is to be built. Only a change from pure to native builds anew: a native package can run pure, too.
$(VENV)/.body: $(VENV)/.tools FORCE
	@body=$$($(BIN)/python native/build_backend.py --body); \
	if [ ! -e $@ ] || { [ "$$body" = native ] && [ "$$(<$@)" != native ]; }; then echo "$$body" >$@; fi

# The build is said aloud first: pip hides what a build backend prints.
$(VENV)/.installed: $(VENV)/.tools $(VENV)/.body pyproject.toml native/build_backend.py $(RUST_SOURCES)
	@$(BIN)/python native/build_backend.py
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

lock: ## renew .requirements/dev.txt and native/Cargo.lock
	@rm -rf $(VENV)/lock && $(PYTHON) -m venv $(VENV)/lock
	@$(VENV)/lock/bin/pip install --quiet --disable-pip-version-check uv
	@$(VENV)/lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev --no-header \
	  --no-emit-index-url --no-emit-find-links --output-file .requirements/dev.txt pyproject.toml
	@rm -rf $(VENV)/lock
	@cd native && $(CARGO) update

check: $(VENV)/.tools ## all static checks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	@if $(HAVE_RUST); then $(MAKE) check-rust; else echo "*** SKIPPED: cargo fmt, clippy and doc ***" >&2; fi

.PHONY: check-rust
check-rust:
	$(CARGO) fmt --manifest-path native/Cargo.toml --all --check
	$(CARGO) clippy $(MANIFEST) --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(MANIFEST) --workspace --no-deps --quiet

test: $(VENV)/.installed ## the whole suite: native and pure kernel, uvloop and asyncio, cargo test
	@if $(BIN)/python -c 'import syncd._native' 2>/dev/null; then \
	  export SYNCD_KERNEL=native; \
	  echo "== whole suite: native kernel, uvloop"; $(BIN)/pytest -n $(JOBS) -m "not slow"; \
	  echo "== tests marked kernel: pure kernel"; SYNCD_KERNEL=pure $(BIN)/pytest -n $(JOBS) -m "kernel and not slow"; \
	elif $(HAVE_RUST); then \
	  echo "*** Rust is here, but the native kernel cannot be imported: make clean setup ***" >&2; exit 1; \
	else \
	  export SYNCD_KERNEL=pure; \
	  echo "*** no native kernel in .venv: the whole suite runs on the pure one ***" >&2; \
	  $(BIN)/pytest -n $(JOBS) -m "not slow"; \
	fi; \
	echo "== tests marked loop: asyncio"; SYNCD_LOOP=asyncio $(BIN)/pytest -n $(JOBS) -m "loop and not slow"
	@if $(HAVE_RUST); then echo "== cargo test"; $(CARGO) test $(MANIFEST) --workspace --exclude syncd-py --quiet; \
	else echo "*** SKIPPED: cargo test ***" >&2; fi

demo: $(VENV)/.installed ## mirror a real tree, edit it while you watch, print the lag of each edit
	@$(BIN)/python -m bench.demo

bench-quick: $(VENV)/.installed ## the speed table in at most 5 minutes
	@$(BIN)/python -m bench.run --quick

bench: $(VENV)/.installed ## the speed table in full, saved in bench/results/
	@$(BIN)/python -m bench.run --save

torture: $(VENV)/.installed ## ten minutes of load that ends equal, then the long runs
	@$(BIN)/pytest -n 0 --timeout 1200 -m torture tests/torture
	@$(BIN)/pytest -n 0 --timeout 1200 -m "slow and not torture"

docs: $(VENV)/.installed ## renew docs/cli.md and the exit codes
	@$(BIN)/python docs/gen_cli.py

clean: ## remove everything that was built
	rm -rf $(VENV) native/target build dist .hypothesis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find syncd -name '_native*.so' -delete
	find syncd tests bench docs native -name __pycache__ -prune -exec rm -rf {} +
