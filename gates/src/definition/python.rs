//! Presets for Python projects.

use super::gate::{CoverageRules, Ecosystem, Format, GateDefinition, ReportFile};
use super::presets::{Found, gate, join, project, text};
use crate::snapshot::Snapshot;

const PROJECT_FILES: [&str; 6] =
    ["pyproject.toml", "setup.cfg", "setup.py", "requirements.txt", "requirements.lock", "requirements-dev.txt"];

/// What the project says about its tools.
struct Project {
    folder: String,
    pyproject: toml::Table,
    setup_cfg: String,
    /// Names of distributions in lockfiles and requirements, lower case.
    packages: Vec<String>,
    files: Vec<String>,
}

pub fn find(snapshot: &Snapshot) -> Option<Found> {
    let (folder, others) = project(snapshot, &PROJECT_FILES)?;
    let project = read(snapshot, folder);
    let mut found = Found { explanation: others.into_iter().collect(), ..Found::default() };
    match project.typecheck() {
        Some(gate) => found.gates.push(gate),
        None => found
            .unusable
            .push(("typecheck".to_owned(), "the project neither configures nor requires mypy or pyright".to_owned())),
    }
    if project.configures("ruff", "ruff.toml") || project.configures("ruff", ".ruff.toml") || project.requires("ruff") {
        let report = "--output-file=$NOFX_REPORTS/ruff.json";
        let mut lint = gate(
            "lint",
            &project.folder,
            &["python", "-m", "ruff", "check", "--no-cache", "--output-format=json", report, "."],
        );
        lint.reports = vec![ReportFile::fresh(Format::Ruff, "ruff.json")];
        found.gates.push(lint);
    } else {
        found.unusable.push(("lint".to_owned(), "the project neither configures nor requires ruff".to_owned()));
    }
    match project.unit(&mut found.explanation) {
        Some(gate) => found.gates.push(gate),
        None => {
            found.unusable.push(("unit".to_owned(), "the project neither configures nor requires pytest".to_owned()));
        }
    }
    for gate in &mut found.gates {
        gate.dependencies = Ecosystem::Pip;
        gate.environment.insert("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned());
    }
    Some(found)
}

fn read(snapshot: &Snapshot, folder: String) -> Project {
    let pyproject: toml::Table = text(snapshot, &join(&folder, "pyproject.toml"))
        .and_then(|text| toml::from_str(&text).ok())
        .unwrap_or_default();
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let files: Vec<String> =
        snapshot.files().keys().filter_map(|path| path.strip_prefix(&prefix)).map(ToOwned::to_owned).collect();
    let mut packages = Vec::new();
    for name in files.iter().filter(|name| is_requirements(name)) {
        packages.extend(text(snapshot, &join(&folder, name)).iter().flat_map(|text| requirements(name, text)));
    }
    collect_strings(&pyproject, &mut packages);
    let setup_cfg = text(snapshot, &join(&folder, "setup.cfg")).unwrap_or_default();
    Project { folder, pyproject, setup_cfg, packages, files }
}

fn is_requirements(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    matches!(name, "uv.lock" | "poetry.lock" | "pylock.toml" | "Pipfile")
        || (name.rsplit('/').next().is_some_and(|file| file.starts_with("requirements"))
            || name.starts_with("requirements/"))
            && matches!(extension, Some("txt" | "in" | "lock"))
}

fn requirements(name: &str, text: &str) -> Vec<String> {
    let is_lock = matches!(name, "uv.lock" | "poetry.lock" | "pylock.toml");
    text.lines()
        .filter_map(|line| if is_lock { line.strip_prefix("name = ") } else { Some(line) })
        .map(|line| distribution(line.trim_matches('"')))
        .filter(|name| !name.is_empty())
        .collect()
}

/// The normalised name at the start of a requirement.
fn distribution(requirement: &str) -> String {
    requirement
        .trim()
        .chars()
        .take_while(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.'))
        .map(|letter| if matches!(letter, '_' | '.') { '-' } else { letter.to_ascii_lowercase() })
        .collect()
}

/// The requirements of pyproject.toml: `project.dependencies`, extras, dependency groups and Poetry's tables.
fn collect_strings(pyproject: &toml::Table, packages: &mut Vec<String>) {
    fn walk(value: &toml::Value, packages: &mut Vec<String>) {
        match value {
            toml::Value::String(text) => packages.push(distribution(text)),
            toml::Value::Array(items) => items.iter().for_each(|item| walk(item, packages)),
            toml::Value::Table(table) => table.iter().for_each(|(name, item)| {
                packages.push(distribution(name));
                walk(item, packages);
            }),
            _ => {}
        }
    }
    let project = pyproject.get("project").and_then(toml::Value::as_table);
    let poetry = pyproject.get("tool").and_then(|tool| tool.get("poetry")).and_then(toml::Value::as_table);
    let from = |table: Option<&toml::Table>, key: &str| table.and_then(|table| table.get(key)).cloned();
    let parts = [
        from(project, "dependencies"),
        from(project, "optional-dependencies"),
        from(Some(pyproject), "dependency-groups"),
        from(poetry, "dependencies"),
        from(poetry, "dev-dependencies"),
        from(poetry, "group"),
    ];
    parts.iter().flatten().for_each(|part| walk(part, packages));
}

impl Project {
    fn requires(&self, name: &str) -> bool {
        self.packages.iter().any(|package| package == name)
    }

    /// The project has settings for a tool: `[tool.NAME]`, a section of setup.cfg, or a file of its own.
    fn configures(&self, tool: &str, file: &str) -> bool {
        self.pyproject.get("tool").is_some_and(|tools| tools.get(tool).is_some())
            || self.setup_cfg.lines().any(|line| {
                let section = line.trim().trim_start_matches("[tool:").trim_start_matches('[');
                line.trim().starts_with('[') && section.trim_end_matches(']') == tool
            })
            || self.files.iter().any(|path| path == file)
    }

    fn typecheck(&self) -> Option<GateDefinition> {
        let mypy = self.configures("mypy", "mypy.ini") || self.configures("mypy", ".mypy.ini");
        let pyright = self.configures("pyright", "pyrightconfig.json");
        let (mypy, pyright) = match (mypy, pyright) {
            (false, false) => (self.requires("mypy"), self.requires("pyright")),
            both => both,
        };
        if mypy {
            let names_files = self
                .pyproject
                .get("tool")
                .and_then(|tool| tool.get("mypy"))
                .is_some_and(|mypy| ["files", "packages", "modules"].iter().any(|key| mypy.get(key).is_some()));
            let mut words = vec!["python", "-m", "mypy", "--no-incremental", "--output=json"];
            if !names_files {
                words.push(".");
            }
            let mut gate = gate("typecheck", &self.folder, &words);
            gate.reports = vec![ReportFile::stdout(Format::Mypy)];
            return Some(gate);
        }
        pyright.then(|| {
            let mut gate = gate("typecheck", &self.folder, &["python", "-m", "pyright", "--outputjson"]);
            gate.reports = vec![ReportFile::stdout(Format::Pyright)];
            gate
        })
    }

    fn unit(&self, explanation: &mut Vec<String>) -> Option<GateDefinition> {
        let pytest = self.configures("pytest", "pytest.ini") || self.files.iter().any(|path| path == "conftest.py");
        if !pytest && !self.requires("pytest") {
            return None;
        }
        let junit = "--junitxml=$NOFX_REPORTS/junit.xml";
        let tests = ["python", "-m", "pytest", "-p", "no:cacheprovider", junit];
        let mut unit = if self.requires("pytest-cov") {
            gate(
                "unit",
                &self.folder,
                &[&tests[..], &["--cov", "--cov-report=xml:$NOFX_REPORTS/coverage.xml"]].concat(),
            )
        } else if self.requires("coverage") {
            let script = "python -m coverage run --data-file=\"$NOFX_REPORTS/coverage.data\" -m pytest -p no:cacheprovider \
                          --junitxml=\"$NOFX_REPORTS/junit.xml\"; code=$?; python -m coverage xml \
                          --data-file=\"$NOFX_REPORTS/coverage.data\" -o \"$NOFX_REPORTS/coverage.xml\" || exit 70; exit $code";
            gate("unit", &self.folder, &["sh", "-c", script])
        } else {
            explanation.push(
                "The project does not require coverage or pytest-cov, so the gate \"unit\" measures no coverage."
                    .to_owned(),
            );
            gate("unit", &self.folder, &tests)
        };
        unit.reports = vec![ReportFile::fresh(Format::Junit, "junit.xml")];
        if self.requires("pytest-cov") || self.requires("coverage") {
            unit.reports.push(ReportFile::fresh(Format::Cobertura, "coverage.xml"));
            unit.coverage = Some(CoverageRules { threshold: None, file_floor: None, strict: false });
        }
        Some(unit)
    }
}
