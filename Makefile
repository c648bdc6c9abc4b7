# Short names for what the scripts do. Uses .venv (scripts/test makes it) when it is there.
VENV ?= $(or $(OPTIMUM_INT8_VENV),.venv)
export PATH := $(abspath $(VENV))/bin:$(PATH)

.PHONY: help style check test quick bench kernels clean

help:     ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

style:    ## format, and fix what can be fixed
	ruff format .
	ruff check --fix .
	find optimum_int8/kernels/csrc -name "*.h" -o -name "*.cpp" | xargs clang-format -i

check:    ## format, lint and types, as scripts/test does
	ruff check .
	ruff format --check .
	find optimum_int8/kernels/csrc -name "*.h" -o -name "*.cpp" | xargs clang-format --dry-run -Werror
	mypy

test:     ## everything, in its own environment
	scripts/test

quick:    ## the tests not marked slow
	scripts/test --quick

bench: kernels  ## the kernels: checked, then timed
	python -m benchmarks kernels

kernels:  ## build the library into the checkout
	scripts/build_kernels

clean:    ## remove what was built, not the environment
	rm -rf build dist optimum_int8/kernels/_liboptimum_int8.so
