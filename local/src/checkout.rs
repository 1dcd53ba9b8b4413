//! The checkout that the command works in: paths of its files, and the user's `.env`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result};

use crate::report::hinted;

/// The root of a NOFX checkout. The command writes only below `.local/`.
#[derive(Clone, Debug)]
pub struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// The checkout that contains the working directory.
    pub fn find() -> Result<Self> {
        let here = env::current_dir().context("the working directory is gone")?;
        let root = here
            .ancestors()
            .find(|dir| dir.join("localstack/requirements.txt").is_file() && dir.join("Cargo.toml").is_file())
            .ok_or_else(|| {
                hinted(
                    "this directory is not in a checkout of NOFX",
                    "change into the checkout: the local stack builds the functions from it",
                )
            })?;
        Ok(Self { root: root.canonicalize().with_context(|| format!("cannot resolve {}", root.display()))? })
    }

    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn local(&self) -> PathBuf {
        self.root.join(".local")
    }

    /// The state of `nofx dev`: kept between starts, removed by `--reset`. `NOFX_STATE_DIR` names another folder, for a
    /// second stack.
    pub fn state(&self) -> PathBuf {
        match env::var_os("NOFX_STATE_DIR").filter(|dir| !dir.is_empty()) {
            Some(dir) => self.root.join(dir),
            None => self.local().join("state"),
        }
    }

    /// Tests in a browser, with the list of the npm packages that they need.
    pub fn browser_tests(&self) -> PathBuf {
        self.root.join("tests/browser")
    }

    pub fn migrations(&self) -> PathBuf {
        self.root.join("migrations")
    }

    /// Initial rows of a local database.
    pub fn seed(&self) -> PathBuf {
        self.root.join("supabase/seed.sql")
    }

    /// Files for the local stack's servers: package lists, the compose file, LocalStack's hooks.
    pub fn localstack(&self) -> PathBuf {
        self.root.join("localstack")
    }

    /// The variables of the checkout's `.env`. Empty if there is no such file.
    pub fn dotenv(&self) -> Result<BTreeMap<String, String>> {
        let path = self.root.join(".env");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(parse_dotenv(&text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
}

/// Reads `KEY=value` lines. `export` and one pair of quotes are allowed. `#` starts a comment, also after an unquoted
/// value and a space. Nothing in values is expanded.
fn parse_dotenv(text: &str) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for line in text.lines() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((key, value)) = line.split_once('=') else { continue };
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() || key.starts_with('#') {
            continue;
        }
        let unquoted = ['"', '\''].iter().find_map(|quote| {
            let rest = value.strip_prefix(*quote)?;
            rest.find(*quote).map(|end| &rest[..end])
        });
        let value = unquoted.unwrap_or_else(|| value.split(" #").next().unwrap_or(value).trim_end());
        if !value.is_empty() {
            variables.insert(key.to_owned(), value.to_owned());
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotenv_accepts_quotes_comments_and_export() {
        let variables = parse_dotenv(
            "# keys\nexport OPENAI_API_KEY=\"sk-a#b\"\nANTHROPIC_API_KEY='x' # mine\nGEMINI_API_KEY=plain # note\n#OFF=1\nEMPTY=\nbroken\n",
        );
        assert_eq!(variables.len(), 3);
        assert_eq!(variables["OPENAI_API_KEY"], "sk-a#b");
        assert_eq!(variables["ANTHROPIC_API_KEY"], "x");
        assert_eq!(variables["GEMINI_API_KEY"], "plain");
    }
}
