//! Reads secrets from Secrets Manager, with a cache.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;
use tokio::sync::Mutex;

use crate::error::Error;

/// How long a value is cached. A changed secret is seen after at most this time.
const CACHE_TTL: Duration = Duration::from_mins(1);
/// Minimum time between two reads of a secret, even if a newer value is asked for.
const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// The value of each secret, and when it was read.
type Cache = HashMap<String, (Instant, Arc<str>)>;

/// Reads secrets. It does not implement `Debug`, so that values are never logged.
#[derive(Clone)]
pub struct Secrets {
    client: aws_sdk_secretsmanager::Client,
    cache: Arc<Mutex<Cache>>,
}

impl Secrets {
    pub fn new(client: aws_sdk_secretsmanager::Client) -> Self {
        Self { client, cache: Arc::default() }
    }

    /// The secret's text, at most a minute old. `None` if the secret does not exist, which is not cached.
    pub async fn get(&self, id: &str) -> Result<Option<Arc<str>>, Error> {
        self.read_unless(id, |read| read.elapsed() < CACHE_TTL).await
    }

    /// The secret's text, read after `moment`. For callers whose value from [`Secrets::get`] was missing, malformed or
    /// refused: the secret may have been corrected since. Concurrent callers share one read.
    pub async fn get_read_after(&self, id: &str, moment: Instant) -> Result<Option<Arc<str>>, Error> {
        self.read_unless(id, |read| read > moment || read.elapsed() < MIN_INTERVAL).await
    }

    async fn read_unless(&self, id: &str, fresh: impl Fn(Instant) -> bool) -> Result<Option<Arc<str>>, Error> {
        // Held while reading, so that concurrent callers share one read.
        let mut cache = self.cache.lock().await;
        if let Some((read, value)) = cache.get(id)
            && fresh(*read)
        {
            return Ok(Some(value.clone()));
        }
        // The value counts as read when the request is sent.
        let read = Instant::now();
        let answer = match self.client.get_secret_value().secret_id(id).send().await {
            Ok(answer) => answer,
            Err(error)
                if error.as_service_error().is_some_and(GetSecretValueError::is_resource_not_found_exception) =>
            {
                cache.remove(id);
                return Ok(None);
            }
            Err(error) => return Err(Error::unavailable("Secrets Manager", error)),
        };
        let Some(text) = answer.secret_string() else {
            cache.remove(id);
            return Ok(None);
        };
        let value: Arc<str> = text.into();
        cache.insert(id.to_owned(), (read, value.clone()));
        Ok(Some(value))
    }
}
