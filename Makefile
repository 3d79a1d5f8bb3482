# `make run` is the whole experiment; `make test` is everything a change must pass.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TINKER_STAMP := $(VENV)/.installed-tinker
TINKER_TESTS ?= tinker

.PHONY: run install check test test-slow test-tinker fuzz real bench clean

run: install
	$(BIN)/cai-base run

install: $(STAMP)

# torch first and alone: any other package that asks for it would bring the CUDA build along.
$(STAMP): pyproject.toml constraints.txt
	@echo "Installing into $(VENV), a few minutes. 1 of 2: PyTorch"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt torch
	@echo "2 of 2: cai-base and what else it needs"
	@$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/supply-chain --check
	$(BIN)/python scripts/audit

# Two processes of one thread each: threads of two processes on two cores wait for each other. A test that does not end
# when its time limit (600 s) is over shows where it waits, and the suite fails.
test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder \
	  --max-worker-restart 0 -o faulthandler_timeout=720 -o faulthandler_exit_on_timeout=true

test-slow: install
	$(BIN)/pytest -m 'slow and not tinker' --timeout 3600

# Nine times as many malformed inputs as in the default suite: docs/faults.md has their number.
fuzz: install
	CAI_BASE_FUZZ=9 $(BIN)/pytest tests/fuzz

$(TINKER_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,tinker]'
	touch $(TINKER_STAMP)

# On a real Tinker-API server on this machine, whose environment (2.3 GB, under ~/.cache/cai-base) is kept between runs.
# With TINKER_TESTS='tinker and not slow' without the two sweeps that kill it, and us, in every phase.
test-tinker: $(TINKER_STAMP)
	PYTHON=$(PYTHON) scripts/tinker-server install
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/tinker -m '$(TINKER_TESTS)' --numprocesses 2 --dist loadfile --timeout 3600

# On a real base model, a 270M Gemma whose packages are installed here (450 MB): docs/real-base-model.md.
real: install
	scripts/real install
	scripts/real run --accept judge,power,critique

# Beside TRL, PEFT and generate; benchmarks/RESULTS.md. On a GPU: python benchmarks/gpu.py --out FOLDER.
bench: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/cpu.py
	$(BIN)/python benchmarks/write_results.py

clean:
	rm -rf $(VENV) build dist
