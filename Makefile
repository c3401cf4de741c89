# The one entry point. `make` or `make help` lists what there is.

# Only to run tools/bootstrap.py, which looks for the best Python itself: any 3.11 or newer will do.
PYTHON ?= python3
BIN := .venv/bin
BOOTSTRAP := $(PYTHON) tools/bootstrap.py
CODE := airflow_vertex_batch dags stack tests tools
UV := .local/uv/bin/uv
# Three processes of tests drive a real Airflow each, and mostly wait. T="-n 0": one after the other, as for a debugger.
SIDE_BY_SIDE := -n 4 --no-loadscope-reorder
COMPILE := $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --custom-compile-command "make lock" $(LOCK_FLAGS)

.DEFAULT_GOAL := help
.PHONY: help demo up test fast fuzz stateful clock chaos faults matrix wheel prices api check fix bench lock environment clean

help: ## list the targets and variables
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo
	@echo '  PYTHON=python3.13       the Python (3.11 or newer) that runs tools/bootstrap.py'
	@echo '  ONCE=1                  make demo: exit when all days have landed, instead of staying up'
	@echo '  MODEL=deterministic     make demo: made-up answers at once, instead of those of the local model'
	@echo '  PORT_AIRFLOW=8080       where the UI listens; PORT_STORAGE, PORT_BIGQUERY, PORT_BIGQUERY_GRPC, PORT_VERTEX alike'
	@echo '  T="-k shard -x"         make test, make fast: arguments for pytest'

demo: ## the nightly job for three days, in a real Airflow on this machine (ONCE=1: exit afterwards)
	@$(BOOTSTRAP) bigquery model
	@ONCE=$(ONCE) MODEL=$(MODEL) $(BIN)/python -m stack.demo

up: ## the servers alone (Cloud Storage, BigQuery, Vertex AI, Airflow with dags/), until Ctrl-C
	@$(BOOTSTRAP) bigquery
	@$(BIN)/python -m stack

test: ## all tests, in an environment of their own
	@$(BOOTSTRAP) --optional bigquery
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(T)

fast: environment ## the tests that need no server: core and properties
	@$(BIN)/python -m pytest -q $(wildcard tests/core tests/properties) $(T)

fuzz: environment ## lint against the emulator's importer over 100,000 generated lines (F="--lines 1000000 --seed 7")
	@$(BIN)/python -m tests.fuzz $(F)

stateful: environment ## ten thousand random nights of retries, crashes and faults (S="--nights 1000")
	@$(BIN)/python -m tests.properties $(S)

clock: environment ## all tests with the clock moved by days (DAYS=+400, DAYS=-40@23:40: from that hour, UTC; T="tests/airflow -k runs")
	@$(BIN)/python -m tests.moved_clock $(DAYS) $(SIDE_BY_SIDE) $(T)

chaos: environment ## the chaos table: kills after every effect in every mode; writes docs/chaos.md
	@CHAOS=all CHAOS_DOC=1 $(BIN)/python -m pytest tests/airflow/test_chaos.py $(T)

faults: ## the fault table: each fault at each call of a batch; writes docs/faults.md (F="404 once": a kind)
	@$(BOOTSTRAP) bigquery
	@FAULTS="$(or $(F),all)" FAULTS_DOC=1 $(BIN)/python -m pytest tests/faults -o log_cli=true -o log_cli_level=INFO $(T)

matrix: environment ## the edge's tests on Airflow 3.1 to 3.3, two Pythons, newest and oldest dependencies (M="--live"); writes docs/compatibility.md
	@$(BIN)/python -m tools.matrix $(M)

wheel: environment ## sdist and wheel: built, checked, installed in an empty environment, and tried there
	@$(BIN)/python -m tools.wheel

check: environment ## lint, format, types, layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

fix: environment ## repair what ruff can repair
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

prices: environment ## our prices and models against LiteLLM's newest price map: each difference, explained or not
	@$(BIN)/python -m tools.prices $(P)

api: environment ## our tables of the API against Google's newest clients: each difference, explained or not
	@$(BIN)/python -m tools.api

bench: environment ## import times, throughput and memory, compared with the Google provider
	@$(BIN)/python -m bench

lock: environment ## compile requirements/*.in into *.txt (LOCK_FLAGS=--upgrade: to the newest versions)
	@$(COMPILE) pyproject.toml requirements/dev.in --extra local --extra emulator --python-version 3.11 -o requirements/dev.txt
	@$(COMPILE) requirements/local-model.in --no-deps --python-version 3.11 -o requirements/local-model.txt
	@$(COMPILE) requirements/local-bigquery.in --override requirements/local-bigquery.overrides --python-version 3.13 -o requirements/local-bigquery.txt
	@$(COMPILE) requirements/uv.in --python-version 3.11 -o requirements/uv.txt
	@! grep -nE 'https?://' requirements/*.txt || (echo 'a lock file names a registry' && exit 1)

environment:
	@$(BOOTSTRAP)

clean: ## delete the environments, caches and the local servers' data
	rm -rf .venv .local .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
