# Two commands matter: `make up` serves, `make test` passes the tests.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
export FREEHOLD_HOME ?= $(HOME)/.freehold
HOST   ?= 127.0.0.1
PORT   ?= 8080

.PHONY: up install install-dev test test-all lint bench lock clean

up: install
	@exec $(BIN)/freehold up --host "$(HOST)" --port "$(PORT)"

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

$(VENV)/.installed: requirements/base.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Freehold needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Run: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked dependencies into $(VENV) ..."
	@$(PIP) install -q --require-hashes -r requirements/base.lock
	@$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements/dev.lock
	@echo "Installing what the tests need ..."
	@$(PIP) install -q --require-hashes -r requirements/dev.lock
	@touch $@

test: install-dev lint
	$(BIN)/python -m pytest -m "not slow"

test-all: install-dev lint
	$(BIN)/python -m pytest

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install-dev
	$(BIN)/python bench/gateway.py
	$(BIN)/python bench/streams.py
	$(BIN)/python bench/engine_overhead.py
	$(BIN)/python bench/memory.py

# Maintainers: needs `uv` on the PATH.
LOCK := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links
lock:
	$(LOCK) --extra dev --extra clients pyproject.toml -o requirements/dev.lock
	$(LOCK) --extra build -c requirements/dev.lock pyproject.toml -o requirements/base.lock

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
