# What a newcomer needs is `make run` and `make test`; `make` alone lists everything.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
PYTHON := .venv/bin/python
TOOLS := .cache/tools
TERRAFORM := infra/terraform/provider
PROTOC := .cache/protoc
# The simulation has flags of its own, in tests/sim/.cargo/config.toml.
SIM_CARGO := env -u RUSTFLAGS $(CARGO)
SIM_TARGET := --target-dir $(abspath $(TARGET_DIR))/sim
# A workspace of its own, whose libraries nothing else shares.
TERRAFORM_DIR := $(abspath $(TARGET_DIR))/terraform
TERRAFORM_TARGET := --target-dir $(TERRAFORM_DIR)
LIBCLANG := .cache/libclang
PSQL := .cache/psql
OPENSSL := .cache/openssl
export BIGPEER_BIN := $(abspath $(TARGET_DIR))/release/bigpeer
# One selection of packages and one profile for all tests: what they depend on is built once.
TESTS := $(CARGO) test --locked --workspace

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

run: $(OPENSSL) ## build and start bigpeer on its defaults (data in ./data)
	$(CARGO) run --release --locked -p bigpeer -- serve

build: $(OPENSSL) ## build the release binary
	$(CARGO) build --release --locked -p bigpeer

test: unit sim-test e2e test-terraform ## every test; installs what the tests need

unit: $(OPENSSL) $(PYTHON) ## unit, property and integration tests of every crate; the tables also on disk and on S3, Kafka on a broker
	$(TESTS) --no-run
	$(TESTS) --exclude bigpeer-e2e
	$(PYTHON) scripts/test_stores.py
	$(PYTHON) scripts/test_kafka.py

sim-test: ## the simulator's own tests, and a few seeds
	cd tests/sim && $(SIM_CARGO) test --locked $(SIM_TARGET)

sim: ## the services under deterministic simulation, 200 seeds; SEED=7 one of them, SEEDS=200..900 others
	cd tests/sim && $(SIM_CARGO) run --locked $(SIM_TARGET) -- $(or $(SEED),$(SEEDS),0..200)

e2e contract test-terraform: export BIGPEER_BIN := $(abspath $(TARGET_DIR))/debug/bigpeer

e2e: $(OPENSSL) $(PYTHON) $(PSQL) ## end-to-end tests through the real binary, built with all assertions
	$(TESTS) --no-run
	$(TESTS) --test e2e -- --test-threads 2
	$(PYTHON) scripts/contract.py --examples 30
	$(PYTHON) scripts/sql_clients.py
	$(PYTHON) scripts/feed_kafka.py --rows 20000

feed-kafka: build $(PYTHON) ## the change feed to Kafka on a real broker: kills, outages, all 336,776 flights
	$(PYTHON) scripts/feed_kafka.py

sql-clients: build $(PYTHON) $(PSQL) ## SQL over Arrow Flight and PostgreSQL's protocol, with the clients that people have
	$(PYTHON) scripts/sql_clients.py

contract: $(OPENSSL) $(PYTHON) ## whether a running server keeps what its OpenAPI description promises
	$(TESTS) --no-run
	$(PYTHON) scripts/contract.py

test-terraform: $(OPENSSL) $(PROTOC) $(PYTHON) ## the Terraform provider and modules, by the real terraform, against a running server
	$(TESTS) --no-run
	cd $(TERRAFORM) && $(CARGO) test --locked $(TERRAFORM_TARGET)
	CARGO_TARGET_DIR=$(TERRAFORM_DIR) $(PYTHON) scripts/test_terraform.py

terraform-docs: $(PROTOC) ## write infra/terraform/docs from the provider's schemas
	cd $(TERRAFORM) && $(CARGO) run --locked $(TERRAFORM_TARGET) -- docs ../docs

demo: build $(PYTHON) ## the story on real data: two devices, SQL and DuckDB on 336,776 flights
	$(PYTHON) scripts/demo.py

bench: build $(PYTHON) ## measure; prints ratios against baselines of the same run
	$(PYTHON) scripts/bench.py $(BENCH_ARGS)

bench-feed: $(OPENSSL) $(PYTHON) ## the change feed: events a second, webhooks, Kafka beside a bare producer, latency
	$(PYTHON) scripts/bench_feed.py $(BENCH_ARGS)

bench-fairness: build $(PYTHON) ## how much an app that floods the server slows another down
	$(PYTHON) scripts/bench_fairness.py $(BENCH_ARGS)

bench-large: build $(PYTHON) ## queries and requests on 6.7 million flights, beside DuckDB
	$(PYTHON) scripts/bench_large.py $(BENCH_ARGS)

bench-logins: ## logins with a webhook, beside a bare client that asks the same webhook
	$(CARGO) bench --locked -p bigpeer-auth --bench logins

bench-s3: build $(PYTHON) ## what a bucket is asked for per million documents, and per first sync
	$(PYTHON) scripts/bench_s3.py $(BENCH_ARGS)

doors: $(OPENSSL) ## rules at every door of the real server, 200 seeds; DOORS=17 one of them, DOORS=200..900 others
	$(TESTS) --no-run
	BIGPEER_BIN=$(abspath $(TARGET_DIR))/debug/bigpeer BIGPEER_DOORS_SEEDS=$(or $(DOORS),0..200) \
	  $(TESTS) --test e2e every_door -- --nocapture

