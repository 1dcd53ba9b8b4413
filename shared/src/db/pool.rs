//! Connections: TLS, a small pool, one retry for a connection that died while its function was frozen, and limits on the
//! time of a statement.
//!
//! A client that gives up does not stop Postgres: the statement would go on and might commit later. So each statement
//! ends before the answer that reports its failure. A transition waits only [`Database::lock_wait`] for a lock, and a
//! statement that takes longer than [`Database::with_statement_limit`] is cancelled, and its own answer says whether it
//! counted. Both need nothing of the connection's start, because poolers refuse or drop startup options
//! (`statement_timeout`), and share the session of a server between clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::pin;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::{DbError, Severity, SqlState};
use tokio_postgres::types::{FromSqlOwned, Json, ToSql, Type};
use tokio_postgres::{CancelToken, Client, Config as PgConfig, Error as PgError, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::warn;

use crate::config::DatabaseConfig;
use crate::error::{Error, Source};

/// Longest wait for a connection. After that the database counts as unavailable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time of a statement, unless [`Database::with_statement_limit`] sets another.
const STATEMENT_LIMIT: Duration = Duration::from_secs(15);
/// How long a statement may go on after it was cancelled.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(3);

/// The pool of a process.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
    tls: Option<MakeRustlsConnect>,
    statement_limit: Duration,
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
        let is_plain = postgres.get_ssl_mode() == SslMode::Disable;
        let tls = if is_plain { None } else { Some(tls(config)?) };
        let manager = match tls.clone() {
            None => Manager::from_config(postgres, NoTls, manager_config),
            Some(tls) => Manager::from_config(postgres, tls, manager_config),
        };
        let pool = Pool::builder(manager)
            .max_size(config.pool_size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .map_err(|error| Error::internal("build the database pool", error))?;
        Ok(Self { pool, tls, statement_limit: STATEMENT_LIMIT, round_trips: Arc::default() })
    }

    /// The same pool with another limit on the time of a statement. It should end well before a client gives up.
    #[must_use]
    pub fn with_statement_limit(self, statement_limit: Duration) -> Self {
        Self { statement_limit, ..self }
    }

    /// How long a transition waits for a lock. Less than a statement may take, so that it needs no cancellation.
    fn lock_wait(&self) -> Duration {
        self.statement_limit * 2 / 3
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
        self.pool.get().await.map_err(|error| Error::unavailable(DATABASE, error))
    }

    /// Calls a transition function: JSON in, JSON out, one round trip.
    pub(super) async fn transition<T: DeserializeOwned>(
        &self,
        sql: &'static str,
        input: &(impl Serialize + Sync + std::fmt::Debug),
    ) -> Result<T, Error> {
        self.call(sql, &[(&Json(input), Type::JSONB)]).await
    }

    /// Calls a function that returns JSON, in one round trip. `sql` is `select f(..)`. The error says if it is not known
    /// whether the call counted.
    pub(super) async fn call<T: DeserializeOwned>(&self, sql: &'static str, params: &[Param<'_>]) -> Result<T, Error> {
        // For this transaction only. Postgres evaluates it before the call, because it is volatile.
        let wait_ms = self.lock_wait().as_millis();
        let sql = format!("{sql} from (select pg_catalog.set_config('lock_timeout', '{wait_ms}', true)) waits");
        answer(&self.query_twice(&sql, params).await.map_err(QueryError::of_call)?)
    }

    /// Runs one statement that reads. If the connection turns out to be dead, sends it a second time.
    pub(super) async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
        self.query_twice(sql, params).await.map_err(QueryError::of_read)
    }

    /// Runs one statement. If the connection turns out to be dead, sends it a second time, so it must be safe to
    /// repeat.
    async fn query_twice(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, QueryError> {
        let lost = match self.query_once(sql, params).await {
            Err(QueryError::ConnectionLost { error, maybe_done }) => (error, maybe_done),
            other => return other,
        };
        // A function that was frozen has lost all its connections, and only using them shows it. Drop the others too.
        self.pool.retain(|_, _| false);
        match (self.query_once(sql, params).await, lost) {
            // The first may have counted, and the second says nothing about it.
            (Err(error), (first, true)) if error.says_nothing() => {
                Err(QueryError::ConnectionLost { error: first, maybe_done: true })
            }
            (other, _) => other,
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
        self.count_round_trips(1);
        let mut is_usable = true;
        // deadpool's own type hides `query_typed`.
        let answer = self.query_on(&object, sql, params, &mut is_usable).await;
        if !is_usable {
            drop(Object::take(object));
        }
        answer
    }

    async fn query_on(
        &self,
        client: &Client,
        sql: &str,
        params: &[Param<'_>],
        is_usable: &mut bool,
    ) -> Result<Vec<Row>, QueryError> {
        let statement = client.query_typed(sql, params);
        pin!(statement);
        if let Ok(answer) = timeout(self.statement_limit, &mut statement).await {
            let answer = answer.map_err(|error| query_error(error, client));
            *is_usable = !matches!(answer, Err(QueryError::ConnectionLost { .. }));
            return answer;
        }
        // The cancellation may come late and would hit the next statement of the connection.
        *is_usable = false;
        self.cancel(client.cancel_token());
        match timeout(CANCEL_TIMEOUT, statement).await {
            // It ended before the cancellation came.
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => Err(match query_error(error, client) {
                // Not sent a second time: the database is too slow.
                QueryError::ConnectionLost { error, maybe_done: false } => QueryError::Failed(error),
                QueryError::ConnectionLost { error, maybe_done: true } => QueryError::Unanswered(error.into()),
                other => other,
            }),
            Err(elapsed) => Err(QueryError::Unanswered(elapsed.into())),
        }
    }

    /// Asks the database to end what a connection does, without a wait: the statement's own answer says more.
    fn cancel(&self, token: CancelToken) {
        let tls = self.tls.clone();
        tokio::spawn(async move {
            let sent = async {
                match tls {
                    Some(tls) => token.cancel_query(tls).await,
                    None => token.cancel_query(NoTls).await,
                }
            };
            match timeout(CANCEL_TIMEOUT, sent).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(%error, "cannot cancel a statement"),
                Err(_) => warn!("cannot cancel a statement: the database does not answer"),
            }
        });
    }
}

/// Why a statement has no answer.
enum QueryError {
    /// The connection is dead. `maybe_done`: its statement may have been carried out before.
    ConnectionLost { error: Error, maybe_done: bool },
    /// The statement still ran when the wait for it ended.
    Unanswered(Source),
    /// The statement changed nothing.
    Failed(Error),
}

impl QueryError {
    /// Whether it tells nothing about an earlier try of the same statement.
    fn says_nothing(&self) -> bool {
        match self {
            Self::ConnectionLost { .. } | Self::Unanswered(_) => true,
            Self::Failed(error) => matches!(error, Error::Unavailable { .. }),
        }
    }

    /// For a statement without effects.
    fn of_read(self) -> Error {
        match self {
            Self::ConnectionLost { error, .. } | Self::Failed(error) => error,
            Self::Unanswered(source) => Error::unavailable(DATABASE, source),
        }
    }

    /// For a statement with effects.
    fn of_call(self) -> Error {
        match self {
            Self::ConnectionLost { error, maybe_done: true } => Error::unanswered(DATABASE, error),
            Self::Unanswered(source) => Error::unanswered(DATABASE, source),
            other => other.of_read(),
        }
    }
}

const DATABASE: &str = "the database";

fn query_error(error: PgError, client: &Client) -> QueryError {
    // The server sends a fatal error before it closes the socket. It has rolled back. Poolers report a lost server in
    // the class 08, and do not know more.
    let refused = error.as_db_error();
    let severity = refused.and_then(DbError::parsed_severity);
    let is_fatal = matches!(severity, Some(Severity::Fatal | Severity::Panic));
    let is_lost = is_fatal || client.is_closed() || error.is_closed();
    let maybe_done = refused.is_none_or(|error| error.code().code().starts_with("08"));
    let error = database_error(error);
    if is_lost { QueryError::ConnectionLost { error, maybe_done } } else { QueryError::Failed(error) }
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

/// Our own SQLSTATEs: the caller is unknown, the caller may not do this, and a limit of the tenant is reached.
const UNAUTHENTICATED: &str = "NF401";
const FORBIDDEN: &str = "NF403";
const LIMITED: &str = "NF429";

/// The detail of an error with the state `LIMITED`.
#[derive(Default, Deserialize)]
struct Limit {
    limit: String,
    retry_after_s: Option<u32>,
}

/// Classifies an error: the database is unavailable, or it refused the caller or the statement.
pub(crate) fn database_error(error: tokio_postgres::Error) -> Error {
    // JSON may contain NUL, which Postgres cannot store. That is an error of the sender, not an internal one.
    if error.code() == Some(&SqlState::UNTRANSLATABLE_CHARACTER) {
        return Error::invalid("", "contains the character NUL, which cannot be stored");
    }
    match error.as_db_error().map(|refused| (refused.code().code(), refused.detail())) {
        Some((UNAUTHENTICATED, _)) => return Error::Unauthenticated,
        Some((FORBIDDEN, detail)) => return Error::NotPermitted(detail.unwrap_or_default().to_owned()),
        Some((LIMITED, detail)) => {
            let Limit { limit, retry_after_s } = serde_json::from_str(detail.unwrap_or_default()).unwrap_or_default();
            return Error::Limited { limit, retry_after_s };
        }
        _ => {}
    }
    let is_unavailable = match error.as_db_error() {
        // 08 connection, 53 resources, 57 operator intervention, 40 serialization and deadlock, 55P03 a lock that was not
        // released in time: a retry may succeed.
        Some(refused) => ["08", "53", "57", "40", "55P03"].iter().any(|class| refused.code().code().starts_with(class)),
        None => true,
    };
    if is_unavailable { Error::unavailable(DATABASE, error) } else { Error::internal("run a statement", error) }
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
