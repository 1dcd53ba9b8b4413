//! `nofx migrate`: applies migrations/*.sql in order and records them in the history table of the Supabase CLI, so that
//! either can continue where the other stopped. Then it applies the SQL functions whose text changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, bail};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Transaction};

use crate::database;
use crate::report::{self, hinted};

pub mod functions;
pub mod login;
pub mod release;
mod sql_text;
pub mod tenant;

/// Each transaction that applies a file holds this lock, so concurrent runs apply each file once.
const LOCK_KEY: i64 = 0x6e6f_6678_6d69_6772;

const HISTORY: &str = "
    create schema if not exists supabase_migrations;
    create table if not exists supabase_migrations.schema_migrations (version text not null primary key);
    alter table supabase_migrations.schema_migrations add column if not exists statements text[];
    alter table supabase_migrations.schema_migrations add column if not exists name text;";

/// A migration on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The digits at the start of its name. Compared as text, as the Supabase CLI does.
    pub version: String,
    pub name: String,
    pub path: PathBuf,
    pub sql: String,
}

/// An applied migration. Rows of old tools have no statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub version: String,
    pub statements: Option<Vec<String>>,
}

/// Applies all pending files in `dir`. Returns how many it applied.
pub async fn migrate(url: &str, dir: &Path) -> Result<usize> {
    let migrations = read_dir(dir)?;
    let functions = functions::read_dir(dir)?;
    let mut client = database::connect(url).await?;
    let mut count = 0;
    while let Some(migration) = apply_next(&mut client, &migrations).await? {
        report::line("migrate", format_args!("applied {}", shown(&migration.path)));
        count += 1;
    }
    let applied = functions::apply(&mut client, &functions).await?;
    match applied.as_slice() {
        [] => {}
        [file] => report::line("migrate", format_args!("applied {}", shown(&file.path))),
        files => report::line("migrate", format_args!("applied {} files of functions", files.len())),
    }
    Ok(count + applied.len())
}

/// A path relative to the working directory, if it is below it.
pub fn shown(path: &Path) -> String {
    let here = env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

/// Runs the seed of a local database. Running it again changes nothing.
pub async fn seed(url: &str, path: &Path) -> Result<()> {
    let sql = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let client = database::connect(url).await?;
    client.batch_execute(&sql).await.map_err(|error| explain(path, &sql, &error))
}

/// `nofx migrate`.
pub async fn run(url: &str, dir: &Path) -> Result<()> {
    let start = Instant::now();
    match migrate(url, dir).await? {
        0 => report::line("migrate", "nothing to do"),
        count => report::took("migrate", format_args!("{count} applied"), start.elapsed()),
    }
    Ok(())
}

/// The migrations of a directory, oldest first.
pub fn read_dir(dir: &Path) -> Result<Vec<Migration>> {
    let mut migrations: BTreeMap<String, Migration> = BTreeMap::new();
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
        let Some((version, name)) = path.file_name().and_then(|name| parse_name(name.to_str()?)) else { continue };
        let sql = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let migration = Migration { version: version.clone(), name, path, sql };
        if let Some(other) = migrations.insert(version, migration.clone()) {
            bail!(
                "two migrations have the version {}: {} and {}",
                other.version,
                other.path.display(),
                migration.path.display()
            );
        }
    }
    Ok(migrations.into_values().collect())
}

/// `^([0-9]+)_(.*)\.sql$`
fn parse_name(file_name: &str) -> Option<(String, String)> {
    let (version, name) = file_name.strip_suffix(".sql")?.split_once('_')?;
    let is_version = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
    is_version.then(|| (version.to_owned(), name.to_owned()))
}

