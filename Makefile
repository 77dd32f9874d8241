# make grid: the default grid on the built-in data.  make test: the tests that take minutes; make test-all: and those that
# take longer.  make bench: all benchmarks.  Each sets up the environment on first use.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Two processes; tests that share what takes long to make run in one of them (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest -n 2 --no-loadscope-reorder

.PHONY: grid test test-all faults bench lint pins audit engines vela checkpoint clean

grid: $(VENV)/.installed
	$(BIN)/python runner.py --grid full $(ARGS)

test: $(VENV)/.installed
	$(PYTEST) $(ARGS)

# These and all others but those of make faults; Hypothesis generates ten times as many inputs.
test-all:
	$(MAKE) test ARGS='-m "not long" --hypothesis-profile all'

# An hour of faults: 50 kills, a cluster that loses a node, several drivers, servers that hang and die, an emulated Arm
# board that vanishes, hangs and is full.
# Tests of MLflow on PostgreSQL and S3 are skipped where there is no PostgreSQL: apt-get install postgresql.
faults: $(VENV)/servers/.installed
	$(BIN)/python -m pytest -m long -rs
	$(BIN)/python -m tests.faults --kills 50

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks $(ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# Are the packages those of requirements*.txt?  Asks nobody.
pins: $(VENV)/.installed
	$(BIN)/python -m audit

# Is a fault known in one of them that a newer version has not?  docs/security.md.
audit: $(VENV)/.installed $(VENV)/audit/.installed
	$(BIN)/python -m audit --advisories $(VENV)/audit/bin/pip-audit $(ARGS)

# The engines beside PyTorch's own: docs/engines.md.
engines: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-engines.txt

# Estimates for Arm's Ethos-U: docs/devices.md.
vela: $(VENV)/vela/.installed

# How the float networks that ship were trained: 70 and 50 minutes on one core, the last one 14 minutes on two.
checkpoint: $(VENV)/.installed
	$(BIN)/python -m model --data rooms --rooms-train 4000 --init lite0 --epochs 22 --freeze-bn-after 0.68 \
		--images-per-epoch 1000 --batch-size 16 \
		--out checkpoints/efficientnet_b0-rooms.safetensors
	$(BIN)/python -m model --task segmentation --rooms-train 2048 --init random --epochs 16 --batch-size 16 --float16 \
		--out checkpoints/segmentation-rooms.safetensors
	$(BIN)/python -m model --task classification --rooms-train 4096 --init random --epochs 12 --freeze-bn-after 0.6 \
		--backbone checkpoints/segmentation-rooms.safetensors --learning-rate 3e-4 --weight-decay 0.05 \
		--batch-size 32 --float16 --out checkpoints/classification-rooms.safetensors

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/audit/.installed: requirements-audit.txt $(VENV)/.installed
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-audit.txt
	touch $@

$(VENV)/vela/.installed: requirements-vela.txt $(VENV)/.installed
	$(PYTHON) -m venv $(VENV)/vela
	$(VENV)/vela/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-vela.txt
	touch $@

$(VENV)/servers/.installed: requirements-faults.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --target $(VENV)/servers -r $<
	touch $@

clean:
	rm -rf results $(VENV)
