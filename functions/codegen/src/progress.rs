//! What a model has written so far, for people who watch. It is never part of a result.

use std::convert::Infallible;
use std::future::pending;

use shared::domain::CallProgress;
use shared::telemetry;
use shared::worker::ModelCalls;
use tokio::sync::watch;
use uuid::Uuid;

use crate::redact::{ESCAPE_BYTES, repeats};

/// Characters of the end of the text.
const TAIL: usize = 1_000;

/// Where the reader of a stream says what it has.
pub(crate) struct Progress<'a> {
    /// A misconfigured gateway may echo the key that it received.
    key: Option<&'a str>,
    sender: watch::Sender<Option<Partial>>,
}

/// A beginning of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partial {
    /// Of the whole beginning.
    bytes: usize,
    /// Its last characters.
    tail: String,
}

impl<'a> Progress<'a> {
    /// Without a receiver, reports go nowhere.
    pub(crate) fn new(key: Option<&'a str>) -> (Self, watch::Receiver<Option<Partial>>) {
        let (sender, receiver) = watch::channel(None);
        (Self { key, sender }, receiver)
    }

    pub(crate) fn report(&self, text: &str) {
        let partial = self.partial(text);
        self.sender.send_if_modified(|last| {
            let is_new = partial.is_some() && partial != *last;
            if is_new {
                *last = partial;
            }
            is_new
        });
    }

    /// Nothing of a text that repeats the key. The end of the text may be the beginning of the key, so it is left out.
    fn partial(&self, text: &str) -> Option<Partial> {
        let character = if text.contains("\\u") { ESCAPE_BYTES } else { 1 };
        let shown = match self.key {
            Some(key) if repeats(text, key) => return None,
            Some(key) => &text[..text.floor_char_boundary(text.len().saturating_sub(key.len() * character))],
            None => text,
        };
        let start = shown.char_indices().rev().nth(TAIL - 1).map_or(0, |(at, _)| at);
        // Postgres cannot store NUL.
        let tail = shown[start..].replace('\0', "\u{fffd}");
        (!tail.is_empty()).then_some(Partial { bytes: text.len(), tail })
    }
}

/// Records each report. A failure is logged, and the next report tries again.
pub(crate) async fn record(calls: &ModelCalls, id: Uuid, mut reports: watch::Receiver<Option<Partial>>) -> Infallible {
    while reports.changed().await.is_ok() {
        let Some(Partial { bytes, tail }) = reports.borrow_and_update().clone() else { continue };
        if let Err(error) = calls.progress(CallProgress { id, bytes, tail }).await {
            telemetry::report(&error, "record the progress of an answer");
        }
    }
    pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(key: Option<&str>, text: &str) -> Option<(usize, String)> {
        let (progress, receiver) = Progress::new(key);
        progress.report(text);
        receiver.borrow().clone().map(|partial| (partial.bytes, partial.tail))
    }

    #[test]
    fn the_last_characters_are_reported_and_never_a_part_of_the_key() {
        assert_eq!(reported(None, ""), None);
        assert_eq!(reported(None, "two\0words"), Some((9, "two\u{fffd}words".to_owned())));
        let long = "ä".repeat(5_000);
        assert_eq!(reported(None, &long), Some((10_000, "ä".repeat(TAIL))));
        let key = "sk-0123456789";
        for end in 0..=key.len() {
            let text = format!("the key is {}", &key[..end]);
            let shown = reported(Some(key), &text).map(|(_, tail)| tail).unwrap_or_default();
            assert!(!shown.contains("sk-") && "the key is ".starts_with(&shown), "{shown}");
        }
        let escaped = key.replace('-', "\\u002d");
        for end in 0..=escaped.len() {
            let text = format!("the key is {}", &escaped[..end]);
            let shown = reported(Some(key), &text).map(|(_, tail)| tail).unwrap_or_default();
            assert!("the key is sk".starts_with(&shown), "{shown}");
        }
        assert_eq!(reported(Some(key), &format!("{key} and much more text than the key has")), None);
    }
}
