//! Settings of tools in common formats.

use serde_json::Value;

use super::super::meaning::{self, Leaf, leaves};
use super::Reasons;

pub fn json(base: Option<&str>, head: Option<&str>) -> Reasons {
    values(base, head, meaning::json, |_| false)
}

pub fn toml(base: Option<&str>, head: Option<&str>) -> Reasons {
    values(base, head, meaning::toml, |_| false)
}

/// A file that got stricter has no reasons.
pub fn tsconfig(base: Option<&str>, head: Option<&str>) -> Reasons {
    values(base, head, meaning::json, is_stricter)
}

/// Compares parsed values without the differences that `harmless` names. A file that cannot be parsed is compared by bytes.
pub fn values(
    base: Option<&str>,
    head: Option<&str>,
    parse: impl Fn(&str) -> Option<Value>,
    harmless: impl Fn(&Leaf) -> bool,
) -> Reasons {
    let (Some(base), Some(head)) = (base, head) else { return presence(base, head) };
    match (parse(base), parse(head)) {
        (Some(old), Some(new)) => {
            leaves(&old, &new).iter().filter(|leaf| !harmless(leaf)).map(ToString::to_string).collect()
        }
        _ if base == head => Vec::new(),
        _ => vec!["it cannot be parsed and differs".to_owned()],
    }
}

const STRICT: [&str; 24] = [
    "strict",
    "noImplicitAny",
    "strictNullChecks",
    "strictFunctionTypes",
    "strictBindCallApply",
    "strictPropertyInitialization",
    "strictBuiltinIteratorReturn",
    "noImplicitThis",
    "useUnknownInCatchVariables",
    "alwaysStrict",
    "noUnusedLocals",
    "noUnusedParameters",
    "exactOptionalPropertyTypes",
    "noImplicitReturns",
    "noFallthroughCasesInSwitch",
    "noUncheckedIndexedAccess",
    "noImplicitOverride",
    "noPropertyAccessFromIndexSignature",
    "isolatedModules",
    "verbatimModuleSyntax",
    "forceConsistentCasingInFileNames",
    "noUncheckedSideEffectImports",
    "erasableSyntaxOnly",
    "checkJs",
];

fn is_stricter(leaf: &Leaf) -> bool {
    let path: Vec<&str> = leaf.path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["compilerOptions", option] if STRICT.contains(option) => leaf.new == Some(Value::Bool(true)),
        ["compilerOptions", "skipLibCheck" | "allowUnreachableCode" | "allowUnusedLabels" | "noCheck"] => {
            leaf.new == Some(Value::Bool(false))
        }
        ["include" | "files" | "references", _] => leaf.old.is_none(),
        ["exclude", _] => leaf.new.is_none(),
        // TypeScript leaves the folder out of what it checks.
        ["compilerOptions", "outDir"] => leaf.new.as_ref().is_none_or(|folder| {
            let is_output = |part: &str| ["dist", "build", "out"].contains(&part);
            folder.as_str().is_some_and(|folder| !folder.contains("..") && folder.split('/').any(is_output))
        }),
        // What a build writes and what an editor reads do not matter to a check.
        [
            "compilerOptions",
            "sourceMap" | "declaration" | "declarationMap" | "pretty" | "removeComments" | "newLine",
        ]
        | ["compileOnSave" | "display" | "$schema" | "typeAcquisition"] => true,
        _ => false,
    }
}

pub fn lines(base: Option<&str>, head: Option<&str>) -> Reasons {
    sequences(base, head, meaning::lines)
}

pub fn script(base: Option<&str>, head: Option<&str>) -> Reasons {
    sequences(base, head, meaning::script)
}

pub fn python(base: Option<&str>, head: Option<&str>) -> Reasons {
    sequences(base, head, meaning::python)
}

fn sequences(base: Option<&str>, head: Option<&str>, normal: impl Fn(&str) -> Vec<String>) -> Reasons {
    let (Some(base), Some(head)) = (base, head) else { return presence(base, head) };
    let (old, new) = (normal(base), normal(head));
    if old == new { Vec::new() } else { vec!["its meaning differs".to_owned()] }
}

/// The sections of an INI file that belong to tools of gates.
pub fn ini(path: &str, base: Option<&str>, head: Option<&str>) -> Reasons {
    let is_tool = |section: &str| {
        let section = section.trim_start_matches("tool:");
        let tools = ["mypy", "pytest", "flake8", "coverage", "pylint", "pycodestyle", "pydocstyle", "isort"];
        tools.iter().any(|tool| {
            section == *tool || section.starts_with(&format!("{tool}:")) || section.starts_with(&format!("{tool}-"))
        }) || (path.ends_with("tox.ini") && section.starts_with("testenv"))
    };
    let sections = |text: &str| {
        let mut kept = Vec::new();
        let mut counts = false;
        for line in meaning::lines(text) {
            if let Some(name) = line.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                counts = is_tool(name.trim());
            }
            if counts {
                kept.push(line);
            }
        }
        kept
    };
    let (old, new) = (base.map(sections).unwrap_or_default(), head.map(sections).unwrap_or_default());
    if old == new { Vec::new() } else { vec!["the section of a tool differs".to_owned()] }
}

/// For a file that has no other meaning than its text.
pub fn presence(base: Option<&str>, head: Option<&str>) -> Reasons {
    match (base, head) {
        (None, Some(_)) => vec!["it is new".to_owned()],
        (Some(_), None) => vec!["it is deleted".to_owned()],
        (base, head) if base != head => vec!["it differs".to_owned()],
        _ => Vec::new(),
    }
}
