# Two commands matter: `make up` serves, `make test` passes the tests.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
export FREEHOLD_HOME ?= $(HOME)/.freehold
HOST   ?= 127.0.0.1
PORT   ?= 8080

.PHONY: up install install-dev install-all test test-all lint bench lock clean

up: install
	@exec $(BIN)/freehold up --host $(HOST) --port $(PORT)

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

install-all: $(VENV)/.installed-all

$(VENV)/.installed: requirements/base.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Freehold needs Python 3.11 or newer: run make with PYTHON=python3.12, say." if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q --require-hashes -r requirements/base.lock
	$(BIN)/pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements/dev.lock
	$(BIN)/pip install --disable-pip-version-check -q --require-hashes -r requirements/dev.lock
	@touch $@

$(VENV)/.installed-all: $(VENV)/.installed-dev requirements/all.lock
	$(BIN)/pip install --disable-pip-version-check -q --require-hashes -r requirements/all.lock
	@touch $@
