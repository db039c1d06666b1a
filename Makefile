# Two commands matter: `make up` serves, `make test` passes the tests.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
export FREEHOLD_HOME ?= $(HOME)/.freehold
HOST   ?= 127.0.0.1
PORT   ?= 8080
# Tests run in several processes; tests/spread.py says which belong together.
# Much of it is waiting, so that there may be more of them than cores.
TEST_PROCESSES ?= 3
# Tests start hundreds of commands, which begin sooner where compiled code is kept.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := $(BIN)/python -m pytest -p no:langsmith_plugin -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

TUNE   := .venv-tune

# An environment, and what is locked for it. All cores compile it, where pip does with one; files
# of some packages are no Python, which is theirs to know.
define LOCKED
@$(1)/bin/python -m pip --disable-pip-version-check install -q --no-deps --no-compile --require-hashes -r $(2)
@$(1)/bin/python -m compileall -qq -j 0 $(1)/lib > /dev/null || true
endef

.PHONY: up install install-dev test test-all test-tune test-vllm lint bench lock clean

up: install
	@exec $(BIN)/freehold up --host "$(HOST)" --port "$(PORT)"

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

$(VENV)/.installed: requirements/base.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Freehold needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Run: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked dependencies into $(VENV) ..."
	$(call LOCKED,$(VENV),requirements/base.lock)
	@$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements/dev.lock
	@echo "Installing what the tests need ..."
	$(call LOCKED,$(VENV),requirements/dev.lock)
	@touch $@

test: install-dev lint
	$(PYTEST) -m "not slow"

test-all: install-dev lint test-tune
	$(PYTEST)

# Training, and what it is compared with, in an environment of its own: PyTorch is large.
test-tune: $(TUNE)/.installed
	OMP_WAIT_POLICY=PASSIVE $(TUNE)/bin/python -m pytest tests/tune

$(TUNE)/.installed: requirements/tune.lock pyproject.toml
	@test -x $(TUNE)/bin/python || $(PYTHON) -m venv $(TUNE)
	@echo "Installing PyTorch and what training is compared with into $(TUNE) ..."
	$(call LOCKED,$(TUNE),requirements/tune.lock)
	@$(TUNE)/bin/python -m pip --disable-pip-version-check install -q --no-deps --no-build-isolation -e .
	@touch $@

# With vLLM: FREEHOLD_TEST_VLLM_PYTHON names an interpreter that has it (its CPU build does),
# FREEHOLD_TEST_VLLM_MODEL a folder that tests/contract/engines/vllm_checkpoint.py made.
test-vllm: install-dev
	@test -x "$(FREEHOLD_TEST_VLLM_PYTHON)" -a -d "$(FREEHOLD_TEST_VLLM_MODEL)" || { echo "Set FREEHOLD_TEST_VLLM_PYTHON and FREEHOLD_TEST_VLLM_MODEL: see the Makefile."; exit 1; }
	$(BIN)/python -m pytest tests/contract tests/engines/vllm -k vllm

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
	$(BIN)/python bench/patterns.py
	$(BIN)/python bench/multi_adapter.py
	$(BIN)/python bench/step_profile.py
	$(BIN)/python bench/audit.py
	$(BIN)/python bench/budgets.py
	$(BIN)/python bench/authorization.py
	$(BIN)/python bench/simulate.py
	$(BIN)/python bench/plot.py

# Maintainers: needs `uv` on the PATH.
LOCK := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links
lock:
	$(LOCK) --extra dev --extra clients pyproject.toml -o requirements/dev.lock
	$(LOCK) --extra dev --extra tune --extra tune-trl -c requirements/dev.lock pyproject.toml -o requirements/tune.lock
	$(LOCK) --extra build -c requirements/dev.lock pyproject.toml -o requirements/base.lock

clean:
	rm -rf $(VENV) $(TUNE) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
