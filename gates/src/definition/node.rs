//! Presets for npm projects.
//!
//! A script that is a plain call of a known tool is started directly, with reports that a program can read. Anything else
//! goes through `npm run`.

use serde_json::{Map, Value};

use super::gate::{CoverageRules, Ecosystem, Format, GateDefinition, Origin, ReportFile};
use super::presets::{Found, gate, join, project, text};
use super::script::{always_passes, plain_call};
use crate::snapshot::Snapshot;

/// The names of scripts that each gate looks for, in order of preference.
pub const SCRIPTS: [(&str, &[&str]); 3] = [
    ("typecheck", &["typecheck", "type-check", "check-types", "check:types"]),
    ("lint", &["lint"]),
    ("unit", &["coverage", "test:coverage", "test:unit", "test", "unit"]),
];

/// What npm writes into a new package.json.
const PLACEHOLDER: &str = "no test specified";

struct Package {
    folder: String,
    scripts: Map<String, Value>,
    dependencies: Vec<String>,
}

pub fn find(snapshot: &Snapshot) -> Option<Found> {
    let (folder, others) = project(snapshot, &["package.json"])?;
    let path = join(&folder, "package.json");
    let mut found = Found { explanation: others.into_iter().collect(), ..Found::default() };
    let fields = text(snapshot, &path).and_then(|text| serde_json::from_str::<Map<String, Value>>(&text).ok());
    let Some(fields) = fields else {
        for (name, _) in SCRIPTS {
            found.unusable.push((name.to_owned(), format!("{path} is not a JSON object")));
        }
        return Some(found);
    };
    let package = Package::new(folder, &fields);
    for (name, scripts) in SCRIPTS {
        match package.gate(snapshot, name, scripts) {
            Ok(Some(gate)) => found.gates.push(gate),
            Ok(None) => {
                found.unusable.push((name.to_owned(), format!("{path} has no script {}", scripts.join(" or "))));
            }
            Err(why) => found.unusable.push((name.to_owned(), why)),
        }
    }
    for gate in &mut found.gates {
        gate.dependencies = Ecosystem::Npm;
    }
    let unit = found.gates.iter().find(|gate| gate.name == "unit");
    if unit.is_some_and(|gate| gate.reports.iter().all(|report| report.format != Format::Junit)) {
        found.explanation.push(
            "No report says which tests ran, so the gate \"unit\" counts none. Add jest-junit, or name a JUnit report in nofx.toml.".to_owned(),
        );
    }
    Some(found)
}

impl Package {
    fn new(folder: String, fields: &Map<String, Value>) -> Self {
        let scripts = fields.get("scripts").and_then(Value::as_object).cloned().unwrap_or_default();
        let dependencies = ["dependencies", "devDependencies"]
            .iter()
            .filter_map(|field| fields.get(*field)?.as_object())
            .flat_map(|entries| entries.keys().cloned())
            .collect();
        Self { folder, scripts, dependencies }
    }

    fn depends_on(&self, name: &str) -> bool {
        self.dependencies.iter().any(|known| known == name)
    }

    fn script(&self, name: &str) -> Option<&str> {
        self.scripts.get(name)?.as_str()
    }

    fn gate(&self, snapshot: &Snapshot, name: &str, scripts: &[&str]) -> Result<Option<GateDefinition>, String> {
        let chosen = scripts.iter().find_map(|script| {
            self.script(script).filter(|text| !text.contains(PLACEHOLDER)).map(|text| (*script, text))
        });
        let Some((script, text)) = chosen else { return Ok(self.without_script(snapshot, name)) };
        if let Some(why) = always_passes(text) {
            return Err(format!("{}: script {script:?}: {why}", join(&self.folder, "package.json")));
        }
        let hooked = ["pre", "post"].iter().any(|hook| self.script(&format!("{hook}{script}")).is_some());
        let direct = if hooked { None } else { plain_call(text).and_then(|words| self.direct(name, &words)) };
        Ok(Some(direct.unwrap_or_else(|| self.through_npm(name, script))))
    }

