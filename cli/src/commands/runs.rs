//! `nofx runs`: lists the newest runs, with filters.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use nofx_local::report::printable;
use shared::domain::RunId;
use shared::http::encoded;
use shared::view::{RunPage, RunSummary};

use crate::client::api::Api;

/// Maximum number of runs to print.
const LIMIT: usize = 100;

#[derive(Clone, Debug, Default, clap::Args)]
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
    /// Only runs created since this time: 90s, 30m, 2h or 7d ago, or an RFC 3339 timestamp
    #[arg(long, value_name = "AGO|TIMESTAMP", value_parser = |text: &str| since(text, SystemTime::now()))]
    pub since: Option<String>,
}

/// Prints a line for each run.
pub async fn run(api: &Api, args: &Args) -> Result<()> {
    for run in list(api, args).await? {
        println!("{}  {:<9}  {}  {}", run.id, run.status, printable(&run.created_at.0), printable(&run.goal));
    }
    Ok(())
}

/// The newest runs that match the filters, at most `LIMIT`.
pub async fn list(api: &Api, args: &Args) -> Result<Vec<RunSummary>> {
    let mut runs: Vec<RunSummary> = Vec::new();
    let mut after = None;
    loop {
        let page: RunPage = api.get(&path(args, after)).await?;
        runs.extend(page.runs);
        after = page.next;
        // With filters, a page can have few runs and still have a next page.
        if after.is_none() || runs.len() >= LIMIT {
            runs.truncate(LIMIT);
            return Ok(runs);
        }
    }
}

fn path(args: &Args, after: Option<RunId>) -> String {
    let mut path = format!("/runs?limit={LIMIT}");
    let after = after.map(|id| id.to_string());
    let Args { status, tool, goal, since } = args;
    for (name, value) in
        [("status", status), ("tool", tool), ("goal", goal), ("created_from", since), ("after", &after)]
    {
        if let Some(value) = value {
            let _ = write!(path, "&{name}={}", encoded(value));
        }
    }
    path
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
    fn filters_become_query_parameters() {
        let args = Args { goal: Some("a&b".into()), status: Some("failed,blocked".into()), ..Args::default() };
        assert_eq!(path(&args, None), "/runs?limit=100&status=failed%2Cblocked&goal=a%26b");
        let after = "0198c0de-0000-7000-8000-000000000001".parse().unwrap();
        assert!(path(&args, Some(after)).ends_with("&after=0198c0de-0000-7000-8000-000000000001"));
    }
}
