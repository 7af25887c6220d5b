# Every target that needs Python makes .venv first, and again when pyproject.toml or constraints.txt changed.
PYTHON ?= python3
BIN = .venv/bin
STAMP = .venv/.installed
# Figures are drawn in a small environment of their own, without torch.
FIGURES = .venv-figures
# The runs behind the committed figures: gates as they are by default, of several experiments. 0.001 below is the level
# of experiments/fixed_xi.yaml.
RECORDS = $(addprefix experiments/results/,controls mrpc_minilm glue_seeds fixed_xi) --only gates.gate_lr=1

.PHONY: help demo test bench lint docs tables figures report constraints clean
.DEFAULT_GOAL = help

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1	\2/p' Makefile | expand -t 16

demo: $(STAMP) ## Algorithm 1 on the three embedded tasks, floors and figures, into runs/demo
	$(BIN)/sorakit sweep --config experiments/demo.yaml --out runs/demo --workers 2
	$(BIN)/python -m analysis summary runs/demo
	$(BIN)/python -m analysis figures runs/demo --out runs/demo/figures
	@echo "Look at runs/demo/figures/curves.png first, and at docs/reading.md."

test: $(STAMP) ## Run the default test suite (all but slow, gpu and network), a process a core
	$(BIN)/pytest -q -n logical --dist worksteal

bench: $(STAMP) ## Race training steps against LoRA, AdaLoRA and full fine-tuning, into runs/bench: 10 minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.benchmarks.steps --out runs/bench

lint: $(STAMP) ## Check style, format, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: $(STAMP) ## Build the documentation site into site/, strictly and without network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

tables: $(STAMP) ## Freeze the committed records as paper_figs/data, and fill the tables of the pages
	$(BIN)/python -m analysis freeze $(RECORDS) --fixed-lambda 0.001 --out paper_figs/data
	$(BIN)/python -m experiments.memory_tables
	$(BIN)/python -m experiments.docs_tables

figures: $(FIGURES)/.installed ## Redraw paper_figs/out from paper_figs/data, without torch
	$(FIGURES)/bin/python -m paper_figs

report: $(STAMP) ## The page of the committed records: report.html
	$(BIN)/python -m analysis report $(RECORDS) --out report.html

constraints: $(STAMP) ## Pin what is installed in .venv in constraints.txt
	sed -n '/^#/p' constraints.txt > constraints.tmp
	$(BIN)/pip --disable-pip-version-check list --format=freeze \
	  --exclude pip --exclude sorakit >> constraints.tmp
	sed 's/+[A-Za-z0-9.]*$$//' constraints.tmp > constraints.txt
	rm constraints.tmp
	touch $(STAMP)

clean: ## Remove caches and build products; environments and runs stay
	rm -rf build dist site ./*.egg-info .hypothesis .pytest_cache .ruff_cache .import_linter_cache
	find . -path './.venv*' -prune -o -path ./runs -prune -o -type d -name __pycache__ -print | xargs rm -rf

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[analysis,dev,docs,wandb-workspaces]'
	touch $@

$(FIGURES)/.installed: paper_figs/requirements.txt constraints.txt
	test -x $(FIGURES)/bin/python || $(PYTHON) -m venv $(FIGURES)
	$(FIGURES)/bin/pip install -q --disable-pip-version-check -c constraints.txt -r paper_figs/requirements.txt
	touch $@
