# Each target is enough by itself on a fresh clone. ARGS is passed on:
#   make run ARGS="model=lenet epochs=1"
#   make test ARGS="tests/energy -x"
MAKEFLAGS += --no-print-directory
ARGS ?=

.PHONY: run test check setup clean

run: setup
	@.venv/bin/python -m experiments.run scheduler=eager_energy $(ARGS)

test: setup
	@.venv/bin/python -m pytest $(ARGS)

check: setup
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

setup:
	@scripts/setup

# Everything that was built or downloaded; the records in runs/ and multirun/ stay.
clean:
	rm -rf .venv .starpu .cache *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find dahl schedulers energy experiments benchmarks tests scripts -name __pycache__ -prune -exec rm -rf {} +
	find dahl -name '*.so' -delete -o -name '*.stamp' -delete
