PROMPT ?= a yellow sun over green hills at sunset
OUTPUT ?= out.png
MINUTES ?= 20
export PROMPT OUTPUT
VENV := .venv
SET_UP := $(VENV)/.set-up

.DEFAULT_GOAL := help
.PHONY: help setup run serve web test test-rare test-soak test-parity test-full test-export test-old bench bench-tensorrt lint lock

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(SET_UP) ## the environment alone, in .venv

$(SET_UP): requirements/lock.txt pyproject.toml scripts/setup.sh
	@scripts/setup.sh
	@touch $@

run: setup ## start the server, draw PROMPT="..." into OUTPUT=out.png, stop the server
	@$(VENV)/bin/python scripts/run.py -o "$$OUTPUT" -- "$$PROMPT"

serve: setup ## the server in the foreground, until Ctrl-C; Triton's flags in FLAGS="..."
	@exec $(VENV)/bin/fastdeployserver --model-repository=model_repository $(FLAGS)

web: setup ## the server, and in front of it the gateway with the page to draw on
	@exec $(VENV)/bin/python scripts/web.py $(FLAGS)

test: setup ## the tests that need no PyTorch
	@$(VENV)/bin/python -m pytest

test-rare: setup ## a server at odd places, and the GPU's benchmark on the processor: what takes minutes
	@$(VENV)/bin/python -m pytest tests/rare

test-soak: setup ## a server at work for MINUTES=20 minutes, and its processes killed
	@MINUTES="$(MINUTES)" $(VENV)/bin/python -m pytest -s tests/soak

test-parity: .venv-full/.set-up ## pictures, schedulers and tokens against diffusers, in .venv-full
	@.venv-full/bin/python -m pytest tests/parity

test-full: .venv-full/.set-up ## these, and the export's tests with PyTorch and Paddle
	@.venv-full/bin/python -m pytest tests/parity tests/full

test-export: .venv-full/.set-up ## the export of a full-size model by both roads: 16 GiB, 15 minutes
	@.venv-full/bin/python -m pytest -s tests/full_size

bench: setup ## the server's speed on this processor, beside the same work without a server
	@$(VENV)/bin/python benchmarks/cpu.py $(FLAGS)

bench-tensorrt: .venv-tensorrt/.set-up ## text_encoder and vae_decoder on TensorRT 8.5, served, on a machine with a GPU (Python 3.10, 2.1 GB)
	@.venv-tensorrt/bin/python benchmarks/trt.py $(FLAGS)

.venv-tensorrt/.set-up: requirements/tensorrt.txt
	@python3.10 -m venv .venv-tensorrt
	@.venv-tensorrt/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/tensorrt.txt
	@.venv-tensorrt/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv-full/.set-up: requirements/full.txt | setup
	@$(VENV)/bin/python -m venv .venv-full
	@.venv-full/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/full.txt
	@touch $@

test-old: setup .venv-old/.set-up ## the tests on Triton 23.10, in .venv-old (Python 3.11)
	@$(VENV)/bin/python -m pytest tests/old_triton

.venv-old/.set-up: requirements/old.txt
	@python3.11 -m venv .venv-old
	@.venv-old/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/old.txt
	@touch $@

lint: setup ## style, and syntax of Python 3.8 where FastDeploy's image may run the code
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/vermin --quiet --no-tips --violations -t=3.8- model_repository \
	    $$(find triptych -name '*.py' -not -path 'triptych/gateway/*')

lock: ## requirements/lock.txt anew, one for Python 3.11 and 3.12 (needs uv)
	@for version in 3.12 3.11; do \
	    uv pip compile --quiet --upgrade --python-version $$version --python-platform x86_64-manylinux_2_35 \
	        --generate-hashes --no-header --no-annotate --no-emit-index-url \
	        --extra serve --extra client --extra gateway --extra test \
	        --output-file $(VENV)/lock-$$version.txt pyproject.toml requirements/build.in || exit; \
	done
	@cmp $(VENV)/lock-3.11.txt $(VENV)/lock-3.12.txt
	@mv $(VENV)/lock-3.11.txt requirements/lock.txt
