//! Lines of `nofx watch` on a terminal: the open steps, and what the run is doing. Nothing here draws.

use std::time::{Duration, SystemTime};

use anstyle::Style;
use nofx_local::report::printable;
use shared::domain::budget_gate::WaitsFor;
use shared::domain::{RunStatus, StepStatus};

use super::board::{Board, PendingGate, StepState};
use super::color::{BOLD, DIM, LIVE, WAIT, command, paint, trim_end};
use super::{count, state, time};

const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
/// Names are cut at this width.
const MAX_NAME: usize = 32;
/// Steps that wait for others are listed up to this number.
const MAX_PENDING: usize = 8;
/// Lines that are always free for the rows above.
const SPARE: usize = 2;

/// The size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub width: usize,
    pub height: usize,
}

/// Cuts a line with colours to the width of the terminal. One column stays free, so that it never wraps.
pub fn fitted(line: &str, width: usize) -> String {
    console::truncate_str(line, width.saturating_sub(1), "…").into_owned()
}

/// The live lines: open steps, those that come next, and the last line with counts.
pub fn live(board: &Board, now: SystemTime, tick: usize, size: Size) -> Vec<String> {
    let mut lines = Vec::new();
    let room = size.height.saturating_sub(SPARE + 1 + board.gates.len().min(size.height / 2)).max(1);
    let name = name_width(board);
    let mut open: Vec<&StepState> = board.steps.iter().filter(|step| is_open(step)).collect();
    open.sort_by_key(|step| rank(step.status));
    let is_cut = open.len() > room;
    for step in open.iter().take(if is_cut { room - 1 } else { room }) {
        lines.push(open_line(step, name, now, tick));
    }
    if is_cut {
        lines.push(paint(DIM, format_args!("  and {} more open steps", open.len() - (room - 1))));
    }
    let left = room.saturating_sub(lines.len()).min(MAX_PENDING);
    let waiting = board.steps.iter().filter(|step| step.status == StepStatus::Pending);
    for step in waiting.take(left) {
        let after =
            if step.depends_on.is_empty() { String::new() } else { format!("after {}", step.depends_on.join(", ")) };
        let shown = format!("○ {}  {}", padded(&step.name, name), printable(&after));
        lines.push(paint(DIM, shown.trim_end()));
    }
    for gate in board.gates.iter().take(size.height / 2) {
        lines.push(asking(gate, size.width));
    }
    lines.push(counts(board, now));
    lines.iter().map(|line| fitted(line, size.width)).collect()
}

/// A gate that waits, with the command that decides it. Readers copy the command, so the words around it go first, then
/// most of the id.
fn asking(gate: &PendingGate, width: usize) -> String {
    let kind = paint(WAIT, format_args!("◆ {}", printable(&gate.kind)));
    if let Some(help) = gate.waits_for.and_then(WaitsFor::by_itself) {
        return format!("{kind} waits for money: it {help}");
    }
    let id = gate.id.to_string();
    let approve = |id: &str| command(format!("nofx approve {id}"));
    let forms = [
        format!("{kind} waits for a decision: {}", approve(&id)),
        format!("{kind}: {}", approve(&id)),
        format!("{kind}: {}", approve(short(&id))),
    ];
    let fits = |line: &String| console::measure_text_width(line) < width;
    forms.into_iter().find(fits).unwrap_or_else(|| approve(short(&id)))
}

/// The end of an id. It differs most, and names the run or gate too.
pub fn short(id: &str) -> &str {
    id.get(id.len().saturating_sub(8)..).unwrap_or(id)
}

/// The width of the column of names.
pub fn name_width(board: &Board) -> usize {
    let widths = board.steps.iter().map(|step| console::measure_text_width(&printable(&step.name)));
    widths.max().unwrap_or(0).min(MAX_NAME)
}

fn is_open(step: &StepState) -> bool {
    matches!(step.status, StepStatus::Running | StepStatus::Blocked | StepStatus::Ready)
}

/// What a reader looks for first.
fn rank(status: StepStatus) -> u8 {
    match status {
        StepStatus::Blocked => 0,
        StepStatus::Running => 1,
        _ => 2,
    }
}

