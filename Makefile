# Each target is enough by itself on a fresh clone. ARGS is passed on:
#   make run ARGS="model=lenet epochs=1"
#   make test ARGS="tests/energy -x"
MAKEFLAGS += --no-print-directory
ARGS ?=
# DAHL_VENV names a folder whose bin/ has Python with all packages (the Nix shell sets it); none is made then.
VENV := $(or $(DAHL_VENV),.venv)

.PHONY: run test check regress setup clean

run: setup
	@$(VENV)/bin/python -m experiments.run scheduler=eager_energy $(ARGS)

test: setup
	@$(VENV)/bin/python -m pytest --durations=25 --durations-min=5 $(ARGS)

check: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

regress: setup
	@$(VENV)/bin/python -m experiments.regress $(ARGS)

setup:
	@scripts/setup

# Everything that was built or downloaded; the records in runs/ and multirun/ stay.
clean:
	rm -rf .venv .starpu .cache *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find dahl schedulers energy experiments compiling benchmarks tests scripts -name __pycache__ -prune -exec rm -rf {} +
	find dahl energy -name '*.so' -delete -o -name '*.stamp' -delete
