//! Reads a run's events from their end. The API lists them from the beginning, and their numbers have no gaps.

use std::collections::VecDeque;

use anyhow::Result;
use shared::domain::RunId;
use shared::view::Event;

use crate::client::api::Api;

/// Events that one request asks for at most.
const PAGE: i64 = 1_000;
/// Where the search for the end gives up.
const MAX_SEQ: i64 = 1 << 40;

/// Events in their order, and whether older ones exist.
#[derive(Debug, Default)]
pub struct Page {
    pub events: Vec<Event>,
    /// Sequence number of an event: an older page ends before it. None, if there is nothing older.
    pub older: Option<i64>,
}

/// The newest `limit` events before the number `before` that are wanted.
pub async fn newest(
    api: &Api,
    run: RunId,
    before: Option<i64>,
    limit: usize,
    is_wanted: impl Fn(&Event) -> bool,
) -> Result<Page> {
    let (mut start, mut read) = match before {
        Some(before) => (before.saturating_sub(1).max(0), Vec::new()),
        None => end(api, run).await?,
    };
    let mut found: VecDeque<Event> = VecDeque::new();
    loop {
        for event in read.into_iter().rev().filter(&is_wanted) {
            if found.len() == limit {
                let older = found.front().map(|event| event.seq);
                return Ok(Page { events: found.into(), older });
            }
            found.push_front(event);
        }
        if start == 0 {
            return Ok(Page { events: found.into(), older: None });
        }
        let stop = start;
        start = stop.saturating_sub(PAGE).max(0);
        read = between(api, run, start, stop).await?;
    }
}

/// The events after `start`, up to and with `stop`. A page with large events is short, so this may take several requests.
async fn between(api: &Api, run: RunId, mut start: i64, stop: i64) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    while start < stop {
        let page = page(api, run, start, stop - start).await?;
        let Some(last) = page.last() else { break };
        start = last.seq;
        events.extend(page);
    }
    Ok(events)
}

/// The last events, and the number before them. Doubles the distance until nothing follows, then halves it, so that a
/// long timeline takes a few requests.
async fn end(api: &Api, run: RunId) -> Result<(i64, Vec<Event>)> {
    let (mut low, mut high) = (0, PAGE);
    while high < MAX_SEQ && has_more(api, run, high).await? {
        low = high;
        high *= 2;
    }
    while high - low > PAGE {
        let middle = low + (high - low) / 2;
        if has_more(api, run, middle).await? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok((low, between(api, run, low, high).await?))
}

async fn has_more(api: &Api, run: RunId, after: i64) -> Result<bool> {
    Ok(!page(api, run, after, 1).await?.is_empty())
}

async fn page(api: &Api, run: RunId, after: i64, limit: i64) -> Result<Vec<Event>> {
    api.get(&format!("/runs/{run}/timeline?after={after}&limit={}", limit.clamp(1, PAGE))).await
}
