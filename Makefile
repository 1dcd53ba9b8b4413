# The front door. Everything that a command needs beyond Rust, Python (>= 3.10) and Node (>= 20) goes into .local/.

NOFX = cargo run --bin nofx --
# cargo-nextest where it is installed, else cargo's own runner: both fail when a test fails, and when none ran.
TEST = $(NOFX) exec -- ./tests/run
# The contract suite wants LocalStack and an S3 server with keys of its own besides.
TEST_CONTRACT = $(NOFX) exec --localstack -- ./tests/run

.PHONY: help demo dev test test-unit test-integration test-functions test-contract test-chaos test-memory test-security test-deploy test-e2e bench migration deploy deploy-local lint clean

help:
	@echo "make demo   everything from nothing: local stack, plans, live progress"
	@echo "make dev    the local stack in the foreground, until Ctrl-C"
	@echo "make test   every suite (make test-unit, -integration, -functions, -contract, -chaos, -memory, -security, -deploy, -e2e run one)"
	@echo "make bench  the benchmarks, a JSON line each (ONLY=engine|restate|create|history|start|stack|cost|soak runs one)"
	@echo "make migration NAME=..   the next migration, with the SQL functions that changed"
	@echo "make deploy-local   template.yaml on an emulator, and the sample plans there"
	@echo "make deploy         release builds to AWS (ENV=dev|prod; GUIDED=1 the first time; CA=FILE the database's authority)"
	@echo "make lint   format, clippy, rustdoc; warnings are errors"

demo:
	@$(NOFX) demo

dev:
	@$(NOFX) dev

test:
	@$(TEST_CONTRACT) all

test-unit:
	@./tests/run unit

# It starts what it needs by itself.
test-deploy:
	@./tests/run deploy

test-contract:
	@$(TEST_CONTRACT) contract

test-integration test-functions test-chaos test-memory test-security test-e2e:
	@$(TEST) $(@:test-%=%)

# Progress and what is left out go to standard error. The history benchmark fills 10 GB of tables; HISTORY=500000 makes it less.
bench:
	@cargo build --quiet --locked --profile perf --package perf
	@target/perf/nofx-bench $(if $(ONLY),--only $(ONLY)) $(if $(HISTORY),--history $(HISTORY)) $(if $(MINUTES),--minutes $(MINUTES))

migration:
	@$(NOFX) migration $(or $(NAME),$(error usage: make migration NAME=add_step_labels))

deploy:
	@$(NOFX) deploy $(or $(ENV),dev) $(if $(GUIDED),--guided) $(if $(CA),--database-ca $(CA))

deploy-local:
	@$(NOFX) deploy-local

lint:
	cargo fmt --all --check
	cargo fmt --manifest-path perf/restate/Cargo.toml --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	cargo clippy --manifest-path perf/restate/Cargo.toml --target-dir target/restate --locked -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --locked

clean:
	cargo clean
	rm -rf .local
