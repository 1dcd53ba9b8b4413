//! Connections: TLS, a small pool, and one retry for a connection that died while its function was frozen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::{FromSqlOwned, Json, ToSql, Type};
use tokio_postgres::{Client, Config as PgConfig, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::DatabaseConfig;
use crate::error::Error;

/// Longest wait for a connection, and for an answer. After that the database counts as unavailable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const QUERY_TIMEOUT: Duration = Duration::from_secs(15);

/// The pool of a process.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
    round_trips: Arc<AtomicU64>,
}

/// A parameter and its Postgres type.
pub type Param<'a> = (&'a (dyn ToSql + Sync), Type);

impl Database {
    /// Builds the pool. It connects on first use.
    pub fn new(config: &DatabaseConfig) -> Result<Self, Error> {
        let mut postgres = parse(&config.url)?;
        postgres.connect_timeout(CONNECT_TIMEOUT);
        let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = if postgres.get_ssl_mode() == SslMode::Disable {
            Manager::from_config(postgres, NoTls, manager_config)
        } else {
            Manager::from_config(postgres, tls(config)?, manager_config)
        };
        let pool = Pool::builder(manager)
            .max_size(config.pool_size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .map_err(|error| Error::internal("build the database pool", error))?;
        Ok(Self { pool, round_trips: Arc::default() })
    }

    /// Statements sent so far by this process.
    pub fn round_trips(&self) -> u64 {
        self.round_trips.load(Ordering::Relaxed)
    }

    /// Counts statements that were sent on a connection from [`Database::client`].
    pub fn count_round_trips(&self, sent: u64) {
        self.round_trips.fetch_add(sent, Ordering::Relaxed);
    }

    /// A connection for a transaction of the caller.
    pub async fn client(&self) -> Result<Object, Error> {
        self.pool.get().await.map_err(|error| Error::unavailable("the database", error))
    }

    /// Calls a transition function: JSON in, JSON out, one round trip.
    pub(super) async fn transition<T: DeserializeOwned>(
        &self,
        sql: &'static str,
        input: &(impl Serialize + Sync + std::fmt::Debug),
    ) -> Result<T, Error> {
        self.call(sql, &[(&Json(input), Type::JSONB)]).await
    }

    /// Calls a function that returns JSON, in one round trip.
    pub(super) async fn call<T: DeserializeOwned>(&self, sql: &'static str, params: &[Param<'_>]) -> Result<T, Error> {
        answer(&self.query(sql, params).await?)
    }

    /// Runs one statement. If the connection turns out to be dead, sends it a second time, so it must be safe to
    /// repeat.
    pub(super) async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
        match self.query_once(sql, params).await {
            Err(QueryError::ConnectionLost(_)) => {
                // A function that was frozen has lost all its connections, and only using them shows it. Drop the
                // others too.
                self.pool.retain(|_, _| false);
                self.query_once(sql, params).await.map_err(QueryError::into_error)
            }
            other => other.map_err(QueryError::into_error),
        }
    }

    /// Whether the database holds our schema.
    pub async fn has_schema(&self) -> Result<bool, Error> {
        Ok(self.query_value("select to_regclass('nofx.run') is not null", &[]).await?.unwrap_or(false))
    }

    /// The first column of the only row, if there is one.
    pub(super) async fn query_value<T: FromSqlOwned>(
        &self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Option<T>, Error> {
        self.query(sql, params).await?.first().map(column).transpose()
    }

    async fn query_once(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, QueryError> {
        let object = self.client().await.map_err(QueryError::Failed)?;
        // deadpool's own type hides `query_typed`.
        let client: &Client = &object;
        self.count_round_trips(1);
        match timeout(QUERY_TIMEOUT, client.query_typed(sql, params)).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => {
                // The server sends a fatal error before it closes the socket.
                let is_fatal = error
                    .as_db_error()
                    .is_some_and(|error| matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic)));
                let lost = is_fatal || client.is_closed() || error.is_closed();
                let error = database_error(error);
                if !lost {
                    return Err(QueryError::Failed(error));
                }
                drop(Object::take(object));
                Err(QueryError::ConnectionLost(error))
            }
            Err(elapsed) => {
                // The statement may still be running, so nobody else may use this connection.
                drop(Object::take(object));
                Err(QueryError::Failed(Error::unavailable("the database", elapsed)))
            }
        }
    }
}

