# `make train` and `make test` set up .venv by themselves; every other target uses the same environment.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin

# The CUDA release that the NVIDIA driver supports decides which build of JAX fits; no driver, no CUDA.
CUDA_MAJOR := $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9]*\).*/\1/p')
CUDA := $(if $(CUDA_MAJOR),$(if $(filter 13 14 15,$(CUDA_MAJOR)),cuda13,cuda12))

# Huge pages spare the allocator a tenth of a training step on CPUs; a C library without the tunable ignores it.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: train test test-matrix test-slow test-versions test-newest test-floor newest-environment mutants mutants-programs clean-runs bench-gpu gpu-compiler lint types format docs dist wheel-check clean

train: $(VENV)/.base
	$(BIN)/python -m jax_alexnet.train --devices all $(ARGS)

# Files of tests are shared by a process more than there are processors, four at most: each loads both frameworks. They
# are handed out in the order that tests/conftest.py gives them, the longest first.
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

# The rest of those matrices of which `make test` runs a part: a minute and a half on two cores.
test-matrix: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m matrix $(ARGS)

# Whole matrices, on programs that are compiled as users compile them.
test-slow: $(VENV)/.dev
	OPTIMIZED=1 $(BIN)/python -m pytest -m slow $(ARGS)

# The core of the suite on the newest Python here with the newest packages, and on the oldest that are promised.
test-versions: test-newest test-floor

test-newest test-floor: test-%:
	$(PYTHON) tests/versions.py $* $(ARGS)

newest-environment:
	$(PYTHON) tests/versions.py newest --prepare

# What the parity harness is worth: every planted bug, and 200 runs without one.
mutants: $(VENV)/.dev
	$(BIN)/python -m parity mutants $(ARGS)

# What the training programs' tests are worth: bugs planted by cosmic-ray, drawn evenly over their files.
mutants-programs: $(VENV)/.dev
	PYTHONPATH=. $(BIN)/python tests/mutate_programs.py $(ARGS)

clean-runs: $(VENV)/.dev
	$(BIN)/python -m parity clean $(ARGS)

# All that only a GPU can show in under 9 minutes, with one page and one JSON file whatever breaks on the way.
BENCH := bench
BENCH_SECONDS := 500
bench-gpu: $(VENV)/.dev
	$(BIN)/python -m parity gpu --output $(BENCH) --seconds $(BENCH_SECONDS) $(ARGS)

# XLA's GPU compiler without CUDA, to read programs for GPUs that aren't there; apart from the environment, where JAX
# would take it for a GPU.
gpu-compiler: $(VENV)/.base
	version=$$($(BIN)/python -c 'import importlib.metadata as m; print(m.version("jax"))'); \
	$(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/gpu-compiler \
		jax-cuda12-pjrt==$$version nvidia-cuda-nvcc-cu12

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/pyright

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The documentation as pages, with search; a broken link fails. To look at it: python3 -m http.server --directory site
docs: $(VENV)/.base
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build $(ARGS)

# A source archive, and the wheel that is made from it.
dist: $(VENV)/.dev
	rm -rf dist build
	$(BIN)/python -m build --quiet
	$(BIN)/twine check --strict dist/*

# The wheel in an environment of its own runs every command of README and docs that a CPU without network can run.
wheel-check: dist
	$(BIN)/python tests/docs_commands.py dist/*.whl

clean:
	rm -rf $(VENV)

$(VENV)/.created:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ": make train PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/.base: $(VENV)/.created pyproject.toml
	$(if $(CUDA),@echo "NVIDIA driver for CUDA $(CUDA_MAJOR) found: installing the $(CUDA) extra")
	$(BIN)/python -m pip install --quiet -e ".$(if $(CUDA),[$(CUDA)])"
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@
