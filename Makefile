# Every target installs what it needs: a fresh machine has Python 3.11, make, and an index of packages.
# torch comes with CUDA (several GB) from the plain index; for the CPU build
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SERVERS_VENV := .venv-servers
SERVERS_STAMP := $(SERVERS_VENV)/.installed
MUTATION_VENV := .venv-mutation
MUTATION_STAMP := $(MUTATION_VENV)/.installed
REAL_CATALOG := ../shared/data/scenes/catalog.json
DEMO_CATALOG := demo-catalog/catalog.json
DEMO_PRODUCTS := demo-products
DOCS := build/docs

export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
# Threads that wait by spinning stall the processes of the tests beside them.
export OMP_WAIT_POLICY := PASSIVE
# Where this is set, each of the many processes that tests start would compile the package anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install demo test coverage fuzz chaos mutants unit integration deploy-check rehearsal servers postgis promtool slurm engine browser docs check format clean

help:
	@echo "make install   a virtual environment in .venv with everything in it"
	@echo "make demo      register scene pairs, end to end; products in $(DEMO_PRODUCTS)/"
	@echo "make test      all tests: each part alone, then together against real servers"
	@echo "make unit      the tests of the parts alone"
	@echo "make integration  the tests against Prefect, Dask, SeaweedFS and a STAC API, which it starts and stops"
	@echo "make deploy-check  every file of deploy/ against its schema, its linter or the server that takes it"
	@echo "make rehearsal    the image built and run, the compose file brought up, the run-book's commands, and SLURM"
	@echo "make coverage  the tests of the parts, and the share of lines and branches that they run: at least 90 %"
	@echo "make fuzz      damaged files at everything that reads some: CASES=50000 SEED=1; what fails is kept in build/fuzz"
	@echo "make chaos     faults at every step of writing and reading an archive: INJECTIONS=1000 SEED=1"
	@echo "make mutants   small faults put into estimation and the commit protocol: MUTANTS=40 of each group, SEED=1; do the tests notice?"
	@echo "make docs      build the documentation into $(DOCS)/site; a warning is an error"
	@echo "make servers   start these servers, print their addresses and what to export; Ctrl-C stops them"
	@echo "make check     format, lint, types, import rules, documentation, sdist and wheel"
	@echo "make format    mend what ruff can mend"
	@echo "make clean     remove what the targets above have made, the virtual environments apart"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	@set -e; \
	if [ -f $(REAL_CATALOG) ]; then \
	    catalog=$(REAL_CATALOG); echo "Demo over the real scenes of $$catalog"; \
	else \
	    catalog=$(DEMO_CATALOG); \
	    echo "Demo over SIMULATED scenes: $(REAL_CATALOG) is not there."; \
	    test -f $$catalog || $(BIN)/crosstie simulate demo-catalog; \
	fi; \
	$(BIN)/crosstie nightly --catalog $$catalog --out $(DEMO_PRODUCTS) && code=0 || code=$$?; \
	if [ $$code -ne 0 ] && [ $$code -ne 3 ]; then exit $$code; fi; \
	echo "Look at the reports named above, and at overview.png beside each."; \
	echo "Run 'make demo' again: nothing is computed twice."

# Two files at a time: many of them wait for servers most of the time. A file stays in one process.
SIDE_BY_SIDE := -n 2 --dist loadfile --no-loadscope-reorder
PARTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE) --ignore tests/integration --ignore tests/deploy --ignore tests/rehearsal

# One after the other: the servers of all of them together are load enough.
test: unit deploy-check integration rehearsal

unit: $(STAMP) browser
	$(PARTS)

coverage: $(STAMP) browser
	$(PARTS) --cov --cov-report=term --cov-fail-under=90

CASES ?= 50000
SEED ?= 1
fuzz: $(STAMP)
	CROSSTIE_FUZZ_CASES=$(CASES) CROSSTIE_FUZZ_SEED=$(SEED) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/fuzz -k damage

INJECTIONS ?= 1000
chaos: $(STAMP)
	PYTHONPATH=tests:tests/support OMP_NUM_THREADS=1 $(BIN)/python -m chaos --injections $(INJECTIONS) --seed $(SEED)

MUTANTS ?= 40
mutants: $(STAMP) $(MUTATION_STAMP)
	PYTHONPATH=tests:tests/support $(MUTATION_VENV)/bin/python -m mutation --sample $(MUTANTS) --seed $(SEED)

$(MUTATION_STAMP): tests/mutation/requirements.txt
	@test -x $(MUTATION_VENV)/bin/python || $(PYTHON) -m venv $(MUTATION_VENV)
	$(MUTATION_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/mutation/requirements.txt
	@touch $@

deploy-check: $(STAMP) promtool
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE) tests/deploy

rehearsal: $(STAMP) $(SERVERS_STAMP) slurm engine
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE) tests/rehearsal

docs: $(STAMP)
	$(BIN)/python docs/making $(DOCS)
	@echo "Look at $(DOCS)/site/index.html"

integration: $(STAMP) $(SERVERS_STAMP) postgis
	$(BIN)/python -m pytest tests/integration

servers: $(STAMP) $(SERVERS_STAMP) postgis
	PYTHONPATH=tests exec $(BIN)/python -m servers

# The servers' packages pin others than ours, and are no business of a user's environment.
$(SERVERS_STAMP): tests/servers/requirements.txt
	@test -x $(SERVERS_VENV)/bin/python || $(PYTHON) -m venv $(SERVERS_VENV)
	$(SERVERS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/servers/requirements.txt
	@touch $@

postgis:
	@tests/servers/install-postgis.sh

promtool:
	@tests/servers/install-promtool.sh

slurm:
	@tests/servers/install-slurm.sh

engine:
	@tests/servers/install-engine.sh

browser:
	@tests/servers/install-chromium.sh

check: $(STAMP) docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	cd src && ../$(BIN)/mypy
	$(BIN)/lint-imports
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(DEMO_PRODUCTS) demo-catalog dist build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache src/*.egg-info
