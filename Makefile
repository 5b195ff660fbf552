# Every target first makes .venv, on a bare machine with Python 3.11 or newer, holding the versions
# of constraints.txt. Nothing outside this folder is touched.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --constraint constraints.txt

.PHONY: help demo test test-lowest check docs notebooks bench findings

help:
	@echo "make demo    classify and reconstruct rendered videos, train for a minute; demo/index.html"
	@echo "make test    run the tests"
	@echo "make test-lowest  the same with the lowest versions that pyproject.toml allows"
	@echo "make check   lint, formatting and types"
	@echo "make docs    the documentation as a site: site/index.html"
	@echo "make notebooks  run the notebooks at full size and store what they show, in some minutes"
	@echo "make findings  the paper's findings in small, in a day; QUICK=1 in half an hour"
	@echo "make bench   run the measurements in benchmarks/, in some hours"

demo: .venv/base.stamp
	$(BIN)/videomae demo

# Two workers of one thread each: on two cores, threads of one process would wait for each other.
test: .venv/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# Plain pip can only choose the newest versions, so uv makes this environment.
test-lowest:
	$(PYTHON) -m venv .venv/lowest
	.venv/lowest/bin/python -m pip install --quiet uv
	.venv/lowest/bin/uv pip install --python .venv/lowest/bin/python --resolution lowest-direct \
	  --editable '.[dev]'
	OMP_NUM_THREADS=1 .venv/lowest/bin/python -m pytest -n 2

check: .venv/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/codespell $$(git ls-files)

# A folder per version, for any server of plain files. Warnings are errors, such as links without an end.
docs: .venv/docs.stamp
	$(BIN)/python -m sphinx -E -W --keep-going -q -c docs -d build/doctrees . \
	  site/$$($(BIN)/python -c 'import videomae; print(videomae.__version__)')
	@echo "open site/index.html"

# make notebooks/finetune.ipynb runs one of them.
NOTEBOOKS := $(patsubst %.py,%.ipynb,$(wildcard notebooks/*.py))
.PHONY: $(NOTEBOOKS)
notebooks: $(NOTEBOOKS)

$(NOTEBOOKS): %.ipynb: %.py .venv/dev.stamp
	$(BIN)/jupytext --quiet --to ipynb --output $*.new.ipynb $<
	$(BIN)/jupyter-execute --inplace --NotebookClient.record_timing=False $*.new.ipynb
	mv $*.new.ipynb $@

bench: .venv/dev.stamp
	@set -e; for name in parity "speed $$(date +%F)-$$(uname -m)" loader actions_tiny; do \
	  echo "== $$name"; $(BIN)/python -m benchmarks.$$name; done

findings: .venv/base.stamp
	$(BIN)/python -m reproduction $(if $(QUICK),--quick)

.venv/base.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("videomae needs Python 3.11 or newer, this is " + \
	sys.version.split()[0] + "; name another: make PYTHON=python3.12" \
	if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(INSTALL) --editable '.[train,serve]'
	touch $@

.venv/dev.stamp: .venv/base.stamp
	$(INSTALL) --editable '.[dev]'
	touch $@

.venv/docs.stamp: .venv/base.stamp
	$(INSTALL) --editable '.[docs]'
	touch $@
