//! A gate, with everything that a decision about it needs, and the form.

mod approvals;
mod evidence;
mod exact;
mod form;
mod late;
mod rows;
mod starts;

use maud::{Markup, html};
use shared::db::console::{Document, Gate, GateDetail};
use shared::domain::gate::{APPROVAL, BUDGET, Decision};
use shared::domain::{GateStatus, Problem};
use shared::http::encoded;
use shared::view::OnPass;

use super::gates::{blocked_by, evidence_href, look_of, verdict, words_of};
use super::icon::{icon, look, mark, state};
use super::layout::{Base, Layout, Part, layout};
use super::links::{self, LinkNote};
use super::parts::{crumbs, elapsed, facts, head, left, many, notice, person, section, time};
use super::source::visible;
use super::weakening::weakenings;
use crate::evidence::GateChange;

pub(super) use rows::{Rows, preview};
pub(super) use starts::{rule, what};

/// A gate, and how to show it.
#[derive(Debug, Clone, Copy)]
pub struct DecisionPage<'a> {
    pub base: Base,
    pub detail: &'a GateDetail,
    /// The difference that it asks about, with the documents of its attempt. Or why it cannot be shown.
    pub change: Option<Result<(&'a Document, &'a GateChange), &'a str>>,
    /// What the first documents of `detail` hold.
    pub contents: &'a [Content],
    /// The token for the form.
    pub token: &'a str,
    /// Whether the reader goes through the inbox.
    pub from_inbox: bool,
    /// The first row to show of what the step with this name writes.
    pub rows: Option<(usize, &'a str)>,
    /// A decision that was not recorded.
    pub refused: Option<Refused<'a>>,
    /// The link that led here.
    pub link: Option<LinkNote<'a>>,
}

impl DecisionPage<'_> {
    /// Whether the page can still change. What somebody typed into a form that was refused stays as it is.
    fn is_live(&self) -> bool {
        self.detail.gate.is_pending() && self.refused.is_none() && self.link.is_none() && self.base.0 == Base::RUN.0
    }

    /// The page's own address, with what it shows.
    fn address(&self) -> String {
        let from = self.from_inbox.then(|| "from=inbox".to_owned());
        let rows = self.rows.map(|(first, write)| format!("write={}&rows={first}", encoded(write)));
        let query: Vec<_> = from.into_iter().chain(rows).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}{mark}{}", self.base.to(&format!("gates/{}", self.detail.gate.id)), query.join("&"))
    }

    /// Whether the page shows what the gate asks about. Without it, an approval would be blind.
    fn can_be_read(&self) -> bool {
        !matches!(self.change, Some(Err(_)))
    }
}

/// What a document holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Text(String),
    Markdown(String),
    /// A page does not show it.
    Other,
    /// It cannot be read, for this reason.
    Unreadable(String),
}

/// A decision that was not recorded, with what was typed.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    pub why: Refusal<'a>,
    pub decision: Decision,
    pub actor: &'a str,
    pub reason: &'a str,
}

