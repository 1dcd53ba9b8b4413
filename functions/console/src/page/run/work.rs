//! The steps of a run with their attempts, levels and critical path.

use std::collections::HashMap;

use shared::db::console::{Attempt, Run, Step};

use crate::graph::{Edge, Levels, critical, levels};
use crate::page::graph::Kind;
use crate::page::layout::Base;

/// What the parts of the page about steps share. Steps and edges are named by index.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub base: Base,
    pub run: &'a Run,
    pub steps: &'a [Step],
    pub edges: Vec<Edge>,
    pub levels: Levels,
    /// The critical path, from its start.
    pub path: Vec<usize>,
    kinds: Vec<Kind>,
    attempts: Vec<Vec<&'a Attempt>>,
}

impl<'a> Work<'a> {
    pub(super) fn new(base: Base, run: &'a Run) -> Self {
        let steps = run.steps.as_slice();
        let index: HashMap<i64, usize> = steps.iter().enumerate().map(|(at, step)| (step.ordinal, at)).collect();
        let edge = |(parent, child): &(i64, i64)| Some((*index.get(parent)?, *index.get(child)?));
        let edges: Vec<Edge> = run.edges.iter().filter_map(edge).collect();
        let mut attempts = vec![Vec::new(); steps.len()];
        for attempt in &run.attempts {
            if let Some(&at) = index.get(&attempt.ordinal) {
                attempts[at].push(attempt);
            }
        }
        let levels = levels(steps.len(), &edges);
        let ends: Vec<_> = steps.iter().map(|step| end(step, run.now_ms)).collect();
        let path = critical(&ends, &edges);
        let kind = |step: &Step| if step.started_ms.is_some() { Kind::Done } else { Kind::Ahead };
        let mut kinds: Vec<_> = steps.iter().map(kind).collect();
        for &at in &path {
            kinds[at] = Kind::Critical;
        }
        Self { base, run, steps, edges, levels, path, kinds, attempts }
    }

    /// From the start of the first attempt of this generation to the end of the step, or until now.
    pub(super) fn took(&self, at: usize) -> Option<i64> {
        let step = &self.steps[at];
        Some((end(step, self.run.now_ms)? - step.started_ms?).max(0))
    }

    pub(super) fn kind(&self, at: usize) -> Kind {
        self.kinds[at]
    }

    /// The attempts of a step that were read, oldest first.
    pub(super) fn attempts(&self, at: usize) -> &[&'a Attempt] {
        &self.attempts[at]
    }

    /// The page with the row of a step.
    pub(super) fn href(&self, at: usize) -> String {
        let ordinal = self.steps[at].ordinal;
        self.page(&format!("?state=all&steps={ordinal}#step-{ordinal}"))
    }

    /// An address of the run with a query.
    pub(super) fn page(&self, query: &str) -> String {
        format!("{}{query}", self.base.to(&format!("runs/{}", self.run.id)))
    }
}

/// When a step ended. A step that has begun and is open lasts until now.
fn end(step: &Step, now_ms: i64) -> Option<i64> {
    step.started_ms.map(|_| step.finished_ms.unwrap_or(now_ms))
}
