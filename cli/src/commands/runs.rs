//! `nofx runs`: lists the newest runs, with filters.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use shared::domain::RunId;
use shared::http::encoded;
use shared::view::{RunPage, RunSummary};

use crate::client::api::Api;
use crate::output::color::DIM;
use crate::output::table::{self, Table, cell, styled};
use crate::output::{self, Format, state, time};

/// How many runs are printed unless a limit is given.
const LIMIT: usize = 30;
/// The largest page of the API.
const MAX_PAGE: usize = 1_000;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only runs in one of these states, such as failed,cancelled
    #[arg(long, value_name = "STATUS,..")]
    pub status: Option<String>,
    /// Only runs with a step of this tool
    #[arg(long)]
    pub tool: Option<String>,
    /// Only runs whose goal contains this text, ignoring case
    #[arg(long, value_name = "TEXT")]
    pub goal: Option<String>,
    /// Only runs that this person started
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// Only runs created since this time: 90s, 30m, 2h or 7d ago, or an RFC 3339 timestamp
    #[arg(long, value_name = "AGO|TIMESTAMP", value_parser = |text: &str| since(text, SystemTime::now()))]
    pub since: Option<String>,
    /// How many runs to list at most
    #[arg(long, value_name = "N", default_value_t = LIMIT, value_parser = at_least_one)]
    pub limit: usize,
    #[command(flatten)]
    pub format: Format,
}

impl Default for Args {
    fn default() -> Self {
        let format = Format::default();
        Self { status: None, tool: None, goal: None, by: None, since: None, limit: LIMIT, format }
    }
}

/// Prints a line for each run.
pub async fn run(api: &Api, args: &Args) -> Result<()> {
    let runs = list(api, args).await?;
    if args.format.json {
        return output::json(&RunPage { runs, next: None });
    }
    if runs.is_empty() {
        output::note("there are no such runs; start one with nofx run FILE");
        return Ok(());
    }
    output::text(table(&runs, SystemTime::now()))
}

fn table(runs: &[RunSummary], now: SystemTime) -> Table {
    let mut table = Table::new(&["RUN", "STATE", "CREATED", "TOOK", "GOAL"]).whole(&[0, 1, 2, 3]).right(3);
    for run in runs {
        let took = time::between(run.started_at.as_ref(), run.finished_at.as_ref(), now);
        table.row(vec![
            table::id(&run.id, table::terminal_width()),
            table::state(state::run(run.status)),
            styled(time::ago(&run.created_at, now), DIM),
            cell(took.map(time::span).unwrap_or_default()),
            cell(&run.goal),
        ]);
    }
    table
}

/// The newest runs that match the filters, at most `limit`.
pub async fn list(api: &Api, args: &Args) -> Result<Vec<RunSummary>> {
    let mut runs: Vec<RunSummary> = Vec::new();
    let mut after = None;
    loop {
        let page: RunPage = api.get(&path(args, after)).await?;
        runs.extend(page.runs);
        after = page.next;
        // With filters, a page can have few runs and still have a next page.
        if after.is_none() || runs.len() >= args.limit {
            runs.truncate(args.limit);
            return Ok(runs);
        }
    }
}

fn path(args: &Args, after: Option<RunId>) -> String {
    let mut path = format!("/runs?limit={}", args.limit.clamp(1, MAX_PAGE));
    let after = after.map(|id| id.to_string());
    let Args { status, tool, goal, by, since, .. } = args;
    let filters = [("status", status), ("tool", tool), ("goal", goal), ("created_by", by), ("created_from", since)];
    for (name, value) in filters.into_iter().chain([("after", &after)]) {
        if let Some(value) = value {
            let _ = write!(path, "&{name}={}", encoded(value));
        }
    }
    path
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("must be a whole number from 1".to_owned()),
        Ok(number) => Ok(number),
    }
}

/// The timestamp of a duration before `now`, such as `2h`. Returns a timestamp unchanged.
fn since(text: &str, now: SystemTime) -> Result<String, String> {
    if DateTime::from_str(text, DateTimeFormat::DateTimeWithOffset).is_ok() {
        return Ok(text.to_owned());
    }
    let invalid = || "use 90s, 30m, 2h or 7d, or a timestamp such as 2026-11-23T10:00:00Z".to_owned();
    let unit = text.chars().last().ok_or_else(invalid)?;
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| invalid())?;
    let unit_s = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(invalid()),
    };
    let ago = number.checked_mul(unit_s).map(Duration::from_secs).ok_or_else(invalid)?;
    let time = now.checked_sub(ago).ok_or_else(invalid)?;
    DateTime::from(time).fmt(DateTimeFormat::DateTime).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_accepts_durations_and_timestamps() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(24);
        let read = |text: &str| since(text, now);
        for (text, expected) in [
            ("90s", "1970-01-01T23:58:30Z"),
            ("30m", "1970-01-01T23:30:00Z"),
            ("2h", "1970-01-01T22:00:00Z"),
            ("1d", "1970-01-01T00:00:00Z"),
            ("2026-11-23T10:00:00+02:00", "2026-11-23T10:00:00+02:00"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
        for bad in ["", "2", "h", "-2h", "2w", "2 h", "2026-11-23", "99999999999999999999d", "999999999999d", "2ü"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_limit_is_at_least_one() {
        assert_eq!(at_least_one("1"), Ok(1));
        for bad in ["0", "-1", "x", "", "99999999999999999999"] {
            assert!(at_least_one(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn filters_become_query_parameters() {
        let args = Args { goal: Some("a&b".into()), status: Some("failed,blocked".into()), ..Args::default() };
        assert_eq!(path(&args, None), "/runs?limit=30&status=failed%2Cblocked&goal=a%26b");
        let after = "0198c0de-0000-7000-8000-000000000001".parse().unwrap();
        assert!(path(&args, Some(after)).ends_with("&after=0198c0de-0000-7000-8000-000000000001"));
    }
}
