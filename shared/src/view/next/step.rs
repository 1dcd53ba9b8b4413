//! What happens next with a step: one sentence for the console, the API and the command line.

use super::standing::join;
use crate::domain::gate::BUDGET;
use crate::domain::{GateId, RunStatus, StepStatus, Timestamp};
use crate::view::sentence::words::thousands;
use crate::view::sentence::{Part, text};

/// Parents that the sentence names.
const NAMED: usize = 3;

/// Where a step stands.
#[derive(Debug, Clone)]
pub struct StepStanding<'a> {
    pub status: StepStatus,
    pub run_status: RunStatus,
    /// Number of the newest attempt. 0: none yet.
    pub attempt: i64,
    /// Start of the newest attempt, if it is known.
    pub attempt_at: Option<&'a Timestamp>,
    pub lease_until: Option<&'a Timestamp>,
    /// Since when it can start.
    pub ready_at: Option<&'a Timestamp>,
    /// Time of the next attempt after a failure.
    pub next_try_at: Option<&'a Timestamp>,
    /// The message of the last error.
    pub error: Option<&'a str>,
    /// Parents that have not succeeded, in the order of the plan. Of many, only some.
    pub parents: Vec<ParentNow<'a>>,
    /// All of them.
    pub parents_total: u64,
    /// Pending gates.
    pub gates: Vec<AskedNow<'a>>,
    /// The step because of which this one was skipped.
    pub culprit: Option<(&'a str, Option<i64>)>,
}

/// A parent that has not succeeded.
#[derive(Debug, Clone, Copy)]
pub struct ParentNow<'a> {
    pub name: &'a str,
    pub ordinal: Option<i64>,
    pub status: StepStatus,
}

/// A pending gate of the step.
#[derive(Debug, Clone, Copy)]
pub struct AskedNow<'a> {
    pub id: GateId,
    pub gate_type: &'a str,
    /// Whether its time is over.
    pub is_over: bool,
}

/// What happens next with a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepNext<'a> {
    /// A sentence without a full stop.
    pub lead: Vec<Part<'a>>,
    /// What went wrong. It follows the sentence after a colon.
    pub error: Option<&'a str>,
}

/// What happens next with a step. Depends on nothing but its argument.
pub fn next_of_step<'a>(step: &StepStanding<'a>) -> StepNext<'a> {
    let plain = |lead| StepNext { lead, error: None };
    let error = step.error.filter(|error| !error.trim().is_empty());
    match step.status {
        StepStatus::Pending => plain(pending(step)),
        StepStatus::Ready if step.run_status == RunStatus::Paused => plain(vec![text("Ready, but its run is paused")]),
        StepStatus::Ready => StepNext { lead: ready(step), error },
        StepStatus::Running => plain(running(step)),
        StepStatus::Blocked => plain(blocked(step)),
        StepStatus::Failed if error.is_none() => plain(vec![text("Failed without an error message")]),
        StepStatus::Failed => StepNext { lead: vec![text("Failed")], error },
        StepStatus::Skipped => plain(match step.culprit {
            Some((name, ordinal)) => {
                let failed = Part::Step { name, ordinal };
                vec![text("Skipped, because "), failed, text(" failed before it could start")]
            }
            None => vec![text("Skipped, because its run failed before it could start")],
        }),
        StepStatus::Succeeded => plain(vec![text("Succeeded")]),
        StepStatus::Cancelled => plain(vec![text("Cancelled with its run")]),
    }
}

fn pending<'a>(step: &StepStanding<'a>) -> Vec<Part<'a>> {
    let named = &step.parents[..step.parents.len().min(NAMED)];
    let mut lead = Vec::new();
    for parent in named {
        lead.push(text(if lead.is_empty() { "Waits for " } else { ", " }));
        lead.push(Part::Step { name: parent.name, ordinal: parent.ordinal });
        if parent.status == StepStatus::Blocked {
            lead.push(text(", which waits for a person"));
        }
    }
    match step.parents_total.saturating_sub(named.len() as u64) {
        0 => {}
        1 => lead.push(text(" and 1 more step")),
        more => lead.push(text(format!(" and {} more steps", thousands(more)))),
    }
    match (lead.is_empty(), step.gates.as_slice()) {
        (true, []) => vec![text("Waits for its run")],
        (false, []) => lead,
        (true, _) => join([vec![text("Waits for ")], decision(step)]),
        (false, _) => join([lead, vec![text(", and for ")], decision(step)]),
    }
}

fn ready<'a>(step: &StepStanding<'a>) -> Vec<Part<'a>> {
    if let Some(at) = step.next_try_at {
        return vec![text(format!("Attempt {} follows ", step.attempt + 1)), Part::Until(at)];
    }
    let since = step.ready_at.map(|at| [text(": it has waited "), Part::Since(at)]);
    [text("Ready, and no worker has claimed it yet")].into_iter().chain(since.into_iter().flatten()).collect()
}

