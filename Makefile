# make help lists the targets. Each does its own set-up.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# The interpreters to build and test for: every CPython from 3.11 on that tools/pythons finds.
PYTHONS ?= $(shell tools/pythons)
VENVS := target/venv

.PHONY: help demo test build fmt lint rust loom python programs soak chaos bench clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: ## build for the first Python found, then the tour: a deadlock, a stall, a speed table
	@tools/build $(firstword $(PYTHONS))
	@tools/demo $(VENVS)/$(notdir $(firstword $(PYTHONS)))/bin/python

test: ## everything: lint, Rust tests, loom, Python tests on every Python, benches and examples once
	@tools/test $(PYTHONS)

build: ## build and install into a virtual environment for each Python
	@for python in $(PYTHONS); do tools/build $$python || exit 1; done

fmt: ## format Rust and Python
	cargo fmt
	ruff format python tests benches examples
	ruff check --fix python tests benches examples

lint: ## formatting, clippy, ruff, types
	@tools/lint $(firstword $(PYTHONS))

rust: ## the core's tests
	cargo test -p raddle

loom: ## the core's protocols under the model checker
	@tools/loom

python: build ## Python tests on every Python
	@for python in $(PYTHONS); do $(VENVS)/$$(basename $$python)/bin/python -m pytest -q || exit 1; done

programs: build ## test suites of other packages, on python and on raddle, on every Python
	@for python in $(PYTHONS); do $$python tools/programs $$python || exit 1; done

soak: build ## the long runs: 100,000 random programs, 10,000 exits, stress without end in sight (hours)
	RADDLE_STRESS=50 RADDLE_PROGRAMS=100000 RADDLE_EXITS=10000 \
	  $(VENVS)/$(notdir $(firstword $(PYTHONS)))/bin/python -m pytest -q --timeout 36000 tests/stress tests/deadlock

chaos: build ## kills of processes by the thousand; writes the table of docs/faults.md (half an hour)
	@tools/chaos $(firstword $(PYTHONS))

bench: build ## measure against the standard library and peers; writes the README's tables
	@tools/bench $(PYTHONS)

clean: ## remove everything that was built
	rm -rf target python/raddle/*.so
