//! The list of runs.

use std::time::{Duration, SystemTime};

use axum::response::{Html, IntoResponse, Response};
use shared::db::console;
use shared::db::run::RunFilter;
use shared::domain::RunStatus;
use shared::error::Error;
use shared::http::Query;

use super::{Visit, cursor, failure};
use crate::page::{self, AGES, Base, OPEN, RunFilters, RunsPage};

/// Maximum length of a text to search for.
const MAX_TEXT_CHARS: usize = 200;

/// `GET /ui/runs`: the runs that match the filters after the run `after`, newest first.
pub async fn list(visit: Visit, query: Query) -> Response {
    let word = |name| query.get(name).unwrap_or_default().trim();
    let filters = RunFilters {
        status: word("status"),
        goal: word("goal"),
        tool: word("tool"),
        by: word("by"),
        since: word("since"),
    };
    let read = async || {
        let filter = filter(filters, SystemTime::now())?;
        console::run_list(&visit.session, &filter, cursor(&query, "after")?).await
    };
    match read().await {
        Ok(list) => Html(page::run_list(&RunsPage { base: Base::TOP, list: &list, filters })).into_response(),
        Err(error) => failure(Base::TOP, &error),
    }
}

fn filter(filters: RunFilters<'_>, now: SystemTime) -> Result<RunFilter, Error> {
    let statuses = match filters.status {
        "" => Vec::new(),
        "open" => OPEN.to_vec(),
        word => vec![status(word)?],
    };
    let age = AGES.iter().find(|(value, ..)| *value == filters.since).map(|(_, _, seconds)| *seconds);
    if age.is_none() && !filters.since.is_empty() {
        return Err(Error::invalid("since", "must be 1h, 24h or 7d"));
    }
    let created_from = age.and_then(|seconds| now.checked_sub(Duration::from_secs(seconds)));
    let (goal, tool, created_by) = (text("goal", filters.goal)?, text("tool", filters.tool)?, text("by", filters.by)?);
    Ok(RunFilter { statuses, tool, goal, created_by, created_from, created_to: None })
}

fn status(word: &str) -> Result<RunStatus, Error> {
    let found = RunStatus::ALL.into_iter().find(|status| status.to_string() == word);
    found.ok_or_else(|| Error::invalid("status", "must be open, or a state of a run"))
}

/// The text to search for, if there is one.
fn text(name: &str, text: &str) -> Result<Option<String>, Error> {
    if text.chars().count() > MAX_TEXT_CHARS {
        return Err(Error::invalid(name, format!("must have at most {MAX_TEXT_CHARS} characters")));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_strictly() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let read = |status, since| filter(RunFilters { status, since, ..RunFilters::default() }, now);
        assert_eq!(read("", "").unwrap(), RunFilter::default());
        assert_eq!(read("open", "").unwrap().statuses, OPEN);
        assert_eq!(read("failed", "").unwrap().statuses, [RunStatus::Failed]);
        let day = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - 86_400);
        assert_eq!(read("", "24h").unwrap().created_from, Some(day));
        assert!(read("fail", "").is_err() && read("", "2h").is_err());
        let long = "x".repeat(201);
        assert!(filter(RunFilters { goal: &long, ..RunFilters::default() }, now).is_err());
    }
}
