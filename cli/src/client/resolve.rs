//! Finds what a user names: a run by `last` or a part of its id, a step by its name.

use std::fmt::Write;

use anyhow::Result;
use nofx_local::report::printable;
use shared::domain::{GateId, RunId};
use shared::http::encoded;
use shared::view::{Gate, RunPage, RunSummary, Step, StepPage};

use crate::client::api::Api;
use crate::client::error::{ApiError, Kind};

/// How many of the newest runs a part of an id is searched in.
const NEWEST: usize = 100;
/// The shortest part of an id.
const MIN_CHARS: usize = 4;
/// How many candidates an error lists.
const LISTED: usize = 5;
/// The least similarity of a suggestion (Jaro-Winkler, 0 to 1).
const SIMILARITY: f64 = 0.75;

/// The run of an id, of its beginning or end, or of the word `last`.
pub async fn run(api: &Api, named: &str) -> Result<RunId> {
    if let Ok(id) = named.parse() {
        return Ok(id);
    }
    if named == "last" {
        let page: RunPage = api.get("/runs?limit=1").await?;
        let newest = page.runs.first().map(|run| run.id);
        return newest.ok_or_else(|| ApiError::not_found("there are no runs yet", "start one: nofx run FILE").into());
    }
    check_part(named, "run", "nofx runs lists them")?;
    let page: RunPage = api.get(&format!("/runs?limit={NEWEST}")).await?;
    let found: Vec<&RunSummary> = page.runs.iter().filter(|run| is_part(&run.id.to_string(), named)).collect();
    let listed = |run: &&RunSummary| format!("{}  {:<9}  {}", run.id, run.status, printable(&run.goal));
    Ok(only(&found, named, &format!("the newest {NEWEST} runs"), "nofx runs lists them", listed)?.id)
}

/// The gate of an id, or of the beginning or end of the id of a gate that waits for a decision.
pub async fn gate(api: &Api, named: &str) -> Result<GateId> {
    if let Ok(id) = named.parse() {
        return Ok(id);
    }
    check_part(named, "gate", "nofx inbox lists those that wait")?;
    let gates: Vec<Gate> = api.get("/gates").await?;
    let found: Vec<&Gate> = gates.iter().filter(|gate| is_part(&gate.id.to_string(), named)).collect();
    let listed = |gate: &&Gate| format!("{}  {}", gate.id, printable(&gate.gate_type));
    Ok(only(&found, named, "the gates that wait", "nofx inbox lists them", listed)?.id)
}

/// A step with its full inputs and outputs. If there is none of this name, the error suggests another one.
pub async fn step(api: &Api, run: RunId, name: &str) -> Result<Step> {
    match api.get(&format!("/runs/{run}/steps/{}", encoded(name))).await {
        Ok(step) => Ok(step),
        Err(error) => Err(suggest_step(api, run, name, error).await),
    }
}

/// The error, or a better one if the step does not exist.
pub async fn suggest_step(api: &Api, run: RunId, name: &str, error: anyhow::Error) -> anyhow::Error {
    if error.downcast_ref::<ApiError>().is_none_or(|error| error.kind != Kind::NotFound) {
        return error;
    }
    let Ok(page) = api.get::<StepPage>(&format!("/runs/{run}/steps?limit=1000")).await else { return error };
    let names = page.steps.iter().map(|step| step.name.as_str());
    let hint = did_you_mean(name, names).unwrap_or_else(|| format!("nofx show {run} lists its steps"));
    let what = if name.is_empty() { "without a name".to_owned() } else { printable(name) };
    ApiError::not_found(format!("the run {run} has no step {what}"), hint).into()
}

/// `did you mean lint?`, if a known name is similar.
pub fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let scored = known.map(|known| (strsim::jaro_winkler(&name.to_lowercase(), &known.to_lowercase()), known));
    let best = scored.filter(|(score, _)| *score >= SIMILARITY).max_by(|one, other| one.0.total_cmp(&other.0));
    best.map(|(_, known)| format!("did you mean {}?", printable(known)))
}

fn check_part(named: &str, what: &str, hint: &str) -> Result<(), ApiError> {
    let is_hex = named.chars().all(|character| character.is_ascii_hexdigit() || character == '-');
    if is_hex && named.len() >= MIN_CHARS {
        return Ok(());
    }
    let named = if named.is_empty() { "an empty text".to_owned() } else { printable(named) };
    let message = format!("{named} is no id of a {what}: give it, or its first or last {MIN_CHARS} or more characters");
    Err(ApiError::not_found(message, hint))
}

fn is_part(id: &str, named: &str) -> bool {
    let named = named.to_ascii_lowercase();
    id.starts_with(&named) || id.ends_with(&named)
}

fn only<'a, T>(
    found: &[&'a T],
    named: &str,
    among: &str,
    hint: &str,
    listed: impl Fn(&&'a T) -> String,
) -> Result<&'a T, ApiError> {
    match found {
        [one] => Ok(one),
        [] => Err(ApiError::not_found(format!("{named} is part of no id among {among}"), hint)),
        many => {
            let mut message = format!("{named} is part of {} ids among {among}", many.len());
            for line in many.iter().take(LISTED).map(listed) {
                message.push_str("\n  ");
                message.push_str(&line);
            }
            if many.len() > LISTED {
                let _ = write!(message, "\n  and {} more", many.len() - LISTED);
            }
            Err(ApiError::not_found(message, "give more characters; the last ones differ most"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_must_be_a_beginning_or_an_end() {
        let id = "0193c0de-0000-7000-8000-00000000abcd";
        assert!(is_part(id, "0193c0de-00") && is_part(id, "ABCD") && !is_part(id, "0000-7000"));
        assert!(check_part("0193", "run", "").is_ok());
        for bad in ["019", "lint", "", "0193c0dg"] {
            assert!(check_part(bad, "run", "").is_err(), "{bad}");
        }
    }

    #[test]
    fn an_ambiguous_part_lists_candidates() {
        let (one, two) = ("a1".to_owned(), "a2".to_owned());
        let error = only(&[&one, &two], "a", "the newest 100 runs", "", |id| (*id).clone()).unwrap_err();
        assert_eq!(error.to_string(), "a is part of 2 ids among the newest 100 runs\n  a1\n  a2");
        assert_eq!(only(&[&one], "a", "", "", |id| (*id).clone()).unwrap(), "a1");
        let error = only::<String>(&[], "a", "the newest 100 runs", "look", |id| (*id).clone()).unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("look"));
    }

    #[test]
    fn a_suggestion_is_similar() {
        let names = ["typecheck", "lint", "unit tests"];
        assert_eq!(did_you_mean("Lnt", names.into_iter()).as_deref(), Some("did you mean lint?"));
        assert_eq!(did_you_mean("typechek", names.into_iter()).as_deref(), Some("did you mean typecheck?"));
        assert_eq!(did_you_mean("deploy", names.into_iter()), None);
    }
}
