# Everything is installed into .venv the first time, and again when the requirements change.
# Another Python: make PYTHON=python3.12 test
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
CORES := $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || sysctl -n hw.ncpu)
WORKERS := $(shell [ $(CORES) -lt 4 ] && echo $(CORES) || echo 4)
# One file stays in one process: what its tests share is made once.
PYTEST = OMP_NUM_THREADS=$(shell expr $(CORES) / $(WORKERS)) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

export NO_ALBUMENTATIONS_UPDATE = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help reproduce test test-fast browser notebooks handout hosted slides lesson-results lessons-gpu lab site fetch lint clean
.DEFAULT_GOAL := help

reproduce: $(STAMP)  ## train both models on the built-in data; the table beside the paper's
	$(BIN)/spine reproduce $(ARGS)

test: browser  ## the whole test suite, the notebooks too
	$(PYTEST) $(ARGS)

test-fast: $(STAMP)  ## the quick tests, while you edit
	$(PYTEST) -m "not slow and not browser" --ignore-glob="*.ipynb" $(ARGS)

notebooks: $(STAMP)  ## run the lessons' sources and write their notebooks
	$(BIN)/python -m spine_lib.course.authoring notebooks $(ARGS)

handout: $(STAMP)  ## the students' copy, the solutions and an nbgrader course: ARGS=FOLDER
	$(BIN)/python -m spine_lib.course.authoring handout $(ARGS)

hosted: $(STAMP)  ## copies for Colab and Kaggle, with badges: ARGS=owner/name of the public repository
	$(BIN)/python docs/hosted.py $(ARGS)

slides: $(STAMP)  ## a deck of slides from each lesson: ARGS=FOLDER
	$(BIN)/python docs/slides.py $(ARGS)

lesson-results: $(STAMP)  ## run the long measurements that the lessons draw
	$(BIN)/python benchmarks/lessons/measure.py $(ARGS)

lessons-gpu: $(STAMP)  ## run lesson 6 on a GPU and keep what its cells print
	$(BIN)/python benchmarks/lesson06_gpu.py

lab: $(STAMP)  ## the lessons in JupyterLab, as copies of your own in work/
	$(BIN)/python -m spine_lib.course.authoring work
	JUPYTER_CONFIG_PATH=work/.jupyter $(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) \
	  --ServerApp.ip=127.0.0.1 --LabApp.default_url=/lab/tree/00_start_here.ipynb $(ARGS) work

site: $(STAMP)  ## the course as web pages that need no Python: lessons, viewers, reference
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html $(ARGS)

fetch: $(STAMP)  ## fetch the five real patients
	$(BIN)/spine fetch $(ARGS)

lint: $(STAMP)  ## check the style of the code and the direction of the imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

clean:  ## remove caches and built pages; keeps data, runs and .venv
	rm -rf .pytest_cache .ruff_cache .hypothesis build dist test-artefacts docs/_build docs/api docs/lessons docs/_extra
	find spine_lib tests benchmarks notebooks docs \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A PyTorch that is there already (one for CPUs only, say) is kept: its pins are left out.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed. If one is installed, name it: make PYTHON=python3.12")'
	@echo "Installing into $(VENV): once, some minutes, about 3 GB to download on Linux (README: CPU-only PyTorch)."
	$(PYTHON) -m venv $(VENV) || { echo "On Debian or Ubuntu, install the package python3-venv."; exit 1; }
	@if $(BIN)/python -c "import torch" 2>/dev/null; then sed -E '/^torch(vision)?==/d' constraints.txt; \
	  else cat constraints.txt; fi >$(VENV)/constraints.txt
	$(BIN)/python -m pip install -q -c $(VENV)/constraints.txt -e ".[lab,lessons,test,site,instructor]"
	@touch $@

browser: $(STAMP)
	@{ chromium --version || google-chrome --version \
	  || { [ "$$(id -u)" = 0 ] && apt-get update && apt-get install -y --no-install-recommends chromium && chromium --version; } \
	  || PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT=10000 $(BIN)/python -m playwright install chromium; } >/dev/null 2>&1 \
	  || echo "Chromium is not here and could not be installed: the tests in a browser are skipped."
