# Every target uses .venv, which tools/bootstrap makes. Tests of heat/ also use .venv-heat. bindep.txt lists the system
# packages.
# ARGS passes arguments on: make test ARGS='-k topology -x'. With --pdb also give -n 0, which uses a single process.

SHELL = /bin/bash
PYTHON = .venv/bin/python

.PHONY: help demo test lint bench image image-test services-test clean
.DEFAULT_GOAL = help

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12

demo: ## run a small overcloud on this machine: router, RabbitMQ and oslo.messaging with the agent's files
	@tools/bootstrap demo
	@$(PYTHON) -m testbed.demo $(ARGS)

test: ## run every test that can run on this machine, linters included
	@tools/bootstrap test
	@$(PYTHON) -m pytest -n 3 --dist loadgroup --no-loadscope-reorder $(ARGS)

lint: ## run only the linters
	@tools/bootstrap test
	@$(PYTHON) -m pytest tests/unit/test_linters.py $(ARGS)

bench: ## measure routers against RabbitMQ, the agent's cost, and the size of a mesh; as root, with a real router
	@tools/bootstrap test
	@$(PYTHON) -m bench $(ARGS)

image: ## build an overcloud image, and measure what the elements add to it; as root
	@tools/image build $(ARGS)

image-test: ## build an image, boot it in systemd-nspawn and in qemu, and test it; as root
	@tools/image test $(ARGS)

services-test: ## test real nova, neutron and cinder of Debian over a router and over RabbitMQ; as root
	@tools/services $(ARGS)

clean: ## remove .venv, .venv-heat, images and caches: everything that these targets leave in the tree
	@rm -rf .venv .venv-heat build/image .hypothesis .mypy_cache .pytest_cache .ruff_cache \
	    */*.egg-info driver/alias/*.egg-info
	@find agent bench devrouter driver testbed tests -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