differential: ## DQL from columns beside the evaluator, on 20,000 random cases
	BIGPEER_DQL_CASES=20000 $(CARGO) test --release --locked -p bigpeer-sql --test it columns_answer_as_documents_do -- --nocapture

lint: $(OPENSSL) $(PROTOC) ## formatting, clippy, and who may depend on whom
	$(CARGO) fmt --all --check
	cd $(TERRAFORM) && $(CARGO) fmt --check
	python3 scripts/check_house.py
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	cd $(TERRAFORM) && $(CARGO) clippy --locked $(TERRAFORM_TARGET) --all-targets -- -D warnings

fmt: ## format the code
	$(CARGO) fmt --all
	cd $(TERRAFORM) && $(CARGO) fmt

deny: $(TOOLS)/bin/cargo-deny ## licences and sources of dependencies
	$(TOOLS)/bin/cargo-deny check licenses bans sources
	$(TOOLS)/bin/cargo-deny --manifest-path $(TERRAFORM)/Cargo.toml --config deny.toml check licenses bans sources

fuzz: ## each decoder against random bytes, 30 seconds each
	tests/fuzz/run 30

check-fdb: $(LIBCLANG) ## build and type-check the FoundationDB engine; needs no FoundationDB
	$(CARGO) clippy --locked -p bigpeer-fdb-client --features client --all-targets -- -D warnings
	$(CARGO) clippy --locked -p bigpeer-log --features foundationdb --all-targets -- -D warnings
	$(CARGO) test --locked -p bigpeer-fdb-client --features client

test-fdb: $(LIBCLANG) ## the log's suite and the end-to-end tests on the cluster that FDB_CLUSTER_FILE names
	@if [ -z "$${FDB_CLUSTER_FILE:-}" ]; then echo "test-fdb: skipped, FDB_CLUSTER_FILE names no cluster"; else \
	  $(CARGO) test --locked -p bigpeer-log --features foundationdb --test fdb_cluster -- --test-threads 4 && \
	  $(CARGO) build --release --locked -p bigpeer --features foundationdb && \
	  $(MAKE) $(PYTHON) && \
	  BIGPEER_E2E_FDB="$$FDB_CLUSTER_FILE" $(CARGO) test --release --locked -p bigpeer-e2e -- --test-threads 2; fi

bench-fdb: $(LIBCLANG) ## appends to the cluster that FDB_CLUSTER_FILE names, beside a bare loop over the client
	$(CARGO) bench --locked -p bigpeer-log --features foundationdb --bench fdb

ci: lint deny test ## what CI runs

clean: ## remove what the build and the tests made
	$(CARGO) clean
	rm -rf .venv .cache

$(PYTHON): requirements.txt requirements-duckdb-delta.txt
	python3 -m venv .venv
	.venv/bin/pip install --quiet --requirement requirements.txt
	.venv/bin/pip install --quiet --upgrade --target .venv/duckdb-delta --requirement requirements-duckdb-delta.txt
	touch $@

# Installs packages on Debian, also where it was never asked what there is.
debian = { apt-get install --yes --no-install-recommends $(1) || \
  { apt-get update && apt-get install --yes --no-install-recommends $(1); }; } 2>/dev/null

$(LIBCLANG):
	@mkdir -p $(@D)
	@ldconfig -p | grep -q libclang || ls /usr/lib/llvm-*/lib/libclang*.so* >/dev/null 2>&1 || \
	  $(call debian,libclang-dev) || \
	  { echo "FoundationDB's bindings need libclang; install it (Debian: libclang-dev)"; exit 1; }
	touch $@

# What the Terraform provider's protocol is compiled with.
$(PROTOC):
	@mkdir -p $(@D)
	@command -v protoc >/dev/null || $(call debian,protobuf-compiler libprotobuf-dev) || \
	  { echo "the Terraform provider needs protoc; install it (Debian: protobuf-compiler libprotobuf-dev)"; exit 1; }
	@touch $@

# What librdkafka is built with, besides what everything else is. On macOS its headers are looked for where Homebrew has them.
$(OPENSSL):
	@mkdir -p $(@D)
	@[ -n "$${OPENSSL_DIR:-}" ] || [ "$$(uname)" = Darwin ] || pkg-config --exists openssl 2>/dev/null || \
	  $(call debian,libssl-dev pkg-config) || \
	  { echo "feeds to Kafka need OpenSSL's headers, and pkg-config to find them; install both (Debian: libssl-dev pkg-config;" \
	    "Fedora: openssl-devel pkgconf), or build without such feeds: cargo build --release -p bigpeer --no-default-features"; exit 1; }
	@command -v g++ >/dev/null || command -v clang++ >/dev/null || command -v c++ >/dev/null || $(call debian,g++) || \
	  { echo "feeds to Kafka need a C++ compiler; install one (Debian: g++; Fedora: gcc-c++)"; exit 1; }
	@touch $@

$(PSQL):
	@mkdir -p $(@D)
	@command -v psql >/dev/null || $(call debian,postgresql-client) || \
	  { echo "the tests of PostgreSQL's protocol need psql; install it (Debian: postgresql-client)"; exit 1; }
	touch $@

$(TOOLS)/bin/cargo-deny:
	$(CARGO) install --quiet --locked --root $(TOOLS) cargo-deny@0.20.2

.PHONY: help run build test unit sim-test sim e2e contract feed-kafka sql-clients test-terraform terraform-docs demo bench bench-fairness bench-feed bench-large bench-logins bench-s3 differential doors lint fmt deny fuzz check-fdb test-fdb bench-fdb ci clean
