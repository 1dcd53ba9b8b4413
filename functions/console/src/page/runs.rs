//! The list of runs.

use maud::{Markup, html};
use shared::db::console::{RunList, RunRow, StepCounts};
use shared::domain::RunStatus;

use super::format;
use super::icon::{look, mark};
use super::layout::{Base, Layout, Part, layout};
use super::parts::{elapsed, many, time};

/// `GET /ui/runs`.
pub fn run_list(base: Base, list: &RunList) -> String {
    let content = html! {
        @if list.runs.is_empty() && !list.is_continuation {
            (no_runs())
        } @else {
            div.head.small { h1 { "Runs" } }
            @if list.runs.is_empty() { p { "No older runs." } } @else { (table(base, &list.runs)) }
            @if list.is_continuation || list.older.is_some() {
                nav.pages aria-label="Pages" {
                    @if list.is_continuation { a href=(base.to("runs")) { "Newest runs" } }
                    @if let Some(older) = list.older {
                        a href={ (base.to("runs")) "?after=" (older) } rel="next" { "Older runs" }
                    }
                }
            }
        }
    };
    layout(&Layout { part: Part::Runs, waiting: list.waiting, ..Layout::new(base, "Runs") }, &content)
}

const COMMAND: &str = "nofx submit examples/release-notes.yaml --watch";
const REQUEST: &str = r#"curl -s http://127.0.0.1:3000/runs \
  -H 'content-type: application/json' \
  -d '{"plan": {"goal": "hello", "steps":
       [{"name": "greet", "tool": "echo"}]}}'"#;

fn no_runs() -> Markup {
    html! {
        div.blank {
            h1 { "Start the first run" }
            p.prose { "A run carries out a plan, step by step, and lets a change pass only with evidence." }
            div.ways {
                section {
                    h2 { "On the command line" }
                    p.note { "Packs and uploads a workspace too, and shows the run live." }
                    pre.output tabindex="0" role="region" aria-label="Command line" { (COMMAND) }
                }
                section {
                    h2 { "With an HTTP request" }
                    p.note { "Any program can." }
                    pre.output tabindex="0" role="region" aria-label="HTTP request" { (REQUEST) }
                }
            }
        }
    }
}

fn table(base: Base, runs: &[RunRow]) -> Markup {
    // Narrow screens show rows as cards. With the roles, screen readers still see a table.
    html! {
        table.table.mid role="table" {
            thead role="rowgroup" {
                tr role="row" {
                    @for heading in ["Run", "Progress", "When"] { th role="columnheader" scope="col" { (heading) } }
                    th.number role="columnheader" scope="col" { "Duration" }
                }
            }
            tbody role="rowgroup" { @for run in runs { (row(base, run)) } }
        }
    }
}

fn row(base: Base, run: &RunRow) -> Markup {
    html! {
        tr.line-up role="row" data-row {
            td.full role="cell" {
                div.state {
                    (mark(look(run.status)))
                    a.main href={ (base.to("runs/")) (run.id) } { bdi { (run.goal) } }
                }
            }
            td.progress.full role="cell" { (progress(run)) }
            td.nowrap.note role="cell" { (time(&run.created_at)) }
            td.number role="cell" {
                @match (run.duration_ms, &run.started_at) {
                    (Some(ms), _) => (format::duration(ms)),
                    (None, Some(at)) => (elapsed(at)),
                    (None, None) => span.note { (look(run.status).word) },
                }
            }
        }
    }
}

/// How far the run is, and where it stands.
fn progress(run: &RunRow) -> Markup {
    let steps = &run.steps;
    let name = run.loud_step.as_deref().unwrap_or_default();
    html! {
        (meter(steps))
        span.note {
            span { (format::number(steps.succeeded)) " of " (format::number(steps.total)) }
            span {
                @match run.status {
                    RunStatus::Failed if !name.is_empty() => span.bad { "failed at " bdi { (name) } },
                    RunStatus::Blocked if !name.is_empty() => span.warn { "waits at " bdi { (name) } },
                    _ if steps.running > 0 => (many(steps.running, "step running", "steps running")),
                    _ => {}
                }
            }
        }
    }
}

/// A bar with a piece for each state. Widths are attributes, because the policy forbids inline style.
fn meter(steps: &StepCounts) -> Markup {
    let pieces = [
        (steps.succeeded, "good", "succeeded"),
        (steps.failed, "bad", "failed"),
        (steps.blocked, "warn", "wait for a person"),
        (steps.running, "busy", "running"),
        (steps.dropped, "quiet", "skipped or cancelled"),
    ];
    let present = || pieces.iter().filter(|(count, ..)| *count > 0);
    let words: Vec<String> = present().map(|(count, _, word)| format!("{} {word}", format::number(*count))).collect();
    // Hundredths of a per cent, so that the pieces of a thousand steps add up.
    let share = |count: u64| count * 10_000 / steps.total.max(1);
    let percent = |share: u64| format!("{}.{:02}%", share / 100, share % 100);
    let mut start = 0;
    let rects: Vec<(&str, String, String)> = present()
        .map(|(count, tone, _)| {
            let from = share(start);
            start += count;
            (*tone, percent(from), percent(share(start) - from))
        })
        .collect();
    // Success is no news.
    let is_calm = steps.total > 0 && steps.succeeded == steps.total;
    let label = format!("{}: {}", many(steps.total, "step", "steps"), words.join(", "));
    html! {
        svg class={ "meter" @if is_calm { " calm" } } role="img" aria-label=(label) {
            @for (tone, x, width) in rects { rect class={ "f-" (tone) } x=(x) width=(width) height="6" {} }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_of_a_meter_fill_it() {
        let steps = StepCounts { total: 3, succeeded: 1, failed: 1, dropped: 1, ..StepCounts::default() };
        let markup = meter(&steps).into_string();
        assert!(markup.contains("3 steps: 1 succeeded, 1 failed, 1 skipped or cancelled"), "{markup}");
        for piece in [
            r#"class="f-good" x="0.00%" width="33.33%""#,
            r#"class="f-bad" x="33.33%" width="33.33%""#,
            r#"class="f-quiet" x="66.66%" width="33.34%""#,
        ] {
            assert!(markup.contains(piece), "{piece} in {markup}");
        }
    }

    #[test]
    fn a_run_whose_steps_all_succeeded_is_calm() {
        let calm = |total| meter(&StepCounts { total, succeeded: 2, ..StepCounts::default() }).into_string();
        assert!(calm(2).contains("meter calm") && !calm(3).contains("meter calm"));
    }
}
