# Everything a person or CI does here. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := requirements/dev.txt

.PHONY: help setup demo test local-tests lint types layers bpmn crds unit engine faults chaos bench overhead soak engine-8.8 \
	cluster cluster-demo cluster-down cluster-images cluster-tests lock format clean

help: ## List the targets
	@grep -hE '^[a-z0-9.-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-15s %s\n", $$1, $$2}'

setup: $(STAMP) ## Install everything into .venv, at the locked versions

$(STAMP): $(LOCK) requirements/uv.txt pyproject.toml hack/setup.sh
	@PYTHON=$(PYTHON) hack/setup.sh $(VENV)
	@touch $@

demo: setup ## Run the order example on the embedded engine and show what was routed where
	@$(BIN)/python examples/order/demo.py

# The tests on the cluster mostly wait, so the others run beside them. `make faults` takes too long for every change: run
# it before a release, and when you touch what it tests.
test: lint types layers bpmn ## Everything CI checks
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target local-tests cluster-tests

local-tests: setup ## The tests that need no cluster
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory engine
	@$(MAKE) --no-print-directory engine-8.8

lint: setup ## Style: ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup ## Types: mypy, strict
	@$(BIN)/mypy
	@MYPYPATH=operator:tests $(BIN)/mypy -p benchmarks --follow-imports silent

layers: setup ## Which package may import which: import-linter
	@$(BIN)/lint-imports

bpmn: setup ## The kernel's and the examples' BPMN: bpmnlint with Camunda's rules
	@$(BIN)/python hack/lint-bpmn.py

crds: setup ## The CRDs, made from the models: crds/ and the chart prokos-crds
	@$(BIN)/python hack/crds.py

unit: setup ## Unit tests
	@$(BIN)/pytest tests/unit -q

engine: setup ## Tests on the real Camunda broker, with a short campaign of random faults
	@$(BIN)/python hack/warm-engine.py
	@$(BIN)/pytest tests/engine -q --ignore-glob 'tests/engine/faults/test_[!c]*'

faults: setup ## Kill and pause everything under load, and check what is promised
	@$(BIN)/python hack/warm-engine.py
	@$(BIN)/pytest tests/engine/faults -q -rP

chaos: setup ## A random campaign of faults: 10 minutes, see hack/chaos.py --help
	@$(BIN)/python hack/chaos.py

bench: setup ## Figures: dispatched tasks beside a worker written by hand; 6 to 14 minutes, see benchmarks/README.md
	@$(BIN)/python hack/warm-engine.py
	@$(BIN)/python -m benchmarks.bench

overhead: setup ## Figures: a task of each type beside the same call by hand; 6 minutes
	@$(BIN)/python hack/warm-engine.py
	@$(BIN)/python -m benchmarks.overhead

soak: setup ## An hour of steady work: does memory stay flat?
	@$(BIN)/python hack/warm-engine.py
	@$(BIN)/python -m benchmarks.soak

NEWER := 8.8.21
NEWER_TESTS := outcomes foreign router_llm kernel_bpmn_deploys single_use mappings

engine-8.8: setup ## The same tests, as far as they need no disk, on Camunda's newer in-memory engine
	@PROKOS_TEST_ENGINE=$(NEWER) $(BIN)/pytest -q $(NEWER_TESTS:%=tests/engine/test_%.py)

cluster: setup ## A real Kubernetes cluster: kind with Docker, else one node made of processes (root, Debian)
	@$(BIN)/python -m hack.cluster up

cluster-images: setup ## Build our images, and load them into the cluster if it is up
	@$(BIN)/python -m hack.cluster images

cluster-demo: setup ## The order example on the cluster: operator, executors, one order
	@$(BIN)/python -m hack.cluster demo

cluster-down: setup ## Take the cluster down; what was built stays in ~/.cache/prokos
	@$(BIN)/python -m hack.cluster down

cluster-tests: setup ## Tests on the cluster; one that is not up is brought up and taken down
	@$(BIN)/python -m hack.cluster tests

format: setup ## Format the code
	@$(BIN)/ruff check --fix-only -q .
	@$(BIN)/ruff format .

lock: setup ## Lock the dependencies anew, with hashes
	@hack/lock.sh $(BIN)/uv

clean: ## Remove what was installed and built here; the cache in ~/.cache/prokos stays
	@rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
