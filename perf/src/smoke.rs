//! The sample plans, played on the local stack through its API, and their timelines.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nofx::api::{Api, Event};
use nofx::checkout::Checkout;
use nofx::gate::{self, Decision};
use nofx::report::hinted;
use nofx::run::{self, Submission};
use tokio::time::{sleep, timeout};

/// A sample that succeeds.
pub struct SmokePlan {
    pub file: &'static str,
    workspace: bool,
}

pub const PLANS: [SmokePlan; 3] = [
    SmokePlan { file: "gated-codegen.json", workspace: true },
    SmokePlan { file: "manual-deploy.json", workspace: false },
    SmokePlan { file: "db-write.json", workspace: false },
];

const LIMIT: Duration = Duration::from_mins(10);
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// The API of the stack that is running.
pub async fn api() -> Result<Api> {
    let api = Api::from_env().await;
    if api.is_healthy().await {
        return Ok(api);
    }
    Err(hinted(
        format!("no local stack answers at {}", api.url("/health")),
        "start one with `make dev`, or set NOFX_API_URL",
    ))
}

/// What happened to one run.
pub struct Timeline {
    events: Vec<Event>,
}

impl Timeline {
    /// From its creation to its end, by the database's clock.
    pub fn wall(&self) -> Duration {
        let at = |event: Option<&Event>| event.and_then(|event| micros(&event.timestamp)).unwrap_or_default();
        span(at(self.events.first()), at(self.events.last()))
    }

    /// How long each claimed step had been ready.
    pub fn ready_to_claimed(&self) -> Vec<Duration> {
        let mut ready = HashMap::new();
        let mut waits = Vec::new();
        for event in &self.events {
            let (Some(step), Some(at)) = (&event.step, micros(&event.timestamp)) else { continue };
            match event.kind.as_str() {
                "step.ready" => {
                    ready.insert(step, at);
                }
                "step.started" => waits.extend(ready.remove(step).map(|since| span(since, at))),
                _ => {}
            }
        }
        waits
    }

    pub fn count(&self, kind: &str) -> u64 {
        self.events.iter().filter(|event| event.kind == kind).map(|_| 1).sum()
    }
}

/// Plays a plan to its end. Gates that ask a person pass at once.
pub async fn run_plan(api: &Api, checkout: &Checkout, plan: &SmokePlan) -> Result<Timeline> {
    let examples = checkout.root().join("examples");
    let (file, workspace) = (examples.join(plan.file), examples.join("workspace"));
    let workspace = plan.workspace.then_some(workspace.as_path());
    let created = run::create(api, &Submission { file: &file, workspace, overlay: None, base: None }).await?;
    let ended = timeout(LIMIT, end(api, &created.id)).await;
    let status = ended.with_context(|| format!("{} did not end", plan.file))??;
    if status != "succeeded" {
        bail!("{} {status}", plan.file);
    }
    Ok(Timeline { events: api.timeline(&created.id, 0).await? })
}

async fn end(api: &Api, run_id: &str) -> Result<String> {
    loop {
        let status = api.run(run_id).await?.run.status;
        match status.as_str() {
            "succeeded" | "failed" | "cancelled" => return Ok(status),
            "blocked" => {
                for gate in api.gates(run_id).await?.iter().filter(|gate| gate.status == "pending") {
                    gate::decide(api, Decision::Approve, &gate.id, Some("bench"), None).await?;
                }
            }
            _ => {}
        }
        sleep(LOOK_PERIOD).await;
    }
}

fn span(from: i64, to: i64) -> Duration {
    Duration::from_micros(u64::try_from(to - from).unwrap_or(0))
}

/// Microseconds since 1970 of `2026-11-23T02:44:59.123456+00:00`.
fn micros(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once('T')?;
    let (year, rest_of_date) = date.split_once('-')?;
    let (month, day) = rest_of_date.split_once('-')?;
    let sign_at = rest.find(['+', '-', 'Z'])?;
    let (time, zone) = rest.split_at(sign_at);
    let mut parts = time.split(':');
    let (hours, minutes): (i64, i64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let (seconds, fraction) = parts.next().map(|seconds| seconds.split_once('.').unwrap_or((seconds, "0")))?;
    let fraction: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    let offset: i64 = match zone.trim_start_matches('Z') {
        "" => 0,
        zone => {
            let (hours, minutes) = zone.get(1..)?.split_once(':').unwrap_or((zone.get(1..)?, "0"));
            let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
            if zone.starts_with('-') { -minutes } else { minutes }
        }
    };
    let days = days(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
    let minutes = (days * 24 + hours) * 60 + minutes - offset;
    Some((minutes * 60 + seconds.parse::<i64>().ok()?) * 1_000_000 + fraction)
}

/// Days since 1970 of the Gregorian calendar; years are counted from March, so that the leap day is the last one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 719_469
}

#[cfg(test)]
mod tests {
    use super::micros;

    #[test]
    fn timestamps_of_postgres_are_read() {
        assert_eq!(micros("1970-01-01T00:00:00+00:00"), Some(0));
        assert_eq!(micros("2026-11-23T02:44:59.5+00:00"), Some(1_795_401_899_500_000));
        assert_eq!(micros("2026-11-23T04:14:59.500000+01:30"), Some(1_795_401_899_500_000));
        assert_eq!(micros("2024-02-29T23:59:59.999999Z"), Some(1_709_251_199_999_999));
        assert_eq!(micros("yesterday"), None);
    }
}
