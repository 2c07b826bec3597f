# make demo: see BYOL learn in a few minutes.   make test: everything that is checked.   make check: style and types.
# make bench: every speed beside other libraries' (about half an hour), and docs/results.md from it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
BENCHMARKS := views views_on_device step evaluation epoch start_up pixel_memory scaling

.PHONY: demo test check bench clean

demo: $(VENV)/.installed
	@$(BIN)/byol demo

test: $(VENV)/.tools
	@$(BIN)/python -m pytest -n auto --dist loadfile -m "not gpu"

check: $(VENV)/.tools
	@$(BIN)/ruff check src tests benchmarks
	@$(BIN)/ruff format --check src tests benchmarks
	@$(BIN)/mypy
	@$(BIN)/python -m pytest tests/test_layers.py

bench: $(VENV)/.tools $(PEERS)/.installed
	@set -e; for name in $(BENCHMARKS); do echo "benchmarks/$$name.py"; $(BIN)/python benchmarks/$$name.py; done
	@$(BIN)/python benchmarks/report.py

# What we compare with, in an environment of its own: it may want other versions than we do.
$(PEERS)/.installed:
	@echo "Installing lightly and byol-pytorch into $(PEERS): PyTorch again, a few minutes the first time."
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check "lightly>=1.5" "byol-pytorch>=0.8"
	@touch $@

$(VENV)/.installed: pyproject.toml
	@echo "Installing into $(VENV): PyTorch and what it needs, a few minutes the first time."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.tools: $(VENV)/.installed pyproject.toml
	@echo "Installing what tests and checks need."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test,check]"
	@touch $@

clean:
	rm -rf $(VENV) $(PEERS) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache
