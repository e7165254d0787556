# Everything that is done with a checkout. `make run` and `make test` need no other command before
# them: each target that needs the environment makes it. Nothing here needs root, except that
# `make test` on Debian installs, as root, what only the system's package manager has.

.DEFAULT_GOAL := help
.PHONY: help setup run test check lint format bench torture fuzz sbom audit lock system clean
SHELL := /bin/sh

# The first Python that is new enough. An entry of PATH may be a shim that does not run: try it.
PYTHON ?= $(shell for each in python3.11 python3.12 python3.13 python3; do \
	"$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	{ echo "$$each"; break; }; done)

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
LOCKED := --require-hashes --only-binary=:all:

# The environment is up to date when it was made from exactly these files, whatever their times say.
stamp = .venv/.from-$(shell cat $(1) 2>/dev/null | cksum | tr ' ' '-')
STAMP := $(call stamp,requirements/dev.txt pyproject.toml)
PAGES := web/static/.from-$(shell cat frontend/*.json frontend/src/* tools/pages.py | cksum | tr ' ' '-')
BENCH_STAMP := $(call stamp,requirements/bench.txt pyproject.toml)-bench

help:
	@echo 'make run      serve on the embedded default, with sample calls on the first start'
	@echo 'make test     the whole test suite'
	@echo 'make check    format, lint, types, import directions, then the test suite'
	@echo 'make lint     all of that without the tests'
	@echo 'make format   put the code into its format'
	@echo 'make bench    the figures of docs/performance.md, measured here'
	@echo 'make torture  the promises of docs/torture.md, tried here (MINUTES=30 ROWS="kills links")'
	@echo 'make fuzz     generated requests against the doors (REQUESTS=100000 SEED=1)'
	@echo 'make sbom     what the program is made of, as CycloneDX, into build/sbom.json'
	@echo 'make audit    known vulnerabilities of the locked packages; asks outside, so not in CI'
	@echo 'make setup    only install into .venv; the others do it themselves'
	@echo 'make lock     choose newer dependencies (needs uv)'
	@echo 'make clean    remove .venv, caches and build/; never var/'

setup: $(STAMP) $(PAGES)

$(STAMP):
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or newer is needed; PYTHON=... names it.' >&2; exit 1; }
	@echo 'Installing into .venv ...'
	@rm -f .venv/.from-*
	@$(BIN)/python -c 'import pip, sys; sys.exit(sys.prefix == sys.base_prefix)' 2>/dev/null || \
		$(PYTHON) -m venv --clear .venv || \
		{ echo 'Python has no venv here: on Debian, apt-get install python3-venv.' >&2; exit 1; }
	@$(PIP) $(LOCKED) -r requirements/dev.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# What a browser needs, made from frontend/ by the node that is in .venv.
$(PAGES): $(STAMP)
	@$(BIN)/python tools/pages.py
	@touch $@

$(BENCH_STAMP): $(STAMP) $(PAGES)
	@$(PIP) $(LOCKED) -r requirements/bench.txt
	@touch $@

run: $(STAMP) $(PAGES)
	@exec $(BIN)/archive serve --samples

test: $(STAMP) $(PAGES) system
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	@$(MAKE) --no-print-directory test

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(BENCH_STAMP)
	$(BIN)/python -m bench

torture: $(STAMP) $(PAGES) system
	$(BIN)/python -m torture --minutes $(or $(MINUTES),30) $(ROWS)

fuzz: $(STAMP) $(PAGES) system
	$(BIN)/python tools/fuzz_doors.py --requests $(or $(REQUESTS),3000) --seed $(or $(SEED),1)

sbom: $(STAMP)
	@mkdir -p build
	@$(BIN)/python tools/sbom.py > build/sbom.json
	@echo build/sbom.json

# An environment of its own: what looks for flaws is no part of what is looked at.
audit: $(STAMP)
	@test -x build/audit/bin/pip-audit || { $(PYTHON) -m venv build/audit && \
		build/audit/bin/python -m pip --disable-pip-version-check install --quiet \
		--only-binary=:all: pip-audit==2.10.1; }
	@$(BIN)/python tools/audit.py build/audit/bin/pip-audit requirements/*.txt

system:
	@sh tools/system-packages

lock:
	@for each in run dev bench; do \
		case $$each in run) extra= ;; *) extra="--extra $$each" ;; esac; \
		uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 \
			--generate-hashes --no-header --no-annotate --no-emit-index-url \
			--no-emit-find-links $$extra pyproject.toml --output-file requirements/$$each.txt \
			|| exit 1; done

clean:
	rm -rf .venv web/static frontend/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build \
		*.egg-info
