//! Reads from the children of a `cargo lambda watch` how its functions are. cargo-lambda itself never says: it does
//! not start a function again that died, and leaves invocations of it unanswered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A rebuild shows within this time after the old process ended; what does not is a death.
const GRACE: Duration = Duration::from_millis(1200);

/// A child of the watch, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child<'a> {
    /// A process of this function.
    Function(&'a str, u32),
    /// cargo, on its way to become this function.
    Build(&'a str),
}

/// What happened to a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A process it had is gone: what it was asked will not be answered.
    Gone(String),
    /// Gone, and nothing takes its place.
    Died(String),
    /// cargo ran and no process came of it: it does not compile, or it ends as soon as it starts.
    NotBuilt(String),
}

/// What is known about the functions of one watch.
#[derive(Debug)]
pub struct Vitals {
    functions: BTreeMap<String, Function>,
}

#[derive(Debug, Default)]
struct Function {
    processes: BTreeSet<u32>,
    /// Since when a process is missing, and whether cargo was seen since.
    missing: Option<Missing>,
}

#[derive(Debug)]
struct Missing {
    since: Instant,
    built: bool,
}

impl Vitals {
    pub fn new(functions: &[&str]) -> Self {
        Self { functions: functions.iter().map(|name| ((*name).to_owned(), Function::default())).collect() }
    }

    /// Every function has its processes.
    pub fn all_well(&self) -> bool {
        self.functions.values().all(|function| !function.processes.is_empty() && function.missing.is_none())
    }

    /// Takes in the children the watch has `now`.
    pub fn look(&mut self, children: &[Child<'_>], now: Instant) -> Vec<Change> {
        let changes = self.functions.iter_mut().filter_map(|(name, function)| {
            let of_function = |child: &Child<'_>| match child {
                Child::Function(other, pid) if other == name => Some(*pid),
                _ => None,
            };
            let processes: BTreeSet<u32> = children.iter().filter_map(of_function).collect();
            let building = children.contains(&Child::Build(name));
            function.look(name, processes, building, now)
        });
        changes.collect()
    }
}

impl Function {
    fn look(&mut self, name: &str, processes: BTreeSet<u32>, building: bool, now: Instant) -> Option<Change> {
        let gone = self.processes.iter().any(|pid| !processes.contains(pid));
        let came = processes.iter().any(|pid| !self.processes.contains(pid));
        self.processes = processes;
        if building {
            // One process may be built while another works (`--concurrency`): only a missing one waits for it.
            if self.processes.is_empty() || gone || self.missing.is_some() {
                self.missing = Some(Missing { since: now, built: true });
            }
        } else if came {
            self.missing = None;
        } else if gone {
            self.missing = Some(Missing { since: now, built: false });
        }
        if gone {
            return Some(Change::Gone(name.to_owned()));
        }
        let missing = self.missing.as_ref().filter(|missing| !building && now - missing.since >= GRACE)?;
        let change = if missing.built { Change::NotBuilt(name.to_owned()) } else { Change::Died(name.to_owned()) };
        self.missing = None;
        self.processes.clear();
        Some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PID: Child<'_> = Child::Function("echo", 7);
    const OTHER: Child<'_> = Child::Function("echo", 8);
    const BUILD: Child<'_> = Child::Build("echo");

    /// Shows one set of children after another, half a second apart.
    fn changes(shown: &[&[Child<'_>]]) -> (Vec<Change>, bool) {
        let mut vitals = Vitals::new(&["echo"]);
        let mut now = Instant::now();
        let mut changes = Vec::new();
        for children in shown {
            changes.extend(vitals.look(children, now));
            now += Duration::from_millis(500);
        }
        (changes, vitals.all_well())
    }

    fn names(changes: &[Change]) -> Vec<&'static str> {
        let name = |change: &Change| match change {
            Change::Gone(_) => "gone",
            Change::Died(_) => "died",
            Change::NotBuilt(_) => "not built",
        };
        changes.iter().map(name).collect()
    }

    #[test]
    fn a_function_that_never_started_is_not_dead() {
        assert_eq!(changes(&[&[], &[], &[], &[], &[]]), (vec![], false));
    }

    #[test]
    fn a_first_build_makes_it_well() {
        assert_eq!(changes(&[&[], &[BUILD], &[BUILD], &[PID], &[PID]]), (vec![], true));
    }

    #[test]
    fn a_killed_process_is_dead_after_the_grace() {
        let (seen, well) = changes(&[&[PID], &[], &[], &[], &[]]);
        assert_eq!((names(&seen), well), (vec!["gone", "died"], false));
    }

    #[test]
    fn a_rebuild_is_no_death() {
        let (seen, well) = changes(&[&[PID], &[], &[BUILD], &[BUILD], &[BUILD], &[BUILD], &[OTHER], &[OTHER]]);
        assert_eq!((names(&seen), well), (vec!["gone"], true));
        let (seen, well) = changes(&[&[PID], &[OTHER], &[OTHER], &[OTHER], &[OTHER]]);
        assert_eq!((names(&seen), well), (vec!["gone"], true));
    }

    #[test]
    fn a_build_that_gives_no_process_is_told_once_and_the_next_build_heals_it() {
        let (seen, well) = changes(&[&[PID], &[BUILD], &[], &[], &[], &[], &[], &[]]);
        assert_eq!((names(&seen), well), (vec!["gone", "not built"], false));
        let (seen, well) = changes(&[&[PID], &[BUILD], &[], &[], &[], &[], &[BUILD], &[OTHER], &[OTHER]]);
        assert_eq!((names(&seen), well), (vec!["gone", "not built"], true));
    }

    #[test]
    fn of_two_processes_one_may_die() {
        let (seen, _) = changes(&[&[PID, OTHER], &[OTHER], &[OTHER], &[OTHER], &[OTHER]]);
        assert_eq!(names(&seen), ["gone", "died"]);
        let (seen, well) = changes(&[&[PID], &[PID, BUILD], &[PID, BUILD], &[PID, OTHER], &[PID, OTHER]]);
        assert_eq!((names(&seen), well), (vec![], true));
    }
}
