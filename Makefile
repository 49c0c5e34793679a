# Two commands on a fresh machine: `make demo` and `make test`. Each sets up what it needs in .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13)
# Tests wait as much as they compute: so many processes share them, a file of tests to one of them.
TEST_PROCESSES ?= 2
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
# Bytecode caches halve the start of every Ray process.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint bench clean setup
.DELETE_ON_ERROR:

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,tracking]'
	touch $@

demo: $(INSTALLED)  ## the whole main job on a seeded synthetic archive: page in build/demo/report.html
	$(RUN) jobs/demo.py --folder build/demo

test: $(INSTALLED)  ## every test, on TEST_PROCESSES=2; those on real sample archives skip where there are none
	$(RUN) -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile \
		--no-loadscope-reorder

lint: $(INSTALLED)  ## style and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright

bench: $(INSTALLED)  ## side by side against the peers; writes docs/performance.md
	$(RUN) tests/benchmarks/run_all.py --output docs/performance.md

clean:  ## everything that can be made again
	rm -rf $(VENV) build .pytest_cache .ruff_cache .hypothesis *.egg-info
