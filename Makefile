# All tasks of this checkout, for people and CI.

SHELL := bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

DENO := node_modules/.bin/deno
INSTALLED := node_modules/.package-lock.json
# The launcher runs these bundles instead of the sources.
FAST := build/fast/spawn-worker.js
SHELL_FILES := scripts/launch scripts/install-engine scripts/prepare install.sh .ci/run $(wildcard docker/*.sh docs/*/*.sh tests/*.sh tests/*/*.bash tests/*/*.sh tests/*/*.bats)
SOURCES := scripts lib tests $(wildcard docs/*.ts docs/*/*.ts)
# Run only what matches: make test-dind FILTER='spawn' FILES=tests/bats/pool.bats
FILTER ?=
FILES ?=
# For test-engines: only these engines, and the checkout to test
ENGINE ?=
CHECKOUT ?=
PROJECT ?=
# Where make install installs
PREFIX ?=
# If set, mount the repository of a PROJECT that is a git worktree
ALLOW_WORKTREE ?=
SAMPLES ?=
LANES ?=
# How many rounds test-soak runs for each round of make test
SOAK ?= 10
# For test-mutation: number of changes, random seed, and whether bats tests the survivors
SAMPLE ?=
SEED ?=
BATS ?=
export FILTER PROJECT PREFIX ALLOW_WORKTREE SAMPLES LANES SAMPLE SEED BATS CHECKOUT

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: ## Set everything up and start a worker [PROJECT=dir]
	@./scripts/prepare
	@$(MAKE) $(FAST)
	@./scripts/up.ts $${ALLOW_WORKTREE:+--allow-worktree} $${PROJECT:+"$$PROJECT"}

down: $(INSTALLED) ## Stop workers, parent and net; keep data and images
	@./scripts/coordinator.ts stop-all --yes
	@./scripts/claudy.ts daemon stop

install: ## Install claudy and the hal9000-* commands [PREFIX=/usr/local or ~/.local]
	@./install.sh $${PREFIX:+--prefix "$$PREFIX"}

uninstall: ## Remove them, with containers and images; keep data [PREFIX=dir]
	@./install.sh --uninstall $${PREFIX:+--prefix "$$PREFIX"}

engine: $(INSTALLED) ## Use the running engine, or install and start one
	@./scripts/engine.ts start

engine-stop: $(INSTALLED) ## Stop the engine, if make engine started it
	@./scripts/engine.ts stop

images: $(INSTALLED) ## Build images that are out of date
	@./scripts/build-images.ts

build: $(INSTALLED) ## Bundle each script into one file in build/scripts
	@./scripts/build.ts

fmt: $(INSTALLED) ## Format the sources
	@$(DENO) fmt --quiet $(SOURCES)

check: $(INSTALLED) ## Check format, lint, types, imports, shell scripts and generated documents
	@echo "Checking format, lint, types, imports and shell"
	@$(DENO) fmt --quiet --check $(SOURCES)
	@$(DENO) lint --quiet $(SOURCES)
	@node_modules/.bin/tsc
	@$(DENO) run --allow-read --no-lock --quiet tests/layout.ts
	@$(DENO) run --allow-all --no-lock --quiet docs/generate.ts --check
	@tests/shellcheck.sh $(SHELL_FILES)

test: ## Run all checks and tests
	@tests/all.sh

test-unit: $(INSTALLED) ## Run the unit tests [FILTER=regex]
	@echo "Unit tests"
	@tests/unit.sh "$$FILTER"

test-mutation: $(INSTALLED) ## Find changes of lib that no unit test detects [SAMPLE=60 SEED=n]
	@$(DENO) run --allow-all --no-lock --quiet tests/mutation.ts

test-dind: $(FAST) ## Run the tests on a real engine [FILTER=regex FILES=... LANES=2]
	@echo "Tests on the engine"
	@tests/dind.sh "$$FILTER" $(FILES)

test-soak: $(FAST) ## Run tests tagged soak with more rounds [SOAK=10 FILTER=regex]
	@echo "Soak tests on the engine"
	@SOAK="$(SOAK)" BATS_TEST_TIMEOUT=3600 tests/dind.sh "$$FILTER"

test-engines: $(FAST) ## Try each kind of engine, as root (minutes) [ENGINE='podman vm']
	@tests/engines.sh $(ENGINE)

test-fresh: ## Follow the README on an empty Debian 13 and 12 (minutes) [FILES='13 user']
	@tests/fresh.sh $(FILES)

$(FAST): $(INSTALLED) package.json $(wildcard scripts/*.ts lib/*/*.ts lib/*/*/*.ts)
	@./scripts/build.ts --fast >/dev/null

benchmark-dind: $(FAST) ## Compare spawns and claims with Docker [SAMPLES=20]
	@./scripts/build-images.ts >/dev/null
	@tests/bench/benchmark.ts $${SAMPLES:+--samples "$$SAMPLES"}

benchmark-migration: $(FAST) ## Compare a migration with cp -a [FILES=50000 SAMPLES=3]
	@./scripts/build-images.ts >/dev/null
	@FILES="$(FILES)" tests/bench/migration.sh

benchmark-fork: $(FAST) ## Compare copies and forks with git clone and cp -a [FILES=5000 COMMITS=1000 SAMPLES=3]
	@./scripts/build-images.ts >/dev/null
	@FILES="$(FILES)" COMMITS="$(COMMITS)" tests/bench/fork.sh

benchmark-mcp: $(FAST) ## Measure calls of MCP servers from a worker [SAMPLES=1000]
	@./scripts/build-images.ts >/dev/null
	@tests/bench/mcp.sh

docs: $(INSTALLED) ## Write the manual pages, and the settings in CONFIGURATION.md
	@$(DENO) run --allow-all --no-lock --quiet docs/generate.ts

pictures: $(INSTALLED) ## Render docs/pictures/*.dot
	@$(DENO) run --allow-read --allow-write=docs/pictures --no-lock --quiet docs/pictures.ts

recording: $(FAST) ## Record the session that the README shows
	@docs/recording/record.sh

clean: ## Remove build output and packages; keep images and user data
	@rm -rf build dist docker/build node_modules

# The first start of deno places its program, also over one that another start runs.
$(INSTALLED): package.json package-lock.json
	@echo "Installing npm packages" >&2
	@start=$$SECONDS; npm ci --ignore-scripts --no-fund --no-audit --loglevel=error >&2; \
	  $(DENO) --version >/dev/null && echo "npm packages: $$((SECONDS - start)) s" >&2

.PHONY: help up down install uninstall engine engine-stop images build fmt check test test-unit test-mutation test-dind test-soak test-engines test-fresh benchmark-dind benchmark-migration benchmark-fork benchmark-mcp docs pictures recording clean
