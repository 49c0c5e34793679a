# Two commands on a fresh machine: `make demo` and `make test`. Each sets up what it needs in .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13)
# Tests wait as much as they compute. Each file of tests runs in one of this many processes.
TEST_PROCESSES ?= 2
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
# Bytecode caches halve the start of every Ray process.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test quick lint bench clean setup
.DELETE_ON_ERROR:

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,tracking]'
	touch $@

demo: $(INSTALLED)  ## the whole main job on a seeded synthetic archive: page in build/demo/report.html
	$(RUN) jobs/demo.py --folder build/demo

PYTEST := $(RUN) -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

test: $(INSTALLED)  ## every test; tests on real sample archives skip if there are none
	$(PYTEST)

quick: $(INSTALLED)  ## tests that need neither Ray nor a server nor a training, in under 90 seconds
	$(PYTEST) -m 'not services and not slow'

lint: $(INSTALLED)  ## style and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright

bench: $(INSTALLED)  ## side by side against the peers; writes docs/performance.md
	$(RUN) tests/benchmarks/run_all.py --output docs/performance.md

clean:  ## everything that can be made again
	rm -rf $(VENV) build .pytest_cache .ruff_cache .hypothesis *.egg-info