/// Why a decision was not recorded.
#[derive(Debug, Clone, Copy)]
pub enum Refusal<'a> {
    /// The form has these problems.
    Problems(&'a [Problem]),
    /// The form does not come from a page of this session. The sentence says so.
    Form(&'a str),
    /// The rule of the gate excludes the reader. The sentence says why.
    Excluded(&'a str),
    /// The gate has changed since the reader saw it. The paths say what changed.
    Changed(&'a [String]),
    /// The gate has been decided, or its time is over. The sentence says so.
    Conflict(&'a str),
}

/// `GET /ui/gates/{id}`.
pub fn decision_page(page: &DecisionPage<'_>) -> String {
    let (base, gate) = (page.base, &page.detail.gate);
    let run = format!("{}#gate-{}", base.to(&format!("runs/{}", gate.run_id)), gate.id);
    let step = visible(gate.step.as_deref().unwrap_or("the run itself"));
    // Whatever was wrong with the form, nobody can send it any more.
    let late = page.refused.filter(|refused| matches!(refused.why, Refusal::Conflict(_)) || !gate.is_open());
    let title = late.map_or_else(|| title_of(gate), |refused| late::title(gate, refused));
    let actions = html! { a.button.only-narrow href="#decide" { "To the decision" } };
    let content = html! {
        (crumbs(&[("Inbox", base.to("inbox")), (&visible(&gate.goal), run)], &step))
        @if let Some(before) = page.detail.before.as_ref().filter(|before| gate.is_open() && before.id != gate.id) {
            (decided_before(base, before))
        }
        @if let Some(link) = page.link.as_ref().filter(|_| gate.is_open()) { (links::note(link)) }
        p.toast #announcer role="status" {}
        div #live data-status=(gate.status) data-fragment=[page.is_live().then(|| page.address())] {
        (head(&title, &facts(facts_of(page)), gate.is_open().then_some(&actions)))
        div.columns {
            div data-region="main" {
                @if let Some(refused) = late { (late::late(gate, refused)) }
                (question(page))
                @match page.change {
                    Some(Ok((document, change))) => (difference(base, document, change)),
                    Some(Err(why)) => (unreadable(base, gate, why)),
                    None => {}
                }
                (evidence::proofs(page))
                (evidence::documents(page))
                (starts::starts(page))
                (exact::exact(page))
            }
            div data-region="side" {
                @if late.is_some() { (late::what_now(base, gate)) }
                @else if gate.is_open() { (form::decide(page)) }
                @else { (decided(base, page.detail)) }
                (others(base, page.detail))
            }
        }
        }
        @if gate.is_open() && page.link.is_none() { (links::offer(base, gate.id, page.token)) }
    };
    let title = format!("{} {}: {}", gate.gate_type, gate.status, gate.goal);
    layout(&Layout { part: Part::Inbox, waiting: page.detail.waiting, ..Layout::new(base, &title) }, &content)
}

/// The question, or what became of it.
fn title_of(gate: &Gate) -> Markup {
    let is_change = gate.is_about_change();
    let words = words_of(&gate.gate_type);
    let what = html! { @if gate.gate_type.starts_with("manual:") { "the " } bdi { (words) } };
    if let (BUDGET, Some(title)) = (gate.gate_type.as_str(), title_of_budget(gate)) {
        return html! { (title) };
    }
    match gate.status {
        GateStatus::Pending if gate.is_over => html! { "Nobody decided in time: " (what) },
        GateStatus::Pending if is_change => html! { "Let this change weaken its own checks?" },
        GateStatus::Pending => html! { "Approve " (what) "?" },
        GateStatus::Passed if gate.actor.is_none() => html! { "Passed on evidence: " (what) },
        GateStatus::Failed if gate.actor.is_none() => html! { "Failed on evidence: " (what) },
        GateStatus::Passed => html! { "Approved: " (what) },
        GateStatus::Failed => html! { "Rejected: " (what) },
        GateStatus::Waived => html! { "Waived: " (what) },
        GateStatus::Expired => html! { "Nobody decided in time: " (what) },
        GateStatus::Cancelled => html! { "Not needed any more: " (what) },
    }
}

/// The question of a gate that waits for money, or how it went on. None if people decided.
fn title_of_budget(gate: &Gate) -> Option<&'static str> {
    match gate.status {
        GateStatus::Pending if gate.asks_nobody() => Some("Waits for money"),
        GateStatus::Pending => Some("Raise the budget of the run?"),
        GateStatus::Passed if gate.actor.is_none() => Some("Went on without a decision"),
        _ => None,
    }
}

fn facts_of(page: &DecisionPage<'_>) -> Vec<Markup> {
    let gate = &page.detail.gate;
    let step = page.detail.step_ordinal.map(|at| page.base.to(&format!("runs/{}/steps/{at}", gate.run_id)));
    let blocked =
        html! { @if let Some(href) = step { a href=(href) { (blocked_by(gate)) } } @else { (blocked_by(gate)) } };
    let mut list = vec![state(look_of(gate)), html! { code { bdi { (visible(&gate.gate_type)) } } }, blocked];
    if gate.is_pending() {
        list.push(html! { "has waited " b { (elapsed(&gate.created_at)) } });
        list.push(html! { @match &gate.expires_at {
            Some(at) if gate.is_over => { "expired " (time(at)) },
            Some(at) => { "expires " (left(at)) },
            None => "no expiry",
        } });
    } else {
        list.push(html! { "asked " (time(&gate.created_at)) });
    }
    if page.is_live() {
        list.push(html! { span.live { "live" } });
    }
    list
}

/// The gate that the reader decided before this one. Anybody can write an address that names one, so this says only what is
/// true of both.
fn decided_before(base: Base, before: &Gate) -> Markup {
    let Some(actor) = &before.actor else { return html! {} };
    let look = look(before.status);
    notice(
        look.tone,
        look.symbol,
        "status",
        &html! {
            p {
                "The gate " b { bdi { (words_of(&before.gate_type)) } } " of "
                a href=(base.to(&format!("runs/{}", before.run_id))) { bdi { (visible(&before.goal)) } }
                " is " strong { (verdict(before.status)) } " by " (person(actor)) ". This one waits next."
            }
        },
    )
}

/// What the plan, or who made the gate, asks.
fn question(page: &DecisionPage<'_>) -> Markup {
    let gate = &page.detail.gate;
    let is_verdict = gate.actor.is_none() && matches!(gate.status, GateStatus::Passed | GateStatus::Failed);
    let asked_by = match gate.on_pass {
        _ if is_verdict => "what the gate found",
        OnPass::Resume if !gate.gate_type.starts_with(APPROVAL) => "the gate’s question",
        OnPass::Resume | OnPass::Finish => "the plan’s question",
        OnPass::Release => "the question of who made the gate",
    };
    html! {
        @if let Some(reason) = &gate.reason {
            section.section aria-label=(if is_verdict { "Verdict" } else { "Question" }) {
                p.quote { bdi { (visible(reason)) } }
                p.note { (asked_by) }
            }
        }
    }
}

fn difference(base: Base, document: &Document, change: &GateChange) -> Markup {
    let has_evidence = document.documents.iter().any(|one| one.kind == super::EVIDENCE);
    let judged = document.ordinal.filter(|_| has_evidence);
    let judged = judged.map(|ordinal| evidence_href(base, document.run_id, ordinal, document.attempt));
    let total = change.weakenings.len();
    let body = html! {
        @if total == 0 {
            (notice("warn", "decide", "note", &html! { p { "The document lists no change. Read the evidence before you decide." } }))
        }
        (weakenings(&change.weakenings, total as u64))
        p.facts {
            span { a href=(base.to(&format!("artifacts/{}", document.artifact.id))) { "the whole document" } }
            @if let Some(href) = judged { span { a href=(href) { "the evidence so far" } } }
        }
    };
    let count = html! { p.note { (many(total as u64, "change", "changes")) } };
    section("difference", "What the change does to its own checks", &count, &body)
}

/// The difference exists, but the page cannot show it.
fn unreadable(base: Base, gate: &Gate, why: &str) -> Markup {
    let body = html! {
        (notice("bad", "bad", "alert", &html! {
            p { strong { "The difference cannot be shown: " } bdi { (visible(why)) } "." }
            @if gate.is_open() {
                p { "You can reject the gate. Nobody can approve or waive it here, because nobody can see what that would allow." }
                p { "If the storage failed only for a moment, load the page again." }
            }
        }))
        @if let Some(id) = gate.evidence_id {
            p.facts { span { a href=(base.to(&format!("artifacts/{id}"))) { "the document" } } }
        }
    };
    section("difference", "What the change does to its own checks", &html! {}, &body)
}

/// Who decided, when, and why.
fn said(gate: &Gate) -> Markup {
    html! {
        @if let (Some(actor), Some(at)) = (&gate.actor, &gate.decided_at) {
            p.state { (mark(look_of(gate))) span { b { bdi { (visible(actor)) } } " " (verdict(gate.status)) ", " (time(at)) } }
            @if let Some(reason) = &gate.decision_reason { p.quote { bdi { (visible(reason)) } } }
        }
    }
}

fn decided(base: Base, detail: &GateDetail) -> Markup {
    let gate = &detail.gate;
    html! {
        section.decide.stay.section #decide aria-labelledby="decision" {
            div.title { h2 #decision { "The decision" } }
            @if gate.actor.is_some() {
                (said(gate))
                @if detail.standing.approvals.len() > 1 || detail.standing.approvals.iter().any(|one| one.is_self) {
                    (approvals::so_far(&detail.standing))
                }
            } @else {
                p.state { (mark(look_of(gate))) span {
                    @match gate.status {
                        GateStatus::Expired => "Nobody decided in time.",
                        GateStatus::Pending => "Its time is over, so nobody can decide any more. The next sweep ends it, and the run fails.",
                        GateStatus::Cancelled => "The run ended before anybody decided.",
                        GateStatus::Passed if gate.gate_type == BUDGET => "Nobody had to decide: the step went on when there was money, or to ask again.",
                        _ => "The evidence decided.",
                    }
                } }
            }
            p { a.button href=(base.to(&format!("runs/{}", gate.run_id))) { "Open the run" } }
        }
    }
}

/// What people decided about other gates of the run.
fn others(base: Base, detail: &GateDetail) -> Markup {
    let symbol = |decision| match decision {
        Decision::Approve => "good",
        Decision::Reject => "bad",
        Decision::Waive => "waived",
    };
    let list = html! {
        ul.rows {
            @for other in &detail.others {
                li {
                    (icon(symbol(other.decision), "quiet")) " " b { bdi { (visible(&other.actor)) } } " " (other.decision.participle()) " "
                    a href={ (base.to("gates/")) (other.gate_id) } {
                        bdi { (visible(other.step.as_deref().unwrap_or(&other.gate_type))) }
                    }
                    span.note { ", " (time(&other.created_at)) }
                    @if let Some(reason) = &other.reason { p.quote { bdi { (visible(reason)) } } }
                }
            }
        }
    };
    html! {
        @if !detail.others.is_empty() { (section("others", "Decided in this run", &html! {}, &list)) }
    }
}
