//! What model calls cost.

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use shared::db::{Session, cost};
use shared::domain::{RunId, Timestamp};
use shared::error::{Error, Problem};
use shared::http::{Condition, Query, id_param, shown};
use shared::view::Costs;

use crate::runs::{no_run, version};

/// Names of the parameters of `GET /costs`.
pub const PARAMETERS: &[&str] = &["from", "to"];
/// The longest time that one answer adds up, in days.
pub const MAX_DAYS: i64 = 366;

/// `GET /runs/{id}/costs` -> `{run_id, budget_usd_micros, spent_usd_micros, reserved_usd_micros, saved_usd_micros, steps, models}`.
pub async fn of_run(session: Session, Path(id): Path<String>, condition: Condition) -> Result<Response, Error> {
    let id: RunId = id_param("run", &id)?;
    let version = version(&session, id).await?;
    let answer = async { Ok(Json(cost::run_costs(&session, id).await?.ok_or_else(|| no_run(id))?).into_response()) };
    condition.answer(&version, answer).await
}

/// `GET /costs?from=&to=` -> `{from, to, total, saved_usd_micros, days, budgets}`. Both are days (UTC) and belong to the time. Without them,
/// the last 30 days.
pub async fn of_tenant(session: Session, query: Query) -> Result<Json<Costs>, Error> {
    let mut problems = Vec::new();
    let mut day = |name: &'static str| match query.get(name).map(|text| (text, epoch_day(text))) {
        None => None,
        Some((text, Some(day))) => Some((text, day)),
        Some((text, None)) => {
            problems.push(Problem::new(name, format!("\"{}\" is no day such as 2026-11-30", shown(text, 40))));
            None
        }
    };
    let (from, to) = (day("from"), day("to"));
    if let (Some((_, first)), Some((_, last))) = (from, to)
        && !(0..MAX_DAYS).contains(&(last - first))
    {
        problems.push(Problem::new("to", format!("must be from 0 to {} days after from", MAX_DAYS - 1)));
    }
    if from.is_some() && to.is_none() {
        problems.push(Problem::new("to", "is missing; give both days"));
    }
    if !problems.is_empty() {
        return Err(Error::Invalid(problems));
    }
    let text = |day: Option<(&str, i64)>| day.map(|(text, _)| text.to_owned());
    cost::tenant_costs(&session, text(from).as_deref(), text(to).as_deref()).await.map(Json)
}

/// The number of a day since 1970. None if it is no day from 1970 to 9999.
fn epoch_day(text: &str) -> Option<i64> {
    let is_date = text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    let midnight = is_date.then(|| Timestamp(format!("{text}T00:00:00+00:00")).epoch_ms())??;
    let day = midnight.div_euclid(86_400_000);
    // The 31st of February would be a day of March.
    let is_same = Timestamp::of_epoch_s(day * 86_400)?.0.starts_with(text);
    is_same.then_some(day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_days_that_exist_are_read() {
        assert_eq!(epoch_day("1970-01-02"), Some(1));
        assert_eq!(epoch_day("2024-02-29"), Some(19_782));
        for wrong in
            ["2026-02-29", "2026-13-01", "2026-00-10", "2026-1-1", "1969-12-31", "2026-11-30T", "", "+026-11-30"]
        {
            assert_eq!(epoch_day(wrong), None, "{wrong}");
        }
    }
}
