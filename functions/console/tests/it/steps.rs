//! The graph of a run and the list of its steps.

use console::page::{Filter, RunPage, Steps, run_page};
use shared::db::console::{AttemptStatus, Run};
use shared::domain::StepStatus;

use crate::support::{attempt, run, run_id, step};

/// Steps `s0`, `s1` ..., each after the one before.
fn chain(statuses: &[StepStatus]) -> Run {
    let one = |(ordinal, status): (i64, &StepStatus)| step(&format!("s{ordinal}"), ordinal, *status);
    let steps: Vec<_> = (0..).zip(statuses).map(one).collect();
    let edges = (1..).zip(statuses.iter().skip(1)).map(|(ordinal, _)| (ordinal - 1, ordinal)).collect();
    Run { steps_total: steps.len(), steps, edges, attempts: vec![], ..run("x", "running") }
}

fn shown(run: &Run, from: i64, steps: Steps) -> String {
    run_page(&RunPage { filter: Filter { from, steps }, ..RunPage::new(run, "t") })
}

/// The ordinals of the rows.
fn rows(page: &str) -> Vec<i64> {
    let ids = page.split("id=\"step-").skip(1).filter_map(|part| part.split('"').next());
    ids.filter_map(|id| id.parse().ok()).collect()
}

#[test]
fn a_small_run_is_drawn_and_all_its_steps_are_listed() {
    let run = chain(&[StepStatus::Succeeded, StepStatus::Running, StepStatus::Pending]);
    let page = shown(&run, 0, Steps::Usual);
    assert_eq!((page.matches("class=\"node").count(), page.matches("class=\"wire").count()), (3, 2));
    assert_eq!(rows(&page), [0, 1, 2]);
    assert!(page.contains("3 steps, 2 dependencies") && !page.contains("Steps by level"));
}

#[test]
fn a_large_run_has_a_map_and_a_list_of_what_is_worth_a_look() {
    let mut statuses = vec![StepStatus::Succeeded; 150];
    statuses[7] = StepStatus::Failed;
    statuses[90] = StepStatus::Blocked;
    statuses[91] = StepStatus::Running;
    let mut run = chain(&statuses);
    for (at, step) in run.steps.iter_mut().enumerate() {
        step.finished_ms = Some(if at == 120 { 9_000 } else { 2_000 });
    }
    let page = shown(&run, 0, Steps::Usual);
    assert!(page.contains("Steps by level") && !page.contains("class=\"node"));
    assert_eq!(rows(&page)[..4], [7, 90, 91, 120]);
    let here = format!("../runs/{}", run_id());
    for (query, count) in [("state=failed", 1), ("state=all", 150)] {
        assert!(page.contains(&format!("href=\"{here}?{query}#steps\"")), "{query}");
        assert!(page.contains(&format!("<span class=\"note\">{count}</span>")), "{query}");
    }
}

#[test]
fn pages_reach_every_step_of_a_selection() {
    let statuses: Vec<_> =
        (0..250).map(|at| if at % 2 == 0 { StepStatus::Skipped } else { StepStatus::Succeeded }).collect();
    let run = chain(&statuses);
    let page = shown(&run, 0, Steps::State(StepStatus::Skipped));
    assert_eq!(rows(&page), (0..200).step_by(2).collect::<Vec<_>>());
    let here = format!("../runs/{}?state=skipped", run_id());
    assert!(
        page.contains(&format!("href=\"{here}&amp;steps=200#steps\" rel=\"next\"")) && !page.contains("rel=\"prev\"")
    );
    let page = shown(&run, 200, Steps::State(StepStatus::Skipped));
    assert_eq!(rows(&page), (200..250).step_by(2).collect::<Vec<_>>());
    assert!(page.contains(&format!("href=\"{here}#steps\" rel=\"prev\"")), "the first page has no offset");
    assert_eq!(rows(&shown(&run, 0, Steps::Levels(3, 5))), [3, 4, 5]);
    assert_eq!(rows(&shown(&run, 999, Steps::All)), [0_i64; 0]);
}

#[test]
fn a_live_page_keeps_its_selection() {
    let run = chain(&[StepStatus::Running; 70]);
    let gate = run.focus.gate.expect("a gate");
    for (steps, query) in [
        (Steps::Usual, "?state="),
        (Steps::All, "?state=all&amp;steps=3"),
        (Steps::State(StepStatus::Ready), "?state=ready&amp;steps=3"),
        (Steps::Levels(1, 1), "?level=1&amp;steps=3"),
        (Steps::Levels(1, 4), "?level=1-4&amp;steps=3"),
    ] {
        let page = shown(&run, if steps == Steps::Usual { 0 } else { 3 }, steps);
        let fragment = format!("data-fragment=\"../runs/{}/fragment{query}&amp;gate={gate}\"", run_id());
        assert!(page.contains(&fragment), "{query}");
    }
}

#[test]
fn attempts_are_bars_and_waiting_is_dashed() {
    let mut run = chain(&[StepStatus::Succeeded, StepStatus::Blocked, StepStatus::Failed]);
    run.attempts = vec![
        attempt(0, 1, AttemptStatus::Failed),
        attempt(0, 2, AttemptStatus::Lost),
        attempt(0, 3, AttemptStatus::Succeeded),
        attempt(1, 1, AttemptStatus::Blocked),
        attempt(2, 1, AttemptStatus::Failed),
    ];
    run.gates[0].step = Some("s1".into());
    run.gates[0].reason = Some("Can it go live?".into());
    let page = shown(&run, 0, Steps::Usual);
    let row = |ordinal: i64| {
        let start = page.find(&format!("id=\"step-{ordinal}\"")).expect("a row");
        page[start..].split("</li>").next().expect("its end").to_owned()
    };
    let (first, second, third) = (row(0), row(1), row(2));
    assert_eq!((first.matches("<rect class=\"miss\"").count(), first.matches("class=\"wait\"").count()), (2, 3));
    assert!(first.contains("attempt 2 lost its worker after 1.0"), "{first}");
    assert!(second.contains("<rect class=\"hold\"") && second.contains("<bdi>Can it go live?</bdi>"), "{second}");
    assert!(
        third.contains("<rect class=\"f-bad\"") && third.contains("<p class=\"said bad\"><bdi>s2</bdi>"),
        "{third}"
    );
    assert!(!first.contains("hold") && !third.contains("hold"));
}

#[test]
fn a_decision_ends_the_wait_for_a_person() {
    let mut run = chain(&[StepStatus::Succeeded]);
    let hold =
        |run: &Run| shown(run, 0, Steps::Usual).split("<rect class=\"hold\"").nth(1).map(|rest| rest[..40].to_owned());
    let mut asked = attempt(0, 1, AttemptStatus::Blocked);
    asked.decided_ms = Some(3_000);
    run.attempts = vec![asked, attempt(0, 3, AttemptStatus::Succeeded)];
    let decided = hold(&run).expect("a bar");
    run.attempts[0].decided_ms = None;
    assert_ne!(hold(&run).expect("a bar"), decided, "without a decision it lasts until the next attempt");
}