/// The first migration that is not applied yet. Fails if the history table and the files contradict each other.
pub fn next_pending<'a>(migrations: &'a [Migration], applied: &[Applied]) -> Result<Option<&'a Migration>> {
    for row in applied {
        let Some(migration) = migrations.iter().find(|migration| migration.version == row.version) else {
            return Err(hinted(
                format!("the database has applied migration {}, but no file has this version", row.version),
                "pull the branch that added it, or use the database of this checkout",
            ));
        };
        let Some(statements) = &row.statements else { continue };
        if sql_text::normalise(&statements.join(";\n")) != sql_text::normalise(&migration.sql) {
            return Err(hinted(
                format!("{} was changed after it was applied", migration.path.display()),
                "migrations only go forward: restore the file and add a new one (a local database: nofx dev --reset)",
            ));
        }
    }
    let Some(pending) = migrations.iter().find(|file| applied.iter().all(|row| row.version != file.version)) else {
        return Ok(None);
    };
    match applied.iter().map(|row| &row.version).max() {
        Some(newest) if *newest > pending.version => Err(hinted(
            format!("{} is older than the newest applied migration ({newest})", pending.path.display()),
            "rename it with a newer timestamp: migrations are applied in the order of their versions",
        )),
        _ => Ok(Some(pending)),
    }
}

/// Applies the next pending file in one transaction.
async fn apply_next<'a>(client: &mut Client, migrations: &'a [Migration]) -> Result<Option<&'a Migration>> {
    let transaction = begin_locked(client).await?;
    let rows = transaction
        .query_typed("select version, statements from supabase_migrations.schema_migrations order by version", &[])
        .await
        .context("cannot read the table of migrations")?;
    let applied: Vec<Applied> =
        rows.iter().map(|row| Applied { version: row.get(0), statements: row.get(1) }).collect();
    let Some(migration) = next_pending(migrations, &applied)? else {
        transaction.commit().await.context("cannot commit")?;
        return Ok(None);
    };
    refuse_transactions(&migration.path, &migration.sql)?;
    let statements = sql_text::split(&migration.sql);
    transaction
        .batch_execute(&migration.sql)
        .await
        .map_err(|error| explain(&migration.path, &migration.sql, &error))?;
    transaction
        .execute_typed(
            "insert into supabase_migrations.schema_migrations (version, statements, name) values ($1, $2, $3)",
            &[(&migration.version, Type::TEXT), (&statements, Type::TEXT_ARRAY), (&migration.name, Type::TEXT)],
        )
        .await
        .context("cannot record the migration")?;
    transaction.commit().await.map_err(|error| explain(&migration.path, &migration.sql, &error))?;
    Ok(Some(migration))
}

/// A transaction that holds the lock of the migrations. Creates the history table if it is missing.
async fn begin_locked(client: &mut Client) -> Result<Transaction<'_>> {
    let transaction = client.transaction().await.context("cannot begin a transaction")?;
    transaction
        .execute_typed("select pg_advisory_xact_lock($1)", &[(&LOCK_KEY, Type::INT8)])
        .await
        .context("cannot lock the migrations")?;
    transaction.batch_execute(HISTORY).await.context("cannot create the table of migrations")?;
    Ok(transaction)
}

