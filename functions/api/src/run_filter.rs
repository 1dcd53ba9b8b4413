//! What `GET /runs` is asked for: a page of the runs that fit a filter.

use shared::db::run::RunFilter;
use shared::domain::{RunId, RunStatus};
use shared::error::{Error, Problem};
use shared::http::{Query, shown};

/// Parameters of the query string.
pub const PARAMETERS: &[&str] = &["after", "limit", "status", "tool", "goal", "created_from", "created_to"];
/// Longest name of a tool and longest part of a goal.
pub const MAX_TEXT_CHARS: usize = 200;

/// A page of the list.
#[derive(Debug)]
pub struct Wanted {
    pub filter: RunFilter,
    pub after: Option<RunId>,
    pub limit: i64,
}

impl Wanted {
    /// Reads the query string. The error has every problem.
    pub fn read(query: &Query) -> Result<Self, Error> {
        let mut problems = Vec::new();
        let after = kept(query.after(), &mut problems);
        let limit = kept(query.limit(), &mut problems);
        let filter = RunFilter {
            statuses: statuses(query.get("status"), &mut problems),
            tool: kept(text(query, "tool"), &mut problems),
            goal: kept(text(query, "goal"), &mut problems),
            created_from: kept(query.moment("created_from"), &mut problems),
            created_to: kept(query.moment("created_to"), &mut problems),
        };
        if filter.created_from.zip(filter.created_to).is_some_and(|(from, to)| from >= to) {
            problems.push(Problem::new("created_to", "must be after created_from"));
        }
        if problems.is_empty() { Ok(Self { filter, after, limit }) } else { Err(Error::Invalid(problems)) }
    }
}

/// The value, or nothing and one more problem.
fn kept<T: Default>(read: Result<T, Problem>, problems: &mut Vec<Problem>) -> T {
    read.unwrap_or_else(|problem| {
        problems.push(problem);
        T::default()
    })
}

/// `failed,cancelled`.
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
        "" => format!("has an empty word; use {all}, with a comma between two of them"),
        word => format!("\"{}\" is not a status of a run; use {all}", shown(word, 40)),
    }
}

fn text(query: &Query, name: &str) -> Result<Option<String>, Problem> {
    let text = query.get(name);
    if text.is_some_and(|text| text.is_empty() || text.chars().count() > MAX_TEXT_CHARS) {
        return Err(Problem::new(name, format!("must have from 1 to {MAX_TEXT_CHARS} characters")));
    }
    Ok(text.map(str::to_owned))
}
