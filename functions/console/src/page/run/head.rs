//! Where a run stands, and what it is.

use maud::{Markup, html};
use shared::db::console::Run;
use shared::domain::MicroUsd;
use shared::http::encoded;

use super::control::actions;
use super::{REFRESH_S, RunPage};
use crate::page::format;
use crate::page::icon::{look, state};
use crate::page::layout::Base;
use crate::page::parts::{crumbs, elapsed, facts, hash, head, pairs, section, time};
use crate::page::source::visible;

/// Digits of an id or a digest that name it in a line.
const SHORT: usize = 8;

/// The goal of the run, and its facts in one line.
pub(super) fn title(page: &RunPage<'_>) -> Markup {
    let (base, run) = (page.base, page.run);
    let id = run.id.to_string();

    let mut list = vec![state(look(run.status))];
    list.push(html! {
        @if let Some(by) = &run.created_by {
            "by " a.plain href=(runs_by(base, by)) { b { bdi { (visible(by)) } } } ", "
        }
        "created " (time(&run.created_at))
    });
    match (run.duration_ms, &run.started_at) {
        (Some(ms), _) => list.push(html! { "took " b { (format::duration(ms)) } }),
        (None, Some(at)) => list.push(html! { b { (elapsed(at)) } }),
        (None, None) => {}
    }
    if run.generation > 1 {
        list.push(html! { "generation " (run.generation) });
    }
    list.extend(money(run));
    list.push(html! { a href="#plan" { "plan" } " " code { (short(&run.plan_digest)) } });
    if run.is_open() {
        list.push(html! { span.live { "live" } });
    }
    if page.reloads() {
        let still = base.to(&format!("runs/{}?still=1", run.id));
        let words = html! { "reloads every " (REFRESH_S) " s, " a href=(still) { "stop that" } };
        list.push(html! { noscript { (words) } });
    }
    html! {
        (crumbs(&[("Runs", base.to("runs"))], short(&id)))
        (head(&html! { bdi { (visible(&run.goal)) } }, &facts(list), Some(&actions(page))))
    }
}

/// What its model calls have cost. None of a run that called no model and has no budget.
fn money(run: &Run) -> Option<Markup> {
    let (spent, reserved) = (run.spent_usd_micros, run.reserved_usd_micros);
    if run.budget_usd_micros.is_none() && spent + reserved == MicroUsd::ZERO {
        return None;
    }
    Some(html! {
        "models cost " b { (spent) }
        @if let Some(budget) = run.budget_usd_micros { " of " (budget) }
        @if reserved > MicroUsd::ZERO { ", " (reserved) " reserved" }
    })
}

/// The runs that this person started.
fn runs_by(base: Base, name: &str) -> String {
    format!("{}?by={}", base.to("runs"), encoded(name))
}

/// What identifies the run and its plan.
pub(super) fn plan(base: Base, run: &Run) -> Markup {
    // The API answers below the same prefix as the console.
    let posted = base.to(&format!("../runs/{}/plan", run.id));
    let deadline = html! { @match &run.deadline_at { Some(at) => (time(at)), None => "none" } };
    let body = pairs([
        ("Run", hash(&run.id.to_string(), "id")),
        ("Digest", hash(&run.plan_digest, "sha256")),
        ("Deadline", deadline),
        ("Generation", html! { (run.generation) }),
    ]);
    section("plan", "Plan", &html! { p.note { a href=(posted) { "as posted" } } }, &body)
}

fn short(text: &str) -> &str {
    text.get(..SHORT).unwrap_or(text)
}
