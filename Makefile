# Everything runs from .venv, which tools/bootstrap makes, and tests of heat/ from .venv-heat too; system packages are in
# bindep.txt.
# ARGS is passed on: make test ARGS='-k topology -x'; with --pdb also -n 0, which runs everything in one process

SHELL = /bin/bash
PYTHON = .venv/bin/python

.PHONY: help demo test lint bench image image-test services-test clean
.DEFAULT_GOAL = help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12

demo: ## a small overcloud on this machine: router, RabbitMQ and oslo.messaging from the files that the agent writes
	@tools/bootstrap demo
	@$(PYTHON) -m testbed.demo $(ARGS)

test: ## every test that can run on this machine, linters included
	@tools/bootstrap test
	@$(PYTHON) -m pytest -n 3 --dist loadgroup --no-loadscope-reorder $(ARGS)

lint: ## the linters alone
	@tools/bootstrap test
	@$(PYTHON) -m pytest tests/unit/test_linters.py $(ARGS)

bench: ## routers and RabbitMQ side by side, what the agent costs, how far a mesh goes; as root, with a real router
	@tools/bootstrap test
	@$(PYTHON) -m bench $(ARGS)

image: ## an overcloud image built here, and what the elements cost; as root
	@tools/image build $(ARGS)

image-test: ## build an image, boot it in systemd-nspawn and in qemu and look; as root
	@tools/image test $(ARGS)

services-test: ## real nova, neutron and cinder of Debian over a router and over RabbitMQ; as root
	@tools/services $(ARGS)

clean: ## remove .venv, .venv-heat, images and caches, which is all that these targets leave in the tree
	@rm -rf .venv .venv-heat build/image .hypothesis .mypy_cache .pytest_cache .ruff_cache \
	    */*.egg-info driver/alias/*.egg-info
	@find agent bench devrouter driver testbed tests -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
