//! Files that can change a verdict: the configuration of tools, lockfiles, what they load. Compared by meaning.

mod cargo;
mod dependency;
mod go;
mod kinds;
mod lock;
mod package;
mod python;
mod reach;
mod settings;
mod shadow;

use std::collections::BTreeSet;

use super::change::{Change, Changes, Side};
use super::difference::Difference;
use super::finding::{Weakening, WeakeningKind};
use crate::definition::Definition;
use crate::snapshot::Snapshot;
use kinds::Form;

/// What is different by meaning, in sentences without a full stop. Empty: nothing.
type Reasons = Vec<String>;

pub fn find(
    base: &Snapshot,
    head: &Snapshot,
    changes: &Changes,
    definition: &Definition,
    definition_of_head: &Definition,
) -> Vec<Weakening> {
    let reached: BTreeSet<String> = [(base, definition), (head, definition_of_head)]
        .into_iter()
        .flat_map(|(snapshot, definition)| reach::files(snapshot, definition))
        .collect();
    let context = Context { base, head, definition, reached };
    changes.files.iter().filter_map(|change| context.judge(change)).collect()
}

struct Context<'a> {
    base: &'a Snapshot,
    head: &'a Snapshot,
    definition: &'a Definition,
    /// Files that a configuration or a command names.
    reached: BTreeSet<String>,
}

impl Context<'_> {
    fn judge(&self, change: &Change) -> Option<Weakening> {
        const SHOWN: usize = 6;
        let shadows = shadow::reason(change, self.base, self.head, self.definition);
        let form = match &shadows {
            Some(_) => Form::Bytes,
            None => self.form(change)?,
        };
        let reasons = match (&change.base, &change.head) {
            _ if shadows.is_some() => shadows.into_iter().collect(),
            (Side::Link, _) | (_, Side::Link) => vec!["it is a link on one side".to_owned()],
            (Side::Unreadable(why), _) | (_, Side::Unreadable(why)) => vec![(*why).to_owned()],
            (Side::None, Side::None) => Vec::new(),
            (base, head) => reasons(form, &change.path, base.text(), head.text()),
        };
        if reasons.is_empty() {
            return None;
        }
        let more = reasons.len().saturating_sub(SHOWN);
        let more = if more == 0 { String::new() } else { format!("; and {more} more") };
        let shown = reasons.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
        let message = format!("This file can change a verdict. {}{more}.", capitalised(&shown));
        let difference = if matches!(form, Form::NpmLock | Form::TextLock | Form::CargoLock) {
            Difference::of_changes(&reasons.iter().map(|reason| format!("+{reason}")).collect::<Vec<_>>())
        } else {
            Difference::between(&change.path, change.base.text(), change.head.text())
        };
        Some(Weakening::new(WeakeningKind::ProtectedChanged, &change.path, None, message).with(difference))
    }

    fn form(&self, change: &Change) -> Option<Form> {
        let path = change.path.as_str();
        if path == crate::definition::FILE {
            // The comparison of definitions reads it.
            return None;
        }
        let by_file = || {
            self.definition.protected.matches(path)
                || self.definition.gates.values().any(|gate| gate.protected.matches(path))
        };
        match kinds::form(path, self.definition) {
            Some(_) if self.is_unrelated(change) => None,
            Some(form) => Some(form),
            None if by_file() => Some(Form::Bytes),
            None if self.reached.contains(path) => Some(kinds::form_by_language(path)),
            None => None,
        }
    }

    /// A new configuration of a new package, which nothing of the base uses.
    fn is_unrelated(&self, change: &Change) -> bool {
        let Some((folder, _)) = change.path.rsplit_once('/') else { return false };
        let prefix = format!("{folder}/");
        let existed =
            self.base.files().range(prefix.clone()..).next().is_some_and(|(path, _)| path.starts_with(&prefix));
        let is_package = self.head.files().contains_key(&format!("{folder}/package.json"));
        // The linter reads nested settings for the files beside them, so its files are not among these.
        let name = change.path.rsplit('/').next().unwrap_or_default();
        let is_own = ["tsconfig", "vite", "vitest", "jest"].iter().any(|tool| name.starts_with(tool));
        is_own && change.base == Side::None && !existed && is_package && !self.reached.contains(&change.path)
    }
}

fn reasons(form: Form, path: &str, base: Option<&str>, head: Option<&str>) -> Reasons {
    match form {
        Form::Package => package::reasons(base, head),
        Form::NpmLock => lock::npm(path, base, head),
        Form::TextLock => lock::text(path, base, head),
        Form::CargoLock => cargo::lock(base, head),
        Form::Requirements => lock::requirements(base, head),
        Form::TsConfig => settings::tsconfig(base, head),
        Form::Json => settings::json(base, head),
        Form::Toml => settings::toml(base, head),
        Form::Lines => settings::lines(base, head),
        Form::Ini => settings::ini(path, base, head),
        Form::Script => settings::script(base, head),
        Form::Python => settings::python(base, head),
        Form::Conftest => python::conftest(base, head),
        Form::Pyproject => python::pyproject(base, head),
        Form::CargoManifest => cargo::manifest(base, head),
        Form::GoMod => go::module(base, head),
        Form::GoSum => go::sums(base, head),
        Form::Bytes => settings::presence(base, head),
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
