//! Steps in rows, each with the bars of its attempts over time.

use maud::{Markup, html};
use shared::db::console::{ATTEMPTS, Attempt, AttemptStatus};
use shared::domain::StepStatus;

use super::work::Work;
use crate::axis::Axis;
use crate::page::format;
use crate::page::icon::{look, mark};
use crate::page::parts::time;
use crate::page::source::visible;

/// Smallest width of a bar, in per cent.
const MIN_WIDTH: f64 = 0.7;

/// Rows for some steps. The axis is that of all steps, so it is the same on each page.
pub(super) fn waterfall(work: &Work<'_>, steps: &[usize]) -> Markup {
    let now = work.run.now_ms;
    let busy = work.run.attempts.iter().map(|attempt| (attempt.started_ms, attempt.finished_ms.unwrap_or(now)));
    let axis = Axis::new(busy, 0, now);
    let ticks = axis.ticks();
    html! {
        div.steps {
            // Each row refers to these lines: a hundred copies would be half of the page.
            svg.sprite aria-hidden="true" {
                defs {
                    g #fall-grid {
                        @for x in ticks.iter().map(|tick| percent(tick.x)) { line x1=(x) x2=(x) y1="0" y2="24" {} }
                    }
                }
            }
            div.axis aria-hidden="true" {
                span { "Step" }
                svg.fall {
                    @for tick in &ticks {
                        text x=(percent(tick.x)) y="16" class=[(tick.x > 0.0).then_some("mid")] { (label(tick.ms)) }
                    }
                    @for x in axis.breaks() { text.mid x=(percent(x)) y="16" { "⋯" } }
                }
                span.number { "Duration" }
            }
            ol.bare { @for &at in steps { (row(work, &axis, at)) } }
        }
    }
}

fn row(work: &Work<'_>, axis: &Axis, at: usize) -> Markup {
    let step = &work.steps[at];
    let attempts = work.attempts(at);
    let now = work.run.now_ms;
    let words: Vec<_> = attempts.iter().map(|attempt| description(attempt, " ", " after ", now)).collect();
    html! {
        li.row id={ "step-" (step.ordinal) } data-row {
            div.who {
                (mark(look(step.status)))
                a href=(work.href(at)) title=(visible(&step.name)) { bdi { (visible(&step.name)) } }
                code title=(visible(&step.tool)) { (visible(&step.tool)) }
            }
            svg.fall role=[(!words.is_empty()).then_some("img")] aria-hidden=[words.is_empty().then_some("true")]
                aria-label=[(!words.is_empty()).then(|| words.join(", "))] {
                use.grid href="#fall-grid" {}
                @for (index, attempt) in attempts.iter().enumerate() {
                    @let before = index.checked_sub(1).map(|before| attempts[before]);
                    @let next = attempts.get(index + 1).copied();
                    (wait(axis, attempt, before, step.ready_ms))
                    (bar(axis, attempt, next.is_none(), now))
                    (hold(axis, attempt, next, step.finished_ms, now))
                }
            }
            span.took { (took(work, at)) }
            (said(work, at))
        }
    }
}

/// The time from when the step was ready to its start.
fn wait(axis: &Axis, attempt: &Attempt, before: Option<&Attempt>, ready_ms: Option<i64>) -> Markup {
    let since = before.map_or(ready_ms, |before| before.decided_ms.or(before.finished_ms));
    let since = since.filter(|since| *since < attempt.started_ms && attempt.status != AttemptStatus::Cancelled);
    html! {
        @if let Some(since) = since {
            line.wait x1=(percent(axis.place(since))) x2=(percent(axis.place(attempt.started_ms))) y1="12" y2="12" {}
        }
    }
}

fn bar(axis: &Axis, attempt: &Attempt, is_last: bool, now: i64) -> Markup {
    let class = match attempt.status {
        AttemptStatus::Succeeded | AttemptStatus::Blocked => "f-good",
        AttemptStatus::Running => "f-busy",
        AttemptStatus::Cancelled => "f-quiet",
        AttemptStatus::Failed | AttemptStatus::Lost if is_last => "f-bad",
        AttemptStatus::Failed | AttemptStatus::Lost => "miss",
    };
    let (start, end) = (attempt.started_ms, attempt.finished_ms.unwrap_or(now));
    html! {
        // A shape too, not only a colour.
        @if class == "f-bad" { rect.f-bad x=(percent(axis.place(end))) width="3" y="4" height="16" rx="1" {} }
        (rect(axis, class, (start, end), &description(attempt, ": ", ", ", now)))
    }
}

/// The time in which the step waits for a person, after the attempt that asked.
fn hold(axis: &Axis, attempt: &Attempt, next: Option<&Attempt>, finished_ms: Option<i64>, now: i64) -> Markup {
    let start = attempt.finished_ms.filter(|_| attempt.status == AttemptStatus::Blocked);
    let end = attempt.decided_ms.or(next.map(|next| next.started_ms)).or(finished_ms).unwrap_or(now);
    html! {
        @if let Some(start) = start.filter(|start| *start < end) {
            (rect(axis, "hold", (start, end), "waits for a person"))
        }
    }
}