fn running<'a>(step: &StepStanding<'a>) -> Vec<Part<'a>> {
    let attempt = format!("Attempt {}", step.attempt);
    let mut lead = match step.attempt_at {
        Some(at) => vec![text(format!("{attempt} has run ")), Part::Since(at)],
        None => vec![text(format!("{attempt} runs"))],
    };
    lead.extend(step.lease_until.map(|at| [text("; its lease ends "), Part::Until(at)]).into_iter().flatten());
    lead
}

fn blocked<'a>(step: &StepStanding<'a>) -> Vec<Part<'a>> {
    if !step.gates.is_empty() && step.gates.iter().all(|gate| gate.is_over) {
        return join([vec![text("The time for ")], decision(step), vec![text(" is over: the next sweep ends it")]]);
    }
    join([vec![text("Waits for ")], decision(step)])
}

/// `a decision about manual:release`, `money (gate budget)`, or `2 decisions`.
fn decision<'a>(step: &StepStanding<'a>) -> Vec<Part<'a>> {
    match step.gates.as_slice() {
        [] => vec![text("a decision")],
        [gate] if gate.gate_type == BUDGET => {
            let gate = Part::Gate { gate_type: gate.gate_type, id: Some(gate.id) };
            vec![text("money (gate "), gate, text(")")]
        }
        [gate] => vec![text("a decision about "), Part::Gate { gate_type: gate.gate_type, id: Some(gate.id) }],
        several => vec![text(format!("{} decisions", thousands(several.len() as u64)))],
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::view::sentence::plain;

    fn step(status: StepStatus) -> StepStanding<'static> {
        StepStanding {
            status,
            run_status: RunStatus::Running,
            attempt: 2,
            attempt_at: None,
            lease_until: None,
            ready_at: None,
            next_try_at: None,
            error: None,
            parents: Vec::new(),
            parents_total: 0,
            gates: Vec::new(),
            culprit: None,
        }
    }

    fn asked(is_over: bool) -> AskedNow<'static> {
        AskedNow { id: GateId(Uuid::nil()), gate_type: "manual:go", is_over }
    }

    #[test]
    fn a_pending_step_names_what_it_waits_for() {
        let parent = |name, status| ParentNow { name, ordinal: None, status };
        let parents = vec![
            parent("ask", StepStatus::Blocked),
            parent("a", StepStatus::Running),
            parent("b", StepStatus::Pending),
            parent("c", StepStatus::Pending),
        ];
        let told = |step: &StepStanding<'_>| plain(&next_of_step(step).lead);
        let many = StepStanding { parents, parents_total: 1_203, ..step(StepStatus::Pending) };
        assert_eq!(told(&many), "Waits for ask, which waits for a person, a, b and 1,200 more steps");
        let both = StepStanding { parents: vec![parent("a", StepStatus::Running)], parents_total: 1, ..many };
        let both = StepStanding { gates: vec![asked(false)], ..both };
        assert_eq!(told(&both), "Waits for a, and for a decision about manual:go");
        let gates = vec![asked(false), asked(false)];
        assert_eq!(told(&StepStanding { gates, ..step(StepStatus::Pending) }), "Waits for 2 decisions");
        assert_eq!(told(&step(StepStatus::Pending)), "Waits for its run");
    }

    #[test]
    fn a_blocked_step_waits_for_a_person_until_the_time_is_over() {
        let told = |gates| plain(&next_of_step(&StepStanding { gates, ..step(StepStatus::Blocked) }).lead);
        assert_eq!(told(vec![asked(false)]), "Waits for a decision about manual:go");
        assert_eq!(told(vec![asked(true)]), "The time for a decision about manual:go is over: the next sweep ends it");
        assert_eq!(told(Vec::new()), "Waits for a decision");
    }

    #[test]
    fn a_failure_follows_the_sentence() {
        let at = Timestamp("14:30".into());
        let again = StepStanding { error: Some("no answer"), next_try_at: Some(&at), ..step(StepStatus::Ready) };
        let said = next_of_step(&again);
        assert_eq!((plain(&said.lead).as_str(), said.error), ("Attempt 3 follows at 14:30", Some("no answer")));
        let paused = StepStanding { run_status: RunStatus::Paused, ..again };
        assert_eq!(plain(&next_of_step(&paused).lead), "Ready, but its run is paused");
        let failed = |error| next_of_step(&StepStanding { error, ..step(StepStatus::Failed) });
        assert_eq!(failed(Some("2 tests")).error, Some("2 tests"));
        assert_eq!(plain(&failed(Some(" ")).lead), "Failed without an error message");
    }
}
