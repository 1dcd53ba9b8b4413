//! The health of the engine: handlers, queues, dead letters, what was recovered.

use maud::{Markup, html};
use shared::db::console::{HandlerSteps, Health, Redriven};
use shared::view::{DeadLetter, QueueDepth};
use uuid::Uuid;

use super::format;
use super::icon::icon;
use super::layout::{Base, Layout, Part, layout};
use super::parts::{actor_field, elapsed, facts, many, menu, notice, section, time};
use super::source::visible;

/// The page of the engine's health.
#[derive(Debug, Clone, Copy)]
pub struct HealthPage<'a> {
    pub base: Base,
    /// The token for forms.
    pub token: &'a str,
    pub health: &'a Health,
    /// How long the database took for its part of the page.
    pub database_ms: u64,
    /// `None` if SQS could not be reached.
    pub queues: Option<&'a [QueueDepth]>,
    /// Dead letters of each handler that has some.
    pub letters: &'a [Letters],
    /// The redrive that the reader has just made.
    pub redriven: Option<Uuid>,
    /// Why dead letters were not moved.
    pub refused: Option<&'a str>,
}

/// Dead letters of a handler.
#[derive(Debug, Clone)]
pub struct Letters {
    pub handler: String,
    pub total: u64,
    /// Some of them.
    pub messages: Vec<DeadLetter>,
}

/// A sweep runs every minute.
const LATE_SWEEP_MS: i64 = 3 * 60_000;
/// A ready step that waits longer has no worker.
const LONG_WAIT_MS: i64 = 5 * 60_000;
/// A ready step that waits longer waits for a busy worker.
const BUSY_MS: i64 = 15_000;
/// The database counts up to this number of steps.
const COUNTED: u64 = 10_000;

/// `GET /ui/health`.
pub fn health_page(page: &HealthPage<'_>) -> String {
    let (base, health) = (page.base, page.health);
    // Only at its own address, because the links of a refreshed page are relative to it.
    let fragment = (base.0 == Base::TOP.0).then(|| base.to("health"));
    let content = html! {
        // Only what is recorded, because anybody can write the address.
        @if let Some(redriven) = health.redrives.iter().find(|redrive| Some(redrive.id) == page.redriven) {
            (notice("good", "good", "status", &html! {
                p {
                    (moved(redriven)) ". "
                    @if redriven.more { "One redrive moves at most 100, so more may be left: redrive again." }
                }
            }))
        }
        @if let Some(refused) = page.refused {
            (notice("bad", "bad", "alert", &html! { p { b { "Nothing was moved. " } bdi { (visible(refused)) } } }))
        }
        p.toast #announcer role="status" {}
        div #live data-status="Health" data-fragment=[fragment] {
            div.head data-region="head" {
                div { h1 { "Health" } (facts(facts_of(page))) }
                p.note { span.live { "live" } }
            }
            (next(page))
            (handlers(page))
            @if page.letters.is_empty() {
                div.columns.even { div { (lately(base, health)) } div { (failures(health)) } }
            } @else {
                div.columns.even {
                    div { @for letters in page.letters { (dead_letters(page, letters)) } }
                    div { (lately(base, health)) (failures(health)) }
                }
            }
        }
    };
    layout(&Layout { part: Part::Health, waiting: health.waiting, ..Layout::new(base, "Health") }, &content)
}

fn facts_of(page: &HealthPage<'_>) -> Vec<Markup> {
    let sweep = html! {
        @if let Some(sweep) = &page.health.sweep {
            "the sweeper ran " (time(&sweep.ended_at)) " for " (format::duration(sweep.duration_ms))
        } @else { "no sweep is recorded yet" }
    };
    let database = html! {
        span.state { (icon("good", "good")) span { "The database answers in " b { (page.database_ms) " ms" } } }
    };
    vec![database, sweep]
}

