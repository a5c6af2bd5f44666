# Countersign. `make demo` and `make test` need Python >= 3.11 and nothing else; both call `make setup`.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# What `make control-planes` builds. Istio's releases are no versions of its module: this is 1.31's branch.
ENVOY_GATEWAY := v1.9.1
ISTIO := v0.0.0-20260827124520-eed52ebb66ad

.PHONY: help setup demo test differential oracle fuzz storm lifecycle kubernetes control-planes abuse bench bench-inprocess bench-compiled compiled compiled-test lock manifests image image-test compose-test observability lint format protos clean
.DEFAULT_GOAL := help

help:  ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv with .venv/bin/countersign

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Countersign needs Python 3.11 or newer; found $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[mesh,dev]'
	$(BIN)/python -m compileall -q server
	@touch $@

demo: setup  ## the local mesh: real Envoy, real mTLS, real tokens; KEEP=1 leaves it running
	@$(BIN)/countersign demo $(if $(KEEP),--keep) $(ARGS)

test: setup  ## every test, the real Envoy included
	$(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage report --skip-covered --skip-empty

differential: setup  ## SEED=1 PAIRS=50000: random policies and requests, the real Envoy is the judge; JUDGE=istio: its filters from Istio's Go code
	$(BIN)/python -m tests.envoy.judge.run --seed $(or $(SEED),1) --pairs $(or $(PAIRS),50000) --judge $(or $(JUDGE),ours)

oracle: setup  ## SEED=1: our reading of Istio's policies against Istio's own Go code (minutes to build, once)
	@command -v go >/dev/null || { echo "make oracle: Go is not installed; it builds Istio's own code" >&2; exit 2; }
	COUNTERSIGN_ORACLE=1 $(BIN)/python -m pytest -q tests/envoy/istio
	$(BIN)/python -m tests.envoy.istio.run --seed $(or $(SEED),1) $(ARGS)

fuzz: setup  ## SECONDS=60 or EXECS=10000000: the parsers under coverage-guided fuzzing
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz.run --seconds $(or $(SECONDS),60) --execs $(or $(EXECS),0) $(ARGS)

storm: setup  ## SECONDS=30: rotation and made-up key IDs at 300 requests a second, the real Envoy between
	$(BIN)/python -m tests.envoy.storm --seconds $(or $(SECONDS),30) $(ARGS)

lifecycle: setup  ## restarts, reloads, kill -9 at 500 to 1,000 requests a second, both transports, the real Envoy between
	$(BIN)/python -m tests.envoy.lifecycle $(ARGS)

kubernetes: setup  ## policies from Kubernetes' own API server, built with Go (10 minutes, once); needs etcd (Debian: etcd-server)
	@command -v go >/dev/null || { echo "make kubernetes: Go is not installed; it builds the API server" >&2; exit 2; }
	@command -v etcd >/dev/null || { echo "make kubernetes: etcd is not installed; Debian has it as etcd-server" >&2; exit 2; }
	@test -x .kubernetes/apiextensions-apiserver || GOBIN=$(CURDIR)/.kubernetes go install k8s.io/apiextensions-apiserver@v0.36.6
	COUNTERSIGN_APISERVER=$(CURDIR)/.kubernetes/apiextensions-apiserver $(BIN)/python -m pytest tests/kubernetes $(ARGS)

control-planes: setup  ## deploy/kubernetes, read by Envoy Gateway and Istio themselves, built with Go (30 minutes, once)
	@command -v go >/dev/null || { echo "make control-planes: Go is not installed; it builds egctl, istioctl and istiod" >&2; exit 2; }
	@test -x .control-planes/egctl || GOBIN=$(CURDIR)/.control-planes go install github.com/envoyproxy/gateway/cmd/egctl@$(ENVOY_GATEWAY)
	@test -x .control-planes/istioctl || GOBIN=$(CURDIR)/.control-planes go install istio.io/istio/istioctl/cmd/istioctl@$(ISTIO)
	@test -x .control-planes/pilot-discovery || GOBIN=$(CURDIR)/.control-planes go install istio.io/istio/pilot/cmd/pilot-discovery@$(ISTIO)
	COUNTERSIGN_CONTROL_PLANES=$(CURDIR)/.control-planes $(BIN)/python -m pytest -q tests/deploy $(ARGS)

abuse: setup  ## TIMES=10: floods, resets, idle connections, against both transports
	COUNTERSIGN_ABUSE=$(or $(TIMES),10) $(BIN)/python -m pytest -q -rP tests/edge/test_abuse.py

bench: setup  ## ROUNDS=3: what a check costs beside no-op servers, Envoy's own filters and Go; bench.json, bench.png
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || $(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m bench.run --rounds $(or $(ROUNDS),3) --json bench.json --chart bench.png $(ARGS)

bench-inprocess: setup  ## where the microseconds of a check go, by stage, without any transport
	$(BIN)/python -m bench.inprocess

compiled: setup  ## build/compiled: a wheel whose request path is compiled with mypyc; needs a C compiler and Python.h
	rm -rf build/compiled
	HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/compiled .
	$(BIN)/python -m pip install --quiet --no-deps --no-index --target build/compiled/site build/compiled/*.whl

compiled-test: compiled  ## the tests, asked of the compiled request path (10 minutes)
	PYTHONPATH=$(CURDIR)/build/compiled/site $(BIN)/python -m pytest -q -p tests.compiled.plugin $(ARGS)

bench-compiled: compiled  ## ROUNDS=3: what a check costs compiled, and interpreted
	$(BIN)/python -m bench.compiled $(CURDIR)/build/compiled/site $(or $(ROUNDS),3)

lock: setup  ## deploy/image/*.lock from pyproject.toml, with hashes; ARGS=--upgrade takes newer versions
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --editable '.[lock]'
	deploy/image/lock.sh $(BIN) $(ARGS)

manifests: setup  ## deploy/kubernetes, built by kustomize and held against Kubernetes' schemas; no cluster
	@test -x $(BIN)/kubernetes-validate || $(BIN)/python -m pip install --quiet --editable '.[deploy]'
	$(BIN)/python -m pytest -q tests/deploy $(ARGS)

image:  ## the Dockerfile, built without a daemon or a registry; prints the digests of its layers
	deploy/image/build.sh build/image

image-test: setup image  ## builds it again, compares, and runs compose's services from it beside the real Envoy
	deploy/image/build.sh build/image countersign:again >/dev/null
	COUNTERSIGN_IMAGE_STORE=$(CURDIR)/build/image unshare --net sh -c \
	  'ip link set lo up && exec $(BIN)/python -m pytest -q -rP tests/image $(ARGS)'

compose-test: setup image  ## `docker compose up` on Podman, in namespaces of its own; needs root, Go (3 minutes, once), Podman
	@for tool in go podman crun prometheus; do command -v $$tool >/dev/null || { echo "make compose-test: no $$tool. Docker" \
	  "Compose is built with Go; the rest: apt-get install podman crun netavark aardvark-dns prometheus" >&2; exit 2; }; done
	@test -x .compose/docker-compose || tests/compose/plugin.sh .compose/docker-compose
	tests/compose/images.sh build/compose build/image \
	  "$$($(BIN)/python -c 'from countersign.mesh.envoy import find_envoy; print(find_envoy())')" "$$(command -v prometheus)"
	COUNTERSIGN_COMPOSE=$(CURDIR)/.compose/docker-compose COUNTERSIGN_COMPOSE_IMAGES=$(CURDIR)/build/compose \
	  unshare --net --mount --pid --fork --kill-child --mount-proc tests/compose/apart.sh $(BIN)/python -m pytest -q -rP tests/compose $(ARGS)

observability: setup  ## alerts and dashboard, asked of a real Prometheus (Debian: prometheus) and of Grafana's own types
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || \
	  { echo "make observability: no prometheus or promtool: apt-get install prometheus has both" >&2; exit 2; }
	@$(BIN)/python -c 'import grafana_foundation_sdk' 2>/dev/null || $(BIN)/python -m pip install --quiet --editable '.[observability]'
	COUNTERSIGN_PROMETHEUS="$$(command -v prometheus)" $(BIN)/python -m pytest -q tests/observability tests/test_observability.py $(ARGS)

lint: setup  ## ruff, mypy strict, import contracts, compose schema, hadolint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/hadolint Dockerfile

format: setup  ## apply ruff's fixes and format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

protos: setup  ## compile protos/ into server/countersign/wire
	$(BIN)/python -m grpc_tools.protoc -I protos --python_out=server --pyi_out=server protos/countersign/wire/*.proto

clean:  ## remove what make has made
	rm -rf .venv build .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis
