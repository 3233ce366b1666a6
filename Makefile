# Each goal does its own set-up on a fresh machine; PYTHON=python3.12 chooses another interpreter.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
# One torch thread a process: two pytest workers then share two cores without fighting over them.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
WORKERS ?= 2

.PHONY: setup test test-all lint study bench clean
.DELETE_ON_ERROR:

setup: $(READY)

# The exact pins matter most for torch: a looser request can fetch gigabytes of GPU libraries.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "pip>=25.1"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e . --group dev
	@touch $@

test: $(READY) lint
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n $(WORKERS)

test-all: $(READY) lint
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n $(WORKERS) -m "not gpu"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

study: $(READY)
	$(BIN)/openwork study

bench: $(READY)
	$(BIN)/python bench/overhead.py
	$(BIN)/python bench/architectures.py
	$(BIN)/python bench/sweeps.py

clean:
	rm -rf .pytest_cache .ruff_cache .hypothesis build dist