/// The most urgent fact: tone, symbol, sentence, reason.
fn urgent(page: &HealthPage<'_>) -> (&'static str, &'static str, Markup, &'static str) {
    let health = page.health;
    let overdue: u64 = health.handlers.iter().map(|handler| handler.overdue).sum();
    let late = health.sweep.as_ref().is_none_or(|sweep| sweep.ago_ms > LATE_SWEEP_MS);
    let stuck = health.handlers.iter().find(|handler| handler.waits_ms.is_some_and(|ms| ms > LONG_WAIT_MS));
    if page.queues.is_none() {
        let lead = html! { "SQS does not answer" };
        return ("bad", "bad", lead, "Wake-ups cannot be sent. The sweeper sends them when the queues are back.");
    }
    if late {
        let lead = html! {
            @if health.sweep.is_some() { "The sweeper has not run for more than 3 minutes" } @else { "The sweeper has not run yet" }
        };
        return (
            "bad",
            "bad",
            lead,
            "Nothing is recovered and nothing expires until it runs. Check its schedule and its log.",
        );
    }
    if health.sweep.as_ref().is_some_and(|sweep| sweep.failed) {
        let lead = html! { "The last sweep failed in part" };
        return ("bad", "bad", lead, "The next one tries again. The log of the sweeper says why.");
    }
    if let Some(letters) = page.letters.first() {
        let lead = html! {
            (many(letters.total, "message is", "messages are")) " in the dead-letter queue of " b { (letters.handler) }
        };
        return (
            "bad",
            "bad",
            lead,
            "No step is lost: the sweeper wakes every ready step again. Read a message, fix the cause, then redrive it.",
        );
    }
    if overdue > 0 {
        let lead = html! { (many(overdue, "step runs", "steps run")) " without a worker" };
        return (
            "bad",
            "lost",
            lead,
            "Their leases ended more than 3 minutes ago, and the sweeper should have recovered them.",
        );
    }
    if let Some(handler) = stuck {
        let lead = html! { "No worker claims the steps of " b { (handler.handler) } };
        return ("warn", "ready", lead, "Its function may be down, or its concurrency too low. Check its log.");
    }
    ("good", "good", html! { "Nothing is stuck" }, "Every ready step finds a worker, and the sweeper runs.")
}

fn next(page: &HealthPage<'_>) -> Markup {
    let (tone, symbol, lead, more) = urgent(page);
    html! {
        section class={ "next " (tone) } aria-label="What matters now" data-region="next" {
            (icon(symbol, tone))
            div { p.lead { (lead) } p.more { (more) } }
            @if let Some(letters) = page.letters.first() {
                div.actions { a.button href={ "#dead-" (letters.handler) } data-go="problem" { "See the messages" } }
            }
        }
    }
}

fn handlers(page: &HealthPage<'_>) -> Markup {
    // Without SQS, only handlers with steps are known.
    let mut names: Vec<&str> = page.queues.unwrap_or_default().iter().map(|queue| queue.handler.as_str()).collect();
    for steps in &page.health.handlers {
        if !names.contains(&steps.handler.as_str()) {
            names.push(&steps.handler);
        }
    }
    let numbers = ["Ready", "Running", "Oldest waits", "In the queue", "Dead letters"];
    let body = html! {
        @if names.is_empty() { p { "No step is ready, none is running." } }
        @else {
            table.table role="table" {
                thead role="rowgroup" {
                    tr role="row" {
                        th role="columnheader" scope="col" { "Handler" }
                        @for heading in numbers { th.number role="columnheader" scope="col" { (heading) } }
                        th role="columnheader" scope="col" { "State" }
                    }
                }
                tbody role="rowgroup" { @for name in names { (row(page, name)) } }
            }
        }
    };
    section("queues", "Handlers", &html! { p.note { "SQS counts approximately" } }, &body)
}

fn row(page: &HealthPage<'_>, name: &str) -> Markup {
    let none = HandlerSteps::default();
    let steps = page.health.handlers.iter().find(|steps| steps.handler == name).unwrap_or(&none);
    let queue = page.queues.and_then(|queues| queues.iter().find(|queue| queue.handler == name));
    let (tone, symbol, words) = in_words(steps, queue);
    html! {
        tr.line-up role="row" {
            td.full role="cell" { div.state { (icon(symbol, tone)) b { (name) } } }
            td.number role="cell" data-label="Ready" {
                (counted(steps.ready)) @if steps.retrying > 0 { span.note { " + " (counted(steps.retrying)) " later" } }
            }
            td.number role="cell" data-label="Running" { (counted(steps.running)) }
            td.number role="cell" data-label="Oldest waits" {
                @if let Some(oldest) = &steps.oldest { (elapsed(oldest)) } @else { "–" }
            }
            td.number role="cell" data-label="In the queue" {
                @if let Some(queue) = queue {
                    (format::number(queue.waiting))
                    @if queue.in_flight > 0 { span.note { " + " (format::number(queue.in_flight)) " in flight" } }
                    @if queue.delayed > 0 { span.note { " + " (format::number(queue.delayed)) " delayed" } }
                } @else { "?" }
            }
            td.number role="cell" data-label="Dead letters" {
                @if let Some(queue) = queue { (format::number(queue.dead_letters)) } @else { "?" }
            }
            td.full.note-wide role="cell" { (words) }
        }
    }
}

/// Tone, symbol and sentence of a handler.
fn in_words(steps: &HandlerSteps, queue: Option<&QueueDepth>) -> (&'static str, &'static str, &'static str) {
    if queue.is_some_and(|queue| queue.dead_letters > 0) {
        ("bad", "bad", "dead letters")
    } else if steps.overdue > 0 {
        ("bad", "lost", "lost workers are not recovered")
    } else if steps.waits_ms.is_some_and(|ms| ms > LONG_WAIT_MS) {
        ("warn", "ready", "no worker claims its steps")
    } else if steps.waits_ms.is_some_and(|ms| ms > BUSY_MS) {
        ("warn", "ready", "busy: more steps are ready than workers")
    } else {
        ("good", "good", "idle or keeping up")
    }
}

