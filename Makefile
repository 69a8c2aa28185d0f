PYTHON ?= python3
BIN := .venv/bin
CONFIG ?= examples/configs/digits.yaml
# Overrides of the configuration, such as DEMO="--training.steps 10 --run runs/short".
DEMO ?=

.PHONY: demo test lint unit install clean

# Train a class-conditional SiT on 8 x 8 digits, sample by ODE and SDE, and measure the samples: runs/digits/.
demo: install
	$(BIN)/python examples/train.py --config $(CONFIG) $(DEMO)
	$(BIN)/python examples/sample.py --config $(CONFIG) $(DEMO)
	$(BIN)/python examples/evaluate.py --config $(CONFIG) $(DEMO)

test: lint unit

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/codespell

unit: install
	$(BIN)/python -m pytest -n auto

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev]" --constraint constraints.txt
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info
