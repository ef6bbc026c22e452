# Every figure and table from measured data: `make all`. What depends on what is in the block of notebooks below.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash
# Notebooks share one pool of workers, one for each core; they themselves mostly wait for it.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += --jobs=4
endif

# What makes .venv: the first that starts, a version manager's stand-ins do not. The committed results are of Python 3.11.
PYTHON ?= $(or $(shell for python in python3.11 python3.12 python3.13; do \
	$$python -c pass 2>/dev/null && command -v $$python && break; done),python3)
# Which parameters (a key of notebooks/settings.yaml: full, benchmark, smoke), which data (auto, real, simulated) and which
# LoRaWAN messages (subset, full).
PROFILE ?= full
DATA ?= auto
LORAWAN ?= subset
export PROFILE DATA LORAWAN
export PYTHONPATH := $(CURDIR)

# To use another environment, conda's say: make all VENV= BIN=$$CONDA_PREFIX/bin
VENV := .venv/.complete
WITH_BENCH = $(if $(VENV),.venv/.bench .venv/.export)
WITH_SITE = $(if $(VENV),.venv/.site)
BIN := .venv/bin
BUILT := $(or $(FINGERPRINT_OUTPUTS),outputs)/notebooks/$(PROFILE)-$(DATA)$(if $(filter-out subset,$(LORAWAN)),-lorawan-$(LORAWAN))
# Whether the data are measured is decided once, when they are looked for, and not by every notebook again.
PYTHON_ON_DATA = DATA=$$(grep -q '"simulated": true' $(BUILT)/sources.json && echo simulated || echo real) $(BIN)/python

# A notebook depends on the whole library: what was trained is recalled, so that running it again takes seconds.
LIBRARY := $(sort $(wildcard lib/*.py lib/*/*.py)) data/registry.toml

# In the order in which they are begun: first those that others wait for.
NOTEBOOKS := $(addprefix $(BUILT)/,$(addsuffix .ipynb,\
	03_transfer_learning 06_build_unified 04_umlp 12_transfer_from_many 01_explore_rssi 11_ageing 05_explain_transfer \
	10_environments 09_stress_localizer 08_use_localizer 02_preprocess 07_benchmark))
FIRST := $(VENV) notebooks/run.py notebooks/settings.yaml $(LIBRARY) $(BUILT)/sources.json

.PHONY: help setup data all notebooks benchmark smoke search sweep bench site test test-all lab lock wheels tidy clean FORCE

help: ## Show this list
	@echo "Usage: make TARGET [PROFILE=full|benchmark|smoke] [DATA=auto|real|simulated] [LORAWAN=subset|full]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV) ## Create .venv from requirements.lock

data: $(VENV) ## Find, make or download the measured data and check it
	$(BIN)/python -m lib.data.datasets

# A second make is told what was said on the command line. It is started like any command: a recursion that make knows of
# would start the workers for `make -n`, too. Make expands all lines of a recipe before it runs the first, so that the
# date in the second is that of the beginning.
JOBS = $(filter -j%,$(MAKEFLAGS)) $(if $(findstring k,$(firstword -$(MAKEFLAGS))),-k)
AGAIN = MAKEFLAGS= MAKELEVEL=1 $(BIN)/python -m lib.experiments.workers --log $(BUILT)/workers.log \
	$(MAKE) --no-print-directory $(JOBS) $(MAKEOVERRIDES)
all: $(VENV) ## Run notebooks 01 to 12 with few seeds: every figure, table and result, into outputs/full
	@$(AGAIN) notebooks
	@$(BIN)/python -m lib.experiments.reproduction $(BUILT) --started $(shell date +%s)
	$(SHOW)
notebooks: $(NOTEBOOKS)
benchmark: ## The same with all seeds, steps, controls and environments: the results that are committed
	@$(MAKE) --no-print-directory all PROFILE=benchmark
smoke: ## The same with small parameters, into outputs/smoke, in minutes
	@$(MAKE) --no-print-directory all PROFILE=smoke

search: $(BUILT)/00_search_configuration.ipynb $(BUILT)/00_search_comparators.ipynb ## Repeat the choices on validation rows, half an hour

bench: $(WITH_BENCH) ## Time training, loading, prediction and exported files beside PyTorch and JAX, minutes on an idle machine
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/export.py
	$(SHOW)

# What is there already is found by the sweep itself. SWEEP= takes arguments, for instance --help.
sweep: $(VENV) $(BUILT)/sources.json ## Train every model on shares of the rows, on all cores or a Dask cluster
	$(PYTHON_ON_DATA) -m lib.experiments.sweep $(SWEEP)
	$(SHOW)

# Warnings name broken links. Nothing is run or fetched.
site: $(WITH_SITE) ## Build the pages: notebooks as executed, documents, API reference; into outputs/site
	$(BIN)/python -m sphinx --quiet --conf-dir docs/site --doctree-dir outputs/.doctrees . outputs/site
	@echo "The site: outputs/site/index.html"

