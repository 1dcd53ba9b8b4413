//! The query string of `GET /runs`: filters and a page.

use shared::db::run::RunFilter;
use shared::domain::{RunId, RunStatus};
use shared::error::{Error, Problem};
use shared::http::{Query, shown};

/// Names of the parameters.
pub const PARAMETERS: &[&str] =
    &["after", "limit", "status", "tool", "goal", "created_by", "created_from", "created_to"];
/// Maximum length of `tool`, `goal` and `created_by`.
pub const MAX_TEXT_CHARS: usize = 200;

/// The parsed query string.
#[derive(Debug)]
pub struct ListQuery {
    pub filter: RunFilter,
    pub after: Option<RunId>,
    pub limit: i64,
}

impl ListQuery {
    /// Parses the query string. The error lists every problem.
    pub fn parse(query: &Query) -> Result<Self, Error> {
        let mut problems = Vec::new();
        let after = value_or_problem(query.after(), &mut problems);
        let limit = value_or_problem(query.limit(), &mut problems);
        let filter = RunFilter {
            statuses: statuses(query.get("status"), &mut problems),
            tool: value_or_problem(text(query, "tool"), &mut problems),
            goal: value_or_problem(text(query, "goal"), &mut problems),
            created_by: value_or_problem(text(query, "created_by"), &mut problems),
            created_from: value_or_problem(query.timestamp("created_from"), &mut problems),
            created_to: value_or_problem(query.timestamp("created_to"), &mut problems),
        };
        if filter.created_from.zip(filter.created_to).is_some_and(|(from, to)| from >= to) {
            problems.push(Problem::new("created_to", "must be after created_from"));
        }
        if problems.is_empty() { Ok(Self { filter, after, limit }) } else { Err(Error::Invalid(problems)) }
    }
}

/// The value. After an error, adds the problem and returns the default.
fn value_or_problem<T: Default>(read: Result<T, Problem>, problems: &mut Vec<Problem>) -> T {
    read.unwrap_or_else(|problem| {
        problems.push(problem);
        T::default()
    })
}

/// States separated by commas, such as `failed,cancelled`.
fn statuses(text: Option<&str>, problems: &mut Vec<Problem>) -> Vec<RunStatus> {
    let mut statuses = Vec::new();
    for word in text.into_iter().flat_map(|text| text.split(',')) {
        match RunStatus::ALL.into_iter().find(|status| status.to_string() == word) {
            Some(status) => statuses.push(status),
            None => problems.push(Problem::new("status", unknown(word))),
        }
    }
    statuses
}

fn unknown(word: &str) -> String {
    let all = RunStatus::ALL.map(|status| status.to_string()).join(", ");
    match word {
        "" => format!("has an empty item; use {all}, separated by commas"),
        word => format!("\"{}\" is not a status of a run; use {all}", shown(word, 40)),
    }
}

/// A parameter that is a text.
pub(crate) fn text(query: &Query, name: &str) -> Result<Option<String>, Problem> {
    let text = query.get(name);
    if text.is_some_and(|text| text.is_empty() || text.chars().count() > MAX_TEXT_CHARS) {
        return Err(Problem::new(name, format!("must have from 1 to {MAX_TEXT_CHARS} characters")));
    }
    Ok(text.map(str::to_owned))
}
