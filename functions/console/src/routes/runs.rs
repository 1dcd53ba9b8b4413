//! The list of runs.

use std::time::{Duration, SystemTime};

use axum::http::HeaderMap;
use axum::response::{Html, IntoResponse, Response};
use shared::db::console;
use shared::db::run::RunFilter;
use shared::domain::RunStatus;
use shared::error::Error;
use shared::http::{BasePath, Query, header_text, over_tls};

use super::{Visit, cursor, failure};
use crate::page::{self, AGES, Base, OPEN, RunFilters, RunsPage};

/// Maximum length of a text to search for.
const MAX_TEXT_CHARS: usize = 200;

/// `GET /ui/runs`: the runs that match the filters after the run `after`, newest first.
pub async fn list(visit: Visit, base_path: BasePath, headers: HeaderMap, query: Query) -> Response {
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
    let api = api(&base_path, &headers, visit.ctx.config.public_url.as_deref());
    match read().await {
        Ok(list) => {
            Html(page::run_list(&RunsPage { base: Base::TOP, list: &list, filters, api: &api })).into_response()
        }
        Err(error) => failure(Base::TOP, &error),
    }
}

/// The variable that the command line reads. It stands for an address that the request does not tell.
const API_VARIABLE: &str = "$NOFX_API_URL";

/// The address of the API: what is configured, else that of this request.
fn api(base_path: &BasePath, headers: &HeaderMap, public_url: Option<&str>) -> String {
    if let Some(url) = public_url {
        return url.trim_end_matches('/').to_owned();
    }
    // It is a part of a command, so nothing else may be in it.
    let is_plain = |text: &String| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]/_~".contains(&byte));
    let host = header_text(headers, "host").filter(|host| !host.is_empty());
    let address = host.map(|host| format!("{host}{}", base_path.to("")));
    let scheme = if over_tls(headers) { "https" } else { "http" };
    address.filter(is_plain).map_or(API_VARIABLE.into(), |address| format!("{scheme}://{address}"))
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
    fn the_address_of_the_api_is_that_of_the_request() {
        let of = |pairs: &[(&'static str, &str)], public_url| {
            let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            api(&BasePath::default(), &headers, public_url)
        };
        assert_eq!(of(&[("host", "127.0.0.1:4321")], None), "http://127.0.0.1:4321");
        let tls = [("host", "nofx.test"), ("x-forwarded-proto", "https")];
        assert_eq!(of(&tls, None), "https://nofx.test");
        assert_eq!(of(&tls, Some("https://public.test/stage/")), "https://public.test/stage");
        for host in ["a;rm -rf", "$(id)", "a b", "'x'", "`x`"] {
            assert_eq!(of(&[("host", host)], None), API_VARIABLE, "{host}");
        }
        assert_eq!(of(&[], None), API_VARIABLE);
    }

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
