use std::fs;

use nofx_sandbox::Level;

use super::*;

fn snapshot(files: &[(&str, &str)]) -> (tempfile::TempDir, Snapshot) {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let snapshot = Snapshot::take(root.path()).unwrap();
    (root, snapshot)
}

fn defined(files: &[(&str, &str)]) -> Definition {
    let (_root, snapshot) = snapshot(files);
    define(&snapshot).unwrap()
}

fn problems(text: &str) -> Vec<String> {
    let (_root, snapshot) = snapshot(&[("nofx.toml", text), ("web/a.ts", "")]);
    define(&snapshot).map(|_| ()).unwrap_err().iter().map(ToString::to_string).collect()
}

fn command(definition: &Definition, gate: &str) -> String {
    definition.gate(gate).unwrap().command.join(" ")
}

fn package(scripts: &str, dependencies: &str) -> String {
    format!(r#"{{"scripts": {{{scripts}}}, "devDependencies": {{{dependencies}}}}}"#)
}

#[test]
fn every_key_of_a_gate_is_read() {
    let text = r#"
protected = ["ci/**"]
tests = ["checks/**"]
sources = ["web/**"]
ignore = ["web/generated/**"]

[stubs.api]
command = "node stub.js --quiet"
port = "API_PORT"
health = "/health"
start_timeout_s = 5

[gates.e2e_smoke]
command = ["node", "smoke.js"]
directory = "web"
reports = [{ format = "junit", path = "$NOFX_REPORTS/junit.xml" }, { format = "lcov", path = "out/lcov.info" }, { format = "tsc", path = "stdout" }]
coverage = { threshold = 0.95, file_floor = 0.5, strict = true }
timeout_s = 30
network = true
severity = "warning"
protected = ["smoke/**"]
sandbox = "landlock"
stubs = ["api"]
environment = { TZ = "UTC" }
dependencies = "npm"

[gates.shout]
command = "echo 'a b' | cat"
shell = true
"#;
    let definition = defined(&[("nofx.toml", text), ("web/a.ts", "")]);
    let gate = definition.gate("e2e_smoke").unwrap();
    assert_eq!(gate.command, ["node", "smoke.js"]);
    assert_eq!((gate.directory.as_str(), gate.timeout_s, gate.network), ("web", 30, true));
    let places: Vec<&Place> = gate.reports.iter().map(|report| &report.place).collect();
    assert_eq!(places, [&Place::Fresh("junit.xml".into()), &Place::Directory("out/lcov.info".into()), &Place::Stdout]);
    assert_eq!(gate.coverage, Some(CoverageRules { threshold: Some(0.95), file_floor: Some(0.5), strict: true }));
    assert_eq!((gate.severity, gate.sandbox), (Severity::Warning, Some(Level::Landlock)));
    assert!(gate.needs_risky() && gate.protected.matches("smoke/a.js") && gate.dependencies == Ecosystem::Npm);
    assert_eq!(gate.environment["TZ"], "UTC");
    assert_eq!(definition.stubs["api"].health, Health::Http("/health".into()));
    assert_eq!(definition.stubs["api"].command, ["node", "stub.js", "--quiet"]);
    assert_eq!(definition.gate("shout").unwrap().command, ["sh", "-c", "echo 'a b' | cat"]);
    assert!(definition.tests.matches("checks/x.ts") && !definition.tests.matches("a.test.ts"));
    assert!(definition.sources.unwrap().matches("web/a.ts") && definition.ignore.matches("web/generated/x/a.ts"));
    assert_eq!(definition.source, Source::File);
}

#[test]
fn all_problems_come_at_once_with_their_lines() {
    let text = "sorces = []\n\n[gates.unit]\ncommand = \"a && b\"\ntimeout_s = 0\nseverity = \"low\"\nreports = [{ format = \"xml\", path = \"../x\" }]\n\n[gates.\"Bad\"]\ncoverage = { threshold = nan }\nenvironment = { PATH = \"/x\" }\ndirectory = \"none\"\n[gates.e]\ncommand = []\nstubs = [\"s\"]\n";
    let found = problems(text);
    for expected in [
        "nofx.toml:1: sorces: unknown key; known are presets, protected, tests, sources",
        "nofx.toml:4: gates.unit.command: has the operator \"&&\"",
        "nofx.toml:5: gates.unit.timeout_s: must be a whole number from 1 to 86400",
        "nofx.toml:6: gates.unit.severity: must be one of error, warning",
        "nofx.toml:7: gates.unit.reports.0.format: must be one of istanbul",
        "nofx.toml:7: gates.unit.reports.0.path: \"../x\" must be a path below",
        "nofx.toml:10: gates.Bad.coverage.threshold: must be a number from 0 to 1",
        "nofx.toml:10: gates.Bad.coverage: needs a report",
        "nofx.toml:11: gates.Bad.environment.PATH: is set by the runner",
        "nofx.toml:12: gates.Bad.directory: \"none\" is no folder",
        "gates.Bad.command: is missing",
        "a gate's name has only",
        "nofx.toml:14: gates.e.command: names no program",
        "nofx.toml:13: gates.e.stubs: there is no [stubs.s]",
    ] {
        assert!(found.iter().any(|problem| problem.contains(expected)), "{expected}\n{found:#?}");
    }
}

#[test]
fn broken_toml_and_duplicate_keys_have_lines() {
    assert!(problems("a = \n[gates.x]\ncommand = 1 2\n").iter().any(|problem| problem.starts_with("nofx.toml:1:")));
    let found = problems("[gates.x]\ncommand = \"a\"\ncommand = \"b\"\n");
    assert!(found.iter().any(|problem| problem.starts_with("nofx.toml:3:")), "{found:?}");
}

#[test]
fn a_command_beside_a_kind_that_never_runs_it_is_refused() {
    for kind in ["secrets", "audit", "mutants"] {
        let found = problems(&format!("[gates.x]\nkind = \"{kind}\"\ncommand = \"true\"\n"));
        let expected = "gates.x.command: never runs with this kind";
        assert!(found.iter().any(|problem| problem.contains(expected)), "{kind}: {found:?}");
    }
}

#[test]
fn a_command_instead_of_an_audit_is_an_ordinary_gate_without_network() {
    let definition = defined(&[("nofx.toml", "[gates.audit]\ncommand = \"check-packages\"\n")]);
    let gate = definition.gate("audit").unwrap();
    assert_eq!((gate.kind, gate.network), (Kind::Command, false));
}

#[test]
fn a_link_or_bytes_instead_of_the_file_are_refused() {
    let (root, _) = snapshot(&[("real.toml", "")]);
    std::os::unix::fs::symlink("real.toml", root.path().join("nofx.toml")).unwrap();
    let error = define(&Snapshot::take(root.path()).unwrap()).unwrap_err();
    assert_eq!(error[0].to_string(), "nofx.toml: is a link; write a file");
    fs::remove_file(root.path().join("nofx.toml")).unwrap();
    fs::write(root.path().join("nofx.toml"), b"\xff").unwrap();
    let error = define(&Snapshot::take(root.path()).unwrap()).unwrap_err();
    assert_eq!(error[0].to_string(), "nofx.toml: is not UTF-8");
}

#[test]
fn a_file_changes_single_fields_of_a_preset() {
    let json = package(r#""lint": "eslint .", "test": "vitest run""#, r#""vitest": "3", "@vitest/coverage-v8": "3""#);
    let text = "[gates.unit]\ncoverage = { threshold = 0.8 }\n[gates.secrets]\nallow = [\"docs/**\"]\n[gates.mutants]\nmutants = { limit = 7 }\n";
    let definition = defined(&[("package.json", &json), ("nofx.toml", text)]);
    let unit = definition.gate("unit").unwrap();
    assert_eq!((unit.origin, unit.coverage.unwrap().threshold), (Origin::File, Some(0.8)));
    assert!(command(&definition, "unit").starts_with("node_modules/.bin/vitest run"));
    assert_eq!(definition.gate("lint").unwrap().origin, Origin::Preset);
    assert!(definition.gate("secrets").unwrap().allow.matches("docs/a.md"));
    assert_eq!(definition.gate("mutants").unwrap().mutants, Some(MutantRules { limit: 7, tests: "unit".into() }));
    let alone = defined(&[("package.json", &json), ("nofx.toml", "presets = false\n[gates.x]\ncommand = \"x\"\n")]);
    assert_eq!(alone.gates.keys().collect::<Vec<_>>(), ["audit", "mutants", "secrets", "x"]);
}

#[test]
fn the_digest_follows_the_meaning() {
    let one = defined(&[("nofx.toml", "[gates.a]\ncommand = \"x y\"\n")]);
    let same = defined(&[("nofx.toml", "# why\n[gates]\na = { command = ['x', 'y'] }\n"), ("README.md", "x")]);
    let other = defined(&[("nofx.toml", "[gates.a]\ncommand = \"x z\"\n")]);
    assert_eq!(one.digest, same.digest);
    assert!(one.digest != other.digest && one.digest.len() == 64);
}

#[test]
fn an_unknown_gate_names_the_known_ones() {
    let definition = defined(&[("package.json", &package(r#""lint": "eslint . || true""#, ""))]);
    let error = definition.gate("deploy").unwrap_err();
    assert!(error.to_string().contains("it has audit, mutants, secrets"), "{error}");
    let error = definition.gate("lint").unwrap_err();
    assert!(error.to_string().contains("passes whatever its check says"), "{error}");
    assert!(definition.gate("unit").unwrap_err().to_string().contains("has no script coverage or"), "unit");
}

#[test]
fn plain_scripts_start_their_tool_with_reports() {
    let scripts = r#""typecheck": "tsc --noEmit", "lint": "eslint --max-warnings 0 .", "test": "vitest run", "coverage": "vitest run --coverage""#;
    let definition = defined(&[("package.json", &package(scripts, ""))]);
    assert_eq!(command(&definition, "typecheck"), "node_modules/.bin/tsc --noEmit --pretty false --diagnostics");
    assert_eq!(definition.gate("typecheck").unwrap().reports, [ReportFile::stdout(Format::Tsc)]);
    assert_eq!(
        command(&definition, "lint"),
        "node_modules/.bin/eslint --max-warnings 0 . --format json --output-file $NOFX_REPORTS/eslint.json"
    );
    let unit = definition.gate("unit").unwrap();
    assert!(unit.command.contains(&"--coverage.reportsDirectory=$NOFX_REPORTS/coverage".to_owned()));
    assert_eq!(unit.reports[1], ReportFile::fresh(Format::Istanbul, "coverage/coverage-final.json"));
    assert!(unit.coverage.is_some());
}

#[test]
fn scripts_with_hooks_shells_or_unknown_flags_go_through_npm() {
    for scripts in [
        r#""lint": "eslint .", "prelint": "node gen.js""#,
        r#""lint": "eslint . && tsc""#,
        r#""lint": "eslint --format unix .""#,
        r#""lint": "biome check .""#,
    ] {
        let definition = defined(&[("package.json", &package(scripts, ""))]);
        assert_eq!(command(&definition, "lint"), "npm run --silent lint", "{scripts}");
    }
    let definition = defined(&[("package.json", &package(r#""test": "npm run build && jest""#, ""))]);
    let unit = definition.gate("unit").unwrap();
    assert_eq!(unit.reports, [ReportFile::directory(Format::Istanbul, "coverage/coverage-final.json")]);
}

#[test]
fn every_known_runner_writes_tests_and_coverage() {
    for (script, dependencies, start, formats) in [
        ("jest", r#""jest-junit": "1""#, "node_modules/.bin/jest --coverage", [Format::Istanbul, Format::Junit]),
        ("mocha test", r#""c8": "1""#, "node_modules/.bin/c8 --reporter=json", [Format::Istanbul, Format::Junit]),
        ("c8 --all mocha", "", "node_modules/.bin/c8 --all --reporter=json", [Format::Istanbul, Format::Junit]),
        ("nyc mocha", "", "node_modules/.bin/nyc --reporter=json --report-dir=", [Format::Istanbul, Format::Junit]),
        ("node --test", "", "node --experimental-test-coverage --test-reporter=lcov", [Format::Lcov, Format::Junit]),
        ("c8 node --test test/", "", "node_modules/.bin/c8 --reporter=json", [Format::Istanbul, Format::Junit]),
    ] {
        let definition = defined(&[("package.json", &package(&format!(r#""test": "{script}""#), dependencies))]);
        let unit = definition.gate("unit").unwrap();
        assert!(command(&definition, "unit").starts_with(start), "{script}: {}", unit.command.join(" "));
        assert_eq!(unit.reports.iter().map(|report| report.format).collect::<Vec<_>>(), formats, "{script}");
    }
}

#[test]
fn a_runner_may_not_pass_because_it_found_no_tests() {
    let json = package(r#""test": "jest --passWithNoTests""#, "");
    let definition = defined(&[("package.json", &json)]);
    assert!(command(&definition, "unit").ends_with("--passWithNoTests=false"));
    assert!(definition.explanation.join("\n").contains("counts none"), "{:?}", definition.explanation);
    let reported = package(r#""test": "jest""#, r#""jest-junit": "1""#);
    assert!(defined(&[("package.json", &reported)]).explanation.is_empty());
    // Build mode prints its statistics only for projects that it builds.
    let json = package(r#""typecheck": "tsc -b --noEmit""#, "");
    assert!(!command(&defined(&[("package.json", &json)]), "typecheck").contains("--diagnostics"));
}

#[test]
fn python_gates_follow_what_is_configured_and_locked() {
    let pyproject =
        "[project]\nname = 'a'\n[tool.pyright]\n[tool.ruff]\n[dependency-groups]\ndev = ['pytest>=8', 'coverage==7']\n";
    let definition = defined(&[("pyproject.toml", pyproject)]);
    assert_eq!(command(&definition, "typecheck"), "python -m pyright --outputjson");
    assert!(command(&definition, "lint").contains("ruff check"));
    let unit = definition.gate("unit").unwrap();
    assert_eq!(unit.command[0], "sh");
    assert_eq!(unit.reports.len(), 2);
    let lock = "mypy==1.11 \\\n    --hash=sha256:00\npytest-cov==5\npytest==8\n";
    let definition = defined(&[("requirements.lock", lock), ("setup.cfg", "[mypy]\nstrict = true\n")]);
    assert_eq!(command(&definition, "typecheck"), "python -m mypy --no-incremental --output=json .");
    assert!(command(&definition, "unit").contains("--cov-report=xml:$NOFX_REPORTS/coverage.xml"));
    assert!(definition.gate("lint").unwrap_err().to_string().contains("neither configures nor requires ruff"));
}

#[test]
fn cargo_gates_follow_what_the_project_uses() {
    let definition = defined(&[("Cargo.toml", "[package]\nname = 'a'\n")]);
    assert_eq!(command(&definition, "unit"), "cargo test --workspace --locked");
    assert_eq!(definition.gate("unit").unwrap().reports, [ReportFile::stdout(Format::CargoTest)]);
    for (readme, formats) in [
        ("cargo llvm-cov", vec![Format::Lcov, Format::CargoTest]),
        ("cargo nextest run", vec![Format::Junit]),
        ("cargo llvm-cov nextest and cargo nextest", vec![Format::Lcov]),
        ("cargo test", vec![Format::CargoTest]),
    ] {
        let definition = defined(&[("Cargo.toml", "[package]\nname = 'a'\n"), ("README.md", readme)]);
        let reports = definition.gate("unit").unwrap().reports.iter();
        assert_eq!(reports.map(|report| report.format).collect::<Vec<_>>(), formats, "{readme}");
    }
    assert!(command(&definition, "lint").ends_with("-- -D warnings"));
    let nextest = "[profile.ci.junit]\npath = 'junit.xml'\n";
    let files = [
        ("Cargo.toml", "[workspace]\n"),
        (".config/nextest.toml", nextest),
        ("Makefile", "cov:\n\tcargo llvm-cov nextest\n"),
    ];
    let definition = defined(&files);
    assert_eq!(
        command(&definition, "unit"),
        "cargo llvm-cov nextest --profile ci --workspace --locked --lcov --output-path $NOFX_REPORTS/lcov.info"
    );
    assert_eq!(
        definition.gate("unit").unwrap().reports[1].place,
        Place::Directory("target/llvm-cov-target/nextest/ci/junit.xml".into())
    );
    let definition = defined(&files[..2]);
    assert_eq!(command(&definition, "unit"), "cargo nextest run --profile ci --workspace --locked");
}

#[test]
fn go_gates_use_the_linter_that_is_configured() {
    let definition = defined(&[("go.mod", "module a\n")]);
    assert_eq!(command(&definition, "lint"), "go vet ./...");
    assert!(command(&definition, "typecheck").contains("the module has no packages"), "go build passes without any");
    assert!(command(&definition, "unit").starts_with("go test -json"));
    let definition = defined(&[("go.mod", "module a\n"), (".golangci.yml", "")]);
    assert!(command(&definition, "lint").starts_with("golangci-lint run"));
}

#[test]
fn a_workspace_of_several_projects_says_what_it_chose() {
    let json = package(r#""lint": "eslint .""#, "");
    let definition = defined(&[
        ("web/package.json", &json),
        ("docs/package.json", &json),
        ("Cargo.toml", "[workspace]\n"),
        ("test/fixtures/package.json", "{}"),
    ]);
    assert_eq!(command(&definition, "lint").split(' ').next(), Some("cargo"));
    let explanation = definition.explanation.join("\n");
    assert!(explanation.contains("uses docs; it leaves out web"), "{explanation}");
    assert!(explanation.contains("package.json would give a gate \"lint\" too"), "{explanation}");
    let of = |gate: &str| definition.explanation_of(gate).collect::<String>();
    assert!(of("lint").contains("would give a gate \"lint\" too") && of("lint").contains("it leaves out web"));
    assert!(!of("unit").contains("\"lint\"") && of("unit").contains("it leaves out web"), "{}", of("unit"));
    assert_eq!(definition.gate("unit").unwrap().command[0], "cargo");
}

#[test]
fn the_sample_workspace_has_every_gate() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/workspace");
    let definition = define(&Snapshot::take(std::path::Path::new(root)).unwrap()).unwrap();
    for gate in ["typecheck", "lint", "unit", "secrets", "audit", "mutants"] {
        assert!(definition.gate(gate).is_ok(), "{gate}");
    }
}
