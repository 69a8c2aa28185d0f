PYTHON ?= python3
BIN := .venv/bin
# torch's two threads wait for each other by spinning, for long. On a machine that does anything else as well, a step of
# the demo then takes up to five times as long; with a short spin it is as fast on a free machine.
export GOMP_SPINCOUNT ?= 1000
CONFIG ?= examples/configs/digits.yaml
# Overrides of the configuration, such as DEMO="--training.steps 10 --run runs/short".
DEMO ?=

.PHONY: demo test lint unit docs packages install clean

# Train a class-conditional SiT on 8 x 8 digits, sample by ODE and SDE, and measure the samples: runs/digits/.
demo: install
	$(BIN)/python examples/train.py --config $(CONFIG) $(DEMO)
	$(BIN)/python examples/sample.py --config $(CONFIG) --sampling.num_samples 1000 $(DEMO)
	$(BIN)/python examples/evaluate_digits.py --config $(CONFIG) --sampling.num_samples 1000 $(DEMO)

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

# The documentation, whose pages run as they are built; a warning is an error. Open build/docs/index.html.
docs: install
	$(BIN)/sphinx-build -W --keep-going -j auto -q docs build/docs

# Both distributions as wheels and sdists, tried in empty environments with the oldest and newest Python and torch.
packages: install
	$(BIN)/python packaging/check.py

install: .venv/installed

# constraints.txt names all that is installed, so that pip has nothing to search for; whether it is all, pip check says.
.venv/installed: pyproject.toml packaging/training/pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--requirement constraints.txt --editable . --editable packaging/training
	$(BIN)/python -m pip check
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info
