//! Secrets Manager, cached for the life of a warm function.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;
use tokio::sync::Mutex;

use crate::error::Error;

/// A rotated secret is seen after at most this long.
const FRESH: Duration = Duration::from_mins(1);
/// However often a newer value is asked for, the secret is read at most four times a second.
const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// When each secret was read, and its value.
type Cache = HashMap<String, (Instant, Arc<str>)>;

/// Reads secrets. Values are never logged: the type has no `Debug`.
#[derive(Clone)]
pub struct Secrets {
    client: aws_sdk_secretsmanager::Client,
    cache: Arc<Mutex<Cache>>,
}

impl Secrets {
    pub fn new(client: aws_sdk_secretsmanager::Client) -> Self {
        Self { client, cache: Arc::default() }
    }

    /// The secret's text, as it was at most a minute ago; `None` when no such secret exists. Absence is not remembered.
    pub async fn get(&self, id: &str) -> Result<Option<Arc<str>>, Error> {
        self.read_unless(id, |read| read.elapsed() < FRESH).await
    }

    /// The secret's text as it was read after `moment`. For a caller that found the value which [`Secrets::get`] gave it
    /// missing, malformed or refused: the secret may have been mended since. Callers that wait together share one read.
    pub async fn get_read_after(&self, id: &str, moment: Instant) -> Result<Option<Arc<str>>, Error> {
        self.read_unless(id, |read| read > moment || read.elapsed() < MIN_INTERVAL).await
    }

    async fn read_unless(&self, id: &str, fresh: impl Fn(Instant) -> bool) -> Result<Option<Arc<str>>, Error> {
        // Held while reading, so that callers that wait together share one read.
        let mut cache = self.cache.lock().await;
        if let Some((read, value)) = cache.get(id)
            && fresh(*read)
        {
            return Ok(Some(value.clone()));
        }
        // Its value counts as of the moment it was asked for.
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
