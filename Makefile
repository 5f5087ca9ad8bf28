# `make` without a target lists the targets.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test thorough lint format docs bench chaos soak fuzz audit clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

install: $(STAMP) ## make .venv with everything

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "nameshot needs Python 3.11 or newer; name its command, as in make PYTHON=python3.12 …" >&2; exit 1; }
	@echo "installing PyTorch and the other packages into .venv: this takes minutes, and gigabytes if pip chooses a build for GPUs" >&2
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[worker,web,embedded,dev]'
	@touch $@

demo: install ## start a whole system, classify the bundled pictures, stop the system
	@$(BIN)/nameshot demo

test: install ## run all tests but those of make thorough
	$(BIN)/python -m pytest

thorough: install ## run the longest tests: every model family, the previous version, rehearsals of the benchmarks
	$(BIN)/python -m pytest -m thorough

lint: install ## check the code with ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site's pages. They are copied with their folders, so that relative links work both on GitHub and on the site.
PAGES := README.md CONTRIBUTING.md CHANGELOG.md LICENSE docs benchmarks/README.md checkpoint/README.md \
	worker/bundled/emoji-clip/README.md producer/demo/pictures/ATTRIBUTION.md producer/public.py

docs: install ## build the site in build/site, without a network; a broken link is an error
	@rm -rf build/pages build/site && mkdir -p build/pages
	@tar -cf - $(PAGES) | tar -xf - -C build/pages
	$(BIN)/zensical build --clean --strict

bench: install ## measure the bare model, a real worker and alternatives, which this installs
	$(BIN)/python -m benchmarks

chaos: install ## stop Valkey for a minute, then run 10,000 jobs under faults: each must get its right answer
	$(BIN)/python -m pytest tests/delivery/test_broker_restarts.py --time-scale=1 --outage-s=60
	$(BIN)/python -m tests.chaos.takers --kills 60 --messages 4000
	$(BIN)/python -m tests.chaos

soak: install ## run 100,000 jobs through one worker, whose memory, descriptors and connections must not grow
	$(BIN)/python -m tests.chaos.soak

fuzz: install ## test the properties with many examples, then send ten minutes of hostile URLs, HTTP responses, images and messages
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile=thorough --timeout=900
	$(BIN)/python -m tests.fuzz

# pip-audit has its own environment, because it needs other versions of the worker's packages.
audit: install ## list known vulnerabilities of the pinned versions, if PyPI can be reached
	@test -x .audit/bin/pip-audit || { $(PYTHON) -m venv .audit \
		&& .audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1; }
	@$(BIN)/python -m tests.dependencies.audit .audit/bin/pip-audit

clean: ## remove .venv and caches
	rm -rf .venv .audit .cache build .mypy_cache .ruff_cache .pytest_cache .hypothesis .fuzz