enum QueryError {
    ConnectionLost(Error),
    Failed(Error),
}

impl QueryError {
    fn into_error(self) -> Error {
        match self {
            Self::ConnectionLost(error) | Self::Failed(error) => error,
        }
    }
}

/// Removes what was set, locked or prepared on a connection. False if the connection must not be used again.
pub(crate) async fn session_discard(client: &Client) -> bool {
    client.batch_execute("discard all").await.is_ok()
}

/// The JSON that a function returned.
pub(super) fn answer<T: DeserializeOwned>(rows: &[Row]) -> Result<T, Error> {
    let row = rows.first().ok_or_else(|| Error::internal("call a function", "no row"))?;
    column::<Json<T>>(row).map(|json| json.0)
}

/// The first column of a row.
pub(super) fn column<T: FromSqlOwned>(row: &Row) -> Result<T, Error> {
    row.try_get(0).map_err(|error| Error::internal("read a database answer", error))
}

/// SQLSTATEs of `nofx.caller_admit`: the caller is unknown, and the caller may not do this.
const UNAUTHENTICATED: &str = "NF401";
const FORBIDDEN: &str = "NF403";

/// Classifies an error: the database is unavailable, or it refused the caller or the statement.
pub(crate) fn database_error(error: tokio_postgres::Error) -> Error {
    // JSON may contain NUL, which Postgres cannot store. That is an error of the sender, not an internal one.
    if error.code() == Some(&SqlState::UNTRANSLATABLE_CHARACTER) {
        return Error::invalid("", "contains the character NUL, which cannot be stored");
    }
    match error.as_db_error().map(|refused| (refused.code().code(), refused.detail())) {
        Some((UNAUTHENTICATED, _)) => return Error::Unauthenticated,
        Some((FORBIDDEN, detail)) => return Error::NotPermitted(detail.unwrap_or_default().to_owned()),
        _ => {}
    }
    let is_unavailable = match error.as_db_error() {
        // 08 connection, 53 resources, 57 operator intervention, 40 serialization and deadlock: a retry may succeed.
        Some(refused) => ["08", "53", "57", "40"].iter().any(|class| refused.code().code().starts_with(class)),
        None => true,
    };
    if is_unavailable { Error::unavailable("the database", error) } else { Error::internal("run a statement", error) }
}

/// One connection outside any pool, for command line tools. Its own task serves it.
pub async fn connect(config: &DatabaseConfig) -> Result<Client, Error> {
    let mut postgres = parse(&config.url)?;
    postgres.connect_timeout(CONNECT_TIMEOUT);
    if postgres.get_ssl_mode() == SslMode::Disable {
        let (client, connection) = postgres.connect(NoTls).await.map_err(database_error)?;
        tokio::spawn(connection);
        return Ok(client);
    }
    let (client, connection) = postgres.connect(tls(config)?).await.map_err(database_error)?;
    tokio::spawn(connection);
    Ok(client)
}

fn parse(url: &str) -> Result<PgConfig, Error> {
    // The parser's message may contain the URL and so the password.
    url.parse().map_err(|_| Error::invalid("DATABASE_URL", "is not a Postgres connection URL"))
}

fn tls(config: &DatabaseConfig) -> Result<MakeRustlsConnect, Error> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &config.ca_file {
        let unreadable = |error| Error::internal("read DATABASE_CA_FILE", error);
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(Box::new(error)))? {
            let certificate = certificate.map_err(|error| unreadable(Box::new(error)))?;
            roots.add(certificate).map_err(unreadable_tls)?;
        }
    } else {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    // Not the process default: rustls panics if two crates each bring a provider.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("set up TLS", error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(client))
}

fn unreadable_tls(error: rustls::Error) -> Error {
    Error::internal("read DATABASE_CA_FILE", error)
}