fn rect(axis: &Axis, class: &str, (start, end): (i64, i64), title: &str) -> Markup {
    let x = axis.place(start);
    let width = (axis.place(end) - x).max(MIN_WIDTH);
    html! { rect class=(class) x=(percent(x)) width=(percent(width)) y="8" height="8" rx="2" { title { (title) } } }
}

/// `attempt 1: succeeded, 1.5 s`
fn description(attempt: &Attempt, before: &str, after: &str, now: i64) -> String {
    let word = match attempt.status {
        AttemptStatus::Running => "running",
        AttemptStatus::Succeeded => "succeeded",
        AttemptStatus::Failed => "failed",
        AttemptStatus::Blocked => "asked for a decision",
        AttemptStatus::Lost => "lost its worker",
        AttemptStatus::Cancelled => "cancelled",
    };
    let ms = attempt.finished_ms.unwrap_or(now) - attempt.started_ms;
    format!("attempt {}{before}{word}{after}{}", attempt.number, format::duration(ms))
}

fn took(work: &Work<'_>, at: usize) -> Markup {
    let step = &work.steps[at];
    html! {
        @match (&step.open_since, work.took(at)) {
            // The script lets it grow. The markup stays the same while nothing happens.
            (Some(since), _) => time datetime=(since) data-as="elapsed" { "since " (format::clock(&since.0)) },
            (None, Some(ms)) => (format::duration(ms)),
            (None, None) => span.note { (look(step.status).word) },
        }
    }
}

/// What there is to say about a step: why it failed, what it waits for.
fn said(work: &Work<'_>, at: usize) -> Markup {
    let step = &work.steps[at];
    let asked = || {
        let is_of_step = |name: &Option<String>| name.as_ref() == Some(&step.name);
        let gate = work.run.gates.iter().find(|gate| gate.is_pending() && is_of_step(&gate.step))?;
        gate.reason.as_deref()
    };
    let counted = step.failures + step.workers_lost > 0;
    let unread = step.attempt - i64::try_from(ATTEMPTS).unwrap_or(i64::MAX);
    let tone = look(step.status).tone;
    html! {
        @match step.status {
            StepStatus::Failed => @if let Some(error) = &step.error { p.said.(tone) { bdi { (visible(error)) } } },
            StepStatus::Blocked => @if let Some(reason) = asked() { p.said.(tone) { bdi { (visible(reason)) } } },
            StepStatus::Ready | StepStatus::Running if counted => p.said {
                span.note {
                    (failures(step.failures, step.max_attempts, step.workers_lost))
                    @if let Some(at) = &step.next_try_at { "; the next attempt follows " (time(at)) }
                    @if let Some(error) = &step.error { ": " bdi { (visible(error)) } }
                }
            },
            _ => {}
        }
        @if unread > 0 { p.said { span.note { "The first " (unread) " attempts are not drawn." } } }
    }
}

/// `2 of 3 attempts failed, 1 worker was lost`
fn failures(failures: i64, max_attempts: i64, workers_lost: i64) -> String {
    let failed = (failures > 0).then(|| format!("{failures} of {max_attempts} attempts failed"));
    let lost = match workers_lost {
        0 => None,
        1 => Some("1 worker was lost".to_owned()),
        many => Some(format!("{many} workers were lost")),
    };
    failed.into_iter().chain(lost).collect::<Vec<_>>().join(", ")
}

fn percent(x: f64) -> String {
    format!("{x:.2}%")
}

/// A round time since the start, such as `30 s`.
fn label(ms: i64) -> String {
    // The larger unit, how many of the smaller one it has, and both names.
    let (size, parts, names) = match ms {
        ..60_000 => return if ms % 1_000 == 0 { format!("{} s", ms / 1_000) } else { format::duration(ms) },
        60_000..3_600_000 => (60_000, 60, ["min", "s"]),
        3_600_000..86_400_000 => (3_600_000, 60, ["h", "min"]),
        86_400_000.. => (86_400_000, 24, ["d", "h"]),
    };
    let rest = ms % size / (size / parts);
    let rest = if rest > 0 { format!(" {rest} {}", names[1]) } else { String::new() };
    format!("{} {}{rest}", ms / size, names[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short() {
        let labels = [0, 200, 1_000, 1_500, 90_000, 120_000, 5_400_000, 7_200_000, 90_000_000].map(label);
        assert_eq!(
            labels,
            ["0 s", "200\u{a0}ms", "1 s", "1.5\u{a0}s", "1 min 30 s", "2 min", "1 h 30 min", "2 h", "1 d 1 h"]
        );
    }

    #[test]
    fn failures_are_counted_in_words() {
        assert_eq!(failures(2, 3, 1), "2 of 3 attempts failed, 1 worker was lost");
        assert_eq!(failures(0, 3, 2), "2 workers were lost");
    }
}
