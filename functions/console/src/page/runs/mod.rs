//! The list of runs.

mod filter;

use maud::{Markup, html};
use shared::db::console::{RunList, RunRow, StepCounts};
use shared::domain::RunStatus;

use super::format;
use super::icon::{look, mark};
use super::layout::{Base, Layout, Part, layout};
use super::parts::{blank, elapsed, many, time};
use super::source::visible;
pub use filter::RunFilters;
pub(crate) use filter::{AGES, OPEN};

/// A list of runs, and how to show it.
#[derive(Debug, Clone, Copy)]
pub struct RunsPage<'a> {
    pub base: Base,
    pub list: &'a RunList,
    pub filters: RunFilters<'a>,
    /// The address of the API, as the reader's browser reaches it.
    pub api: &'a str,
}

/// `GET /ui/runs`.
pub fn run_list(page: &RunsPage<'_>) -> String {
    let RunsPage { base, list, filters, .. } = *page;
    let is_first = list.counts.total() == 0 && filters.is_empty() && !list.is_continuation;
    // Older pages do not change, so only the first one refreshes. Its own address is the fragment.
    let fragment = (!list.is_continuation).then(|| filters.address(base, None));
    let content = html! {
        p.toast #announcer role="status" {}
        div #live data-fragment=[fragment.as_ref()] {
            div.head.small data-region="head" {
                @if !is_first {
                    h1 { "Runs" }
                    @if fragment.is_some() { p.note { span.live { "live" } } }
                }
            }
            @if !is_first { (filter::filters(base, filters, &list.counts)) }
            div data-region="list" {
                @if is_first { (no_runs(page)) } @else if list.runs.is_empty() { (nothing(page)) } @else { (table(base, &list.runs)) }
                (pages(page))
            }
        }
    };
    layout(&Layout { part: Part::Runs, waiting: list.waiting, ..Layout::new(base, "Runs") }, &content)
}

fn pages(page: &RunsPage<'_>) -> Markup {
    let RunsPage { base, list, filters, .. } = *page;
    let total = filter::number(&list.counts, &[]);
    html! {
        @if list.is_continuation || list.older.is_some() {
            nav.pages aria-label="Pages" {
                @if list.is_continuation { a href=(filters.address(base, None)) { "Newest runs" } }
                @else if filters.status.is_empty() { span.note { (list.runs.len()) " of " (total) " runs" } }
                @if let Some(older) = list.older {
                    a href=(filters.address(base, Some(&older.to_string()))) rel="next" { "Older runs" }
                }
            }
        }
    }
}

/// No run of this page matches.
fn nothing(page: &RunsPage<'_>) -> Markup {
    let RunsPage { base, list, filters, .. } = *page;
    if filters.is_empty() {
        return html! { p { "No older runs." } };
    }
    let title = if list.older.is_some() { "No run matches so far" } else { "No run matches" };
    blank(
        title,
        &html! {
            p { (filters.sentence()) }
            @if list.older.is_some() { p { "Not all runs were searched: go on with older runs." } }
            p { a href=(base.to("runs")) { "Show all runs" } }
        },
    )
}

const COMMAND: &str = "nofx run plan.yaml --workspace . --watch";
/// The request that starts a run, below the address of the API.
const REQUEST: &str = r#"/runs \
  -H 'content-type: application/json' \
  -d '{"plan": {"goal": "hello", "steps":
       [{"name": "greet", "tool": "echo"}]}}'"#;

fn no_runs(page: &RunsPage<'_>) -> Markup {
    html! {
        div.blank {
            h1 { "Start the first run" }
            p.prose { "A run carries out a plan, step by step, and lets a change pass only with evidence." }
            div.ways {
                section {
                    h2 { "Here" }
                    p.note { "Examples, an editor that shows the problems of a plan, and an upload." }
                    p { a.button href=(page.base.to("new")) { "New run" } }
                }
                section {
                    h2 { "On the command line" }
                    p.note { "Packs and uploads a workspace too, and shows the run live." }
                    pre.output tabindex="0" role="region" aria-label="Command line" { (COMMAND) }
                }
                section {
                    h2 { "With an HTTP request" }
                    p.note { "Any program can." }
                    pre.output tabindex="0" role="region" aria-label="HTTP request" { "curl -s " (page.api) (REQUEST) }
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
                    @for heading in ["Run", "Progress", "Started by", "When"] { th role="columnheader" scope="col" { (heading) } }
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
                    a.main id={ "run-" (run.id) } href={ (base.to("runs/")) (run.id) } { bdi { (visible(&run.goal)) } }
                }
            }
            td.progress.full role="cell" { (progress(run)) }
            td.by role="cell" { @if let Some(by) = &run.created_by { bdi title=(visible(by)) { (visible(by)) } } }
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
    html! {
        (meter(steps))
        span.note {
            span { (format::number(steps.succeeded)) " of " (format::number(steps.total)) }
            span { (stand(run)) }
        }
    }
}

/// Where a run stands, if that is news.
fn stand(run: &RunRow) -> Markup {
    let failed = run.failed_step.as_deref();
    html! {
        @match (run.status, failed, &run.waits_for) {
            (RunStatus::Failed | RunStatus::Running, Some(step), _) => span.bad { "failed at " bdi { (visible(step)) } },
            (RunStatus::Failed, None, _) => {
                @if let Some(failure) = &run.failure { span.bad { bdi { (visible(failure)) } } }
            }
            (RunStatus::Blocked, _, Some(waits)) => {
                span.warn { "waits at " bdi { (visible(waits.step.as_ref().unwrap_or(&waits.gate_type))) } }
            }
            _ if run.steps.running > 0 => (many(run.steps.running, "step running", "steps running")),
            _ => {}
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
