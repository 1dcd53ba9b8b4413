//! Filters of the list of runs: links with numbers for states, a form for the rest.

use maud::{Markup, html};
use shared::db::console::RunCounts;
use shared::domain::RunStatus;
use shared::domain::tool::{HANDLERS, Tools};
use shared::http::encoded;

use crate::page::format;
use crate::page::icon::icon;
use crate::page::layout::Base;
use crate::page::source::visible;

/// The filters of the address, each empty if it is not set.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunFilters<'a> {
    /// `open`, or a state of a run.
    pub status: &'a str,
    pub goal: &'a str,
    pub tool: &'a str,
    /// Who started the run.
    pub by: &'a str,
    /// One of the ages that the page offers.
    pub since: &'a str,
}

/// States of runs that have not ended.
pub(crate) const OPEN: &[RunStatus] = &[RunStatus::Queued, RunStatus::Running, RunStatus::Blocked, RunStatus::Paused];
/// The filter's value, words and states of each link. No state means any state.
const STATES: [(&str, &str, &[RunStatus]); 6] = [
    ("", "All", &[]),
    ("open", "Open", OPEN),
    ("blocked", "Waiting", &[RunStatus::Blocked]),
    ("failed", "Failed", &[RunStatus::Failed]),
    ("succeeded", "Succeeded", &[RunStatus::Succeeded]),
    ("cancelled", "Cancelled", &[RunStatus::Cancelled]),
];
/// Value, words and seconds of each age.
pub(crate) const AGES: [(&str, &str, u64); 3] =
    [("1h", "Last hour", 3_600), ("24h", "Last day", 86_400), ("7d", "Last week", 604_800)];
/// The largest number of runs that a link names.
const MAX_COUNT: u64 = 1_000;

impl RunFilters<'_> {
    pub fn is_empty(&self) -> bool {
        [self.status, self.goal, self.tool, self.by, self.since].iter().all(|value| value.is_empty())
    }

    /// The address of the list with these filters, after the run `after`.
    pub(super) fn address(&self, base: Base, after: Option<&str>) -> String {
        let pairs = [
            ("status", self.status),
            ("goal", self.goal),
            ("tool", self.tool),
            ("by", self.by),
            ("since", self.since),
            ("after", after.unwrap_or_default()),
        ];
        let set = pairs.iter().filter(|(_, value)| !value.is_empty());
        let query: Vec<_> = set.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}{mark}{}", base.to("runs"), query.join("&"))
    }

    /// What the filters ask for: "No failed run by ann has a step with `db_write` and a goal that contains “warehouse”."
    pub(super) fn sentence(&self) -> Markup {
        let word = STATES.iter().find(|(value, ..)| *value == self.status).map_or(self.status, |(_, words, _)| *words);
        let age = AGES.iter().find(|(value, ..)| *value == self.since).map(|(_, words, _)| words.to_lowercase());
        html! {
            "No " @if !self.status.is_empty() { (word.to_lowercase()) " " } "run"
            @if !self.by.is_empty() { " by " bdi { (visible(self.by)) } }
            @if let Some(age) = age { " of the " (age) }
            @if !self.tool.is_empty() { " has a step with " code { (visible(self.tool)) } }
            @if !self.goal.is_empty() {
                @if self.tool.is_empty() { " has" } @else { " and" }
                " a goal that contains “" bdi { (visible(self.goal)) } "”"
            }
            @if self.tool.is_empty() && self.goal.is_empty() { " exists" }
            "."
        }
    }
}

/// Tools to choose from. The prefix of a family stands for all tools of it.
fn tools() -> impl Iterator<Item = &'static str> {
    HANDLERS
        .iter()
        .flat_map(|handler| match &handler.tools {
            Tools::Listed(tools) => tools.iter(),
            Tools::Prefixed(prefix) => std::slice::from_ref(prefix).iter(),
        })
        .copied()
}

