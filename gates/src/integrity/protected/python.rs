//! pyproject.toml and conftest.py.

use serde_json::Value;

use super::super::lex::{self, Language, TokenKind};
use super::super::meaning::{self, Leaf, leaves};
use super::{Reasons, dependency, lock};

const TOOLS: [&str; 12] = [
    "mypy",
    "pyright",
    "basedpyright",
    "ruff",
    "pytest",
    "coverage",
    "pylint",
    "flake8",
    "tox",
    "nox",
    "hatch",
    "bandit",
];

pub fn pyproject(base: Option<&str>, head: Option<&str>) -> Reasons {
    let Some(head) = head else { return vec!["it is deleted".to_owned()] };
    let Some(new) = meaning::toml(head) else { return vec!["it cannot be parsed".to_owned()] };
    let old = base.and_then(meaning::toml).unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    let pick = |value: &Value, path: &[&str]| {
        path.iter().try_fold(value, |value, key| value.get(key)).cloned().unwrap_or(Value::Null)
    };
    let mut reasons = Vec::new();
    if base.is_some() {
        for tool in TOOLS {
            for mut leaf in leaves(&pick(&old, &["tool", tool]), &pick(&new, &["tool", tool])) {
                leaf.path.splice(0..0, ["tool".to_owned(), tool.to_owned()]);
                if !is_stricter(&leaf) {
                    reasons.push(leaf.to_string());
                }
            }
        }
        for leaf in
            leaves(&pick(&old, &["build-system", "build-backend"]), &pick(&new, &["build-system", "build-backend"]))
        {
            reasons.push(leaf.to_string());
        }
    } else if pick(&new, &["tool", "ruff"]) != Value::Null {
        reasons.push("ruff takes its settings for the files beside it".to_owned());
    }
    for path in [&["tool", "uv", "sources"][..], &["tool", "uv", "index"], &["tool", "poetry", "source"]] {
        reasons.extend(
            leaves(&pick(&old, path), &pick(&new, path)).iter().map(|leaf| format!("{}: {leaf}", path.join("."))),
        );
    }
    let requirements = |value: &Value| requirement_lines(value).join("\n");
    let (before, after) = (requirements(&old), requirements(&new));
    reasons.extend(lock::requirements(Some(&before), Some(&after)));
    reasons
}

/// The requirements of `[project]`, dependency groups and Poetry's tables.
fn requirement_lines(value: &Value) -> Vec<String> {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) => found.push(text.clone()),
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            Value::Object(table) => table.values().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    let get = |path: &[&str]| path.iter().try_fold(value, |value, key| value.get(key));
    for path in [
        &["project", "dependencies"][..],
        &["project", "optional-dependencies"],
        &["dependency-groups"],
        &["build-system", "requires"],
    ] {
        if let Some(value) = get(path) {
            walk(value, &mut found);
        }
    }
    for table in
        [get(&["tool", "poetry", "dependencies"]), get(&["tool", "poetry", "dev-dependencies"])].into_iter().flatten()
    {
        for (name, specification) in table.as_object().into_iter().flatten() {
            let source = ["git", "path", "url"].iter().find_map(|key| specification.get(key)?.as_str());
            found.push(source.map_or_else(|| name.clone(), |source| format!("{name} @ {source}")));
        }
    }
    found
}

fn is_stricter(leaf: &Leaf) -> bool {
    let path: Vec<&str> = leaf.path.iter().map(String::as_str).collect();
    let on = leaf.new == Some(Value::Bool(true));
    let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_f64);
    match path.as_slice() {
        // The oldest version of Python that is supported.
        ["tool", "mypy", "python_version"]
        | ["tool", "pyright" | "basedpyright", "pythonVersion"]
        | ["tool", "ruff", "target-version"] => {
            let version = |value: &Option<Value>| {
                value.as_ref().and_then(Value::as_str).and_then(|text| dependency::version(&text.replace("py3", "3.")))
            };
            version(&leaf.new) >= version(&leaf.old) && leaf.new.is_some()
        }
        ["tool", "mypy", option] => {
            on && (option.starts_with("strict")
                || option.starts_with("disallow")
                || option.starts_with("warn")
                || option.starts_with("check"))
        }
        ["tool", "ruff", "lint", "select" | "extend-select", _] | ["tool", "pytest", "ini_options", "markers", _] => {
            leaf.old.is_none()
        }
        ["tool", "ruff", "lint", "ignore" | "extend-ignore", _] => leaf.new.is_none(),
        ["tool", "ruff", "line-length" | "indent-width" | "format", ..] => true,
        ["tool", "coverage", "report", "fail_under"] => number(&leaf.new) >= number(&leaf.old) && leaf.new.is_some(),
        ["tool", "coverage", "run", "branch"] => on,
        _ => false,
    }
}

