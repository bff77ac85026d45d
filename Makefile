# The suite's commands. `make run` and `make test` set everything up by themselves.
PYTHON ?= python3
RECIPE ?= demo
DATA ?=
SET ?=
RUN ?= $(RECIPE)

BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install run app test lint notebooks bench clean

help:  ## list these commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/installed  ## make the environment .venv/ (once)

.venv/installed: requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -r requirements.txt -c constraints.txt
	@touch $@

run: install  ## run the six main notebooks: make run DATA=my_photos, or RECIPE=vehicles SET="folds=10"
	$(BIN)/python -m helpers.batch --recipe $(if $(DATA),own,$(RECIPE)) \
	  $(if $(SET)$(DATA),--set) $(if $(DATA),"data=$(DATA)") $(SET)

app: install  ## open the web page of a run: make app RUN=vehicles
	-$(BIN)/python -m helpers.serving.saving --run outputs/$(RUN)
	MALLOC_ARENA_MAX=1 $(BIN)/streamlit run helpers/serving/app.py -- --run outputs/$(RUN)

test: install lint  ## pass the tests
	$(BIN)/python -m pytest

lint: install  ## check the style
	$(BIN)/ruff check helpers notebooks tests

notebooks: install  ## after editing a notebook's .py: pair, run the demo, keep its outputs
	$(BIN)/jupytext --quiet --sync notebooks/*.py
	rm -rf outputs/demo
	$(BIN)/python -m helpers.batch --recipe demo --set final=true --until 11
	$(BIN)/python -m helpers.dev.publish

bench: install  ## measure speed and findings: make bench PHOTOS=folder-of-photos
	$(BIN)/python -m helpers.dev.bench $(if $(PHOTOS),--photos $(PHOTOS))

clean:  ## remove all runs and the demo's images
	rm -rf outputs/*/ data/demo/waste
