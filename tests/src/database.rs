//! A database per test, cloned from a template that has all migrations.

use std::path::{Path, PathBuf};
use std::thread;

use nofx_local::database::with_login;
use nofx_local::migrate;
use nofx_local::migrate::login::{WORKER_LOGIN, worker_login_with};
use shared::config::DatabaseConfig;
use shared::db::connect;
use shared::domain::digest::sha256_hex;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::environment::{database_url, with_database};

/// Key of the advisory lock for creating the template. It only has to be unique.
const TEMPLATE_LOCK: i64 = 0x006e_6f66_785f_7474;

/// Password of the workers' login on the test server.
const WORKER_PASSWORD: &str = "worker";

/// A database. Dropping this value drops it.
pub struct TestDatabase {
    /// The name on the test server, if this value owns the database.
    name: Option<String>,
    pub url: String,
}

impl TestDatabase {
    /// Creates a database with all migrations applied.
    pub async fn create() -> Self {
        let admin = connect_to(&database_url()).await;
        let template = template(&admin).await;
        let name = format!("t_{}", Uuid::new_v4().simple());
        let sql = format!("create database {name} template {template}");
        admin.batch_execute(&sql).await.expect("clone the template database");
        let url = with_database(&database_url(), &name);
        Self { name: Some(name), url }
    }

    /// The URL with the workers' login.
    pub fn worker_url(&self) -> String {
        with_login(&self.url, WORKER_LOGIN, WORKER_PASSWORD)
    }

    /// A database that the caller creates and drops.
    pub fn at(url: String) -> Self {
        Self { name: None, url }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Some(name) = &self.name else { return };
        let sql = format!("drop database if exists {name} with (force)");
        // Use a separate runtime, because the test's runtime may be shutting down.
        let dropped = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async { connect_to(&database_url()).await.batch_execute(&sql).await })
        });
        // Ignore errors: the throwaway server is deleted anyway, and a panic here would hide the test's failure.
        let _ = dropped.join();
    }
}

/// Connects without a pool.
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

/// Creates the template if it is missing. Its name contains a digest of the migrations, so changed migrations get a new
/// template.
async fn template(admin: &Client) -> String {
    let files = migrate::read_dir(&migrations()).expect("the migrations");
    let functions = migrate::functions::read_dir(&migrations()).expect("the functions");
    let texts = files.iter().map(|file| &file.sql).chain(functions.iter().map(|file| &file.sql));
    let digest = sha256_hex(texts.map(String::as_str).collect::<String>().as_bytes());
    let name = format!("nofx_template_{}", &digest[..16]);
    if !exists(admin, &name).await {
        // Nextest runs each test in its own process. The first one creates the template while the others wait.
        admin.execute("select pg_advisory_lock($1)", &[&TEMPLATE_LOCK]).await.expect("the template lock");
        if !exists(admin, &name).await {
            create_template(admin, &name).await;
        }
        admin.execute("select pg_advisory_unlock($1)", &[&TEMPLATE_LOCK]).await.expect("the template lock");
    }
    name
}

async fn exists(admin: &Client, name: &str) -> bool {
    let row = admin.query_one("select exists (select from pg_database where datname = $1)", &[&name]).await;
    row.expect("look databases up").get(0)
}

/// Builds the template under a temporary name, so that an existing template is always complete.
async fn create_template(admin: &Client, name: &str) {
    let building = format!("{name}_building");
    admin
        .batch_execute(&format!("drop database if exists {building} with (force)"))
        .await
        .expect("drop an incomplete template");
    admin.batch_execute(&format!("create database {building}")).await.expect("create the template");
    let url = with_database(&database_url(), &building);
    migrate::migrate(&url, &migrations())
        .await
        .unwrap_or_else(|error| panic!("the migrations do not apply: {error:#}"));
    worker_login_with(&url, WORKER_PASSWORD).await.expect("create the login of workers");
    // Postgres clones a template only while it has no connections, so forbid new ones. Renaming waits until the
    // connection of the migrations is closed.
    let sql = format!("alter database {building} with allow_connections false is_template true");
    admin.batch_execute(&sql).await.expect("close the template");
    admin.batch_execute(&format!("alter database {building} rename to {name}")).await.expect("name the template");
}
