# The front door. Everything that a command needs beyond Rust, Python (>= 3.10) and Node (>= 20) goes into .local/.

NOFX = cargo run --bin nofx --
# cargo-nextest where it is installed, else cargo's own runner: both fail when a test fails, and when none ran.
TEST = $(NOFX) exec -- ./tests/run

.PHONY: help demo dev test test-unit test-integration test-functions test-contract test-chaos test-security test-e2e lint clean

help:
	@echo "make demo   everything from nothing: local stack, plans, live progress"
	@echo "make dev    the local stack in the foreground, until Ctrl-C"
	@echo "make test   every suite (make test-unit, -integration, -functions, -contract, -chaos, -security, -e2e run one)"
	@echo "make lint   format, clippy, rustdoc; warnings are errors"

demo:
	@$(NOFX) demo

dev:
	@$(NOFX) dev

test:
	@$(TEST) all

test-unit:
	@./tests/run unit

test-integration test-functions test-contract test-chaos test-security test-e2e:
	@$(TEST) $(@:test-%=%)

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --locked

clean:
	cargo clean
	rm -rf .local
