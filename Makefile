# Everything from a fresh clone: `make run` for the main job, `make test` for the tests. Needs Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin

# Two cores. ARGS="-n 0 -s" uses one and shows what a test prints.
TESTS := -m pytest -n 2 --dist worksteal
ENGINES := .engines
export PACORE_VLLM ?= $(CURDIR)/$(ENGINES)/vllm
export PACORE_SGLANG ?= $(CURDIR)/$(ENGINES)/sglang
PACORE_VERL ?= $(CURDIR)/$(ENGINES)/verl
# vLLM leaves sockets to the garbage collector, which is not ours to fail over.
ENGINE_TESTS := -m pytest -p no:hypothesispytest -p no:unraisableexception tests/engines
BENCH := -m pytest -p no:hypothesispytest -p no:unraisableexception --benchmark-enable --benchmark-columns=min,median,max,iqr,rounds -s

.PHONY: run test test-slow test-engines test-sglang test-vllm test-verl lint bench clean

run: .venv/ready
	$(BIN)/python run.py repeats=4 $(ARGS)

test: lint
	$(BIN)/python $(TESTS) -m "not slow" $(ARGS)

test-slow: .venv/ready
	$(BIN)/python $(TESTS) -m slow $(ARGS)

# Real engines on a CPU, in process and served: transformers and SGLang, then vLLM. Each builds its environment (3 GB and
# 4 GB, two minutes each) unless PACORE_SGLANG or PACORE_VLLM names one.
test-engines: test-sglang test-vllm

test-sglang: .venv/ready $(PACORE_SGLANG)/ready
	PACORE_ENGINES=hf,sglang,sglang_server $(BIN)/python $(ENGINE_TESTS) $(ARGS)

test-vllm: .venv/ready $(PACORE_VLLM)/ready
	PACORE_ENGINES=vllm_server $(BIN)/python $(ENGINE_TESTS) $(ARGS)
	PACORE_ENGINES=vllm $(PACORE_VLLM)/bin/python $(ENGINE_TESTS) $(ARGS)

# Real verl on a CPU, around our data set, reward and recipe. Builds its environment (2 GB) unless PACORE_VERL names it.
test-verl: $(PACORE_VERL)/ready
	$(PACORE_VERL)/bin/python -m pytest tests/verl $(ARGS)

lint: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# The figures of docs/performance.md; on a quiet machine.
bench: .venv/ready $(PACORE_VLLM)/ready $(PACORE_SGLANG)/ready
	$(BIN)/python $(BENCH) tests/bench_*.py $(ARGS)
	PACORE_ENGINES=hf,sglang $(BIN)/python $(BENCH) tests/engines/bench_efficiency.py $(ARGS)
	PACORE_ENGINES=hf,vllm $(PACORE_VLLM)/bin/python $(BENCH) -k vllm tests/engines/bench_efficiency.py $(ARGS)

%/vllm/ready: tests/engines/install.sh tests/engines/vllm.txt
	PYTHON=$(PYTHON) tests/engines/install.sh vllm $(@D)

%/sglang/ready: tests/engines/install.sh tests/engines/sglang.txt
	PYTHON=$(PYTHON) tests/engines/install.sh sglang $(@D)

%/verl/ready: tests/verl/install.sh tests/verl/verl.txt
	PYTHON=$(PYTHON) tests/verl/install.sh $(@D)

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv $(ENGINES)
