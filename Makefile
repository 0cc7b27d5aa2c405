# Every target sets up what it needs: Python 3.11 or newer and make are enough.
#   make demo | test | test-gpu | lint | peers | peers-llama | bench | bench-gpu | campaign | lock | clean     PYTHON=python3.12 for another interpreter
PYTHON  ?= python3
VENV    ?= .venv$(if $(filter python3,$(PYTHON)),,-$(notdir $(PYTHON)))
LOCK    ?= requirements.txt
RUNS    ?= runs
WORKERS ?= 2
PY      := $(VENV)/bin/python
UV      := $(shell command -v uv 2>/dev/null)
# XLA's CPU client asks the system for its temporaries anew in every step: in huge pages that costs a thousand page faults
# where it cost a hundred thousand, 8% of a training step. Only glibc listens to this, and bits do not change.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-gpu lint peers peers-llama bench bench-gpu campaign lock clean

help:                     ## what there is
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*##/\t/' | expand -t 12

# $(1) is a lock file. uv where it is there, stock pip where it is not: both check every hash.
ifeq ($(UV),)
install = $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r $(1)
create  = $(PYTHON) -m venv $(VENV)
else
install = uv pip install --quiet --python $(PY) --require-hashes -r $(1)
create  = uv venv --quiet --allow-existing --python $(PYTHON) $(VENV)
endif

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else \
	  f"Athanor needs Python 3.11 or newer and $(PYTHON) is {v.major}.{v.minor}: name another, as in make demo PYTHON=python3.12")'
	$(create)

$(VENV)/.$(LOCK): $(LOCK) | $(VENV)/bin/python
	@echo "installing $(LOCK) into $(VENV) (about a minute the first time)"
	$(call install,$(LOCK))
	@touch $@

$(VENV)/.requirements-dev.txt: requirements-dev.txt $(VENV)/.$(LOCK)
	$(call install,requirements-dev.txt)
	@touch $@

setup: $(VENV)/.$(LOCK)   ## a virtual environment with the locked packages (LOCK=requirements-cuda.txt for a GPU)

demo: setup               ## raw text to a trained, measured model that answers, and learns from what people like
	$(PY) -m experiments.launch --config=experiments/quickstart/report.py --runs=$(RUNS)
	@echo; $(PY) -m experiments.sample --run=$$(ls -dt $(RUNS)/sotu-lm-*/ | head -1) --prompt='My fellow citizens,' --max_new=120
	$(PY) -m experiments.launch --config=experiments/quickstart/stages.py --runs=$(RUNS)
	@echo; echo "the report: $$(ls -dt $(RUNS)/sotu-report-*/ | head -1)report.html"
	@echo "the stages: $$(ls -dt $(RUNS)/sotu-stages-*/ | head -1)stages.html"

test: $(VENV)/.requirements-dev.txt   ## the test suite, on the CPU
	$(PY) -m pytest -q -n $(WORKERS) --dist loadfile tests

# No JAX_PLATFORMS leaves the choice to jax: a GPU that is here, and the CPU beside it. Elsewhere all are skipped by name.
test-gpu: $(VENV)/.requirements-dev.txt   ## the tests that need an NVIDIA GPU (LOCK=requirements-cuda.txt)
	JAX_PLATFORMS= XLA_PYTHON_CLIENT_PREALLOCATE=false $(PY) -m pytest -q -n $(WORKERS) -m gpu tests

campaign: $(VENV)/.requirements-dev.txt   ## the long forms: kills, damaged checkpoints, full disks
	$(PY) -m pytest -q -m campaign tests

lint: $(VENV)/.requirements-dev.txt   ## ruff, and mypy over the public types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

peers-llama: $(VENV)-peers-llama/.ready   ## llama.cpp for `make bench`, built from source with this machine's instructions: a quarter of an hour

BENCH   ?=
PEERS_HF     := $(VENV)-peers-hf
PEERS_GPU    := $(VENV)-peers-gpu
PEERS_LITGPT := $(VENV)-peers-litgpt
PEERS_TRL    := $(VENV)-peers-trl
PEERS_PPO    := $(VENV)-peers-ppo

peers: $(VENV)/.requirements-dev.txt $(PEERS_TRL)/.ready $(PEERS_PPO)/.ready   ## our losses, templates and GGUF files beside TRL, rlax and gguf
	$(PY) -m pytest -q tests/align/test_peers.py tests/model/test_template_peers.py tests/model/weights/test_gguf_peer.py

bench: setup $(PEERS_HF)/.ready $(PEERS_LITGPT)/.ready $(PEERS_TRL)/.ready   ## speed beside peers, about twenty minutes: BENCH="train --quick" for some of it
	$(PY) -m experiments.bench $(BENCH) --hf=$(PEERS_HF)/bin/python --litgpt=$(PEERS_LITGPT)/bin/python \
	  --trl=$(PEERS_TRL)/bin/python --llama=$(VENV)-peers-llama/bin/python

bench-gpu: $(VENV)/.requirements-dev.txt $(PEERS_GPU)/.ready $(PEERS_LITGPT)/.ready   ## checks and times on one GPU, nine minutes: BENCH="--only=train" for some
	$(PY) -m experiments.bench.gpu $(BENCH) --peers=$(PEERS_GPU)/bin/python --litgpt=$(PEERS_LITGPT)/bin/python

# The peers pin packages that the project does not want, and each other's: an environment each. Not locked by hash,
# for PyTorch's builds differ from index to index.
$(VENV)-peers-%/.ready: requirements-peers-%.txt | $(VENV)/bin/python
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

lock:                     ## the lock files again, from the ranges in pyproject.toml
	@test -n "$(UV)" || $(MAKE) --no-print-directory $(VENV)/bin/uv
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH"; for extra in "" cuda tpu; do \
	  uv pip compile --universal --generate-hashes --no-header --quiet $${extra:+--extra $$extra} \
	    pyproject.toml -o requirements$${extra:+-$$extra}.txt || exit 1; done; \
	uv pip compile --universal --generate-hashes --no-header --quiet --group dev -c requirements.txt -o requirements-dev.txt

$(VENV)/bin/uv: | $(VENV)/bin/python
	$(PY) -m pip install --quiet uv

clean:                    ## the virtual environments and caches; never runs/
	rm -rf .venv .venv-* .cache .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
