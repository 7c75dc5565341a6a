# Every target is one line over `python -m spine_lib`, which does its own set-up: where there is no
# make (Windows, say), type that line. Another Python: make PYTHON=python3.12 test
PYTHON ?= python3
SPINE = $(PYTHON) -m spine_lib

.PHONY: help reproduce test test-fast notebooks lesson-results lab site fetch setup lint clean
.DEFAULT_GOAL := help

reproduce:  ## train both models on the built-in data; the table beside the paper's
	$(SPINE) reproduce $(ARGS)

test:  ## the whole test suite
	$(SPINE) test $(ARGS)

test-fast:  ## the tests that take no time, while you edit
	$(SPINE) test --fast $(ARGS)

notebooks:  ## run the lessons' sources and write their notebooks
	$(SPINE) notebooks $(ARGS)

lesson-results:  ## run the long measurements that the lessons draw
	$(SPINE) lesson-results $(ARGS)

lab:  ## the notebooks in JupyterLab
	$(SPINE) lab

site:  ## the course as pages that need no Python: lessons, sliders, reference
	$(SPINE) site

fetch:  ## fetch the four real patients
	$(SPINE) fetch

setup:  ## install what is needed into .venv and say what is there
	$(SPINE) setup

lint:  ## check the style of the code
	$(SPINE) lint

clean:  ## remove caches; keeps data, runs and .venv
	$(SPINE) clean

help:  ## this list
	@awk -F ':  ## ' '/^[a-z-]+:  ## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