fn padded(name: &str, width: usize) -> String {
    let name = printable(name);
    console::pad_str(&name, width, console::Alignment::Left, Some("…")).into_owned()
}

fn open_line(step: &StepState, name: usize, now: SystemTime, tick: usize) -> String {
    let look = state::step(step.status);
    let mark = match step.status {
        StepStatus::Running => paint(LIVE, SPINNER[tick % SPINNER.len()]),
        _ => look.mark(),
    };
    let word = match (step.status, step.retry_at.and_then(|at| at.duration_since(now).ok())) {
        (StepStatus::Ready, Some(wait)) => format!("again in {}", time::span(wait)),
        (StepStatus::Ready, None) => "ready".to_owned(),
        (StepStatus::Blocked, _) => "waits".to_owned(),
        _ => step.started_at.map(|at| time::span(now.duration_since(at).unwrap_or_default())).unwrap_or_default(),
    };
    let notes = notes(step);
    format!(
        "{mark} {}  {}  {}",
        padded(&step.name, name),
        paint(look.style, format_args!("{word:<12}")),
        paint(DIM, notes)
    )
}

/// A step that ended.
pub fn ended(step: &StepState, name: usize) -> String {
    let look = state::step(step.status);
    let took = step.started_at.zip(step.ended_at).and_then(|(from, to)| to.duration_since(from).ok());
    let word = match step.status {
        StepStatus::Skipped | StepStatus::Cancelled => look.word.to_owned(),
        _ => took.map_or_else(|| look.word.to_owned(), time::span),
    };
    let style = if step.status == StepStatus::Failed { look.style } else { DIM };
    let line = format!("{} {}  {word:<12}  {}", look.mark(), padded(&step.name, name), paint(style, notes(step)));
    trim_end(&line)
}

/// The attempt, what it used, and why it waits or failed.
fn notes(step: &StepState) -> String {
    let mut notes = Vec::new();
    if step.attempt > 1 {
        notes.push(format!("attempt {}", step.attempt));
    }
    if step.tokens > 0 {
        notes.push(format!("{} tokens", step.tokens));
    }
    if let Some(rows) = step.rows {
        notes.push(count(usize::try_from(rows).unwrap_or(usize::MAX), "row"));
    }
    if !step.reason.is_empty() {
        notes.push(printable(&step.reason));
    } else if step.status == StepStatus::Blocked {
        notes.push(printable(&step.tool));
    }
    notes.join("  ")
}

/// `● running  4 of 10 done · 2 running · 1 waits  12 s`.
pub fn counts(board: &Board, now: SystemTime) -> String {
    let done = board.count(StepStatus::Succeeded);
    let mut words = vec![format!("{done} of {} done", board.steps.len())];
    for (status, word) in [
        (StepStatus::Running, "running"),
        (StepStatus::Blocked, "waits"),
        (StepStatus::Ready, "ready"),
        (StepStatus::Failed, "failed"),
        (StepStatus::Skipped, "skipped"),
        (StepStatus::Cancelled, "cancelled"),
    ] {
        match board.count(status) {
            0 => {}
            count => words.push(format!("{count} {word}")),
        }
    }
    let took = elapsed(board, now).map(|took| paint(DIM, format_args!("  {}", time::span(took)))).unwrap_or_default();
    let style = if board.status.is_terminal() { BOLD } else { Style::new() };
    format!("{}  {}{took}", state::run(board.status).painted(), paint(style, words.join(" · ")))
}

fn elapsed(board: &Board, now: SystemTime) -> Option<Duration> {
    board.finished_at.unwrap_or(now).duration_since(board.started_at?).ok()
}

