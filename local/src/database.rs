//! Connections to Postgres.

use std::env;
use std::path::PathBuf;

use anyhow::Result;
use shared::config::DatabaseConfig;
use tokio_postgres::Client;
use tokio_postgres::config::Host;

use crate::report::hinted;

/// Connects to `url` with the same TLS settings as the functions.
pub async fn connect(url: &str) -> Result<Client> {
    let ca_file = env::var_os("DATABASE_CA_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let config = DatabaseConfig { url: url.to_owned(), ca_file, pool_size: 1 };
    shared::db::connect(&config).await.map_err(|error| {
        let error = anyhow::Error::new(error);
        hinted(
            format!("cannot connect to {}: {error:#}", place(url)),
            "check that the server is up and that the URL is right",
        )
    })
}

/// Fails if the database cannot be reached.
pub async fn check(url: &str) -> Result<()> {
    connect(url).await.map(drop)
}

/// The same connection URL with another login. Name and password must not need escaping.
pub fn with_login(url: &str, user: &str, password: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgresql", url));
    let host = rest.split_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{user}:{password}@{host}")
}

/// Host and port of a URL, without its secrets.
fn place(url: &str) -> String {
    let Ok(config) = url.parse::<tokio_postgres::Config>() else { return "the database".to_owned() };
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "localhost".to_owned(),
    };
    format!("the database at {host}:{}", config.get_ports().first().unwrap_or(&5432))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_login_of_a_url_is_replaced() {
        for url in [
            "postgresql://owner:word@db:5432/postgres?sslmode=disable",
            "postgresql://db:5432/postgres?sslmode=disable",
        ] {
            assert_eq!(with_login(url, "a", "b"), "postgresql://a:b@db:5432/postgres?sslmode=disable");
        }
    }
}
