//! What is wrong with a definition.

use std::fmt;

use serde::Serialize;

/// One problem of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub file: String,
    /// From 1. `None`: the whole file.
    pub line: Option<u32>,
    /// The key, such as `gates.lint.timeout_s`. Empty for the whole file.
    pub key: String,
    pub message: String,
}

impl Problem {
    pub fn whole(file: &str, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: None, key: String::new(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(formatter, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(formatter, ": {}", self.key)?;
        }
        write!(formatter, ": {}", self.message)
    }
}

/// The workspace has no gate with this name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NoSuchGate {
    pub name: String,
    /// Why what the workspace has under this name does not count.
    pub why: Option<String>,
    /// The names of its gates.
    pub known: Vec<String>,
}

impl std::error::Error for NoSuchGate {}

impl NoSuchGate {
    /// The same for the gates of a base. The change may have the gate already, which does not count.
    pub fn of_base(&self) -> impl fmt::Display {
        struct OfBase<'a>(&'a NoSuchGate);
        impl fmt::Display for OfBase<'_> {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write(formatter, "base")?;
                formatter.write_str(" of the base first: a change cannot bring the gate that judges it")
            }
        }
        OfBase(self)
    }

    fn write(&self, formatter: &mut fmt::Formatter<'_>, whose: &str) -> fmt::Result {
        let Self { name, why, known } = self;
        match why {
            Some(why) => write!(formatter, "the {whose} has no usable gate {name:?}: {why}")?,
            None => write!(formatter, "the {whose} defines no gate {name:?}, and no preset fits")?,
        }
        write!(formatter, "; it has {}. Define [gates.{name}] in nofx.toml", known.join(", "))
    }
}

impl fmt::Display for NoSuchGate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(formatter, "workspace")
    }
}