fn counted(count: u64) -> Markup {
    html! { (format::number(count.min(COUNTED))) @if count >= COUNTED { "+" } }
}

fn dead_letters(page: &HealthPage<'_>, letters: &Letters) -> Markup {
    let Letters { handler, total, messages } = letters;
    let id = format!("dead-{handler}");
    let shown = messages.len() as u64;
    let note = html! {
        p.note { (many(*total, "message", "messages")) @if shown < *total { ", " (shown) " of them are shown" } ", kept for 14 days" }
    };
    let body = html! {
        @if messages.is_empty() { p { "None of them is readable just now: somebody may be moving them." } }
        ul.rows { @for letter in messages { (message(page.base, letter)) } }
        div.actions { (redrive(page, handler)) }
    };
    section(&id, format!("Dead letters of {handler}"), &note, &body)
}

fn message(base: Base, letter: &DeadLetter) -> Markup {
    html! {
        li {
            p { b { (letter.reason) } @if let Some(at) = &letter.sent_at { span.note { " sent " (time(at)) } } }
            @if let Some(step) = &letter.step {
                p.note {
                    "run " a href={ (base.to("runs/")) (step.run_id) } { bdi { (visible(&step.goal)) } }
                    ", step " bdi { (visible(&step.name)) } ", " (step.status)
                }
            } @else if let Some(body) = &letter.body {
                pre.output tabindex="0" role="region" aria-label="Message" { (visible(body)) }
            }
            p.note { "message " code { (visible(&letter.id)) } }
        }
    }
}

fn redrive(page: &HealthPage<'_>, handler: &str) -> Markup {
    let panel = html! {
        form.form method="post" action=(page.base.to(&format!("health/{handler}/redrive"))) {
            input type="hidden" name="csrf" value=(page.token);
            p { "Moves up to 100 messages back to the queue of " (handler) ". The wake-up of a step that is not ready does nothing." }
            (actor_field(&format!("redrive-{handler}"), "", None))
            div.actions { button.primary type="submit" { "Redrive" } }
        }
    };
    menu(&format!("menu-redrive-{handler}"), &html! { "Redrive…" }, None, false, &panel)
}

fn lately(base: Base, health: &Health) -> Markup {
    let overdue: u64 = health.handlers.iter().map(|handler| handler.overdue).sum();
    let item = |is_good: bool, symbol: &str, lead: String, note: &str| {
        let (symbol, tone) = if is_good { ("good", "good") } else { (symbol, "bad") };
        html! { li { (icon(symbol, tone)) b { (lead) } span.note { (note) } span {} } }
    };
    let body = html! {
        ul.proofs {
            (item(health.lost_total == 0, "lost", many(health.lost_total, "worker lost", "workers lost"), "in the last hour"))
            (item(health.undeliverable == 0, "bad", format!("{} undeliverable", format::number(health.undeliverable)), "in the last day: nobody claimed them"))
            (item(overdue == 0, "lost", many(overdue, "overdue lease", "overdue leases"), "the sweeper should recover them"))
        }
        @if !health.lost.is_empty() {
            p.note {
                "Last lost: "
                @for (index, lost) in health.lost.iter().enumerate() {
                    @if index > 0 { ", " }
                    a href={ (base.to("runs/")) (lost.run_id) } { bdi { (visible(&lost.step)) } }
                    " of " (lost.handler) " " (time(&lost.at))
                }
            }
        }
    };
    section("lost", "Recovery", &html! {}, &html! { (body) (redrives(health)) })
}

/// Who moved what.
fn moved(redriven: &Redriven) -> Markup {
    html! {
        b { bdi { (visible(&redriven.actor)) } } " moved " (many(redriven.moved, "message", "messages"))
        " back to the queue of " b { (redriven.handler) }
    }
}

fn redrives(health: &Health) -> Markup {
    html! {
        @if !health.redrives.is_empty() {
            ul.rows {
                @for redriven in &health.redrives {
                    li {
                        p {
                            (moved(redriven)) @if redriven.more { ", and more may have been left" }
                            " " span.note { (time(&redriven.at)) }
                        }
                    }
                }
            }
        }
    }
}

fn failures(health: &Health) -> Markup {
    let body = html! {
        @if health.failures.is_empty() { p { "No step failed." } }
        ul.proofs {
            @for failure in &health.failures {
                li {
                    (icon("bad", "bad"))
                    code { bdi { (visible(&failure.code)) } }
                    span.note { (many(failure.count, "step", "steps")) }
                    span {}
                }
            }
        }
    };
    section("failures", "Why steps failed", &html! { p.note { "in the last hour" } }, &body)
}
