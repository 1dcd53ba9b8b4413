//! The Postgres server of the benchmarks: the one at `DATABASE_URL`, or a new one with default durability. Each benchmark
//! gets a new database on it.

use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context, Result};
use nofx_local::checkout::Checkout;
use nofx_local::migrate::tenant::local_tenant;
use nofx_local::postgres::{Cluster, Postgres, Purpose};
use nofx_local::process::{PidFile, Process};
use nofx_local::tools::python::PythonEnv;
use nofx_local::{database, migrate, port, report};
use uuid::Uuid;

use crate::lambda;

/// A Postgres server.
pub struct Server {
    url: String,
    migrations: PathBuf,
    own: Option<(Process, PathBuf)>,
}

/// A database with all migrations applied. Drop it with [`Server::drop_database`].
pub struct Database {
    pub url: String,
    name: String,
}

impl Server {
    pub async fn start(checkout: &Checkout) -> Result<Self> {
        let migrations = checkout.migrations();
        if let Some(url) = env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()) {
            return Ok(Self { url, migrations, own: None });
        }
        let dir = checkout.local().join("tmp").join(format!("bench-{}", Uuid::new_v4().simple()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let pid_file = PidFile::new(dir.join("pids.json"));
        let python = PythonEnv::ready(checkout, &pid_file).await?;
        let postgres = Postgres::find(&python, checkout).await?;
        let data = dir.join("postgres");
        // A throwaway cluster differs only in authentication: fsync and synchronous_commit stay on.
        postgres.create(&checkout.local().join("cache"), &data, Purpose::Throwaway, &pid_file).await?;
        let cluster = Cluster::open(data, port::any_free()?)?;
        let process = postgres.start(&cluster, &dir.join("postgres.log"), &pid_file).await?;
        Ok(Self { url: cluster.url(), migrations, own: Some((process, dir)) })
    }

    pub async fn stop(self) {
        if let Some((process, dir)) = self.own {
            process.end().await;
            let _ = fs::remove_dir_all(dir);
        }
    }

    pub async fn create_database(&self) -> Result<Database> {
        let admin = database::connect(&self.url).await?;
        let durability =
            admin.query_typed("select current_setting('fsync') || current_setting('synchronous_commit')", &[]);
        let durability: String = durability.await?.first().context("no settings")?.try_get(0)?;
        if durability != "onon" {
            report::line(
                "bench",
                "fsync or synchronous_commit is off on this server, so its numbers are not comparable with others",
            );
        }
        let name = format!("nofx_bench_{}", Uuid::new_v4().simple());
        admin.batch_execute(&format!("create database {name}")).await.context("cannot create a database")?;
        let url = with_database(&self.url, &name)?;
        migrate::migrate(&url, &self.migrations).await?;
        local_tenant(&database::connect(&url).await?, lambda::TENANT).await?;
        Ok(Database { url, name })
    }

    pub async fn drop_database(&self, database: Database) -> Result<()> {
        let admin = database::connect(&self.url).await?;
        let sql = format!("drop database if exists {} with (force)", database.name);
        admin.batch_execute(&sql).await.context("cannot drop the benchmark's database")
    }
}

/// The connection URL of another database on the same server.
fn with_database(url: &str, name: &str) -> Result<String> {
    let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let (scheme, rest) = base.split_once("://").context("DATABASE_URL must be of the form postgresql://...")?;
    let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
    Ok(format!("{scheme}://{authority}/{name}{}", query.map(|query| format!("?{query}")).unwrap_or_default()))
}
