# The two commands: "make run" shows the example, "make test" checks everything. Both set up what they need.
PYTHON ?= python3
PORT ?= 8080
VENV := .venv
BIN := $(VENV)/bin
LOWEST := build/lowest
NPM := build/npm
# Tests start hundreds of processes: without what Python keeps of compiled modules each would compile them again.
export PYTHONDONTWRITEBYTECODE =

# Four more than there are processors: many tests wait.
JOBS := $(shell expr $$(nproc) + 4)

.PHONY: help run check test test-lowest lint style pytest mutants docs dist debian bench bench-quick soak fuzz clean

help:
	@echo "make run    serve the example on http://127.0.0.1:$(PORT)/ (PORT=... changes it; SSE_BROKER_URL=redis://... or postgresql://...: many workers)"
	@echo "make test   ruff, mypy, the documentation and all tests"
	@echo "make check  ruff, mypy and the tests that start nothing, in less than a minute"
	@echo "make docs   the documentation, in build/docs"
	@echo "make dist   the packages for Python and npm, in dist, each tried in an empty environment"
	@echo "make bench  this package beside its peers, which takes long; make bench-quick is a short look"
	@echo "make soak   an hour of clients that come and go, over Redis; SOAK_SECONDS=600 SOAK_WORKER=gthread make soak: ten minutes, on threads"

run: $(VENV)/.run
	@PORT=$(PORT) $(BIN)/gunicorn example_app:app

check: lint
	$(BIN)/pytest -n $(JOBS) tests/unit tests/inprocess

# mypy keeps one processor busy: it runs beside the tests, and says what it has found after them.
test: debian style $(NPM)/.installed
	@mkdir -p build
	@$(BIN)/mypy > build/mypy.txt & mypy=$$!; trap "kill $$mypy" INT TERM; \
	$(MAKE) --no-print-directory pytest; tests=$$?; \
	wait $$mypy; types=$$?; \
	cat build/mypy.txt; \
	test $$tests$$types = 00

docs: $(VENV)/.test
	$(BIN)/sphinx-build -W -n -q docs build/docs
	@echo "build/docs/index.html"

# The packages as they are published; tests/project/test_dist.py does a part of this.
dist: debian $(VENV)/.test $(NPM)/.installed
	$(BIN)/python -m tests.project.dist dist

lint: style
	$(BIN)/mypy

style: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache

pytest: $(VENV)/.compiled $(NPM)/.installed
	$(BIN)/pytest -n $(JOBS) --durations 10

# The same tests on the lowest versions that setup.cfg allows, which have wheels for Python 3.11 and 3.12 alone.
test-lowest: debian $(LOWEST)/.test $(NPM)/.installed
	$(LOWEST)/bin/pytest -n $(JOBS)

# Faults put into the package on purpose, each of which a test must find: tests/project/mutants/list.toml.
# MUTANTS="word word": those whose text has one of these words.
mutants: debian $(VENV)/.test $(NPM)/.installed
	$(BIN)/python -m tests.project.mutants $(MUTANTS)

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks

bench-quick: $(VENV)/.bench
	$(BIN)/python -m benchmarks --quick --output build/bench-quick

# The Debian packages that tests need: where we are root they are installed, elsewhere their tests say what is missing.
debian:
	@sh tests/support/environment/debian-packages /usr/include/stdio.h=libc6-dev \
	    /usr/lib/apache2/modules/mod_wsgi.so=libapache2-mod-wsgi-py3 cc=gcc chromium=chromium \
	    chromium-headless-shell=chromium-headless-shell curl=curl faketime=faketime mmdebstrap=mmdebstrap nginx=nginx \
	    node=nodejs npm=npm pgbouncer=pgbouncer postgres=postgresql redis-server=redis-server systemd-analyze=systemd \
	    systemd-socket-activate=systemd

$(VENV)/bin/python $(LOWEST)/bin/python:
	@sh tests/support/environment/virtual-environment "$(PYTHON)" $(@:/bin/python=)

$(VENV)/.run: setup.cfg setup.py pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[server,redis,postgresql]" "psycopg[binary]"
	@touch $@

$(VENV)/.test: setup.cfg setup.py pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[server,redis,jwt,metrics,docs,test]"
	@touch $@ $(VENV)/.run

# The first collection writes what pytest makes of the tests; without it each of its processes would compile all of them.
$(VENV)/.compiled: | $(VENV)/.test
	@$(BIN)/pytest --collect-only --quiet > /dev/null || true  # the run itself says what is wrong
	@touch $@

$(LOWEST)/.test: setup.cfg pyproject.toml tests/support/environment/lowest.txt | $(LOWEST)/bin/python
	$(LOWEST)/bin/python -m pip install --quiet --constraint tests/support/environment/lowest.txt \
	    --editable ".[server,redis,jwt,metrics,docs,test]"
	@touch $@

# The clients that npm has; without npm the tests of them say what is missing.
$(NPM)/.installed: tests/support/environment/package.json | debian
	@mkdir -p $(NPM)
	@cp $< $(NPM)
	@! command -v npm >/dev/null || { \
	    cd $(NPM) && npm install --no-package-lock --no-audit --no-fund --silent && touch .installed; \
	} || { echo "npm install failed: to see why, run it in $(NPM)" >&2; exit 1; }

$(VENV)/.bench: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[server,redis,bench]"
	@touch $@

# Ten minutes each of the fuzzer that watches coverage; see tests/security/fuzz/README.md.
fuzz: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --editable ".[fuzz]"
	@mkdir -p build/fuzz/decoder build/fuzz/endpoint
	$(BIN)/python -m tests.security.fuzz decoder -max_total_time=600 -max_len=1024 -artifact_prefix=build/fuzz/ \
	    build/fuzz/decoder tests/security/fuzz/corpus/decoder
	$(BIN)/python -m tests.security.fuzz endpoint -max_total_time=600 -max_len=2048 -artifact_prefix=build/fuzz/ \
	    build/fuzz/endpoint tests/security/fuzz/corpus/endpoint

# Leaves benchmarks/results/soak.*, and ends with an error where anything grows, or a client misses anything.
soak: debian $(VENV)/.test $(VENV)/.bench
	$(BIN)/python -m tests.faults.soak

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