/// The form with all filters.
pub(super) fn filters(base: Base, filters: RunFilters<'_>, counts: &RunCounts) -> Markup {
    html! {
        form.filters method="get" action=(base.to("runs")) role="search" data-auto {
            (states(base, filters, counts))
            @if !filters.status.is_empty() { input type="hidden" name="status" value=(filters.status); }
            div.search {
                (icon("search", ""))
                label.hidden-text for="goal" { "Goal contains" }
                input #goal name="goal" type="search" placeholder="Goal contains…" maxlength="200" value=(filters.goal) data-search;
            }
            label.hidden-text for="tool" { "Tool" }
            input #tool name="tool" list="tools" placeholder="Any tool" maxlength="200" value=(filters.tool);
            datalist #tools { @for tool in tools() { option value=(tool) {} } }
            label.hidden-text for="by" { "Started by" }
            input #by name="by" placeholder="By anybody" maxlength="200" value=(filters.by);
            label.hidden-text for="since" { "Created" }
            select #since name="since" {
                option value="" { "Any time" }
                @for (value, words, _) in AGES { option value=(value) selected[value == filters.since] { (words) } }
            }
            button.filter-button { "Filter" }
        }
    }
}

fn states(base: Base, filters: RunFilters<'_>, counts: &RunCounts) -> Markup {
    html! {
        nav.chips aria-label="Runs by state" data-region="states" {
            @for (status, words, states) in STATES {
                a href=(RunFilters { status, ..filters }.address(base, None))
                    aria-current=[(status == filters.status).then_some("true")] {
                    (words) " " span.note { (number(counts, states)) }
                }
            }
        }
    }
}

/// The number of runs in these states, such as `41`, `41+` if older runs were not counted, or `1,000+`.
pub(super) fn number(counts: &RunCounts, states: &[RunStatus]) -> String {
    let count = if states.is_empty() { counts.total() } else { counts.of(states) };
    let plus = if count > MAX_COUNT || counts.is_cut { "+" } else { "" };
    format!("{}{plus}", format::number(count.min(MAX_COUNT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_the_filters_that_are_set() {
        let filters = RunFilters { status: "failed", goal: "a&b=c", tool: "gate:unit", ..RunFilters::default() };
        assert_eq!(filters.address(Base::TOP, Some("7")), "runs?status=failed&goal=a%26b%3Dc&tool=gate%3Aunit&after=7");
        assert_eq!(RunFilters::default().address(Base::RUN, None), "../runs");
        assert!(RunFilters::default().is_empty() && !filters.is_empty());
    }

    #[test]
    fn numbers_say_when_there_are_more() {
        let counts = |count, is_cut| RunCounts { by_status: [(RunStatus::Failed, count)].into(), is_cut };
        let of = |count, is_cut| number(&counts(count, is_cut), &[RunStatus::Failed]);
        assert_eq!([of(41, false), of(41, true), of(1_000, false), of(1_001, false)], ["41", "41+", "1,000", "1,000+"]);
        assert_eq!(number(&counts(3, false), &[]), "3");
        assert_eq!(number(&counts(3, false), OPEN), "0");
    }

    #[test]
    fn the_sentence_of_filters_that_match_nothing_is_a_sentence() {
        let say = |status, tool, goal, since| RunFilters { status, goal, tool, by: "", since }.sentence().into_string();
        assert_eq!(
            say("failed", "db_write", "warehouse", ""),
            "No failed run has a step with <code>db_write</code> and a goal that contains “<bdi>warehouse</bdi>”."
        );
        assert_eq!(say("", "", "x", "24h"), "No run of the last day has a goal that contains “<bdi>x</bdi>”.");
        assert_eq!(say("blocked", "", "", ""), "No waiting run exists.");
        let by = RunFilters { by: "<ann>", ..RunFilters::default() };
        assert_eq!(by.sentence().into_string(), "No run by <bdi>&lt;ann&gt;</bdi> exists.");
        assert_eq!(by.address(Base::TOP, None), "runs?by=%3Cann%3E");
        assert!(!by.is_empty());
    }
}