/// Whether the run waits for a person or for a budget of the tenant, and for nothing else. What waits for requests in flight goes on
/// within minutes.
pub fn needs_decision(board: &Board) -> bool {
    let waits = |gate: &PendingGate| gate.waits_for != Some(WaitsFor::Reserved);
    board.status == RunStatus::Blocked && board.gates.iter().any(waits)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::board::samples::{GATE, board, event};
    use super::*;
    use crate::output::time::parse;

    const NOTHING: Value = Value::Null;
    const LARGE: Size = Size { width: 100, height: 30 };

    fn plain(lines: &[String]) -> String {
        lines.iter().map(|line| anstream::adapter::strip_str(line).to_string() + "\n").collect()
    }

    fn now() -> SystemTime {
        parse("2026-11-23T10:00:12Z").unwrap()
    }

    fn sample() -> Board {
        let mut board = board(&[
            ("typecheck", "gate:typecheck", &[]),
            ("lint", "gate:lint", &[]),
            ("write", "codegen", &[]),
            ("ask", "manual:deploy", &[]),
            ("deploy", "echo", &["ask", "lint"]),
        ]);
        let error = json!({"error": {"code": "c", "message": "no provider\nmore"}, "attempt": 1, "delay_ms": 3000});
        let gate = json!({"gate_id": GATE, "gate_type": "manual:deploy"});
        for (second, step, kind, payload) in [
            (0, None, "run.started", &NOTHING),
            (1, Some("typecheck"), "step.started", &json!({"attempt": 1})),
            (3, Some("typecheck"), "step.succeeded", &json!({"attempt": 1})),
            (4, Some("lint"), "step.started", &json!({"attempt": 2})),
            (5, Some("write"), "step.started", &json!({"attempt": 1})),
            (11, Some("write"), "step.retrying", &error),
            (6, Some("ask"), "step.started", &json!({"attempt": 1})),
            (7, Some("ask"), "gate.created", &gate),
            (7, Some("ask"), "step.blocked", &json!({"attempt": 1})),
        ] {
            board.apply(&event(second, step, kind, payload));
        }
        board
    }

    #[test]
    fn a_frame_has_open_steps_then_those_that_follow_then_counts() {
        let expected = "\
◆ ask        waits         manual:deploy
⠙ lint       8.0 s         attempt 2
○ write      again in 2.0 s  no provider
○ deploy     after ask, lint
◆ manual:deploy waits for a decision: nofx approve 0193c0de-0000-7000-8000-00000000000a
● running  1 of 5 done · 1 running · 1 waits · 1 ready  12 s
";
        assert_eq!(plain(&live(&sample(), now(), 1, LARGE)), expected);
    }

    #[test]
    fn a_frame_fits_into_any_terminal() {
        let names: Vec<String> = (0..200).map(|n| format!("a step with a long name, number {n}")).collect();
        let steps: Vec<(&str, &str, &[&str])> = names.iter().map(|name| (name.as_str(), "echo", &[][..])).collect();
        let mut board = board(&steps);
        for name in &names {
            board.apply(&event(1, Some(name), "step.started", &json!({"attempt": 1})));
        }
        for (width, height) in [(80, 24), (20, 10), (4, 3), (1, 1), (300, 100)] {
            let lines = live(&board, now(), 0, Size { width, height });
            assert!(lines.len() < height.max(3), "{} lines of {height}", lines.len());
            let widest = lines.iter().map(|line| console::measure_text_width(line)).max().unwrap();
            assert!(widest < width.max(2), "{widest} columns of {width}");
        }
        let text = plain(&live(&board, now(), 0, Size { width: 80, height: 24 }));
        assert!(text.contains("  and 180 more open steps\n"), "{text}");
    }

    #[test]
    fn the_command_of_a_decision_is_not_cut() {
        let board = sample();
        let shown = |width| {
            let lines = live(&board, now(), 0, Size { width, height: 30 });
            let plain = plain(&lines);
            plain.lines().find(|line| line.contains("nofx approve")).map(str::to_owned).unwrap()
        };
        assert_eq!(shown(80), format!("◆ manual:deploy: nofx approve {GATE}"));
        assert_eq!(shown(40), "◆ manual:deploy: nofx approve 0000000a");
        assert_eq!(shown(30), "nofx approve 0000000a");
    }

    #[test]
    fn an_ended_step_is_one_line() {
        let mut board = sample();
        board.apply(&event(9, Some("lint"), "step.failed", &json!({"error": {"code": "c", "message": "3 problems"}})));
        board.apply(&event(9, Some("deploy"), "step.skipped", &NOTHING));
        let line = |at: usize| ended(&board.steps[at], name_width(&board));
        let lines = plain(&[line(0), line(1), line(4)]);
        let expected = "\
✓ typecheck  2.0 s
✗ lint       5.0 s         attempt 2  3 problems
– deploy     skipped
";
        assert_eq!(lines, expected);
    }
}
