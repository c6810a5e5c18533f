# Every target calls a script or a tool that also runs without make.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help install up test test-gpu chaos chaos-mutants check format bench lock clean

# Relative on purpose: make cannot handle a checkout whose path has a space in it, a shell can.
BIN := .venv/bin
SOURCES := inferq api queues storage workers watchers

help: ## Show this list
	@echo "inferq: a scheduler for AI-model jobs"
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile
	@echo "  PYTHON=/path/to/python3.11 chooses the interpreter of new environments"

install: ## Install the gateway and the engines (and vLLM with VLLM=1)
	@scripts/install-gateway
	@scripts/install-engines
	@if [ -n "$(VLLM)" ]; then scripts/install-vllm; fi

up: install ## Install what is missing and start everything here; MODEL=path-or-name, VLLM=1
	@exec bin/inferq up $(if $(MODEL),--model '$(MODEL)') $(if $(VLLM),--vllm)

test: ## Run all tests; ARGS="-k name" goes to pytest
	@scripts/install-gateway test
	@scripts/install-engines
	@scripts/install-vllm
	@scripts/test $(ARGS)

test-gpu: ## Run the tests that need an NVIDIA device; PYTHON= has torch, transformers and diffusers
	@scripts/test-gpu $(ARGS)

chaos: ## Break a whole installation and check its promises; SEED=1, ARGS="--seconds 300 --faults kill-api,cut"
	@scripts/install-gateway test
	@scripts/chaos $(if $(SEED),--seed '$(SEED)') $(ARGS)

chaos-mutants: ## Plant known mistakes: chaos has to catch each; ARGS="no-reaper cancel-ignored"
	@scripts/install-gateway test
	@scripts/chaos mutants $(ARGS)

check: ## Formatting, lint, types and import rules
	@scripts/install-gateway check
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: ## Format the code and apply safe lint fixes
	@scripts/install-gateway check
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: ## Run the benchmarks; ARGS goes to them
	@scripts/install-gateway bench
	@scripts/install-engines
	@$(BIN)/python -m benchmarks $(ARGS)

lock: ## Choose and write new exact versions of everything
	@scripts/lock

clean: ## Remove caches and build output; environments, data and models stay
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find $(SOURCES) tests -name __pycache__ -type d -prune -exec rm -rf {} +
