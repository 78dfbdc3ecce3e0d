# `make demo` shows the main job, `make test` runs every check. Both make the environment first if need be.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint unit docs install clean

demo: $(VENV)/.installed
	$(BIN)/upchirp compare --data generated --model resnet10t --model-kwargs channels=[64,128,256,256] \
		--final-size 96 --recipe light --randaug-layers 0 --lr 2e-3 --epochs 5 --batch-size 64 \
		--log-interval 50 --evaluations 5 \
		--curricula constant efficienttrain_plus_plus --budgets 0.5 --seeds 0 \
		--output runs/demo-$$(date +%Y%m%d-%H%M%S)

# Types are checked, which takes one process a minute, while two others run the tests.
test: $(VENV)/.tested
	$(MAKE) -j2 lint unit

lint: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

unit: $(VENV)/.tested
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Every page and every public name as HTML; warnings are errors.
docs: $(VENV)/.tested
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build

install: $(VENV)/.installed

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.tested: pyproject.toml | $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build dist docs/_build docs/reference docs/reference.rst docs/results.md .pytest_cache .mypy_cache .ruff_cache
