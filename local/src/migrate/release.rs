//! `nofx migration NAME`: writes the next versioned file, with the SQL functions that changed since the last one. The
//! Supabase CLI applies only versioned files. With these sections it produces the same database as `nofx migrate`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};

use super::functions::{self, FunctionFile};
use super::{Migration, read_dir};
use crate::report::hinted;

/// Starts the line before each function file. The file's name and digest follow.
const SECTION: &str = "-- functions/";

/// Writes `<version>_<name>.sql` into the directory and returns its path. The version is the current time.
pub fn write(migrations: &Path, name: &str) -> Result<PathBuf> {
    let now = DateTime::from(SystemTime::now()).fmt(DateTimeFormat::DateTime).context("cannot format the time")?;
    let digits: String = now.chars().filter(char::is_ascii_digit).take("yyyymmddhhmmss".len()).collect();
    write_as(migrations, &digits, name)
}

/// The same with this version, which must be newer than that of every migration.
fn write_as(migrations: &Path, version: &str, name: &str) -> Result<PathBuf> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
        return Err(hinted(
            format!("\"{name}\" is not a name for a migration"),
            "use lower-case letters, digits and underscores, such as add_step_labels",
        ));
    }
    let earlier = read_dir(migrations)?;
    if let Some(newest) = earlier.last().filter(|newest| newest.version.as_str() >= version) {
        return Err(hinted(
            format!("{} has a newer version than {version}", newest.path.display()),
            "check this machine's clock: migrations are applied in the order of their versions",
        ));
    }
    let path = migrations.join(format!("{version}_{name}.sql"));
    let functions = functions::read_dir(migrations)?;
    let text = text(&unreleased(&functions, &earlier));
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Function files whose current text is not in their newest section.
pub fn unreleased<'a>(functions: &'a [FunctionFile], migrations: &[Migration]) -> Vec<&'a FunctionFile> {
    let lines = migrations.iter().flat_map(|migration| migration.sql.lines());
    let released: HashMap<&str, &str> =
        lines.filter_map(|line| line.strip_prefix(SECTION)?.split_once(".sql sha256=")).collect();
    functions
        .iter()
        .filter(|file| released.get(file.name.trim_end_matches(".sql")) != Some(&file.digest().as_str()))
        .collect()
}

fn text(functions: &[&FunctionFile]) -> String {
    let mut text = "-- Why, in a sentence. Statements on tables go here, before the functions.\n".to_owned();
    if !functions.is_empty() {
        text.push_str("\n-- Copies of the files in functions/. Change those files, not this one.\n");
    }
    for file in functions {
        let _ = write!(text, "\n{SECTION}{} sha256={}\n{}", file.name, file.digest(), file.sql);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkout() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("functions")).unwrap();
        fs::write(dir.path().join("functions/a.sql"), "select 1;\n").unwrap();
        fs::write(dir.path().join("functions/b.sql"), "select 2;\n").unwrap();
        dir
    }

    fn unreleased_names(dir: &Path) -> Vec<String> {
        let (functions, migrations) = (functions::read_dir(dir).unwrap(), read_dir(dir).unwrap());
        unreleased(&functions, &migrations).into_iter().map(|file| file.name.clone()).collect()
    }

    #[test]
    fn a_new_file_contains_what_changed_since_the_last_one() {
        let dir = checkout();
        let first = write_as(dir.path(), "20260101000000", "one").unwrap();
        let first = fs::read_to_string(first).unwrap();
        assert!(first.contains("select 1;") && first.contains("select 2;"), "{first}");
        assert_eq!(unreleased_names(dir.path()), Vec::<String>::new());

        fs::write(dir.path().join("functions/b.sql"), "select 3;\n").unwrap();
        assert_eq!(unreleased_names(dir.path()), ["b.sql"]);
        let second = fs::read_to_string(write_as(dir.path(), "20260102000000", "two").unwrap()).unwrap();
        assert!(second.contains("select 3;") && !second.contains("select 1;"), "{second}");

        // An older file has this text, but only the newest section counts.
        fs::write(dir.path().join("functions/b.sql"), "select 2;\n").unwrap();
        assert_eq!(unreleased_names(dir.path()), ["b.sql"]);
    }

    #[test]
    fn a_version_in_the_past_and_a_strange_name_are_refused() {
        let dir = checkout();
        write_as(dir.path(), "20260102000000", "one").unwrap();
        for (version, name) in [("20260101000000", "two"), ("20260102000000", "two"), ("20260103000000", "a b")] {
            assert!(write_as(dir.path(), version, name).is_err(), "{version} {name}");
        }
        assert_eq!(read_dir(dir.path()).unwrap().len(), 1);
    }
}
