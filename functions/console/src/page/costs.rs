//! What model calls of the tenant cost, by day and model, and what is left of its budgets.

use maud::{Markup, html};
use shared::domain::MicroUsd;
use shared::view::{BudgetState, Cost, Costs};

use super::format;
use super::layout::{Base, Layout, Part, layout};
use super::parts::{blank, many, notice, section};
use super::source::visible;

/// `GET /ui/costs`.
pub fn costs_page(base: Base, costs: &Costs, waiting: u64) -> String {
    let content = html! {
        @if costs.days.is_empty() { (nothing(base, costs)) } @else { (spent(base, costs)) }
    };
    layout(&Layout { part: Part::Usage, waiting, ..Layout::new(base, "Costs") }, &content)
}

fn nothing(base: Base, costs: &Costs) -> Markup {
    let words = html! {
        p.prose { "What model calls cost from " (costs.from) " to " (costs.to) " appears here. " (usage(base)) }
    };
    html! {
        (blank("Nothing was spent", &words))
        (budgets(base, &costs.budgets))
    }
}

fn usage(base: Base) -> Markup {
    html! { a href=(base.to("usage")) { "Usage" } " counts tokens." }
}

fn spent(base: Base, costs: &Costs) -> Markup {
    let total = &costs.total;
    html! {
        div.head {
            div {
                h1 { "Costs" }
                p.facts {
                    span { b { (total.cost_usd_micros) } }
                    span { (many(total.calls, "call", "calls")) }
                    @if costs.saved_usd_micros != MicroUsd::ZERO { span { (costs.saved_usd_micros) " saved by the cache" } }
                    @if total.open > 0 { span { (format::number(total.open)) " in flight" } }
                    span { (costs.from) " to " (costs.to) " (UTC)" }
                }
            }
        }
        @if total.unpriced > 0 {
            (notice("warn", "decide", "note", &html! {
                p {
                    (many(total.unpriced, "call", "calls")) " of models without a price count as $0.00. The "
                    a href=(base.to("policy")) { "policy" } " can add prices."
                }
            }))
        }
        @if total.estimated > 0 {
            (notice("", "bad", "note", &html! {
                p { (many(total.estimated, "call", "calls")) " cost what was reserved, because nobody knows their tokens." }
            }))
        }
        (budgets(base, &costs.budgets))
        (section("days", "By day and model", &html! { p.note { "UTC" } }, &days(&costs.days)))
        @if costs.truncated { p.note { "There are more rows. The total counts them too." } }
        p.note { (usage(base)) }
    }
}

fn budgets(base: Base, budgets: &[BudgetState]) -> Markup {
    let row = |budget: &BudgetState| {
        html! {
            tr role="row" {
                td.full role="cell" { "This " (budget.period) }
                td.number role="cell" data-label="Spent" { (budget.spent_usd_micros) }
                td.number role="cell" data-label="Reserved" { (budget.reserved_usd_micros) }
                td.number role="cell" data-label="Budget" {
                    @match budget.cap_usd_micros { Some(cap) => (cap), None => span.note { "none" } }
                }
            }
        }
    };
    let body = html! {
        table.table role="table" {
            thead role="rowgroup" {
                tr role="row" {
                    th role="columnheader" scope="col" { "Period" }
                    @for heading in ["Spent", "Reserved", "Budget"] { th.number role="columnheader" scope="col" { (heading) } }
                }
            }
            tbody role="rowgroup" { @for budget in budgets { (row(budget)) } }
        }
    };
    let note = html! { p.note { "The " a href=(base.to("policy")) { "policy" } " sets them." } };
    section("budgets", "Budgets", &note, &body)
}

fn days(days: &[Cost]) -> Markup {
    html! {
        table.table role="table" {
            thead role="rowgroup" {
                tr role="row" {
                    @for heading in ["Day", "Model"] { th role="columnheader" scope="col" { (heading) } }
                    @for heading in ["Calls", "Tokens in", "Tokens out", "Cost"] {
                        th.number role="columnheader" scope="col" { (heading) }
                    }
                }
            }
            tbody role="rowgroup" {
                @for day in days {
                    tr role="row" {
                        td role="cell" data-label="Day" { (day.day.as_deref().unwrap_or_default()) }
                        td role="cell" data-label="Model" {
                            bdi { (visible(day.model.as_deref().unwrap_or_default())) } " " span.note { bdi { (visible(day.provider.as_deref().unwrap_or_default())) } }
                        }
                        td.number role="cell" data-label="Calls" { (format::number(day.calls)) }
                        td.number role="cell" data-label="Tokens in" { (format::number(day.input_tokens)) }
                        td.number role="cell" data-label="Tokens out" { (format::number(day.output_tokens)) }
                        td.number role="cell" data-label="Cost" { (cost(day)) }
                    }
                }
            }
        }
    }
}

fn cost(total: &Cost) -> Markup {
    html! {
        (total.cost_usd_micros)
        @if total.unpriced > 0 { br; span.note { (format::number(total.unpriced)) " without a price" } }
    }
}
