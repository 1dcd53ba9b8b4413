//! A database per test, cloned from a template that is made once from the migrations.

use std::path::{Path, PathBuf};
use std::thread;

use nofx_local::migrate;
use shared::config::DatabaseConfig;
use shared::db::connect;
use shared::domain::digest::sha256_hex;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::environment::{database_url, with_database};

/// Key of the advisory lock under which the template is made. Any constant does, as long as nobody else takes it.
const TEMPLATE_LOCK: i64 = 0x006e_6f66_785f_7474;

/// A database that is dropped with this value.
pub struct TestDatabase {
    /// Its name at the test server, where it is one of ours.
    name: Option<String>,
    pub url: String,
}

impl TestDatabase {
    /// A fresh database with every migration applied.
    pub async fn create() -> Self {
        let admin = connect_to(&database_url()).await;
        let template = template(&admin).await;
        let name = format!("t_{}", Uuid::new_v4().simple());
        let sql = format!("create database {name} template {template}");
        admin.batch_execute(&sql).await.expect("clone the template database");
        let url = with_database(&database_url(), &name);
        Self { name: Some(name), url }
    }

    /// A database that somebody else has made, and drops.
    pub fn at(url: String) -> Self {
        Self { name: None, url }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Some(name) = &self.name else { return };
        let sql = format!("drop database if exists {name} with (force)");
        // A test's own runtime may be on its way out already.
        let dropped = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async { connect_to(&database_url()).await.batch_execute(&sql).await })
        });
        // Left-overs go with the throwaway server; a panic here would hide the test's own.
        let _ = dropped.join();
    }
}

/// A connection outside of any pool.
pub async fn connect_to(url: &str) -> Client {
    let config = DatabaseConfig { url: url.to_owned(), ca_file: None, pool_size: 1 };
    connect(&config).await.unwrap_or_else(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        panic!("no connection to the test server: {error}: {cause}; start a stack with `make test`")
    })
}

fn migrations() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations")
}

/// The template's name, which tells its contents: changed migrations make another one.
async fn template(admin: &Client) -> String {
    let files = migrate::read_dir(&migrations()).expect("the migrations");
    let functions = migrate::functions::read_dir(&migrations()).expect("the functions");
    let texts = files.iter().map(|file| &file.sql).chain(functions.iter().map(|file| &file.sql));
    let digest = sha256_hex(texts.map(String::as_str).collect::<String>().as_bytes());
    let name = format!("nofx_template_{}", &digest[..16]);
    if !exists(admin, &name).await {
        // Nextest runs every test in a process of its own: the first one makes the template, the others wait for it.
        admin.execute("select pg_advisory_lock($1)", &[&TEMPLATE_LOCK]).await.expect("the template lock");
        if !exists(admin, &name).await {
            make_template(admin, &name).await;
        }
        admin.execute("select pg_advisory_unlock($1)", &[&TEMPLATE_LOCK]).await.expect("the template lock");
    }
    name
}

async fn exists(admin: &Client, name: &str) -> bool {
    let row = admin.query_one("select exists (select from pg_database where datname = $1)", &[&name]).await;
    row.expect("look databases up").get(0)
}

/// Built under another name, so that a template that exists is a whole one.
async fn make_template(admin: &Client, name: &str) {
    let building = format!("{name}_building");
    admin.batch_execute(&format!("drop database if exists {building} with (force)")).await.expect("drop a torso");
    admin.batch_execute(&format!("create database {building}")).await.expect("create the template");
    let url = with_database(&database_url(), &building);
    migrate::migrate(&url, &migrations())
        .await
        .unwrap_or_else(|error| panic!("the migrations do not apply: {error:#}"));
    // Renaming waits for the connection of the migrations to end. Nobody can connect from here on, so a clone never meets anybody.
    let sql = format!("alter database {building} with allow_connections false is_template true");
    admin.batch_execute(&sql).await.expect("close the template");
    admin.batch_execute(&format!("alter database {building} rename to {name}")).await.expect("name the template");
}
