//! Applies random histories to a model of the three state machines and to Postgres. Both must give the same answers.
//!
//! The model follows "States" in ARCHITECTURE.md, not the SQL. It has no counters: it derives every state from the
//! facts (which parents succeeded, which gates are pending). The SQL keeps counters.

mod event;
mod gates;
mod machine;
mod postgres;
mod repairs;
mod steps;

use std::collections::BTreeSet;
use std::{env, fmt};

use nofx_tests::Lab;
use proptest::prelude::any;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use event::{Choice, Event, Loop};
use machine::Machine;
use postgres::Postgres;

/// Covers every event in many states within about a minute. `PROPTEST_CASES` overrides it.
const CASES: u32 = 64;

#[test]
fn any_history_gives_the_same_states_in_the_model_and_in_postgres() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let lab = runtime.block_on(Lab::new());
    let cases = env::var("PROPTEST_CASES").map_or(CASES, |cases| cases.parse().expect("PROPTEST_CASES is a number"));
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, max_shrink_iters: 4_000, ..Config::default() });
    let loops = proptest::collection::vec((any::<u8>(), any::<u8>(), 2u32..=3), 0..=2);
    let choices = proptest::collection::vec(event::choices(), 8..60);
    let histories = (event::graphs(), proptest::option::of(0usize..6), loops, choices);
    let histories = histories.prop_map(|(parents, asks, loops, choices)| {
        let asks = asks.filter(|at| *at < parents.len());
        History { asks, loops: event::loops(&parents, asks, &loops), parents, choices }
    });
    let outcome = runner.run(&histories, |history| runtime.block_on(replay(&lab, &history)));
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

struct History {
    /// Parents of each step.
    parents: Vec<Vec<usize>>,
    /// The step that needs an approval.
    asks: Option<usize>,
    loops: Vec<Loop>,
    choices: Vec<Choice>,
}

/// Short, because the failure message contains the whole history.
impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} steps, {} choices", self.parents.len(), self.choices.len())
    }
}

async fn replay(lab: &Lab, history: &History) -> Result<(), TestCaseError> {
    let (postgres, ready) = Postgres::create(lab, history).await;
    let outcome = compare(lab, history, &postgres, &ready).await;
    postgres.delete_run().await;
    outcome
}

async fn compare(
    lab: &Lab,
    history: &History,
    postgres: &Postgres<'_>,
    ready: &BTreeSet<usize>,
) -> Result<(), TestCaseError> {
    let (mut machine, expected) = Machine::create(history);
    let mut log = vec![format!("parents {:?}, {:?} asks, {:?}", history.parents, history.asks, history.loops)];
    check(&log, "steps that are ready at once", &expected, ready)?;
    let mut answers = postgres.api_answers().await;
    for choice in &history.choices {
        let Some(event) = Event::resolve(choice, &machine) else { continue };
        log.push(format!("{event:?}"));
        let ended = machine.ended() && !matches!(event, Event::Retry);
        let before = if ended { Some(lab.everything(postgres.run).await) } else { None };

        let expected = machine.apply(&event);
        let answer = postgres.apply(&event).await;

        check(&log, "answer", &expected, &answer)?;
        check(&log, "state", &machine.visible_state(), &postgres.visible_state().await)?;
        check(&log, "broken invariants", &Vec::new(), &lab.broken_invariants().await)?;
        let previous = std::mem::replace(&mut answers, postgres.api_answers().await);
        // These events move timestamps in rows without a transition, to simulate the passing of time.
        let moves_time = matches!(event, Event::LeaseOver(_) | Event::DelayOver(_) | Event::GatesDue);
        if !moves_time && previous.version == answers.version {
            check(&log, "answers of the API with the same version", &previous.content, &answers.content)?;
        }
        if let Some(before) = before {
            check(&log, "an ended run", &before, &lab.everything(postgres.run).await)?;
        }
    }
    Ok(())
}

fn check<T: PartialEq + fmt::Debug>(log: &[String], what: &str, model: &T, sql: &T) -> Result<(), TestCaseError> {
    if model == sql {
        return Ok(());
    }
    Err(TestCaseError::fail(format!("{}\n{what}\nmodel: {model:#?}\nSQL:   {sql:#?}", log.join("\n"))))
}
