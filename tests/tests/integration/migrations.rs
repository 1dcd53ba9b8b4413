//! Every upgrade path to the newest version gives the same database.

use std::fs;
use std::path::{Path, PathBuf};

use nofx_local::migrate::{self, functions, release};
use nofx_tests::database::{TestDatabase, connect_to};
use nofx_tests::environment::{database_url, with_database};
use tokio_postgres::Client;
use uuid::Uuid;

/// The objects of the schema, one line for each: kind, name, definition.
const CATALOGUE: &str = "
    with us as (select oid from pg_namespace where nspname = 'nofx')
    select concat_ws(' ', 'function', pg_get_functiondef(p.oid), p.proacl)
      from pg_proc p where p.pronamespace in (table us)
    union all
    select concat_ws(' ', 'column', a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                     pg_get_expr(d.adbin, d.adrelid), a.attidentity)
      from pg_attribute a
      join pg_class c on c.oid = a.attrelid
      left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
     where c.relnamespace in (table us) and a.attnum > 0 and not a.attisdropped
    union all
    select concat_ws(' ', 'relation', c.relname, c.relkind, c.relrowsecurity, c.reloptions, c.relacl)
      from pg_class c where c.relnamespace in (table us)
    union all
    select concat_ws(' ', 'constraint', k.conname, k.convalidated, pg_get_constraintdef(k.oid))
      from pg_constraint k where k.connamespace in (table us)
    union all
    select concat_ws(' ', 'index', indexdef) from pg_indexes where schemaname = 'nofx'
    union all
    select concat_ws(' ', 'trigger', pg_get_triggerdef(t.oid))
      from pg_trigger t join pg_class c on c.oid = t.tgrelid where c.relnamespace in (table us) and not t.tgisinternal
    union all
    select concat_ws(' ', 'policy', p::text) from pg_policies p where schemaname = 'nofx'
    union all
    select concat_ws(' ', 'type', t.oid::regtype, t.typacl) from pg_type t where t.typnamespace in (table us)
     order by 1";

fn migrations() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations")
}

/// An empty database. Drop it with [`EmptyDatabase::drop_database`].
struct EmptyDatabase {
    admin: Client,
    name: String,
    url: String,
}

impl EmptyDatabase {
    async fn create() -> Self {
        // Roles belong to the server. Create them first, so that concurrent migrations do not conflict.
        drop(TestDatabase::create().await);
        let admin = connect_to(&database_url()).await;
        let name = format!("m_{}", Uuid::new_v4().simple());
        admin.batch_execute(&format!("create database {name}")).await.unwrap();
        let url = with_database(&database_url(), &name);
        Self { admin, name, url }
    }

    async fn catalogue(&self) -> Vec<String> {
        let rows = connect_to(&self.url).await.query(CATALOGUE, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn drop_database(self) {
        self.admin.batch_execute(&format!("drop database {} with (force)", self.name)).await.unwrap();
    }
}

async fn from_scratch() -> Vec<String> {
    let database = EmptyDatabase::create().await;
    migrate::migrate(&database.url, &migrations()).await.unwrap();
    assert_eq!(migrate::migrate(&database.url, &migrations()).await.unwrap(), 0, "no migration is left");
    let catalogue = database.catalogue().await;
    assert!(catalogue.iter().any(|line| line.contains("FUNCTION nofx.steps_finish(")), "{catalogue:?}");
    database.drop_database().await;
    catalogue
}

/// A folder with only the first `count` versioned files, like that of an older version.
fn older(count: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in migrate::read_dir(&migrations()).unwrap().iter().take(count) {
        fs::copy(&file.path, dir.path().join(file.path.file_name().unwrap())).unwrap();
    }
    dir
}

#[tokio::test]
async fn an_upgraded_database_equals_a_new_one() {
    let expected = from_scratch().await;
    let files = migrate::read_dir(&migrations()).unwrap().len();
    for count in 1..=files {
        let database = EmptyDatabase::create().await;
        assert_eq!(migrate::migrate(&database.url, older(count).path()).await.unwrap(), count);
        migrate::migrate(&database.url, &migrations()).await.unwrap();
        assert_same_catalogue(&database.catalogue().await, &expected, &format!("after {count} of {files} files"));
        database.drop_database().await;
    }
}

/// `supabase db push` applies only the versioned files.
#[tokio::test]
async fn the_versioned_files_alone_give_the_same_database() {
    let (functions, files) = (functions::read_dir(&migrations()).unwrap(), migrate::read_dir(&migrations()).unwrap());
    let unreleased: Vec<&str> =
        release::unreleased(&functions, &files).into_iter().map(|file| file.name.as_str()).collect();
    assert_eq!(unreleased, Vec::<&str>::new(), "run `make migration NAME=..`");

    let database = EmptyDatabase::create().await;
    migrate::migrate(&database.url, older(files.len()).path()).await.unwrap();
    assert_same_catalogue(&database.catalogue().await, &from_scratch().await, "without functions/");
    database.drop_database().await;
}

/// The current text of each function is in exactly one file of functions/.
#[tokio::test]
async fn every_function_is_in_one_file() {
    let files = functions::read_dir(&migrations()).unwrap();
    let created = |sql: &str| -> Vec<String> {
        let after = sql.split("create or replace function nofx.").skip(1);
        after.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())).collect()
    };
    let mut in_files: Vec<String> = files.iter().flat_map(|file| created(&file.sql)).collect();
    in_files.sort();

    let database = EmptyDatabase::create().await;
    migrate::migrate(&database.url, &migrations()).await.unwrap();
    let sql = "select proname::text from pg_proc where pronamespace = 'nofx'::regnamespace order by proname::text collate \"C\"";
    let rows = connect_to(&database.url).await.query(sql, &[]).await.unwrap();
    let stored: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(in_files, stored, "left: functions/, right: the database");
    database.drop_database().await;
}

/// Asserts that two catalogues are equal. Prints only the lines that differ.
fn assert_same_catalogue(found: &[String], expected: &[String], when: &str) {
    let missing: Vec<_> = expected.iter().filter(|line| !found.contains(line)).collect();
    let surplus: Vec<_> = found.iter().filter(|line| !expected.contains(line)).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "{when}: missing {missing:#?}, surplus {surplus:#?}");
}
