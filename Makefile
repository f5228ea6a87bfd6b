# make demo   the whole line on a generated dataset, about two minutes
# make test   style, types, import directions and all tests
# make check  the same without the tests
# Each sets up everything it needs in .venv by itself; only Python 3.11 or newer and make must be there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2
DEMO_OUT ?= demo-out

.PHONY: demo test check format benchmarks tables clean

demo: $(STAMP)
	$(BIN)/recdistill demo --out $(DEMO_OUT) --overwrite

test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS)

check: $(STAMP)
	$(BIN)/ruff check src tests recipes benchmarks docs
	$(BIN)/ruff format --check src tests recipes benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format src tests recipes benchmarks docs
	$(BIN)/ruff check --fix src tests recipes benchmarks docs

# Results need the datasets: RECDISTILL_DATA must name the folder that holds them. What is finished is not done again.
RECIPES := parity fair beyond transfer ablation cost size_curve magazine_filters foster foster_ids foster_ablation \
	foster_transfer diet_kuairand

results/certificate_td3_ml100k.json: $(STAMP) FORCE
	$(BIN)/python -m recipes.certificate --workers $(WORKERS)

results/td3_ml100k.json: $(STAMP)
	$(BIN)/python -m recipes.td3_ml100k

$(RECIPES:%=results/%.json): results/%.json: $(STAMP) FORCE
	$(BIN)/python -m recipes $* --workers $(WORKERS)

FORCE:

benchmarks: $(STAMP)
	$(BIN)/python -m benchmarks.meta_gradient --json
	$(BIN)/python -m benchmarks.outer_step --json
	$(BIN)/python -m benchmarks.profile_step --json
	$(BIN)/python -m benchmarks.interval_coverage --json
	$(BIN)/python -m benchmarks.plan_error --json
	$(BIN)/python -m benchmarks.foster_step --json
	$(BIN)/python -m benchmarks.diet_cost --json
	$(BIN)/python -m benchmarks.click_stream --json --threads 1

tables: $(STAMP)
	$(BIN)/python -m recipes.tables

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "recdistill needs Python 3.11 or newer; run: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

clean:
	rm -rf $(VENV) $(DEMO_OUT) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
