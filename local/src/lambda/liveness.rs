//! Detects from the child processes of a `cargo lambda watch` whether its functions are alive. cargo-lambda does not
//! report that: it does not restart a function that died, and does not answer its invocations.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// After a process ended, a rebuild starts within this time. Otherwise the process died.
const GRACE: Duration = Duration::from_millis(1200);

/// A child process of the watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child<'a> {
    /// A process of this function.
    Function(&'a str, u32),
    /// cargo, which builds this function and then becomes its process.
    Build(&'a str),
}

/// What happened to a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A process has ended. Its invocations will not be answered.
    Gone(String),
    /// The process has ended, and none replaces it.
    Died(String),
    /// cargo ran, but started no process: the function does not compile, or ends as soon as it starts.
    NotBuilt(String),
}

/// State of the functions of one watch.
#[derive(Debug)]
pub struct Liveness {
    functions: BTreeMap<String, Function>,
}

#[derive(Debug, Default)]
struct Function {
    processes: BTreeSet<u32>,
    /// Set while a process is missing.
    missing: Option<Missing>,
}

#[derive(Debug)]
struct Missing {
    since: Instant,
    /// Whether cargo ran since then.
    built: bool,
}

impl Liveness {
    pub fn new(functions: &[&str]) -> Self {
        Self { functions: functions.iter().map(|name| ((*name).to_owned(), Function::default())).collect() }
    }

    /// Whether every function has its processes.
    pub fn all_running(&self) -> bool {
        self.functions.values().all(|function| !function.processes.is_empty() && function.missing.is_none())
    }

    /// Compares the current children of the watch with the previous ones.
    pub fn update(&mut self, children: &[Child<'_>], now: Instant) -> Vec<Change> {
        let changes = self.functions.iter_mut().filter_map(|(name, function)| {
            let of_function = |child: &Child<'_>| match child {
                Child::Function(other, pid) if other == name => Some(*pid),
                _ => None,
            };
            let processes: BTreeSet<u32> = children.iter().filter_map(of_function).collect();
            let building = children.contains(&Child::Build(name));
            function.update(name, processes, building, now)
        });
        changes.collect()
    }
}

impl Function {
    fn update(&mut self, name: &str, processes: BTreeSet<u32>, building: bool, now: Instant) -> Option<Change> {
        let gone = self.processes.iter().any(|pid| !processes.contains(pid));
        let came = processes.iter().any(|pid| !self.processes.contains(pid));
        self.processes = processes;
        if building {
            // With `--concurrency`, one process may be built while another runs. Only a missing process waits for the
            // build.
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

    /// Updates with one set of children after another, half a second apart.
    fn changes(updates: &[&[Child<'_>]]) -> (Vec<Change>, bool) {
        let mut liveness = Liveness::new(&["echo"]);
        let mut now = Instant::now();
        let mut changes = Vec::new();
        for children in updates {
            changes.extend(liveness.update(children, now));
            now += Duration::from_millis(500);
        }
        (changes, liveness.all_running())
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
    fn a_first_build_makes_it_running() {
        assert_eq!(changes(&[&[], &[BUILD], &[BUILD], &[PID], &[PID]]), (vec![], true));
    }

    #[test]
    fn a_killed_process_is_dead_after_the_grace_period() {
        let (seen, running) = changes(&[&[PID], &[], &[], &[], &[]]);
        assert_eq!((names(&seen), running), (vec!["gone", "died"], false));
    }

    #[test]
    fn a_rebuild_is_not_a_death() {
        let (seen, running) = changes(&[&[PID], &[], &[BUILD], &[BUILD], &[BUILD], &[BUILD], &[OTHER], &[OTHER]]);
        assert_eq!((names(&seen), running), (vec!["gone"], true));
        let (seen, running) = changes(&[&[PID], &[OTHER], &[OTHER], &[OTHER], &[OTHER]]);
        assert_eq!((names(&seen), running), (vec!["gone"], true));
    }

    #[test]
    fn a_failed_build_is_reported_once_and_the_next_build_recovers() {
        let (seen, running) = changes(&[&[PID], &[BUILD], &[], &[], &[], &[], &[], &[]]);
        assert_eq!((names(&seen), running), (vec!["gone", "not built"], false));
        let (seen, running) = changes(&[&[PID], &[BUILD], &[], &[], &[], &[], &[BUILD], &[OTHER], &[OTHER]]);
        assert_eq!((names(&seen), running), (vec!["gone", "not built"], true));
    }

    #[test]
    fn one_of_two_processes_may_die() {
        let (seen, _) = changes(&[&[PID, OTHER], &[OTHER], &[OTHER], &[OTHER], &[OTHER]]);
        assert_eq!(names(&seen), ["gone", "died"]);
        let (seen, running) = changes(&[&[PID], &[PID, BUILD], &[PID, BUILD], &[PID, OTHER], &[PID, OTHER]]);
        assert_eq!((names(&seen), running), (vec![], true));
    }
}
