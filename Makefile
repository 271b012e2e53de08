# `make demo` does all set-up and the main job; `make test` all set-up and the tests.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed
# What tests marked `system` run: a browser, the Prometheus server, the documents' examples, networks of their own with
# a name server and a proxy, and a C++ compiler for torch.compile.
OBSERVED := curl dnsmasq-base iproute2 prometheus
HOSTS := curl dnsmasq-base haproxy iproute2
CLUSTER := curl iproute2 openssl prometheus
DEBIAN := $(sort $(OBSERVED) $(HOSTS) $(CLUSTER)) chromium chromium-driver g++ libpython3-dev
TRITON_TESTS := tests/integration/test_triton.py
# They promise seconds, which tests beside them would take.
ALONE := tests/integration/test_hosts.py tests/integration/test_reliability.py
# Two files at a time, for most tests wait for processes more than they compute; the long ones, which come first, stay so.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help demo demo-on-policy test test-all test-triton triton-server observability-check cluster-check gpu-check debian lint format protos protos-check bench fuzz overload mishaps soak hosts clean

help:
	@echo "make demo [DATA=folder]  the whole line on a sample city, or on a HOSER data folder"
	@echo "make demo-on-policy      the same with one student more, which learns on routes that it draws itself"
	@echo "make test                what a newcomer runs: all quick tests, Python packages only"
	@echo "make test-all            every test: the long ones too, and those that need Debian packages, which it installs"
	@echo "make test-triton         the tests against a real Triton server, which make triton-server installs into .triton"
	@echo "make observability-check the tests of deploy/observe: a real Prometheus, teachers and a trainer (as root)"
	@echo "make cluster-check       the tests of deploy/kubernetes: kustomize, schemas, the Pods' processes (as root); no cluster"
	@echo "make gpu-check           the tests of teacher and student on a CUDA device"
	@echo "make lint                formatting, lint, types, generated code"
	@echo "make format              put the formatting right"
	@echo "make protos              generate the wire code anew"
	@echo "make bench               measure"
	@echo "make fuzz overload mishaps soak"
	@echo "                         real servers under spoilt requests, ten-fold load, bad callers and signals, and a long"
	@echo "                         run (2 to 10 minutes each)"
	@echo "make hosts               trainers, teachers and a name server on hosts of their own that fail: as root, 13 minutes"

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/trainer demo $(if $(DATA),--data "$(DATA)")

demo-on-policy: $(INSTALLED)
	$(BIN)/trainer demo --on-policy --out runs/demo-on-policy $(if $(DATA),--data "$(DATA)")

test: $(INSTALLED)
	$(PYTEST) -m "not slow and not system"

debian:
	@.ci/debian $(DEBIAN)

test-all: $(INSTALLED) debian test-triton
	$(PYTEST) --durations=25 --ignore=$(TRITON_TESTS) $(ALONE:%=--ignore=%)
	$(BIN)/pytest --durations=10 $(ALONE)

test-triton: $(INSTALLED) triton-server
	$(BIN)/pytest $(TRITON_TESTS)

observability-check: $(INSTALLED)
	@.ci/debian $(OBSERVED)
	$(BIN)/pytest tests/test_observe.py tests/integration/test_observed.py

cluster-check: $(INSTALLED)
	@.ci/debian $(CLUSTER)
	$(BIN)/pytest tests/kubernetes

gpu-check: $(INSTALLED)
	@$(BIN)/python -c "import torch; torch.cuda.is_available() or exit('make gpu-check: there is no CUDA device here')"
	$(BIN)/pytest tests/gpu

triton-server: .triton/.installed

.triton/.installed: tests/integration/install_triton.sh constraints.txt
	tests/integration/install_triton.sh .triton

lint: $(INSTALLED) protos-check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint docker/*.Dockerfile

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

PROTO := protos/teacher/v1/teacher.proto
GENERATED := teacher_pb2.py teacher_pb2.pyi teacher_pb2_grpc.py

protos: $(INSTALLED)
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. $(PROTO)

protos-check: $(INSTALLED)
	@made=$$(mktemp -d) && trap 'rm -r "$$made"' EXIT && \
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=$$made --pyi_out=$$made --grpc_python_out=$$made $(PROTO) && \
	for file in $(GENERATED); do diff -u protos/teacher/v1/$$file $$made/protos/teacher/v1/$$file || \
	{ echo "the generated code is stale: run make protos"; exit 1; }; done

fuzz overload mishaps soak: $(INSTALLED)
	$(BIN)/python -m bench.reliability $@

hosts: $(INSTALLED)
	@[ "$$(id -u)" != 0 ] || .ci/debian $(HOSTS)
	$(BIN)/python -m bench.hosts

bench: $(INSTALLED)
	$(BIN)/python -m bench

clean:
	rm -rf .venv .triton build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
