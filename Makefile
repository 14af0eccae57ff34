PROMPT ?= a yellow sun over green hills at sunset
OUTPUT ?= out.png
# A dollar sign in them is one.
override PROMPT := $(value PROMPT)
override OUTPUT := $(value OUTPUT)
MINUTES ?= 20
# A processor may draw a large model's picture for an hour, and whoever waits for it can end it.
PATIENCE := --timeout 86400
export PROMPT OUTPUT
VENV := $(if $(GPU),.venv-gpu,.venv)
LOCK := requirements/$(if $(GPU),lock-gpu,lock).txt
SET_UP := $(VENV)/.set-up
NO_DRIVER := GPU=1, but this machine has no NVIDIA driver: without GPU=1 the processor draws
DRIVER := $(wildcard /dev/nvidiactl /dev/dxg)
$(if $(GPU),$(if $(DRIVER),,$(error $(NO_DRIVER))))

.DEFAULT_GOAL := help
.PHONY: help setup run serve web test test-rare test-fleet test-fleet-short test-soak test-parity test-full test-export test-old bench bench-openvino bench-tensorrt docs lint lock

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(SET_UP) ## the environment alone, in .venv; with GPU=1, here and below, in .venv-gpu with CUDA

$(SET_UP): $(LOCK) pyproject.toml scripts/setup.sh
	@scripts/setup.sh $(VENV) $(LOCK)
	@touch $@

run: setup ## start the server, draw PROMPT="..." into OUTPUT=out.png, stop the server
	@trap 'code=0' INT; $(VENV)/bin/python scripts/run.py $(PATIENCE) -o "$$OUTPUT" -- "$$PROMPT"; \
	    exit $${code:-$$?} # at Ctrl-C make ends by that itself, and would have a line of its own for another code

serve web: export TRIPTYCH_TYPED = make $@$(if $(GPU), GPU=1)

serve: setup ## the server in the foreground, until Ctrl-C; Triton's flags in FLAGS="..."
	@exec scripts/serve.sh $(VENV) $(FLAGS)

web: setup ## the server, and in front of it the gateway with the page to draw on
	@exec $(VENV)/bin/python scripts/web.py $(PATIENCE) $(FLAGS)

test: setup ## the tests that need neither PyTorch nor minutes
	@$(VENV)/bin/python -m pytest -n 2

test-rare: setup ## what takes minutes: a server that is killed, overloaded, at odd places; the docs' examples; the page in Firefox
	@$(VENV)/bin/python -m pytest tests/rare
	@$(VENV)/bin/python -m pytest --browser=firefox -k test_page tests/gateway

test-fleet: test-fleet-short ## several servers behind Envoy, object storage, and the files that deploy them: minutes; 195 MB of tools in .venv-fleet
	@$(VENV)/bin/python -m pytest -s tests/fleet -k "test_fleet or add_up"

test-fleet-short: setup .venv-fleet/.set-up ## the part of it that wants no cores of its own: the chart, object storage, Envoy before stand-ins
	@$(VENV)/bin/python -m pytest -n 2 --dist loadfile tests/fleet -k "not (test_fleet or add_up)"

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

bench-openvino: .venv-peers/.set-up ## the server on OpenVINO beside ONNX Runtime's own provider and optimum-intel's pipeline (1.6 GB in .venv-peers)
	@$(VENV)/bin/python benchmarks/cpu_openvino.py $(FLAGS)

.venv-peers/.set-up: requirements/peers.txt | setup
	@$(VENV)/bin/python -m venv .venv-peers
	@.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/peers.txt
	@.venv-peers/bin/python -m pip uninstall --quiet --yes torchvision # not needed, and broken beside a PyTorch without CUDA
	@touch $@

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

test-old: setup .venv-old/.set-up ## Triton 23.10, and Python 3.8 as in FastDeploy's image: python3.8 on PATH makes .venv-old
	@$(VENV)/bin/python -m pytest tests/old_triton

.venv-old/.set-up: requirements/old.txt
	@python3.8 -m venv .venv-old
	@.venv-old/bin/python -m pip install --quiet --disable-pip-version-check --only-binary=:all: -r requirements/old.txt
	@touch $@

.venv-fleet/.set-up: requirements/fleet.txt | setup
	@$(VENV)/bin/python -m venv .venv-fleet
	@.venv-fleet/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/fleet.txt
	@touch $@

docs: .venv-docs/.set-up ## the pages of docs/ as a site in site/, its links checked; in .venv-docs
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict # with --quiet, --strict would not fail
	@echo "site/index.html; with its search: $(VENV)/bin/python -m http.server -d site"

.venv-docs/.set-up: requirements/docs.txt | setup
	@$(VENV)/bin/python -m venv .venv-docs
	@.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/docs.txt
	@touch $@

lint: setup ## style, and syntax of Python 3.8 where FastDeploy's image may run the code
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/vermin --quiet --no-tips --violations -t=3.8- model_repository \
	    $$(find triptych -name '*.py' -not -path 'triptych/gateway/*')

lock: ## requirements/lock.txt and lock-gpu.txt anew (needs uv)
	@scripts/lock.sh
