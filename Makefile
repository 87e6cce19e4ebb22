# Two commands matter: `make demo` (the main job on real parts) and `make test` (everything).
# Both install what they need. `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export CARGO_TARGET_DIR ?= $(CURDIR)/target
export INSTA_UPDATE ?= no
HOST   := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
DIST   := $(CARGO_TARGET_DIR)/dist
STATIC := $(CARGO_TARGET_DIR)/$(HOST)/release
export SELVAGE_DIST := $(DIST)
RELEASE := RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target $(HOST)
# Cargo.toml of e2e keeps these out of plain `cargo test`; always with the whole workspace selected, because
# another selection has other features and builds every dependency once more
ON_CLUSTERS := --test chart --test cluster --test fresh --test live --test manifests --test rights

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: machine dist ## Play the whole story on a real cluster (KEEP=1 leaves it running)
	@cargo run --locked --bin demo -- $(if $(KEEP),--keep)

.PHONY: demo-down
demo-down: ## End what `make demo KEEP=1` left running
	@cargo run --quiet --locked --bin demo -- --down

.PHONY: test
test: machine lint unit e2e ## Everything: lint, unit tests, tests on a real control plane and real nodes

.PHONY: machine
machine: ## Check that this machine has what a local cluster needs, and name what is missing
	@e2e/prerequisites.sh cluster

.PHONY: lint
lint: ## Formatting, clippy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --workspace $(ON_CLUSTERS) --locked -- -D warnings

.PHONY: unit
unit: ## Tests that need no cluster, the rules of ARCHITECTURE.md among them
	cargo test --workspace --locked

.PHONY: e2e
e2e: machine dist ## Tests on real control planes, nodes, registry and Prometheus
	cargo test --workspace --locked $(ON_CLUSTERS) -- --test-threads=1

.PHONY: dist
dist: programs examples ## What runs in a cluster: static programs in images, example components

.PHONY: programs
programs: ## Static operator and node-shim, and their images
	@e2e/prerequisites.sh programs
	$(RELEASE) -p operator -p node-shim
	mkdir -p $(DIST)
	for program in operator node-shim; do strip -o $(DIST)/$$program $(STATIC)/$$program; done # profilers want the symbols
	cargo run --locked --bin image -- $(DIST)

.PHONY: examples
examples: ## The example component in its four versions
	examples/build.sh $(DIST)/examples

.PHONY: crds
crds: ## Write crds/yaml and the chart's copy from the types
	cargo run --quiet --locked --bin crdgen

.PHONY: cluster-up
cluster-up: machine dist ## A local cluster to work in; ends with cluster-down
	cargo run --locked --bin cluster -- up

.PHONY: cluster-down
cluster-down: ## End it
	cargo run --quiet --locked --bin cluster -- down

.PHONY: bench
bench: dist ## Monte-Carlo of the sequential test, serve against a bare hyper server, first responses
	$(RELEASE) -p operator -p node-shim -p bench # together: features as in the programs, so nothing is built again
	$(STATIC)/bench monte-carlo
	$(STATIC)/bench serve --node-shim $(DIST)/node-shim --guest $(DIST)/examples/hello-bare.wasm --guest $(DIST)/examples/hello-still.wasm
	$(STATIC)/bench first --guest $(DIST)/examples/hello-bare.wasm --guest $(DIST)/examples/hello-still.wasm

.PHONY: replay
replay: ## Recompute the published samples of the sequential test
	cargo run --quiet --locked -p operator -- replay operator/core/tests/sequential-samples.json

.PHONY: clean
clean: ## Remove build output (the cluster's cache in ~/.cache/selvage stays)
	cargo clean
