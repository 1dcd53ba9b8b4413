//! Secrets Manager, cached for the life of a warm function.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;
use tokio::sync::Mutex;

use crate::error::Error;

/// A rotated secret is seen after at most this long.
const FRESH: Duration = Duration::from_mins(5);

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

    /// The secret's text; `None` when no such secret exists.
    pub async fn get(&self, id: &str) -> Result<Option<Arc<str>>, Error> {
        let mut cache = self.cache.lock().await;
        if let Some((read, value)) = cache.get(id)
            && read.elapsed() < FRESH
        {
            return Ok(Some(value.clone()));
        }
        let answer = match self.client.get_secret_value().secret_id(id).send().await {
            Ok(answer) => answer,
            Err(error)
                if error.as_service_error().is_some_and(GetSecretValueError::is_resource_not_found_exception) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(Error::unavailable("Secrets Manager", error)),
        };
        let Some(text) = answer.secret_string() else { return Ok(None) };
        let value: Arc<str> = text.into();
        cache.insert(id.to_owned(), (Instant::now(), value.clone()));
        Ok(Some(value))
    }
}