test: $(VENV) ## Run the tests, in minutes
	$(BIN)/python -m pytest -p no:nbval -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(VENV) $(WITH_SITE) ## Run these and the slow ones: whole runs, killed clusters, measured data, Chromium
	$(BIN)/python -m pytest -p no:nbval -n 2 --dist loadfile --no-loadscope-reorder

lab: $(VENV) ## Open JupyterLab here; what is run by hand writes to outputs/lab
	PROFILE=lab $(BIN)/jupyter lab --notebook-dir=.

# The same versions for every Python, older ones where need be: the numbers do not depend on which one it is.
lock: $(VENV) ## Pin the newest versions that pyproject.toml allows in requirements.lock
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
		--no-emit-index-url --upgrade --custom-compile-command "make lock" --output-file requirements.lock pyproject.toml

# uv asks the registry what it has: nothing is downloaded or installed. macOS 14 is the oldest that all have a wheel for.
wheels: $(VENV) ## Check that every locked package has a wheel for each Python, on Linux and macOS
	$(BIN)/python -m pip install --quiet uv
	@nowhere=$$(mktemp -d); trap 'rm -r "$$nowhere"' EXIT; export MACOSX_DEPLOYMENT_TARGET=14.0; \
	for python in 3.11 3.12 3.13; do \
		for platform in x86_64-manylinux_2_28 aarch64-manylinux_2_28 aarch64-apple-darwin; do \
			$(BIN)/uv pip install --dry-run --quiet --require-hashes --only-binary :all: --target "$$nowhere" \
				--python-version $$python --python-platform $$platform -r requirements.lock || exit; \
			echo "Python $$python, $$platform: every package has a wheel"; \
		done; \
	done

tidy: $(VENV) ## Strip the notebooks' outputs, format and lint: before a commit
	$(BIN)/nbstripout --keep-id notebooks/*.ipynb
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --fix .

clean: ## Delete all that can be made again but the committed results and .venv
	rm -rf outputs/notebooks/*/ outputs/models outputs/full outputs/benchmark outputs/smoke outputs/lab \
		outputs/simulated outputs/results/errors outputs/site outputs/.doctrees docs/site/api
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

NEEDED := Python 3.11, 3.12 or 3.13 is needed
CHOOSE := make PYTHON=/path/to/python3.13
$(VENV): requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "$(NEEDED), found none ($(PYTHON)): $(CHOOSE)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("$(NEEDED), found %d.%d: $(CHOOSE)" % v)'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	touch $@

# The constraints let pip add packages but change none that is locked. Their markers say on which Python they hold.
.venv/.bench .venv/.export .venv/.site: .venv/.%: $(VENV) requirements-%.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-$*.txt \
		--constraint <(grep -oE '^[^ ;]+==[^\\]+' requirements.lock)
	touch $@

# A data file that came or changed since the data were looked for counts, whatever the time of change it carries.
REGISTERED := $(shell sed -n 's/^file = "\(.*\)"/\1/p' data/registry.toml)
MEASURED := $(if $(filter-out simulated,$(DATA)),$(wildcard $(foreach folder,data/raw $(FINGERPRINT_DATA) ../shared/data,\
	$(foreach file,$(REGISTERED),$(folder)/$(file) $(folder)/$(file).xz))))
ARRIVED := $(if $(MEASURED),$(shell find $(MEASURED) -cnewer $(BUILT)/sources.json 2>/dev/null))
$(BUILT)/sources.json: $(VENV) $(wildcard lib/data/*.py) data/registry.toml $(if $(ARRIVED),FORCE)
	$(BIN)/python -m lib.data.datasets $@
FORCE:

$(BUILT)/%.ipynb: notebooks/%.ipynb
	@$(PYTHON_ON_DATA) notebooks/run.py $< $@

$(addprefix $(BUILT)/,00_search_configuration.ipynb 00_search_comparators.ipynb): $(FIRST)
$(NOTEBOOKS): $(FIRST)
$(BUILT)/05_explain_transfer.ipynb: $(BUILT)/03_transfer_learning.ipynb
$(BUILT)/07_benchmark.ipynb: $(addprefix $(BUILT)/,$(addsuffix .ipynb,01_explore_rssi 03_transfer_learning 04_umlp \
	05_explain_transfer 06_build_unified))
# Not read, but recalled from there: two notebooks that begin together would both train what both have.
$(BUILT)/08_use_localizer.ipynb: | $(BUILT)/06_build_unified.ipynb
$(BUILT)/09_stress_localizer.ipynb: | $(BUILT)/04_umlp.ipynb $(BUILT)/06_build_unified.ipynb
$(BUILT)/10_environments.ipynb: | $(BUILT)/03_transfer_learning.ipynb $(BUILT)/12_transfer_from_many.ipynb
$(BUILT)/07_benchmark.ipynb: | $(BUILT)/10_environments.ipynb

# The README and docs/ show the tables and figures of the committed run.
ifeq ($(PROFILE)$(FINGERPRINT_OUTPUTS)$(filter-out subset,$(LORAWAN)),benchmark)
SHOW := $(BIN)/python -m lib.report.front
endif
