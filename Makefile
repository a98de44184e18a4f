# Two commands on a fresh machine with Python and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test sweep lint clean

demo: $(VENV)/.installed
	$(BIN)/metric-zoo demo --out build/demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest

# Every registered architecture, about three hours on 2 cores; it goes on where it was interrupted.
sweep: $(VENV)/.installed
	$(BIN)/metric-zoo conversion sweep --out docs

lint: $(VENV)/.installed
	$(BIN)/pip install --quiet ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# torch and torchvision come in ONE resolution, so that the registry's newest matching pair is chosen.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build
