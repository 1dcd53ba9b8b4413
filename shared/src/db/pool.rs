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

/// Longest wait for a connection, and for an answer. Beyond it the database counts as away.
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
    /// Prepares the pool; connects when first used.
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

    /// Counts statements that were sent on a connection of `client`.
    pub fn count_round_trips(&self, sent: u64) {
        self.round_trips.fetch_add(sent, Ordering::Relaxed);
    }

    /// A connection for a transaction of the caller's own.
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

    /// Calls a function that answers with JSON, one round trip.
    pub(super) async fn call<T: DeserializeOwned>(&self, sql: &'static str, params: &[Param<'_>]) -> Result<T, Error> {
        answer(&self.query(sql, params).await?)
    }

    /// Rows of one statement. Sent a second time when the connection turns out to be dead, so it must be safe to repeat.
    pub(super) async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
        match self.query_once(sql, params).await {
            Err(Attempt::ConnectionLost(_)) => {
                // What died while the function was frozen died with all its neighbours, and only a use of them tells.
                self.pool.retain(|_, _| false);
                self.query_once(sql, params).await.map_err(Attempt::into_error)
            }
            other => other.map_err(Attempt::into_error),
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

    async fn query_once(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Attempt> {
        let object = self.client().await.map_err(Attempt::Failed)?;
        // deadpool's own type hides `query_typed`.
        let client: &Client = &object;
        self.count_round_trips(1);
        match timeout(QUERY_TIMEOUT, client.query_typed(sql, params)).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => {
                // A fatal answer is a connection's last word, said before the socket closes.
                let last_word = error
                    .as_db_error()
                    .is_some_and(|error| matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic)));
                let lost = last_word || client.is_closed() || error.is_closed();
                let error = database_error(error);
                if !lost {
                    return Err(Attempt::Failed(error));
                }
                drop(Object::take(object));
                Err(Attempt::ConnectionLost(error))
            }
            Err(elapsed) => {
                // The statement may still be running: this connection must not serve anybody else.
                drop(Object::take(object));
                Err(Attempt::Failed(Error::unavailable("the database", elapsed)))
            }
        }
    }
}

enum Attempt {
    ConnectionLost(Error),
    Failed(Error),
}

impl Attempt {
    fn into_error(self) -> Error {
        match self {
            Self::ConnectionLost(error) | Self::Failed(error) => error,
        }
    }
}

/// Ends what was set, locked or prepared on a connection; false when it must not be used again.
pub(crate) async fn session_discard(client: &Client) -> bool {
    client.batch_execute("discard all").await.is_ok()
}

/// The JSON that a function answered with.
pub(super) fn answer<T: DeserializeOwned>(rows: &[Row]) -> Result<T, Error> {
    let row = rows.first().ok_or_else(|| Error::internal("call a function", "no row"))?;
    column::<Json<T>>(row).map(|json| json.0)
}

/// The first column of a row.
pub(super) fn column<T: FromSqlOwned>(row: &Row) -> Result<T, Error> {
    row.try_get(0).map_err(|error| Error::internal("read a database answer", error))
}

/// Tells an absent database from a statement that it refused.
pub(crate) fn database_error(error: tokio_postgres::Error) -> Error {
    // JSON may carry NUL; Postgres cannot store it. Whoever sent it is told, instead of a defect of ours.
    if error.code() == Some(&SqlState::UNTRANSLATABLE_CHARACTER) {
        return Error::invalid("", "contains the character NUL, which cannot be stored");
    }
    let gone = match error.as_db_error() {
        // 08 connection, 53 resources, 57 operator intervention, 40 serialisation and deadlock: later may be better.
        Some(refused) => ["08", "53", "57", "40"].iter().any(|class| refused.code().code().starts_with(class)),
        None => true,
    };
    if gone { Error::unavailable("the database", error) } else { Error::internal("run a statement", error) }
}

/// One connection outside any pool, served by a task of its own: for command line tools.
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
    // The parser's message may repeat the URL and with it the password.
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
    // Named, not the process default: two crates that each bring a provider would make the default a panic.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("set TLS up", error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(client))
}

fn unreadable_tls(error: rustls::Error) -> Error {
    Error::internal("read DATABASE_CA_FILE", error)
}
