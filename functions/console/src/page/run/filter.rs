//! Which steps of a run a page lists.

use shared::db::console::Step;
use shared::domain::StepStatus;

use super::work::Work;
use crate::graph::MAX_NODES;

/// Steps on a page.
pub(super) const PAGE: usize = 100;
/// Running, and then slow, steps of a large run that are worth a look.
const RUNNING: usize = 12;
const SLOW: usize = 8;

/// What the reader selected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// Ordinal of the first step.
    pub from: i64,
    pub steps: Steps,
}

/// A set of steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Steps {
    /// All steps of a small run, and those of a large run that are worth a look.
    #[default]
    Usual,
    All,
    State(StepStatus),
    /// From the first to the last level.
    Levels(usize, usize),
}

impl Filter {
    /// The query that selects the same steps, without `?`.
    pub fn query(&self) -> String {
        let from = if self.from > 0 { format!("&steps={}", self.from) } else { String::new() };
        format!("{}{from}", self.steps.query())
    }
}

impl Steps {
    pub(super) fn query(self) -> String {
        match self {
            Self::Usual => "state=".into(),
            Self::All => "state=all".into(),
            Self::State(status) => format!("state={status}"),
            Self::Levels(first, last) if first == last => format!("level={first}"),
            Self::Levels(first, last) => format!("level={first}-{last}"),
        }
    }
}

/// The steps of a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// Steps by index.
    pub steps: Vec<usize>,
    /// How many steps were selected.
    pub total: usize,
    /// Ordinals of the first steps of the pages before and after.
    pub previous: Option<i64>,
    pub next: Option<i64>,
}

/// Whether the run has too many steps to list all of them without a selection.
pub(super) fn is_large(work: &Work<'_>) -> bool {
    work.steps.len() > MAX_NODES
}

pub(super) fn list(work: &Work<'_>, filter: Filter) -> Listed {
    let all = 0..work.steps.len();
    let selected: Vec<usize> = match filter.steps {
        Steps::Usual if is_large(work) => {
            let steps = worth_a_look(work);
            return Listed { total: steps.len(), steps, previous: None, next: None };
        }
        Steps::Usual | Steps::All => all.collect(),
        Steps::State(status) => all.filter(|&at| work.steps[at].status == status).collect(),
        Steps::Levels(first, last) => all.filter(|&at| (first..=last).contains(&work.levels.of[at])).collect(),
    };
    let ordinal = |at: usize| work.steps[selected[at]].ordinal;
    let start = selected.partition_point(|&at| work.steps[at].ordinal < filter.from);
    let end = selected.len().min(start + PAGE);
    Listed {
        steps: selected[start..end].to_vec(),
        total: selected.len(),
        previous: (start > 0).then(|| ordinal(start.saturating_sub(PAGE))),
        next: (end < selected.len()).then(|| ordinal(end)),
    }
}

/// What failed or waits, what runs, and what was slowest.
fn worth_a_look(work: &Work<'_>) -> Vec<usize> {
    let with = |statuses: &[StepStatus]| -> Vec<usize> {
        let has = |(_, step): &(usize, &Step)| statuses.contains(&step.status);
        work.steps.iter().enumerate().filter(has).map(|(at, _)| at).collect()
    };
    let mut steps = with(&[StepStatus::Failed]);
    steps.extend(with(&[StepStatus::Blocked]));
    steps.truncate(PAGE - RUNNING - SLOW);
    steps.extend(with(&[StepStatus::Running]).into_iter().take(RUNNING));
    let mut slow = with(&[StepStatus::Succeeded]);
    slow.sort_by_key(|&at| std::cmp::Reverse(work.took(at)));
    steps.extend(slow.into_iter().take(SLOW));
    steps
}
