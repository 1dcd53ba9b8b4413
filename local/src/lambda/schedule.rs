//! The local schedule of the sweeper, instead of EventBridge.

use std::time::{Duration, SystemTime};

use aws_sdk_sqs::primitives::{DateTime, DateTimeFormat};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use crate::aws::resources::REGION;
use crate::function::{SWEEPER, SWEEPER_TIMEOUT, invocation_path};
use crate::process::stop::StopSignal;
use crate::{port, report};

/// If the host does not listen by then, the first invocation fails and reports it.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Invokes the sweeper on `port` every `period`, one invocation at a time.
pub fn start(port: u16, period: Duration, http: reqwest::Client, mut stop: StopSignal) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut was_ok = true;
        tokio::select! {
            () = stop.received() => return,
            _ = port::accepts(port, START_LIMIT) => {}
        }
        loop {
            tokio::select! {
                () = stop.received() => return,
                _ = ticks.tick() => {}
            }
            let swept = tokio::select! {
                () = stop.received() => return,
                swept = sweep(port, &http) => swept,
            };
            // Report only the first failure and the recovery.
            match (&swept, was_ok) {
                (Err(problem), true) => report::line(SWEEPER, format_args!("failed: {problem}")),
                (Ok(()), false) => report::line(SWEEPER, "works again"),
                _ => {}
            }
            was_ok = swept.is_ok();
        }
    })
}

async fn sweep(port: u16, http: &reqwest::Client) -> Result<(), String> {
    let url = format!("http://127.0.0.1:{port}{}", invocation_path(SWEEPER));
    let request = http.post(url).timeout(SWEEPER_TIMEOUT + Duration::from_secs(5)).json(&event(SystemTime::now()));
    let response = request.send().await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = response.bytes().await.map_err(|error| error.to_string())?;
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    match answer.get("errorMessage").and_then(Value::as_str) {
        Some(error) => Err(error.to_owned()),
        None if status.is_success() => Ok(()),
        None => Err(format!("its host answered {status}")),
    }
}

/// The event of a scheduled rule.
fn event(now: SystemTime) -> Value {
    let time = DateTime::from_secs(DateTime::from(now).secs());
    json!({
        "version": "0",
        "id": Uuid::new_v4().to_string(),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "000000000000",
        "time": time.fmt(DateTimeFormat::DateTime).unwrap_or_default(),
        "region": REGION,
        "resources": [format!("arn:aws:events:{REGION}:000000000000:rule/nofx-sweeper")],
        "detail": {},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_is_the_one_eventbridge_sends() {
        let event = event(SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_600_250));
        assert_eq!(event["time"], "2026-01-01T00:00:00Z");
        assert_eq!(event["detail-type"], "Scheduled Event");
        assert_eq!(event["source"], "aws.events");
    }
}
