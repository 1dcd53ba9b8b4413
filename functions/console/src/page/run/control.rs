//! Forms that pause, resume, cancel and retry a run.

use maud::{Markup, html};
use shared::db::run::Control;
use shared::domain::{Problem, RunId, RunStatus};

use super::RunPage;
use crate::page::icon::icon;
use crate::page::layout::Base;
use crate::page::parts::{actor_field, as_sentence, menu, notice, said};
use crate::page::source::visible;

/// What was not done, and what was typed.
#[derive(Debug, Clone, Copy)]
pub struct RefusedControl<'a> {
    pub control: Control,
    pub actor: &'a str,
    pub why: &'a str,
    /// The problem with the name.
    pub wrong_actor: Option<&'a Problem>,
}

/// A run that a page lets somebody control.
#[derive(Debug, Clone, Copy)]
pub(in crate::page) struct Controlled<'a> {
    pub base: Base,
    pub id: RunId,
    pub status: RunStatus,
    /// The token for the form.
    pub token: &'a str,
    pub refused: Option<RefusedControl<'a>>,
}

/// What the form of an operation says.
struct Words {
    /// The last part of the address.
    verb: &'static str,
    label: &'static str,
    symbol: Option<&'static str>,
    effect: &'static str,
    button: &'static str,
    style: &'static str,
    /// `The run was not ..`
    done: &'static str,
}

const fn words(control: Control) -> Words {
    match control {
        Control::Pause => Words {
            verb: "pause",
            label: "Pause",
            symbol: None,
            effect: "Running steps finish, nothing else starts. The deadline of the run stays the same.",
            button: "Pause the run",
            style: "primary",
            done: "paused",
        },
        Control::Resume => Words {
            verb: "resume",
            label: "Resume",
            symbol: None,
            effect: "Ready steps start again.",
            button: "Resume the run",
            style: "primary",
            done: "resumed",
        },
        Control::Cancel => Words {
            verb: "cancel",
            label: "Cancel",
            symbol: Some("stop"),
            effect: "Open steps end at once. What succeeded is kept, and a retry goes on from there.",
            button: "Cancel the run",
            style: "danger",
            done: "cancelled",
        },
        Control::Retry => Words {
            verb: "retry",
            label: "Retry",
            symbol: Some("again"),
            effect: "The next generation keeps what succeeded and runs the other steps again.",
            button: "Retry the run",
            style: "primary",
            done: "retried",
        },
    }
}

/// Whether the state of the run lets somebody do this.
pub(in crate::page) fn is_possible(control: Control, status: RunStatus) -> bool {
    match control {
        Control::Pause => !status.is_terminal() && status != RunStatus::Paused,
        Control::Resume => status == RunStatus::Paused,
        Control::Cancel => !status.is_terminal(),
        Control::Retry => matches!(status, RunStatus::Failed | RunStatus::Cancelled),
    }
}

/// The actions in the head of the page. Those that let a run go on are in the band below it.
pub(super) fn actions(page: &RunPage<'_>) -> Markup {
    let again = page.base.to(&format!("new?from={}", page.run.id));
    html! {
        (control(page.controlled(), Control::Pause))
        (control(page.controlled(), Control::Cancel))
        a.button href=(again) { "Run again…" }
    }
}

/// A button that opens the form of this operation. Nothing if the state of the run forbids it.
pub(in crate::page) fn control(run: Controlled<'_>, control: Control) -> Markup {
    if !is_possible(control, run.status) {
        return html! {};
    }
    let Words { verb, label, symbol, effect, button, style, .. } = words(control);
    let refused = run.refused.filter(|refused| refused.control == control);
    // The name stays, even if only another operation is possible now.
    let actor = run.refused.map_or("", |refused| refused.actor);
    let wrong = refused.and_then(|refused| refused.wrong_actor).map(said);
    let form = html! {
        form.form method="post" action=(run.base.to(&format!("runs/{}/{verb}", run.id))) {
            input type="hidden" name="csrf" value=(run.token);
            p { (effect) }
            (actor_field(&format!("{verb}-actor"), actor, wrong.as_deref()))
            div.actions { button id={ (verb) "-send" } class=(style) type="submit" { (button) } }
        }
    };
    let label = html! { @if let Some(symbol) = symbol { (icon(symbol, "")) } (label) };
    let is_primary = matches!(control, Control::Resume | Control::Retry);
    menu(&format!("menu-{verb}"), &label, is_primary.then_some("primary"), refused.is_some(), &form)
}

/// What was not done, and why.
pub(super) fn refused(refused: &RefusedControl<'_>) -> Markup {
    let done = words(refused.control).done;
    notice(
        "bad",
        "bad",
        "alert",
        &html! { p { strong { "The run was not " (done) "." } " " bdi { (visible(&as_sentence(refused.why))) } } },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_allows_what_its_transition_allows() {
        let possible = |status| {
            let all = [Control::Pause, Control::Resume, Control::Cancel, Control::Retry];
            all.into_iter().filter(|control| is_possible(*control, status)).map(|control| words(control).verb).collect()
        };
        let verbs: Vec<Vec<_>> = RunStatus::ALL.into_iter().map(possible).collect();
        let said: Vec<_> =
            RunStatus::ALL.iter().zip(verbs).map(|(status, verbs)| format!("{status}: {}", verbs.join(" "))).collect();
        assert_eq!(
            said,
            [
                "queued: pause cancel",
                "running: pause cancel",
                "blocked: pause cancel",
                "paused: resume cancel",
                "succeeded: ",
                "failed: retry",
                "cancelled: retry"
            ]
        );
    }
}
