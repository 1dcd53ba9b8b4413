//! Reads a TOML table key by key. It collects every problem, with its line.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::globs::Globs;
use super::problem::Problem;

/// A TOML document and the problems that were found so far.
pub struct Document<'a> {
    file: &'a str,
    text: &'a str,
    pub problems: Vec<Problem>,
}

/// A table of the document. Keys that nobody asks for are problems.
pub struct Table<'t, 'a> {
    path: String,
    at: usize,
    entries: &'t DeTable<'a>,
    read: Vec<String>,
}

impl<'a> Document<'a> {
    pub fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, problems: Vec::new() }
    }

    /// Reports a problem at a place of the text.
    pub fn problem(&mut self, at: usize, key: &str, message: impl Into<String>) {
        let line = self.text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line: u32::try_from(line).ok(),
            key: key.to_owned(),
            message: message.into(),
        });
    }
}

impl<'t, 'a> Table<'t, 'a> {
    pub fn new(path: &str, at: usize, entries: &'t DeTable<'a>) -> Self {
        Self { path: path.to_owned(), at, entries, read: Vec::new() }
    }

    pub fn at(&self) -> usize {
        self.at
    }

    /// The full key of an entry. An empty name is the table itself.
    pub fn key(&self, name: &str) -> String {
        if name.is_empty() {
            self.path.clone()
        } else if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    pub fn get(&mut self, name: &str) -> Option<&'t Spanned<DeValue<'a>>> {
        self.read.push(name.to_owned());
        self.entries.iter().find(|(key, _)| key.as_ref() == name).map(|(_, value)| value)
    }

    fn wrong(&self, document: &mut Document<'_>, name: &str, value: &Spanned<DeValue<'a>>, wanted: &str) {
        let found = value.as_ref().type_str();
        document.problem(value.span().start, &self.key(name), format!("must be {wanted}, not a {found}"));
    }

    pub fn string(&mut self, document: &mut Document<'_>, name: &str) -> Option<(String, usize)> {
        let value = self.get(name)?;
        if let Some(text) = value.as_ref().as_str() {
            return Some((text.to_owned(), value.span().start));
        }
        self.wrong(document, name, value, "a string");
        None
    }

    pub fn boolean(&mut self, document: &mut Document<'_>, name: &str) -> Option<bool> {
        let value = self.get(name)?;
        let found = value.as_ref().as_bool();
        if found.is_none() {
            self.wrong(document, name, value, "true or false");
        }
        found
    }

    /// A whole number in a range.
    pub fn number(&mut self, document: &mut Document<'_>, name: &str, from: u32, to: u32) -> Option<u32> {
        let value = self.get(name)?;
        let number = value
            .as_ref()
            .as_integer()
            .and_then(|number| u32::from_str_radix(number.as_str(), number.radix()).ok())
            .filter(|number| (from..=to).contains(number));
        if number.is_none() {
            let message = format!("must be a whole number from {from} to {to}");
            document.problem(value.span().start, &self.key(name), message);
        }
        number
    }

    /// A number from 0 to 1. NaN is refused.
    pub fn ratio(&mut self, document: &mut Document<'_>, name: &str) -> Option<f64> {
        let value = self.get(name)?;
        let text = match value.as_ref() {
            DeValue::Float(float) => Some(float.as_str()),
            DeValue::Integer(integer) => Some(integer.as_str()),
            _ => None,
        };
        let ratio = text.and_then(|text| text.parse::<f64>().ok()).filter(|ratio| (0.0..=1.0).contains(ratio));
        if ratio.is_none() {
            document.problem(value.span().start, &self.key(name), "must be a number from 0 to 1");
        }
        ratio
    }

    /// One of a table of names.
    pub fn choice<T: Copy>(&mut self, document: &mut Document<'_>, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let (text, at) = self.string(document, name)?;
        let found = choices.iter().find(|(known, _)| *known == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<&str> = choices.iter().map(|(known, _)| *known).collect();
            document.problem(at, &self.key(name), format!("must be one of {}, not {text:?}", known.join(", ")));
        }
        found
    }

    pub fn strings(&mut self, document: &mut Document<'_>, name: &str) -> Option<Vec<String>> {
        let value = self.get(name)?;
        let items = value.as_ref().as_array().map(|items| {
            items.iter().map(|item| item.as_ref().as_str().map(ToOwned::to_owned)).collect::<Option<Vec<_>>>()
        });
        if let Some(Some(items)) = items {
            return Some(items);
        }
        self.wrong(document, name, value, "a list of strings");
        None
    }

    pub fn globs(&mut self, document: &mut Document<'_>, name: &str) -> Option<Globs> {
        let at = self.get(name)?.span().start;
        let patterns = self.strings(document, name)?;
        match Globs::new(&patterns) {
            Ok(globs) => Some(globs),
            Err((pattern, why)) => {
                document.problem(at, &self.key(name), format!("{pattern:?} is not a glob pattern: {why}"));
                None
            }
        }
    }

    pub fn table(&mut self, document: &mut Document<'_>, name: &str) -> Option<Table<'t, 'a>> {
        let value = self.get(name)?;
        if let Some(entries) = value.as_ref().as_table() {
            return Some(Table::new(&self.key(name), value.span().start, entries));
        }
        self.wrong(document, name, value, "a table");
        None
    }

    /// Every entry of this table, each a table.
    pub fn tables(&mut self, document: &mut Document<'_>) -> Vec<(String, Table<'t, 'a>)> {
        let names: Vec<String> = self.entries.keys().map(|key| key.as_ref().to_string()).collect();
        names.into_iter().filter_map(|name| Some((name.clone(), self.table(document, &name)?))).collect()
    }

    /// Every entry of this table, each a string.
    pub fn all_strings(&mut self, document: &mut Document<'_>) -> BTreeMap<String, (String, usize)> {
        let names: Vec<String> = self.entries.keys().map(|key| key.as_ref().to_string()).collect();
        names.into_iter().filter_map(|name| Some((name.clone(), self.string(document, &name)?))).collect()
    }

    /// Reports the keys that nobody asked for.
    pub fn finish(self, document: &mut Document<'_>) {
        for key in self.entries.keys() {
            let name = key.as_ref();
            if !self.read.iter().any(|read| read == name) {
                let known: Vec<&str> = self.read.iter().map(String::as_str).collect();
                let message = format!("unknown key; known are {}", known.join(", "));
                document.problem(key.span().start, &self.key(name), message);
            }
        }
    }
}
