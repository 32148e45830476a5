# Towline's house. `make help` says what there is; every target sets up what it needs first.
#
# The tools live in a virtual environment that is made on demand. To use one that exists:
#   make check VENV=/path/to/venv VENV_READY=
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(firstword $(shell command -v python3.11) python3)
VENV ?= .venv
VENV_READY ?= $(VENV)/.ready
BIN := $(VENV)/bin

export PATH := $(abspath $(BIN)):$(PATH)
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
export PYTHONUNBUFFERED := 1

# How much is tried. The tests read these from the environment (docs/testing.md):
#   TOWLINE_SIM_SEEDS     three-site simulations, one a seed
#   TOWLINE_CRASH_POINTS  device operations after which a site loses power
#   TOWLINE_KILLS         kill -9 of a replicator under verified load
#   TOWLINE_SYNC_KILLS    kill -9 of a primary with a sync link, then a seal, in each topology
CHECK_COUNTS := TOWLINE_SIM_SEEDS=40 TOWLINE_CRASH_POINTS=3000 TOWLINE_KILLS=3 \
    TOWLINE_SYNC_KILLS=2
TEST_COUNTS := TOWLINE_SIM_SEEDS=5400 TOWLINE_CRASH_POINTS=100000 TOWLINE_KILLS=100 \
    TOWLINE_SYNC_KILLS=25
SOAK_COUNTS := TOWLINE_SIM_SEEDS=20000 TOWLINE_CRASH_POINTS=1000000 TOWLINE_KILLS=1000 \
    TOWLINE_SYNC_KILLS=1000 TOWLINE_VERIFY_SECONDS=3600

QUICK_TESTS := $(wildcard tests/unit tests/property)
DEEP_TESTS := $(wildcard tests/model tests/sim tests/embedded)

.PHONY: help demo lab lab-down check test claims soak bench lint fix test-quick test-deep test-vm venv

help: ## Say what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort -u \
	    | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

venv: $(VENV_READY) ## Make the virtual environment (every target does, when it is missing)

$(VENV)/.ready: pyproject.toml
	if ! $(PYTHON) -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
	    echo "make: $(PYTHON) is older than 3.11 or has no venv module: apt-get install python3-venv" >&2
	    exit 17
	fi
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[dev,lab,lio]'
	touch $@

lint: $(VENV_READY) ## Check style, types, layers, YAML and playbooks
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-cache
	yamllint --strict .
	if ls playbooks/*.yml >/dev/null 2>&1; then
	    ansible-lint --offline --strict --profile production -q
	fi

fix: $(VENV_READY) ## Put right what the linters can put right themselves
	ruff check --fix .
	ruff format .

check: lint test-quick ## Everything that needs no VM, with small counts (under 5 minutes)
	$(CHECK_COUNTS) python -m pytest -m 'not slow and not vm' $(DEEP_TESTS)

# test-vm joins `test` when it has been green from nothing on a machine of its own (docs/testing.md).
test: lint test-quick test-deep ## Everything that needs no VM, with the counts of a release (CI)

test-quick: $(VENV_READY)
	python -m pytest -m 'not vm' $(QUICK_TESTS)

test-deep: $(VENV_READY)
	$(TEST_COUNTS) python -m pytest -m 'not vm and not soak' $(DEEP_TESTS)

test-vm:: $(VENV_READY)

claims: $(VENV_READY) ## Run every test that docs/claims.md names; fails if a claim is not shown
	$(CHECK_COUNTS) python -m tools.claims

soak: $(VENV_READY) ## The long run: ten times the counts of test, an hour of load
	$(SOAK_COUNTS) python -m pytest -m 'not vm' $(DEEP_TESTS)

# demo, bench (embedded.mk), lab, lab-down, test-vm (lab.mk) have their own files.
include $(wildcard tools/*.mk)
