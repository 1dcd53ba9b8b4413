//! Calls of models and their tokens. The page of costs shows their money.

use maud::{Markup, html};
use shared::db::console::{DAYS, EVENTS, Tokens, Usage};

use super::format;
use super::layout::{Base, Layout, Part, layout};
use super::parts::{blank, many, notice, section};
use super::source::visible;

/// `GET /ui/usage`.
pub fn usage_page(base: Base, usage: &Usage) -> String {
    let content = html! {
        @if usage.total.calls + usage.total.templates == 0 { (nothing()) } @else { (used(base, usage)) }
    };
    layout(&Layout { part: Part::Usage, waiting: usage.waiting, ..Layout::new(base, "Usage") }, &content)
}

fn nothing() -> Markup {
    blank(
        "No model was asked",
        &html! {
            p.prose {
                "Calls and tokens of the last " (DAYS) " days appear here when a step " code { "codegen" } " has asked a model."
            }
        },
    )
}

fn used(base: Base, usage: &Usage) -> Markup {
    let total = &usage.total;
    let models = usage.models.iter().map(|one| {
        let name = html! { b { bdi { (visible(&one.model)) } } br; span.note { bdi { (visible(&one.provider)) } } };
        (name, one.tokens)
    });
    let days = usage.days.iter().map(|one| (html! { (one.day) }, one.tokens));
    let runs = usage.runs.iter().map(|one| {
        (html! { a.main href={ (base.to("runs/")) (one.run_id) } { bdi { (visible(&one.goal)) } } }, one.tokens)
    });
    html! {
        div.head {
            div {
                h1 { "Usage" }
                p.facts {
                    span { b { (many(total.calls, "call", "calls")) } }
                    @if total.templates > 0 {
                        span { b { (many(total.templates, "template", "templates")) } " filled in without a model" }
                    }
                    span { b { (format::number(total.input_tokens)) } " tokens in" }
                    span { b { (format::number(total.output_tokens)) } " tokens out" }
                    span { "the last " (DAYS) " days" }
                }
            }
        }
        @if usage.truncated {
            (notice("warn", "decide", "note", &html! {
                p { "Only the newest " (format::number(EVENTS as u64)) " answers of these days are counted." }
            }))
        }
        @if total.uncounted > 0 {
            (notice("", "bad", "note", &html! {
                p { (many(total.uncounted, "answer", "answers")) " came without a number of tokens and count as 0." }
            }))
        }
        @if usage.models.is_empty() { (section("models", "By model", &html! {}, &html! { p { "No model was called." } })) }
        @else { (section("models", "By model", &html! {}, &table("Model", models))) }
        div.columns.even {
            (section("runs", "By run", &html! { p.note { "those with most tokens" } }, &table("Run", runs)))
            (section("days", "By day", &html! { p.note { "UTC" } }, &table("Day", days)))
        }
        p.note { "Input tokens include those that the provider had cached. " a href=(base.to("costs")) { "Costs" } " shows what they cost." }
    }
}

/// A row for each group, with a bar for its share of the tokens.
fn table(heading: &str, groups: impl Iterator<Item = (Markup, Tokens)>) -> Markup {
    let groups: Vec<_> = groups.collect();
    let size = |tokens: &Tokens| tokens.input_tokens + tokens.output_tokens;
    let most = groups.iter().map(|(_, tokens)| size(tokens)).max().unwrap_or_default().max(1);
    html! {
        table.table role="table" {
            thead role="rowgroup" {
                tr role="row" {
                    th role="columnheader" scope="col" { (heading) }
                    @for heading in ["Calls", "Tokens in", "Cached", "Tokens out"] {
                        th.number role="columnheader" scope="col" { (heading) }
                    }
                }
            }
            tbody role="rowgroup" {
                @for (name, tokens) in &groups {
                    tr role="row" {
                        td.full role="cell" { (name) (bar(size(tokens), most)) }
                        td.number role="cell" data-label="Calls" {
                            (format::number(tokens.calls))
                            @if tokens.unusable > 0 { br; span.note { (format::number(tokens.unusable)) " not usable" } }
                        }
                        td.number role="cell" data-label="Tokens in" { (format::number(tokens.input_tokens)) }
                        td.number role="cell" data-label="Cached" { (format::number(tokens.cached_tokens)) }
                        td.number role="cell" data-label="Tokens out" { (format::number(tokens.output_tokens)) }
                    }
                }
            }
        }
    }
}

/// A bar for a part of `most`. Its width is an attribute, because the policy forbids inline style.
fn bar(part: u64, most: u64) -> Markup {
    let share = u128::from(part) * 10_000 / u128::from(most);
    let width = format!("{}.{:02}%", share / 100, share % 100);
    html! { svg class="meter" aria-hidden="true" { rect class="f-busy" x="0" width=(width) height="6" {} } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_is_full_and_the_others_are_in_proportion() {
        assert!(bar(5, 5).into_string().contains("width=\"100.00%\""));
        assert!(bar(1, 3).into_string().contains("width=\"33.33%\""));
        assert!(bar(u64::MAX, u64::MAX).into_string().contains("width=\"100.00%\""));
    }
}
