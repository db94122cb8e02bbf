# `make demo` and `make test` each work as the only command on a fresh clone; both use the same .venv.

PYTHON ?= python3

VENV := .venv
LIGHT := .venv-light
LEGACY := .venv-legacy
PIP := -m pip --disable-pip-version-check --no-input install --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test lint types pytest test-light test-vendor-headers test-exactness test-legacy bench lutnet-synth approx-costs docs clean

help:
	@echo "make demo                 convert, compile and check a small network"
	@echo "make test                 lint, types and all tests"
	@echo "make test-light           the tests of an installation without TensorFlow, in $(LIGHT)"
	@echo "make test-vendor-headers  the generated C++ with the vendor's own ap_fixed headers"
	@echo "make test-exactness       2,000 random quantised networks against QKeras, bit for bit"
	@echo "make test-legacy          the tests with QKeras 0.9 on Keras 2, in $(LEGACY)"
	@echo "make bench                the benchmarks"
	@echo "make lutnet-synth         LUTs of a small look-up table network after synthesis with Yosys"
	@echo "make approx-costs         area of the approximate multipliers after synthesis with Yosys, some minutes"
	@echo "make docs                 docs/cli.md from the commands, docs/layers.md from measurements"
	@echo "make clean                remove what the above wrote, except the environments"
	@echo "PYTHON=python3.12 make demo picks the Python that $(VENV) is made with (3.11 or newer)."

demo: $(VENV)/.installed
	$(VENV)/bin/python examples/demo.py

test: lint types pytest

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/.installed
	$(VENV)/bin/mypy

pytest: $(VENV)/.installed
	$(VENV)/bin/python -m pytest -n 2 tests

test-light: $(LIGHT)/.installed
	$(LIGHT)/bin/python -m pytest tests/light

test-vendor-headers: $(VENV)/.installed
	$(VENV)/bin/python -m pytest tests/vendor_headers

test-exactness: $(VENV)/.installed
	KCONVERT_EXACTNESS=2000 $(VENV)/bin/python -m pytest -n 2 tests/qkeras/test_exactness.py

test-legacy: $(LEGACY)/.installed
	TF_USE_LEGACY_KERAS=1 $(LEGACY)/bin/python -m pytest tests/legacy

lutnet-synth: $(VENV)/.installed
	@if command -v yosys > /dev/null; then $(VENV)/bin/python -m kconvert_contrib.lutnet.synthesis $(ARGS); \
	else echo "skipped: yosys is not installed (Debian, Ubuntu: apt-get install yosys)"; fi

approx-costs: $(VENV)/.installed
	@if command -v yosys > /dev/null; then \
	$(VENV)/bin/python -m kconvert_contrib.approx.costs --docs docs/approx_multipliers.md $(ARGS); \
	else echo "skipped: yosys is not installed (Debian, Ubuntu: apt-get install yosys)"; fi

docs: $(VENV)/.installed
	$(VENV)/bin/python -m kconvert.cli.docs > docs/cli.md.new
	@mv docs/cli.md.new docs/cli.md
	$(VENV)/bin/python -m tests.layers.layer_table > docs/layers.md.new
	@mv docs/layers.md.new docs/layers.md

bench: $(VENV)/.installed
	@set -e; for script in bench/[!_]*.py; do echo "$$script"; $(VENV)/bin/python "$$script"; done

clean:
	rm -rf build dist demo bench/results *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name '.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written last, so that an installation that broke off is made again.
$(VENV)/.installed: setup.py
	$(call make_venv,$(VENV))
	@echo "installing kconvert and what it needs into $(VENV): some minutes, 3 GB"
	$(VENV)/bin/python $(PIP) -e '.[dev]'
	@touch $@

$(LIGHT)/.installed: setup.py requirements-light.txt
	$(call make_venv,$(LIGHT))
	$(LIGHT)/bin/python $(PIP) -r requirements-light.txt pytest
	$(LIGHT)/bin/python $(PIP) --no-deps -e .
	@touch $@

# QKeras 0.9 has the module name of its successor, so it needs an environment of its own.
$(LEGACY)/.installed: setup.py requirements-legacy.txt
	$(call make_venv,$(LEGACY))
	$(LEGACY)/bin/python $(PIP) -r requirements-legacy.txt pytest
	$(LEGACY)/bin/python $(PIP) --no-deps -e .
	@touch $@

# Debian splits venv off Python: without python3-venv, ensurepip is missing and `python3 -m venv` breaks off half-way.
define make_venv
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "$(PYTHON) is missing or older than 3.11; name another one: make PYTHON=python3.11 ..." >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	{ echo "$(PYTHON) cannot make environments; on Debian: apt install python3-venv" >&2; exit 1; }
$(PYTHON) -m venv $(1)
endef
