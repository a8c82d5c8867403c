# Two commands do everything: `make demo` and `make test`. Each makes .venv and installs what it
# needs; a second call installs nothing.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal --durations=20

.PHONY: demo test test-thorough mutants check docs benchmarks bench-peers clean

demo: $(VENV)/.examples
	$(BIN)/python examples/discrete_vae.py

test: check
	$(PYTEST) -m "not thorough and not optimized"

# What nobody should have to wait for: all draws, dtypes and rows, XLA's optimized programs, and the
# contract in float32.
test-thorough: $(VENV)/.dev
	$(PYTEST) -m "thorough and not optimized"
	RELAXJAX_OPTIMIZED=1 $(PYTEST) -m optimized
	RELAXJAX_OPTIMIZED=1 RELAXJAX_X64=0 $(PYTEST) -m "not once" tests/test_contract.py

# Seeded faults and the tests that see them; MUTANTS are the script's arguments.
mutants: $(VENV)/.dev
	$(BIN)/python tests/mutants.py $(MUTANTS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

docs: $(VENV)/.dev
	$(BIN)/python -m sphinx -W -b html docs docs/_build/html

# Measures what is named and older than the code, OF="speed variance", and writes the page; beside
# the peers where they are.
benchmarks: $(VENV)/.dev
	set -e; for name in $(OF); do \
	  $(or $(wildcard $(VENV)-peers/bin/python),$(BIN)/python) benchmarks/$$name.py $(ARGS); done
	$(BIN)/python benchmarks/render.py

# What relaxjax is measured beside, in an environment of its own.
bench-peers:
	$(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/python -m pip --disable-pip-version-check install --quiet \
	  --editable '.[benchmarks]' --requirement benchmarks/peers.txt

# A stamp is touched last, so that an interrupted installation is done again.
$(VENV)/.examples: $(VENV)/.made pyproject.toml
	$(PIP) --editable '.[examples]'
	touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml
	$(PIP) --editable '.[dev]'
	touch $@ $(VENV)/.examples

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "PYTHON: got $$($(PYTHON) --version 2>&1), need 3.11 or later (make PYTHON=python3.12 ...)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

clean:
	rm -rf $(VENV) build dist docs/_build