/// Refuses a file with transaction statements, because it could be applied only in part.
fn refuse_transactions(path: &Path, sql: &str) -> Result<()> {
    let found = sql_text::split(sql)
        .iter()
        .map(|statement| sql_text::first_word(statement))
        .find(|word| matches!(word.as_str(), "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "PREPARE"));
    match found {
        Some(word) => Err(hinted(
            format!("{} contains {word}", path.display()),
            "each file is one transaction: remove transaction statements",
        )),
        None => Ok(()),
    }
}

/// The error of Postgres, with the file and line that caused it.
fn explain(path: &Path, sql: &str, error: &tokio_postgres::Error) -> anyhow::Error {
    use tokio_postgres::error::ErrorPosition;
    let Some(cause) = error.as_db_error() else { return anyhow::anyhow!("{}: {error}", path.display()) };
    let line = match cause.position() {
        Some(ErrorPosition::Original(position)) => {
            let before = sql.chars().take(*position as usize);
            format!(":{}", before.filter(|c| *c == '\n').count() + 1)
        }
        _ => String::new(),
    };
    let detail = cause.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
    let place =
        cause.where_().map(|place| format!(" [{}]", place.lines().next().unwrap_or_default())).unwrap_or_default();
    let message = format!("{}{line}: {}{detail}{place}", path.display(), cause.message());
    if *cause.code() == SqlState::LOCK_NOT_AVAILABLE {
        return hinted(message, "nothing of this file was applied: run the command again");
    }
    anyhow::anyhow!(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: &str, sql: &str) -> Migration {
        let path = format!("migrations/{version}_x.sql").into();
        Migration { version: version.to_owned(), name: "x".to_owned(), path, sql: sql.to_owned() }
    }

    fn row(version: &str, statements: &[&str]) -> Applied {
        let statements = Some(statements.iter().map(|&statement| statement.to_owned()).collect());
        Applied { version: version.to_owned(), statements }
    }

    #[test]
    fn files_are_applied_in_order_and_once() {
        let files = [file("20260101000000", "select 1;"), file("20260102000000", "select 2;")];
        assert_eq!(next_pending(&files, &[]).unwrap(), Some(&files[0]));
        let applied = [row("20260101000000", &["select 1"])];
        assert_eq!(next_pending(&files, &applied).unwrap(), Some(&files[1]));
        let applied = [row("20260101000000", &["select 1"]), row("20260102000000", &["select 2"])];
        assert_eq!(next_pending(&files, &applied).unwrap(), None);
    }

    #[test]
    fn a_pending_file_older_than_an_applied_one_is_refused() {
        let files = [file("20260101000000", "select 1;"), file("20260102000000", "select 2;")];
        let error = next_pending(&files, &[row("20260102000000", &["select 2"])]).unwrap_err();
        assert!(error.to_string().contains("older than the newest"), "{error}");
    }

    #[test]
    fn a_changed_file_is_refused_unless_only_its_layout_changed() {
        let files = [file("20260101000000", "create table a (\n  b int);\nselect ';';\n")];
        let split_elsewhere = [row("20260101000000", &["create table a (\n  b int)", "select ';'"])];
        assert_eq!(next_pending(&files, &split_elsewhere).unwrap(), None);
        let other = [row("20260101000000", &["create table a (b text)", "select ';'"])];
        assert!(next_pending(&files, &other).unwrap_err().to_string().contains("changed after"));
        let unknown = [Applied { version: "20260101000000".to_owned(), statements: None }];
        assert_eq!(next_pending(&files, &unknown).unwrap(), None);
    }

    #[test]
    fn an_applied_version_without_a_file_is_refused() {
        let error = next_pending(&[], &[row("20260101000000", &["select 1"])]).unwrap_err();
        assert!(error.to_string().contains("no file has this version"), "{error}");
    }

    #[test]
    fn names_are_those_of_the_supabase_cli() {
        assert_eq!(parse_name("20260101_create_run.sql"), Some(("20260101".to_owned(), "create_run".to_owned())));
        assert_eq!(parse_name("1_.sql"), Some(("1".to_owned(), String::new())));
        for name in ["README.md", "_x.sql", "1a_x.sql", "20260101.sql", "20260101_x.sql.bak"] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }

    #[test]
    fn two_files_of_one_version_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("1_a.sql"), "").unwrap();
        fs::write(dir.path().join("1_b.sql"), "").unwrap();
        assert!(read_dir(dir.path()).unwrap_err().to_string().contains("version 1"));
    }

    #[test]
    fn transaction_statements_are_refused_but_not_the_begin_of_a_body() {
        let check = |sql: &str| refuse_transactions(Path::new("1_x.sql"), sql);
        assert!(check("select 1; commit;").is_err());
        assert!(check("-- begin\ncreate function f() returns int begin atomic select 1; end;").is_ok());
    }
}
