//! The events of a run, and random choices of them.

use proptest::prelude::*;
use shared::domain::gate::Decision;

use super::machine::Machine;
use super::steps::Status;

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Claim(Vec<usize>),
    /// Attempts finish, in an invocation that may continue with the steps that they make ready.
    Finish {
        ends: Vec<Finish>,
        continues: bool,
    },
    LeaseOver(usize),
    DelayOver(usize),
    SweepLeases,
    GateCreate {
        name: String,
        step: Option<usize>,
        expires: bool,
    },
    Decide {
        name: String,
        generation: u32,
        decision: Decision,
    },
    GatesDue,
    SweepGates,
    SweepWakeUps,
    Undeliverable(usize),
    Pause,
    Resume,
    Cancel,
    Retry,
    RunTimeout,
}

/// A repair loop: when one of the gates fails, the maker and everything after it runs again.
#[derive(Debug, Clone)]
pub struct Loop {
    pub maker: usize,
    pub gates: Vec<usize>,
    pub max_attempts: u32,
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    pub step: usize,
    pub attempt: u32,
    pub to: To,
    /// The gate of a step that blocks.
    pub gate: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum To {
    Succeeded,
    Failed,
    Retry { delayed: bool },
    Blocked { resume: bool, expires: bool },
}

/// A random choice. Together with the state it gives an event.
#[derive(Debug, Clone)]
pub enum Choice {
    Claim(Vec<u8>),
    ClaimAll,
    /// Running attempts end.
    Finish {
        ends: Vec<(u8, To)>,
        continues: bool,
    },
    /// Any attempt of any step ends, even if it is repeated, late or early.
    FinishAny {
        step: u8,
        back: u32,
        to: To,
    },
    LeaseOver(u8),
    DelayOver(u8),
    SweepLeases,
    GateCreate {
        step: Option<u8>,
        expires: bool,
    },
    Decide(u8, Decision),
    GatesDue,
    SweepGates,
    SweepWakeUps,
    Undeliverable(u8),
    Pause,
    Resume,
    Cancel,
    Retry,
    RunTimeout,
}

/// One to six steps. Each depends on some of the earlier ones.
pub fn graphs() -> impl Strategy<Value = Vec<Vec<usize>>> {
    proptest::collection::vec(any::<u8>(), 1..=6).prop_map(|masks| {
        let parents = |(step, mask): (usize, u8)| (0..step).filter(|parent| mask >> parent & 1 == 1).collect();
        masks.into_iter().enumerate().map(parents).collect()
    })
}

/// Up to two loops of a graph. No step makes and judges, or judges for two, and the one that asks does neither.
pub fn loops(parents: &[Vec<usize>], asks: Option<usize>, picks: &[(u8, u8, u32)]) -> Vec<Loop> {
    let mut loops: Vec<Loop> = Vec::new();
    for &(maker, gate, max_attempts) in picks {
        let maker = usize::from(maker) % parents.len();
        let is_taken = |step: usize| {
            asks == Some(step) || loops.iter().any(|other| other.maker == step || other.gates.contains(&step))
        };
        let mut after = steps_after(parents, maker);
        after.retain(|step| *step != maker && !is_taken(*step));
        if is_taken(maker) || after.is_empty() {
            continue;
        }
        let first = usize::from(gate) % after.len();
        // One in four judges with two gates.
        let gates = after.iter().cycle().skip(first).take(if gate >= 192 { after.len().min(2) } else { 1 });
        loops.push(Loop { maker, gates: gates.copied().collect(), max_attempts });
    }
    loops
}

/// A step and everything that depends on it. Parents come first.
pub fn steps_after(parents: &[Vec<usize>], step: usize) -> Vec<usize> {
    let mut found = vec![step];
    for (at, parents) in parents.iter().enumerate() {
        if parents.iter().any(|parent| found.contains(parent)) {
            found.push(at);
        }
    }
    found
}

pub fn choices() -> impl Strategy<Value = Choice> {
    let decision = prop_oneof![3 => Just(Decision::Approve), 1 => Just(Decision::Reject), 1 => Just(Decision::Waive)];
    prop_oneof![
        12 => proptest::collection::vec(any::<u8>(), 1..4).prop_map(Choice::Claim),
        12 => Just(Choice::ClaimAll),
        30 => (proptest::collection::vec((any::<u8>(), ends()), 1..4), any::<bool>())
            .prop_map(|(ends, continues)| Choice::Finish { ends, continues }),
        8 => (any::<u8>(), 0u32..3, ends()).prop_map(|(step, back, to)| Choice::FinishAny { step, back, to }),
        8 => any::<u8>().prop_map(Choice::LeaseOver),
        4 => any::<u8>().prop_map(Choice::DelayOver),
        5 => Just(Choice::SweepLeases),
        5 => (proptest::option::weighted(0.7, any::<u8>()), any::<bool>())
            .prop_map(|(step, expires)| Choice::GateCreate { step, expires }),
        12 => (any::<u8>(), decision).prop_map(|(gate, decision)| Choice::Decide(gate, decision)),
        2 => Just(Choice::GatesDue),
        3 => Just(Choice::SweepGates),
        2 => Just(Choice::SweepWakeUps),
        1 => any::<u8>().prop_map(Choice::Undeliverable),
        3 => Just(Choice::Pause),
        4 => Just(Choice::Resume),
        2 => Just(Choice::Cancel),
        6 => Just(Choice::Retry),
        1 => Just(Choice::RunTimeout),
    ]
}

fn ends() -> impl Strategy<Value = To> {
    prop_oneof![
        6 => Just(To::Succeeded),
        1 => Just(To::Failed),
        2 => any::<bool>().prop_map(|delayed| To::Retry { delayed }),
        3 => (any::<bool>(), any::<bool>()).prop_map(|(resume, expires)| To::Blocked { resume, expires }),
    ]
}

impl Event {
    /// The event of a choice in this state, if any.
    pub fn resolve(choice: &Choice, machine: &Machine) -> Option<Self> {
        let count = machine.steps.len();
        let step = |pick: u8| usize::from(pick) % count;
        // Prefer steps that the event changes.
        let prefer = |pick: u8, status: Status| {
            let fitting: Vec<usize> = (0..count).filter(|&at| machine.steps[at].status == status).collect();
            if fitting.is_empty() { step(pick) } else { fitting[usize::from(pick) % fitting.len()] }
        };
        Some(match choice {
            Choice::Claim(picks) => Self::Claim(distinct(picks.iter().map(|&pick| prefer(pick, Status::Ready)))),
            Choice::ClaimAll => Self::Claim((0..count).collect()),
            Choice::Finish { ends, continues } => {
                let steps = distinct(ends.iter().map(|&(pick, _)| prefer(pick, Status::Running)));
                let ends = steps.iter().zip(ends).map(|(&at, &(_, to))| machine.finish_of(at, 0, to)).collect();
                Self::Finish { ends, continues: *continues }
            }
            Choice::FinishAny { step: pick, back, to } => {
                Self::Finish { ends: vec![machine.finish_of(step(*pick), *back, *to)], continues: false }
            }
            Choice::LeaseOver(pick) => Self::LeaseOver(prefer(*pick, Status::Running)),
            Choice::DelayOver(pick) => Self::DelayOver(prefer(*pick, Status::Ready)),
            Choice::SweepLeases => Self::SweepLeases,
            Choice::GateCreate { step: pick, expires } => {
                Self::GateCreate { name: machine.next_gate(usize::MAX), step: pick.map(step), expires: *expires }
            }
            Choice::Decide(..) if machine.gates.is_empty() => return None,
            Choice::Decide(pick, decision) => {
                let pending: Vec<usize> = machine.pending_gates().collect();
                let from_all = usize::from(*pick) % machine.gates.len();
                // One in four decides any gate, even one that is already decided.
                let gate =
                    if pending.is_empty() || pick % 4 == 0 { from_all } else { pending[from_all % pending.len()] };
                let (name, generation) = machine.gates[gate].key();
                Self::Decide { name, generation, decision: *decision }
            }
            Choice::GatesDue => Self::GatesDue,
            Choice::SweepGates => Self::SweepGates,
            Choice::SweepWakeUps => Self::SweepWakeUps,
            Choice::Undeliverable(pick) => Self::Undeliverable(prefer(*pick, Status::Ready)),
            Choice::Pause => Self::Pause,
            Choice::Resume => Self::Resume,
            Choice::Cancel => Self::Cancel,
            Choice::Retry => Self::Retry,
            Choice::RunTimeout => Self::RunTimeout,
        })
    }
}

fn distinct(steps: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut seen = Vec::new();
    for step in steps {
        if !seen.contains(&step) {
            seen.push(step);
        }
    }
    seen
}