/// Fixtures may change. Hooks of pytest, automatic fixtures, what runs at import, and what skips or replaces may not.
pub fn conftest(base: Option<&str>, head: Option<&str>) -> Reasons {
    let blocks = |text: &str| {
        let mut found: Vec<Vec<String>> = risky_blocks(text);
        found.sort();
        found
    };
    let (old, new) = (base.map(blocks).unwrap_or_default(), head.map(blocks).unwrap_or_default());
    if old == new {
        return Vec::new();
    }
    let shown = new.iter().filter(|block| !old.contains(block)).chain(old.iter().filter(|block| !new.contains(block)));
    shown
        .map(|block| {
            let words: Vec<&str> =
                block.iter().map(|word| word.trim()).filter(|word| !word.is_empty()).take(12).collect();
            format!("a part that steers other tests differs: {}", words.join(" "))
        })
        .collect()
}

fn risky_blocks(text: &str) -> Vec<Vec<String>> {
    const NAMES: [&str; 5] = ["collect_ignore", "collect_ignore_glob", "pytest_plugins", "pytestmark", "__test__"];
    const WORDS: [&str; 14] = [
        "skip",
        "skipif",
        "xfail",
        "importorskip",
        "_exit",
        "builtins",
        "__builtins__",
        "modules",
        "setattr",
        "autouse",
        "usefixtures",
        "exec",
        "eval",
        "SkipTest",
    ];
    let tokens = lex::code(Language::Python, text);
    let mut blocks: Vec<Vec<&lex::Token<'_>>> = Vec::new();
    let (mut line, mut depth, mut decorated) = (0, 0_i32, false);
    for token in &tokens {
        let starts = token.line > line
            && token.column == 0
            && depth == 0
            && !matches!(token.text, ")" | "]" | "}" | "else" | "elif" | "except" | "finally");
        if (starts && !decorated) || blocks.is_empty() {
            blocks.push(Vec::new());
        }
        if starts {
            decorated = token.is_mark('@');
        }
        match token.text {
            "(" | "[" | "{" if token.kind == TokenKind::Mark => depth += 1,
            ")" | "]" | "}" if token.kind == TokenKind::Mark => depth -= 1,
            _ => {}
        }
        line = token.line;
        if let Some(block) = blocks.last_mut() {
            block.push(token);
        }
    }
    let is_risky = |block: &Vec<&lex::Token<'_>>| {
        let Some(first) = block.first() else { return false };
        let hook = block.windows(2).any(|pair| {
            pair.first().is_some_and(|word| word.is_word("def"))
                && pair.last().is_some_and(|name| name.text.starts_with("pytest_"))
        });
        let harmless_start =
            matches!(first.text, "def" | "async" | "class" | "import" | "from" | "@" | "if" | "try" | "with" | "type")
                || first.kind == TokenKind::Text
                || block.get(1).is_some_and(|second| second.is_mark('=') || second.is_mark(':'));
        let import = matches!(first.text, "import" | "from");
        let words = block.iter().any(|token| token.kind == TokenKind::Word && WORDS.contains(&token.text));
        hook || NAMES.contains(&first.text) || !harmless_start || (words && !import)
    };
    blocks
        .iter()
        .filter(|block| is_risky(block))
        .map(|block| block.iter().map(|token| token.text.to_owned()).collect())
        .collect()
}
