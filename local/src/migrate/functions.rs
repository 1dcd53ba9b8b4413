//! The SQL functions: `migrations/functions/*.sql` has the current text of each. They are applied after the migrations,
//! and again whenever their text changes.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use shared::domain::digest::sha256_hex;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::{begin_locked, explain, refuse_transactions};

const APPLIED: &str = "
    create table if not exists supabase_migrations.nofx_functions (
        name text not null primary key,
        -- Of the file's text, in lower-case hex.
        sha256 text not null,
        applied_at timestamptz not null default now());";

/// A file of SQL functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionFile {
    /// Such as `steps_claim.sql`. Files are applied in the order of their names. An underscore sorts before letters.
    pub name: String,
    pub path: PathBuf,
    pub sql: String,
}

impl FunctionFile {
    /// Other files call its functions while they are applied, so all are applied again after a change of it.
    fn is_helper(&self) -> bool {
        self.name.starts_with('_')
    }

    pub fn digest(&self) -> String {
        sha256_hex(self.sql.as_bytes())
    }
}

/// The files in the folder `functions` below a directory of migrations, in the order in which they are applied. None
/// without that folder.
pub fn read_dir(migrations: &Path) -> Result<Vec<FunctionFile>> {
    let dir = migrations.join("functions");
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot read {}", dir.display()))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.extension().is_some_and(|extension| extension == "sql") {
            let sql = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.push(FunctionFile { name, path, sql });
        }
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}

/// Applies the files that changed since they were last applied, in one transaction. Returns them.
pub async fn apply<'a>(client: &mut Client, files: &'a [FunctionFile]) -> Result<Vec<&'a FunctionFile>> {
    let transaction = begin_locked(client).await?;
    transaction.batch_execute(APPLIED).await.context("cannot create the table of functions")?;
    let rows = transaction
        .query_typed("select name, sha256 from supabase_migrations.nofx_functions", &[])
        .await
        .context("cannot read the table of functions")?;
    let applied: HashMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let pending = pending(files, &applied);
    for file in &pending {
        refuse_transactions(&file.path, &file.sql)?;
        transaction.batch_execute(&file.sql).await.map_err(|error| explain(&file.path, &file.sql, &error))?;
        transaction
            .execute_typed(
                "insert into supabase_migrations.nofx_functions (name, sha256) values ($1, $2)
                     on conflict (name) do update set sha256 = excluded.sha256, applied_at = now()",
                &[(&file.name, Type::TEXT), (&file.digest(), Type::TEXT)],
            )
            .await
            .context("cannot record a function")?;
    }
    transaction.commit().await.context("cannot commit")?;
    Ok(pending)
}

/// Files whose text differs from the applied text. All files if a helper changed.
fn pending<'a>(files: &'a [FunctionFile], applied: &HashMap<String, String>) -> Vec<&'a FunctionFile> {
    let is_new = |file: &&FunctionFile| applied.get(&file.name) != Some(&file.digest());
    let all = files.iter().filter(is_new).any(FunctionFile::is_helper);
    files.iter().filter(|file| all || is_new(file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, sql: &str) -> FunctionFile {
        FunctionFile { name: name.to_owned(), path: name.into(), sql: sql.to_owned() }
    }

    fn applied(files: &[FunctionFile]) -> HashMap<String, String> {
        files.iter().map(|file| (file.name.clone(), file.digest())).collect()
    }

    #[test]
    fn only_what_changed_is_applied_again() {
        let before = [file("_helper.sql", "1"), file("a.sql", "1"), file("b.sql", "1")];
        assert_eq!(pending(&before, &HashMap::new()).len(), 3);
        assert_eq!(pending(&before, &applied(&before)), Vec::<&FunctionFile>::new());
        let after = [before[0].clone(), file("a.sql", "2"), before[2].clone()];
        assert_eq!(pending(&after, &applied(&before)), [&after[1]]);
    }

    #[test]
    fn a_changed_helper_applies_every_file_again() {
        let before = [file("_helper.sql", "1"), file("a.sql", "1")];
        let after = [file("_helper.sql", "2"), file("a.sql", "1")];
        assert_eq!(pending(&after, &applied(&before)).len(), 2);
    }

    #[test]
    fn files_come_in_the_order_of_their_names() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_dir(dir.path()).unwrap(), []);
        fs::create_dir(dir.path().join("functions")).unwrap();
        for name in ["b.sql", "a.sql", "_helper.sql", "README.md"] {
            fs::write(dir.path().join("functions").join(name), "").unwrap();
        }
        let names: Vec<_> = read_dir(dir.path()).unwrap().into_iter().map(|file| file.name).collect();
        assert_eq!(names, ["_helper.sql", "a.sql", "b.sql"]);
    }
}
