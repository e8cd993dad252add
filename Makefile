# `make run` and `make test` set up all that they need in .venv; plain `make` lists the targets.

.DEFAULT_GOAL := help
# What is compiled once is read from then on; without it every start takes twice as long.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help install install-dev run test check lock clean

# What to say on the command line or in the environment, all optional:
FLAVOUR ?=
CONFIG ?=
ENGINE ?=
PORT ?=
PYTEST_ARGS ?=
UPGRADE ?=
# On the command line only: some shells and compilers keep another HOST in the environment.
HOST :=

# PYTHON= names the Python to use. Without it: the first of these that starts, is in range and, if
# any does, can make a virtual environment. A command that is there may still not start: pyenv's
# shims do not, for versions that are not selected.
in_range := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
find_python = for needs in 'import ensurepip' pass; do \
    for each in python3 python3.13 python3.12 python3.11; do \
      if "$$each" -c "$$needs; $(in_range)" 2>/dev/null; then echo "$$each"; exit; fi; \
    done; \
  done; echo python3
install = exec "$(or $(PYTHON),$$($(find_python)))" requirements/install.py --flavour="$(FLAVOUR)" \
  $(if $(PYTHON),--this-python)

help:
	@echo 'make run      serve, on http://localhost:8000    CONFIG=file.yaml ENGINE=simulated HOST= PORT='
	@echo 'make test     run the tests                      PYTEST_ARGS="-k queue"'
	@echo 'make check    formatting, lint, types, house rules'
	@echo 'make install  only set up .venv'
	@echo 'make lock     write the lock files anew          UPGRADE=1 for the newest of everything'
	@echo 'make clean    remove .venv, caches and logs'
	@echo
	@echo 'FLAVOUR=gpu|cpu|gateway   what to serve with; default: gpu if there is an NVIDIA GPU, else cpu'
	@echo 'PYTHON=python3.12         the Python that .venv is made with: 3.11, 3.12 or 3.13'

install:
	@$(install)

install-dev:
	@$(install) --dev

# `exec`, so that a signal reaches the program itself and not a shell that dies before it.
run: install
	@exec .venv/bin/sluicegate run $(if $(CONFIG),--config '$(CONFIG)') \
	  $(if $(ENGINE),--engine '$(ENGINE)') $(if $(HOST),--host '$(HOST)') $(if $(PORT),--port '$(PORT)')

test: install-dev
	@exec .venv/bin/python -m pytest $(PYTEST_ARGS)

check: install-dev
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/mypy requirements/*.py
	.venv/bin/python -m pytest -q tests/test_house.py tests/test_settings.py tests/test_docs.py

lock:
	@PYTHON="$(or $(PYTHON),$$($(find_python)))" UPGRADE='$(UPGRADE)' requirements/lock.sh

clean:
	rm -rf .venv-clients .venv-clients.lock tests/clients/node/node_modules
	rm -rf .venv .venv.lock .venv-install.log .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
