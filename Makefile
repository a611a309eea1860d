# make quickstart: set up and compare the families on the embedded collection.   make test: set up and run every test.
# Needs Python 3.11 or newer and make; PYTHON=python3.12 chooses another one.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: quickstart test lint docs gate bench board clean

quickstart: $(STAMP)
	$(BIN)/harness quickstart

# several tests at a time, each with one thread; one more than cores, since some wait for processes of their own
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder \
	  --numprocesses $$($(BIN)/python -c 'import os; print(min(4, os.cpu_count() + 1))')

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict harness

# the documentation, into site/; a broken link or an unknown name is an error
docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

# two cells at a time, each with one thread; needs the collections of conf/experiment/ci.yaml in HARNESS_DATA
gate: $(STAMP)
	$(BIN)/harness experiment=ci hydra/launcher=joblib hydra.launcher.n_jobs=2
	$(BIN)/harness gate --junit gate.xml

# ours and the peers in turn, growth to a million documents; then the README's tables (without the long loads and kills)
bench: $(STAMP)
	@mkdir -p .benchmarks
	$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-json .benchmarks/bench.json \
	  --ignore tests/benchmarks/test_gate_load.py --ignore tests/benchmarks/test_kill_many.py
	$(BIN)/python scripts/bench_blocks.py .benchmarks/bench.json
	$(BIN)/python scripts/bench_blocks.py

# what was measured on this machine already is not measured again
board: $(STAMP)
	$(BIN)/harness experiment=board
	$(BIN)/harness report --results results/board --baseline bm25 --readme README.md
	$(BIN)/harness report --results results/board --only svg

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, this is $$($(PYTHON) --version); try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache
