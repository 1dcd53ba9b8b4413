//! Applies random histories to a model of the three state machines and to Postgres. Both must give the same answers.
//!
//! The model follows "States" in ARCHITECTURE.md, not the SQL. It has no counters: it derives every state from the
//! facts (which parents succeeded, which gates are pending). The SQL keeps counters.

mod event;
mod gates;
mod machine;
mod postgres;
mod steps;

use std::{env, fmt};

use nofx_tests::Lab;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use event::{Draw, Event};
use machine::Machine;
use postgres::Postgres;

/// Enough for every event in many states, within about a minute. `PROPTEST_CASES` overrides it.
const CASES: u32 = 64;

#[test]
fn any_history_ends_as_the_model_says() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let lab = runtime.block_on(Lab::new());
    let cases = env::var("PROPTEST_CASES").map_or(CASES, |cases| cases.parse().expect("PROPTEST_CASES is a number"));
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, max_shrink_iters: 4_000, ..Config::default() });
    let histories = (event::graphs(), proptest::collection::vec(event::draws(), 8..60));
    let histories = histories.prop_map(|(parents, draws)| History { parents, draws });
    let outcome = runner.run(&histories, |history| runtime.block_on(replay(&lab, &history)));
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

struct History {
    /// Parents of each step.
    parents: Vec<Vec<usize>>,
    draws: Vec<Draw>,
}

/// Short, because the failure's message contains the history.
impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} steps, {} choices", self.parents.len(), self.draws.len())
    }
}

async fn replay(lab: &Lab, history: &History) -> Result<(), TestCaseError> {
    let (postgres, ready) = Postgres::create(lab, &history.parents).await;
    let (mut machine, expected) = Machine::create(&history.parents);
    let mut told = vec![format!("parents {:?}", history.parents)];
    check(&told, "steps that are ready at once", &expected, &ready)?;
    let mut shown = postgres.shown().await;
    for draw in &history.draws {
        let Some(event) = Event::resolve(draw, &machine) else { continue };
        told.push(format!("{event:?}"));
        let ended = machine.ended() && !matches!(event, Event::Retry);
        let before = if ended { Some(lab.everything(postgres.run).await) } else { None };

        let expected = machine.apply(&event);
        let answer = postgres.apply(&event).await;

        check(&told, "answer", &expected, &answer)?;
        check(&told, "state", &machine.seen(), &postgres.seen().await)?;
        check(&told, "broken invariants", &Vec::new(), &lab.broken_invariants().await)?;
        let last = std::mem::replace(&mut shown, postgres.shown().await);
        // These write into rows what the passing of time would have changed.
        let moves_time = matches!(event, Event::LeaseOver(_) | Event::DelayOver(_) | Event::GatesDue);
        if !moves_time && last.0 == shown.0 {
            check(&told, "what the API shows under the same version", &last.1, &shown.1)?;
        }
        if let Some(before) = before {
            check(&told, "an ended run", &before, &lab.everything(postgres.run).await)?;
        }
    }
    postgres.forget().await;
    Ok(())
}

fn check<T: PartialEq + fmt::Debug>(told: &[String], what: &str, model: &T, sql: &T) -> Result<(), TestCaseError> {
    if model == sql {
        return Ok(());
    }
    Err(TestCaseError::fail(format!("{}\n{what}\nmodel: {model:#?}\nSQL:   {sql:#?}", told.join("\n"))))
}