    /// A tool that the project installs and configures, but starts by no script.
    fn without_script(&self, snapshot: &Snapshot, name: &str) -> Option<GateDefinition> {
        let eslint =
            ["eslint.config.js", "eslint.config.mjs", "eslint.config.cjs", "eslint.config.ts", ".eslintrc.json"];
        let has = |names: &[&str]| names.iter().any(|name| snapshot.files().contains_key(&join(&self.folder, name)));
        let words: &[&str] = match name {
            "typecheck" if self.depends_on("typescript") && has(&["tsconfig.json"]) => &["tsc", "--noEmit"],
            "lint" if self.depends_on("eslint") && has(&eslint) => &["eslint", "."],
            "unit" if self.depends_on("vitest") => &["vitest", "run"],
            _ => return None,
        };
        self.direct(name, &words.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    fn through_npm(&self, name: &str, script: &str) -> GateDefinition {
        let mut gate = gate(name, &self.folder, &["npm", "run", "--silent", script]);
        if name == "unit" {
            gate.reports = vec![ReportFile::directory(Format::Istanbul, "coverage/coverage-final.json")];
            gate.coverage = Some(default_coverage());
        }
        gate
    }

    /// Starts the tool of a plain call directly. `None` if the tool or a flag is not known well enough.
    fn direct(&self, name: &str, words: &[String]) -> Option<GateDefinition> {
        let words = match words {
            [npx, rest @ ..] if npx == "npx" => rest,
            words => words,
        };
        let (tool, arguments) = words.split_first()?;
        let mut built = Built::default();
        match (name, tool.as_str()) {
            ("typecheck", "tsc" | "vue-tsc") => tsc(tool, arguments, &mut built)?,
            ("lint", "eslint") => eslint(arguments, &mut built)?,
            ("unit", "c8" | "nyc") => self.wrapped(tool, arguments, &mut built)?,
            ("unit", runner) => self.runner(runner, arguments, false, &mut built)?,
            _ => return None,
        }
        let mut gate = gate(name, &self.folder, &built.words.iter().map(String::as_str).collect::<Vec<_>>());
        gate.origin = Origin::Preset;
        gate.reports = built.reports;
        gate.environment = built.environment.into_iter().collect();
        gate.coverage = gate.measures_coverage().then(default_coverage);
        Some(gate)
    }

    /// A coverage tool around a runner.
    fn wrapped(&self, tool: &str, arguments: &[String], built: &mut Built) -> Option<()> {
        let runner_at = arguments.iter().position(|word| !word.starts_with('-'))?;
        let (options, command) = arguments.split_at(runner_at);
        // A flag with its value in the next word would be taken for the runner.
        if options.iter().any(|option| !option.contains('=') && !matches!(option.as_str(), "--all" | "-a")) {
            return None;
        }
        let (runner, rest) = command.split_first()?;
        let folder = if tool == "c8" { "--reports-dir" } else { "--report-dir" };
        built.tool(tool);
        built.words.extend(options.iter().filter(|option| !option.starts_with("--reporter")).cloned());
        built.add(&["--reporter=json", &format!("{folder}=$NOFX_REPORTS/coverage")]);
        built.reports.push(ReportFile::fresh(Format::Istanbul, "coverage/coverage-final.json"));
        self.runner(runner, rest, true, built)
    }

    fn runner(&self, runner: &str, arguments: &[String], wrapped: bool, built: &mut Built) -> Option<()> {
        match runner {
            "vitest" if !wrapped => self.vitest(arguments, built),
            "jest" if !wrapped => self.jest(arguments, built),
            "mocha" => self.mocha(arguments, wrapped, built),
            "node" => self.node(arguments, wrapped, built),
            _ => None,
        }
    }

    fn vitest(&self, arguments: &[String], built: &mut Built) -> Option<()> {
        let unknown = ["--watch", "-w", "--ui", "--reporter", "--outputFile", "--config", "-c", "bench", "typecheck"];
        if has_any(arguments, &unknown) || has_prefix(arguments, "--coverage.report") {
            return None;
        }
        let provider = self.dependencies.iter().any(|name| name.starts_with("@vitest/coverage-"));
        let covers = has_prefix(arguments, "--coverage");
        built.tool("vitest");
        let rest: Vec<&String> = arguments.iter().filter(|word| *word != "run" && *word != "--run").collect();
        built.add(&["run"]);
        built.words.extend(rest.into_iter().cloned());
        built.add(&["--reporter=default", "--reporter=junit", "--outputFile.junit=$NOFX_REPORTS/junit.xml"]);
        built.reports.push(ReportFile::fresh(Format::Junit, "junit.xml"));
        if provider || covers {
            if !covers {
                built.add(&["--coverage.enabled"]);
            }
            built.add(&["--coverage.reporter=json", "--coverage.reportsDirectory=$NOFX_REPORTS/coverage"]);
            built.reports.push(ReportFile::fresh(Format::Istanbul, "coverage/coverage-final.json"));
        }
        Some(())
    }

    fn jest(&self, arguments: &[String], built: &mut Built) -> Option<()> {
        if has_any(arguments, &["--watch", "--watchAll", "--reporters", "--json"])
            || has_prefix(arguments, "--coverageDir")
        {
            return None;
        }
        built.tool("jest");
        built.words.extend(arguments.iter().filter(|word| *word != "--coverage").cloned());
        built.add(&["--coverage", "--coverageReporters=json", "--coverageDirectory=$NOFX_REPORTS/coverage"]);
        // The last one counts, also before the configuration. Without jest-junit no report says how many tests ran.
        built.add(&["--passWithNoTests=false"]);
        built.reports.push(ReportFile::fresh(Format::Istanbul, "coverage/coverage-final.json"));
        if self.depends_on("jest-junit") {
            built.add(&["--reporters=default", "--reporters=jest-junit"]);
            built.environment.push(("JEST_JUNIT_OUTPUT_FILE".to_owned(), "$NOFX_REPORTS/junit.xml".to_owned()));
            built.reports.push(ReportFile::fresh(Format::Junit, "junit.xml"));
        }
        Some(())
    }

    fn mocha(&self, arguments: &[String], wrapped: bool, built: &mut Built) -> Option<()> {
        if has_any(arguments, &["--watch", "-w", "--reporter", "-R", "--reporter-option", "-O"]) {
            return None;
        }
        self.cover(wrapped, built);
        built.tool("mocha");
        built.words.extend(arguments.iter().cloned());
        built.add(&["--reporter=xunit", "--reporter-option=output=$NOFX_REPORTS/junit.xml"]);
        built.reports.push(ReportFile::fresh(Format::Junit, "junit.xml"));
        Some(())
    }

    fn node(&self, arguments: &[String], wrapped: bool, built: &mut Built) -> Option<()> {
        let is_test = arguments.iter().any(|word| word == "--test");
        if !is_test || has_prefix(arguments, "--test-reporter") || has_any(arguments, &["--watch"]) {
            return None;
        }
        let covered = wrapped || self.cover(wrapped, built);
        built.words.push("node".to_owned());
        if !covered {
            built.add(&["--experimental-test-coverage", "--test-reporter=lcov"]);
            built.add(&["--test-reporter-destination=$NOFX_REPORTS/lcov.info"]);
            built.reports.push(ReportFile::fresh(Format::Lcov, "lcov.info"));
        }
        built.add(&["--test-reporter=spec", "--test-reporter-destination=stdout"]);
        built.add(&["--test-reporter=junit", "--test-reporter-destination=$NOFX_REPORTS/junit.xml"]);
        built.words.extend(arguments.iter().filter(|word| *word != "--experimental-test-coverage").cloned());
        built.reports.push(ReportFile::fresh(Format::Junit, "junit.xml"));
        Some(())
    }

    /// Puts c8 before a runner that measures nothing itself, if the project has it.
    fn cover(&self, wrapped: bool, built: &mut Built) -> bool {
        let covers = !wrapped && self.depends_on("c8");
        if covers {
            built.tool("c8");
            built.add(&["--reporter=json", "--reports-dir=$NOFX_REPORTS/coverage"]);
            built.reports.push(ReportFile::fresh(Format::Istanbul, "coverage/coverage-final.json"));
        }
        covers
    }
}

#[derive(Default)]
struct Built {
    words: Vec<String>,
    reports: Vec<ReportFile>,
    environment: Vec<(String, String)>,
}

impl Built {
    /// A program that npm installs.
    fn tool(&mut self, name: &str) {
        self.words.push(format!("node_modules/.bin/{name}"));
    }

    fn add(&mut self, words: &[&str]) {
        self.words.extend(words.iter().map(ToString::to_string));
    }
}

fn tsc(tool: &str, arguments: &[String], built: &mut Built) -> Option<()> {
    if has_any(
        arguments,
        &["--watch", "-w", "--pretty", "--help", "-h", "--version", "-v", "--init", "--showConfig", "--listFilesOnly"],
    ) {
        return None;
    }
    built.tool(tool);
    built.words.extend(arguments.iter().cloned());
    built.add(&["--pretty", "false"]);
    // How many files it read: tsc prints nothing if all is well, also where its configuration has only references.
    if !has_any(arguments, &["-b", "--build"]) {
        built.add(&["--diagnostics"]);
    }
    built.reports.push(ReportFile::stdout(Format::Tsc));
    Some(())
}

fn eslint(arguments: &[String], built: &mut Built) -> Option<()> {
    let unknown = [
        "--format",
        "-f",
        "--output-file",
        "-o",
        "--fix",
        "--fix-dry-run",
        "--help",
        "-h",
        "--version",
        "-v",
        "--init",
    ];
    if has_any(arguments, &unknown) {
        return None;
    }
    built.tool("eslint");
    built.words.extend(arguments.iter().cloned());
    built.add(&["--format", "json", "--output-file", "$NOFX_REPORTS/eslint.json"]);
    built.reports.push(ReportFile::fresh(Format::Eslint, "eslint.json"));
    Some(())
}

fn default_coverage() -> CoverageRules {
    CoverageRules { threshold: None, file_floor: None, strict: false }
}

fn has_any(arguments: &[String], flags: &[&str]) -> bool {
    arguments.iter().any(|word| flags.contains(&word.split('=').next().unwrap_or_default()))
}

fn has_prefix(arguments: &[String], prefix: &str) -> bool {
    arguments.iter().any(|word| word.starts_with(prefix))
}
