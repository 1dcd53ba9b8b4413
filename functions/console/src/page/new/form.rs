//! The form of a new run. Two buttons send it: one checks the plan, the other starts the run.

use maud::{Markup, html};
use shared::http::MAX_UPLOAD_BYTES;

use super::{NewRunPage, Outcome, Stored};
use crate::page::parts::actor_field;
use crate::plan_text::MAX_TEXT_BYTES;

pub(super) fn form(page: &NewRunPage<'_>) -> Markup {
    let (base, typed) = (page.base, page.typed);
    let is_wrong = matches!(page.outcome, Outcome::Problems(_));
    let wrong_actor = match page.outcome {
        Outcome::WrongActor(why) => Some(why),
        _ => None,
    };
    html! {
        section.section aria-label="Plan" {
            form.form.editor method="post" action=(base.to("new")) enctype="multipart/form-data" {
                input type="hidden" name="csrf" value=(page.token);
                input type="hidden" name="key" value=(typed.key);
                div.field {
                    label for="plan" { "Plan " span.note { "YAML or JSON" } }
                    textarea #plan name="plan" spellcheck="false" autocapitalize="off" autocomplete="off" required
                        maxlength=(MAX_TEXT_BYTES) data-submit="check" aria-invalid=[is_wrong.then_some("true")]
                        aria-describedby=[is_wrong.then_some("problems")] {
                        // A parser of HTML drops the first line break.
                        "\n" (typed.plan)
                    }
                }
                (archive("workspace", "Workspace", "for gates that judge files", typed.workspace.as_ref()))
                (archive("base", "Base", "what it is compared with; without one the change judges itself", typed.base.as_ref()))
                (actor_field("new-actor", &typed.actor, wrong_actor))
                div.actions {
                    // The enter key presses the first button, which starts nothing.
                    button #check type="submit" formaction=(base.to("new/check")) formnovalidate { "Check the plan" }
                    button.primary type="submit" { "Start the run" }
                    span.note.only-wide { kbd { "Ctrl" } " " kbd { "Enter" } " checks" }
                }
            }
        }
    }
}

/// A file to upload, or the one that is stored. `name` is that of the stored archive's field.
fn archive(name: &str, label: &str, purpose: &str, stored: Option<&Stored>) -> Markup {
    let most = MAX_UPLOAD_BYTES >> 20;
    html! {
        div.field {
            label for={ (name) "-file" } {
                (label) " " span.note { "a tar.gz, " (purpose) "; the form takes less than " (most) " MiB in all" }
            }
            @if let Some(stored) = stored {
                label.check {
                    input type="checkbox" name=(name) value=(stored.id) checked;
                    span { "use the stored archive " code { (stored.id) } }
                }
            }
            input id={ (name) "-file" } name={ (name) "_file" } type="file" accept=".tar.gz,.tgz,application/gzip";
        }
    }
}
