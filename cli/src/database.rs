//! Connections to Postgres.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

use crate::report::hinted;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Connects to `url`.
pub async fn connect(url: &str) -> Result<Client> {
    let config: tokio_postgres::Config = url.parse().map_err(|error| {
        hinted(
            format!("DATABASE_URL is no Postgres URL: {error}"),
            "it looks like postgresql://user:password@host:5432/database",
        )
    })?;
    let (client, connection) = timeout(CONNECT_LIMIT, config.connect(NoTls))
        .await
        .map_err(|_| hinted(format!("no answer from {}", place(&config)), "is the server up, and DATABASE_URL right?"))?
        .with_context(|| format!("cannot connect to {}", place(&config)))?;
    tokio::spawn(connection);
    Ok(client)
}

/// Where a configuration points, without its secrets.
fn place(config: &tokio_postgres::Config) -> String {
    let hosts: Vec<String> = config.get_hosts().iter().map(|host| format!("{host:?}")).collect();
    let ports: Vec<String> = config.get_ports().iter().map(u16::to_string).collect();
    format!(
        "the database at {} port {}",
        hosts.join(","),
        if ports.is_empty() { "5432".to_owned() } else { ports.join(",") }
    )
}
