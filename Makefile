# make demo: see BYOL learn in two minutes.   make test: everything that is checked.   make check: style and types.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

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

bench: $(VENV)/.tools
	@$(BIN)/python -m pip install --quiet --editable ".[bench]"
	@$(BIN)/python benchmarks/views.py

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
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache
