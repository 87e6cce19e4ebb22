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
# one selection for everything that is built for release: another one has other features and builds dependencies again
release-build = RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --no-default-features \
	--target $(1) -p operator -p node-shim -p kubectl-selvage -p e2e
RELEASE := $(call release-build,$(HOST))
CLUSTER := $(STATIC)/cluster
# Cargo.toml of e2e keeps these out of plain `cargo test` (clients and customizations need Go, the others a cluster, root or the
# release programs); always with the whole workspace selected, because another selection has other features and builds every
# dependency once more
ON_CLUSTERS := --test chart --test clients --test cluster --test customizations --test fresh --test live --test manifests --test rights
CACHE  := $(or $(SELVAGE_CACHE),$(HOME)/.cache/selvage)
SITE   := $(CACHE)/tools/site-$(shell cksum < docs/site/requirements.txt | cut -d ' ' -f 1)
DENY_VERSION := 0.20.2
# the same version as the library that node-shim links
WASMTIME_VERSION := $(shell sed -n '/^name = "wasmtime"$$/{n;s/^version = "\(.*\)"/\1/p}' Cargo.lock)
WASMTIME := $(CACHE)/tools/wasmtime-config-$(WASMTIME_VERSION)/bin/wasmtime
DENY   := $(CACHE)/tools/cargo-deny-$(DENY_VERSION)/bin/cargo-deny

CYCLONEDX_VERSION := 0.5.9
CYCLONEDX := $(CACHE)/tools/cargo-cyclonedx-$(CYCLONEDX_VERSION)/bin/cargo-cyclonedx
# architectures of a release as OCI names them, with the compiler's names for them and for the GNU tools
ARCHS ?= amd64 arm64
MACHINE_amd64 := x86_64
MACHINE_arm64 := aarch64
BUILDS := $(CARGO_TARGET_DIR)/release-programs
# the compiler of this machine links for this machine only
ifneq ($(HOST),x86_64-unknown-linux-gnu)
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER ?= x86_64-linux-gnu-gcc
endif
ifneq ($(HOST),aarch64-unknown-linux-gnu)
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER ?= aarch64-linux-gnu-gcc
endif

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: machine dist ## Play the whole story on a real cluster (KEEP=1 leaves it running)
	@$(CLUSTER) demo $(if $(KEEP),--keep)

# With nothing built yet, a debug build of e2e would compile its 255 dependencies a second time: the programs need all
# of them but one (tempfile). `make test` has the debug build anyway.
demo cluster-up: HARNESS := --bin cluster

.PHONY: demo-down
demo-down: ## End what `make demo KEEP=1` left running
	@$(RELEASE) --quiet --bin cluster
	@$(CLUSTER) demo --down

# the tests run functions in other languages too, whose toolchains `make demo` does not need
test e2e soak: PARTS := languages

# The tests on clusters wait most of their time, so lint and the build of the unit tests run beside them. The unit tests
# run alone: they have time limits that a busy machine would exceed.
.PHONY: test
test: machine dist languages ## Everything: lint, unit tests, tests on a real control plane and real nodes
	cargo test --workspace --locked $(ON_CLUSTERS) --no-run
	e2e/beside.sh make lint unit-programs -- cargo test --workspace --locked $(ON_CLUSTERS) -- --test-threads=1
	$(MAKE) unit

.PHONY: machine
machine: ## Check that this machine has what a local cluster needs, and name what is missing
	@e2e/prerequisites.sh cluster $(PARTS)

.PHONY: lint
lint: deny ## Formatting, clippy, documentation, dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --workspace $(ON_CLUSTERS) --test gitops --test projects --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked

.PHONY: deny
deny: $(DENY) ## Licences, sources and versions of all dependencies; what each crate may depend on
	$(DENY) --locked check bans licenses sources
	for config in $(wildcard */deny.toml */*/deny.toml); do \
	  $(DENY) --locked --manifest-path $${config%deny.toml}Cargo.toml --config $$config check bans; \
	done

.PHONY: advisories
advisories: $(DENY) ## Published advisories for the versions in Cargo.lock (fetches their database from github.com)
	$(DENY) --locked check advisories

.PHONY: language
language: ## Lower the numbers of words to avoid in e2e/tests/language-baseline.txt to what is there
	LANGUAGE_BASELINE=write cargo test --workspace --locked --test house language -- --nocapture

# Built from the crates registry, once for each version. They run for seconds, so they are built quickly, not to be fast.
tool-build = CARGO_TARGET_DIR=$(CACHE)/tools/build CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
	  CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0 \
	  cargo install $(1) --locked --version $(2) --root $(CACHE)/tools/$(1)-$(2)

$(DENY):
	$(call tool-build,cargo-deny,$(DENY_VERSION))
	rm -rf $(CACHE)/tools/build

$(CYCLONEDX):
	$(call tool-build,cargo-cyclonedx,$(CYCLONEDX_VERSION))
	rm -rf $(CACHE)/tools/build

.PHONY: unit-programs
unit-programs:
	cargo test --workspace --locked --no-run

.PHONY: unit
unit: ## Tests that need no cluster, the rules of ARCHITECTURE.md among them
	cargo run --quiet --locked --bin cluster -- packages --tests
	cargo test --workspace --locked

.PHONY: e2e
e2e: machine dist languages ## Tests on real control planes, nodes, registry and Prometheus
	cargo test --workspace --locked $(ON_CLUSTERS) -- --test-threads=1

.PHONY: soak
soak: machine dist languages ## Mixed traffic for half an hour on a real cluster, with rollouts and upgrades (SELVAGE_SOAK_MINUTES sets another duration)
	cargo test --workspace --locked --test live -- soak

.PHONY: projects
projects: programs ## Follow the README of each project that `kubectl selvage new` writes (not in `make test`: downloads toolchains)
	@e2e/prerequisites.sh languages projects
	cargo test --workspace --locked --test projects -- --test-threads=1

.PHONY: gitops
gitops: machine dist ## Argo CD and Flux on a real cluster; builds their controllers once, for a quarter of an hour (not in `make test`)
	cargo test --workspace --locked --test gitops -- --test-threads=1 --nocapture

.PHONY: dist
dist: programs hello ## What runs in a cluster: static programs in images, the example component in Rust

.PHONY: programs
programs: ## Static operator, node-shim and plugin of kubectl; images of the first two
	@e2e/prerequisites.sh programs
	$(RELEASE) --bin operator --bin node-shim --bin kubectl-selvage $(HARNESS)
	mkdir -p $(DIST)
	for program in operator node-shim kubectl-selvage; do strip -o $(DIST)/$$program $(STATIC)/$$program; done # profilers want the symbols
	$(if $(HARNESS),$(CLUSTER),cargo run --locked --bin cluster --) images $(DIST)

# The same commit in the same folder gives the same files: the time is that of the commit, and nothing else is of the machine.
.PHONY: release
release: $(ARCHS:%=release-programs-%) $(CYCLONEDX) ## Files to publish, in target/dist/release, for amd64 and arm64 (or ARCHS); needs REGISTRY and DOWNLOADS
	$(RELEASE) --bin cluster # the debug build takes minutes to compress the images
	$(CLUSTER) release $(ARCHS:%=--architecture %) --cyclonedx $(CYCLONEDX) \
	  --registry '$(REGISTRY)' --downloads '$(DOWNLOADS)' --time "$$(git log -1 --format=%ct)" \
	  --revision "$$(git describe --always --dirty --abbrev=40 --exclude '*')" $(BUILDS) $(DIST)/release

.PHONY: release-checks
release-checks:
	@[ -n '$(REGISTRY)' ] || { echo 'Set REGISTRY to where the images will be, such as registry.example/selvage.' >&2; exit 1; }
	@[ -n '$(DOWNLOADS)' ] || { echo 'Set DOWNLOADS to the URL of the folder where the archives of the plugin will be.' >&2; exit 1; }
	@ARCHS='$(ARCHS)' e2e/prerequisites.sh release

release-programs-%: release-checks
	$(call release-build,$(MACHINE_$*)-unknown-linux-gnu) --bin operator --bin node-shim --bin kubectl-selvage
	mkdir -p $(BUILDS)/$*
	for program in operator node-shim kubectl-selvage; do \
	  $(MACHINE_$*)-linux-gnu-strip -o $(BUILDS)/$*/$$program $(CARGO_TARGET_DIR)/$(MACHINE_$*)-unknown-linux-gnu/release/$$program; \
	done

.PHONY: hello
hello: ## The example component in Rust in its four versions
	examples/build.sh $(DIST)/examples

.PHONY: languages
languages: ## The example components in other languages; each is built once for each version of its files
	@e2e/prerequisites.sh languages
	examples/languages.sh $(DIST)/examples

.PHONY: examples
examples: hello languages ## All example components

.PHONY: customizations
customizations: ## Write integrations/argo-cd/argocd-cm.yaml from the scripts beside it
	cd e2e/customizations && CGO_ENABLED=0 go run -mod=readonly . write ../../integrations

.PHONY: crds
crds: ## Write crds/yaml, the chart's copy, docs/fields.md and docs/values.md
	cargo run --quiet --locked --bin crdgen

.PHONY: docs
docs: $(SITE)/installed ## The documentation as a site with search, in target/site; broken links fail
	python3 docs/site/stage.py $(CARGO_TARGET_DIR)/site-source
	$(SITE)/bin/zensical build --strict --config-file $(CARGO_TARGET_DIR)/site-source/zensical.toml
	rm -rf $(CARGO_TARGET_DIR)/site
	mv $(CARGO_TARGET_DIR)/site-source/site $(CARGO_TARGET_DIR)/site
	@echo "Open $(CARGO_TARGET_DIR)/site/index.html"

# Wheels from PyPI with the hashes in docs/site/requirements.txt, once for each version of that file. Nothing is compiled.
$(SITE)/installed:
	@e2e/prerequisites.sh docs
	rm -rf $(SITE)
	python3 -m venv $(SITE)
	$(SITE)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r docs/site/requirements.txt
	touch $@

.PHONY: cluster-up
cluster-up: machine dist ## A local cluster with Selvage to work in; ends with cluster-down
	@$(CLUSTER) up --selvage

.PHONY: cluster-down
cluster-down: ## End it
	@$(RELEASE) --quiet --bin cluster
	@$(CLUSTER) down

# Built from the crates registry, once for each version.
$(WASMTIME):
	CARGO_TARGET_DIR=$(CACHE)/tools/build-wasmtime cargo install wasmtime-cli --locked --version $(WASMTIME_VERSION) --no-default-features \
	  --features serve,run,pooling-allocator,component-model,component-model-async,wasi-config,cranelift \
	  --root $(CACHE)/tools/wasmtime-config-$(WASMTIME_VERSION)
	rm -rf $(CACHE)/tools/build-wasmtime

.PHONY: performance
performance: dist languages $(WASMTIME) ## node-shim against wasmtime serve; writes docs/performance.md and its picture (the machine must be idle)
	$(RELEASE) -p bench --bin bench
	$(STATIC)/bench hosts --node-shim $(DIST)/node-shim --wasmtime $(WASMTIME) \
	  --guest $(DIST)/examples/hello-bare.wasm --guest $(DIST)/examples/hello-still.wasm \
	  --guest $(DIST)/examples/hello-v1.wasm --guest $(DIST)/examples/c.wasm \
	  --guest $(DIST)/examples/hono.wasm --guest $(DIST)/examples/python.wasm \
	  --page docs/performance.md --picture docs/images/performance.svg

.PHONY: bench
bench: performance ## Performance, Monte-Carlo of the sequential test, serve against a bare hyper server and with several threads, first responses, compilation, identical revisions, idle functions, neighbours, growth of the leader
	$(RELEASE) -p bench --bin bench
	$(STATIC)/bench monte-carlo
	$(STATIC)/bench serve --node-shim $(DIST)/node-shim --guest $(DIST)/examples/hello-bare.wasm --guest $(DIST)/examples/hello-still.wasm
	$(STATIC)/bench threads --node-shim $(DIST)/node-shim --guest $(DIST)/examples/hello-bare.wasm --guest $(DIST)/examples/hello-still.wasm
	$(STATIC)/bench first --guest $(DIST)/examples/hello-bare.wasm --guest $(DIST)/examples/hello-still.wasm
	$(STATIC)/bench compile --node-shim $(DIST)/node-shim \
	  --toolchain Rust=$(DIST)/examples/hello-v1.wasm,$(DIST)/examples/cart.wasm,$(DIST)/examples/hello-v2.wasm \
	  --toolchain JavaScript=$(DIST)/examples/javascript.wasm,$(DIST)/examples/hono.wasm \
	  --toolchain Python=$(DIST)/examples/python.wasm
	$(STATIC)/bench identical --guest $(DIST)/examples/hello-bare.wasm
	$(STATIC)/bench idle --guest $(DIST)/examples/hello-bare.wasm
	$(STATIC)/bench neighbours --guest $(DIST)/examples/hello-bare.wasm --spinning $(DIST)/examples/hello-spin.wasm
	cargo test --quiet --workspace --locked --lib growth_of_the_leader -- --ignored --nocapture

.PHONY: replay
replay: ## Recompute the published samples of the sequential test
	cargo run --quiet --locked -p operator -- replay delivery/tests/sequential-samples.json

.PHONY: clean
clean: ## Remove build output (the cluster's cache in ~/.cache/selvage stays)
	cargo clean
