# make quickstart: set up and compare the families on the embedded dataset.   make test: set up and run every test.
# make check: unit tests, lint and types.
# Needs Python 3.11 or newer and make; PYTHON=python3.12 chooses another one.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS = --numprocesses $$($(BIN)/python -c 'import os; print(min(4, os.cpu_count() + 1))')

.PHONY: quickstart test check lint docs gate bench demo clean

quickstart: $(STAMP)
	$(BIN)/harness quickstart

# several tests at a time, each with one thread; one more than cores, since some wait for processes of their own
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder $(WORKERS)

# unit tests, lint and types, without torch
check: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/unit -m 'not slow' --dist loadfile --no-loadscope-reorder $(WORKERS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python scripts/check_language.py harness scripts tests
	$(BIN)/mypy --strict harness

# the documentation, into site/; a broken link or an unknown name is an error
docs: $(STAMP)
	DISABLE_MKDOCS_2_WARNING=true NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# two evaluations at a time, each with one thread; needs xquad in HARNESS_DATA, and Python 3.11.7 for the baseline's stdlib
gate: $(STAMP)
	$(BIN)/harness experiment=ci hydra/launcher=joblib hydra.launcher.n_jobs=2
	$(BIN)/harness gate --junit gate.xml

# the harness and other tools in turn, growth to a million documents, then the tables of docs/explanation/benchmarks.md
# (without the long tests of the gate's load and of kills)
bench: $(STAMP)
	@mkdir -p .benchmarks
	$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-json .benchmarks/bench.json \
	  --ignore tests/benchmarks/test_gate_load.py --ignore tests/benchmarks/test_kill_many.py
	$(BIN)/python scripts/benchmark_tables.py .benchmarks/bench.json
	$(BIN)/python scripts/generated_blocks.py speed ratios growth

# measure the demo leaderboard in results/demo/ anew, in place of its records; needs Chromium and the datasets of
# conf/experiment/demo.yaml, which are downloaded unless they are in HARNESS_DATA
demo: $(STAMP)
	rm -rf results/demo
	$(BIN)/harness experiment=demo resume=false
	$(BIN)/python scripts/generated_blocks.py quickstart python leaderboard
	$(BIN)/python scripts/make_screenshot.py

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, this is $$($(PYTHON) --version); try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@touch $@

clean:
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache
