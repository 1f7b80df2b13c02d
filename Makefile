# Everything runs from .venv, which tools/bootstrap makes; system packages are in bindep.txt.
# ARGS is passed on: make test ARGS='-k topology -x'

SHELL = /bin/bash
PYTHON = .venv/bin/python

.PHONY: help demo test lint clean
.DEFAULT_GOAL = help

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 8

demo: ## real routers, a broker and services on this machine, watched while links and nodes fail
	@tools/bootstrap demo
	@$(PYTHON) -m testbed.demo $(ARGS)

test: ## every test that can run on this machine, linters included
	@tools/bootstrap test
	@$(PYTHON) -m pytest $(ARGS)

lint: ## the linters alone
	@tools/bootstrap test
	@$(PYTHON) -m pytest tests/unit/test_linters.py $(ARGS)

clean: ## remove .venv and caches, which is all that these targets leave in the tree
	@rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache agent/om_dual_backends.egg-info
	@find agent testbed tests -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
