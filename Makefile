# ModelHost. `make` alone lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV := .venv
BIN := $(VENV)/bin
# The newest Python here that can run ModelHost. Version managers leave programs on PATH that do not run: try them.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: help host venv demo demo-gitlab run test chaos bench bench-peers bench-host bench-peers-host bench-recovery bench-auth \
	bench-batching check fix docs proto proto-check proto-lint clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

host: ## Install what this host lacks of R and Git (Debian or Ubuntu, as root)
	@need=""; \
	command -v R >/dev/null || need="$$need r-base-core"; \
	command -v git >/dev/null || need="$$need git"; \
	if [ -z "$(PYTHON)" ]; then need="$$need python3 python3-venv"; \
	elif ! $(PYTHON) -c 'import ensurepip' 2>/dev/null; then need="$$need python3-venv"; fi; \
	if [ -z "$$need" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing$$need"; \
		apt-get update -q >/dev/null && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$need >/dev/null; \
	else \
		echo "this host lacks:$$need; install it (on Debian: apt-get install$$need) and try again" >&2; exit 2; \
	fi

venv: $(VENV)/.made ## Make the virtual environment with everything for development

# $(1): the folder, $(2): the Python, $(3): dependency groups besides what the server needs.
# rpy2 in ABI mode is pure Python: no compiler, and no R while it is installed.
define make_venv
@python="$(2)"; [ -n "$$python" ] || python=$$(command -v python3); \
"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	{ echo "ModelHost needs Python 3.11 or newer; this host has $$("$$python" -V 2>&1)" >&2; exit 2; }; \
"$$python" -m venv $(1)
$(1)/bin/python -m pip install -q --upgrade 'pip>=25.1'
RPY2_CFFI_MODE=ABI $(1)/bin/python -m pip install -q -e '.[server]' $(3)
@touch $@
endef

$(VENV)/.made: pyproject.toml | host
	$(call make_venv,$(VENV),$(PYTHON),--group test --group check)

# Servers that are compared have the same Python: the system's, where it will do. One that a version manager has compiled
# is mostly without the optimisations of the build, and a fifth slower.
BENCH_VENV := build/bench-venv
BENCH := $(BENCH_VENV)/bin/python
BENCH_PYTHON ?= $(shell /usr/bin/python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo /usr/bin/python3 || echo "$(PYTHON)")

$(BENCH_VENV)/.made: pyproject.toml | host
	$(call make_venv,$(BENCH_VENV),$(BENCH_PYTHON),--group test)

demo: venv ## Deploy three old models and predict with each
	@$(BIN)/python examples/demo.py

demo-gitlab: venv ## Show the life of a model in a GitLab: deploy, mend, debug, update, roll back
	@$(BIN)/python examples/demo_gitlab.py

run: venv ## Run a server in the foreground with the examples deployed
	@$(BIN)/python examples/demo.py --serve

test: venv ## Run all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

chaos: venv ## Two minutes of everything that can go wrong (CHAOS_SECONDS=, CHAOS_SEED=)
	@$(BIN)/python -m tests.chaos

bench: bench-host $(BENCH_VENV)/.made ## How fast calls are and what deploying costs (BENCH_ROUNDS=, BENCH_SECONDS=, BENCH_ONLY=)
	@$(BENCH) -m benchmarks.bench --only "$(BENCH_ONLY)"

bench-peers: bench-host bench-peers-host $(BENCH_VENV)/.made ## The same beside other servers, which are installed below build/peers
	@$(BENCH) -m benchmarks.bench --peers --only "$(BENCH_ONLY)"

bench-recovery: $(BENCH_VENV)/.made ## How soon a killed worker is replaced under load
	@$(BENCH) -m benchmarks.recovery

bench-host: host ## Install what benchmarks need besides (Debian or Ubuntu, as root)
	@command -v h2load >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing nghttp2-client"; \
		apt-get update -q >/dev/null && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends nghttp2-client >/dev/null; \
	else \
		echo "this host lacks h2load; install it (on Debian: apt-get install nghttp2-client) and try again" >&2; exit 2; \
	fi

# What is missing of it leaves its peer out, with a reason; it does not stop the others.
bench-peers-host: host
	@[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 0; \
	lib=$$(/usr/bin/python3 -c 'import sys; print("libpython%d.%d" % sys.version_info[:2])' 2>/dev/null || true); \
	need=""; \
	for package in r-cran-plumber python3-venv $$lib; do \
		dpkg -s $$package >/dev/null 2>&1 || need="$$need $$package"; \
	done; \
	[ -n "$$need" ] || exit 0; \
	echo "installing$$need"; \
	apt-get update -q >/dev/null; \
	for package in $$need; do \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$package >/dev/null || true; \
	done

bench-auth: bench-host $(BENCH_VENV)/.made ## What tokens, grants, limits and usage cost a call
	@$(BENCH) -m benchmarks.auth

bench-batching: bench-host $(BENCH_VENV)/.made ## What batches give
	@$(BENCH) -m benchmarks.batching

check: venv proto-check ## Lint, formats, types, stubs, reference pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check

docs: venv ## Write the reference pages
	$(BIN)/python docs/generate.py

fix: venv proto docs ## Mend what `make check` can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The generator lives apart: it holds protobuf back (see pyproject.toml).
PROTO_VENV := build/proto-venv
$(PROTO_VENV)/.made: pyproject.toml | host
	@python="$(PYTHON)"; "$${python:-python3}" -m venv $(PROTO_VENV)
	$(PROTO_VENV)/bin/python -m pip install -q --upgrade 'pip>=25.1'
	$(PROTO_VENV)/bin/python -m pip install -q --group proto
	@touch $@

# $(1): the directory that the stubs are written below
define generate
	PATH=$(PROTO_VENV)/bin:$$PATH $(PROTO_VENV)/bin/python -m grpc_tools.protoc -Iproto \
		--python_out=$(1) --mypy_out=quiet:$(1) proto/modelhost/*/*.proto
	PATH=$(PROTO_VENV)/bin:$$PATH $(PROTO_VENV)/bin/python -m grpc_tools.protoc -Iproto \
		--grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) proto/modelhost/v1/{admin,predict}.proto
	@# Messages of package `inference` in a pool of their own: other packages bring the same names (ADR 21).
	sed -i 's/_descriptor_pool\.Default()/_descriptor_pool.DescriptorPool()/' \
		$(1)/modelhost/inference/open_inference_pb2.py
endef

proto: $(PROTO_VENV)/.made ## Generate the stubs from the .proto files
	$(call generate,proto)

proto-check: $(PROTO_VENV)/.made ## Are the stubs those of the .proto files?
	@rm -rf build/proto && mkdir -p build/proto
	@$(call generate,build/proto)
	@diff -r -x '*.proto' -x __init__.py -x __pycache__ build/proto/modelhost proto/modelhost || \
		{ echo "the stubs are not those of the .proto files: run make proto" >&2; exit 1; }

proto-lint: ## Lint the .proto files with buf (or through npx)
	@if command -v buf >/dev/null; then buf lint proto; else npx --yes @bufbuild/buf lint proto; fi

clean: ## Remove everything that was made here
	rm -rf $(VENV) build dist .demo .demo-gitlab .run .mypy_cache .ruff_cache .pytest_cache
