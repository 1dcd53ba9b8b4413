//! Where the bytes of an artifact are, and the forms that restore and delete them.

use maud::{Markup, html};
use shared::domain::artifact_storage::{MAX_REASON_CHARS, RESTORE_DAYS, StorageState, TIERS};
use shared::view::ArtifactStorage;

use super::ArtifactPage;
use crate::page::parts::{actor_field, as_sentence, menu, notice, pairs, section, time};
use crate::page::source::visible;

/// Days that the form offers first.
const DAYS: u32 = 7;

/// What was not done, and what was typed.
#[derive(Debug, Clone, Copy)]
pub struct RefusedStorage<'a> {
    /// `restore` or `delete`.
    pub verb: &'static str,
    pub actor: &'a str,
    pub reason: &'a str,
    pub why: &'a str,
}

/// What was not done, and why.
pub(super) fn refused(refused: &RefusedStorage<'_>) -> Markup {
    let done = if refused.verb == "delete" { "deleted" } else { "restored" };
    let why = visible(&as_sentence(refused.why));
    notice("bad", "bad", "alert", &html! { p { strong { "The artifact was not " (done) "." } " " bdi { (why) } } })
}

/// What a reader must know before the content.
pub(super) fn notices(storage: &ArtifactStorage) -> Markup {
    let by = html! { @if let Some(actor) = &storage.actor { " by " bdi { (visible(actor)) } } };
    let reason = html! { @if let Some(reason) = &storage.reason { p.quote { bdi { (visible(reason)) } } } };
    match storage.state {
        StorageState::Deleted | StorageState::Deleting => {
            let body = html! {
                p { strong { "The bytes were deleted" } " " (time(&storage.since)) (by) ". What is recorded about them stays." }
                (reason)
            };
            notice("quiet", "doc", "note", &body)
        }
        StorageState::Archived => {
            let body = html! { p { strong { "The bytes are in the archive" } " since " (time(&storage.since)) ". Restore them to read them." } };
            notice("quiet", "doc", "note", &body)
        }
        StorageState::Restoring => {
            let body = html! {
                p { strong { "The archive makes a copy that can be read." }
                    @if let Some(restore) = &storage.restore { " Asked " (time(&restore.requested_at)) ", expected " (time(&restore.expected_by)) "." } }
            };
            notice("quiet", "doc", "note", &body)
        }
        StorageState::Hot | StorageState::Archiving | StorageState::Restored => html! {},
    }
}

/// The facts, with the forms that are possible.
pub(super) fn storage(page: &ArtifactPage<'_>) -> Markup {
    let storage = &page.detail.storage;
    let words = match storage.state {
        StorageState::Hot => "hot: it can be read at once",
        StorageState::Archiving => "archiving: it can be read until the storage moves it",
        StorageState::Archived => "archived",
        StorageState::Restoring => "restoring",
        StorageState::Restored => "restored: a copy can be read",
        StorageState::Deleting => "deleting: its bytes go within minutes",
        StorageState::Deleted => "deleted",
    };
    let mut list = vec![("State", html! { (words) }), ("Since", time(&storage.since))];
    if let Some(until) = &storage.restored_until {
        list.push(("Until", time(until)));
    }
    if let Some(restore) = &storage.restore {
        list.push(("Restore", html! { (restore.tier.as_str()) ", for " (restore.days) " days" }));
    }
    if let Some(actor) = &storage.actor {
        list.push(("By", html! { bdi { (visible(actor)) } }));
    }
    // Of a deletion it is above the content.
    if let Some(reason) = storage.reason.as_deref().filter(|_| !storage.state.is_gone()) {
        list.push(("Reason", html! { bdi { (visible(reason)) } }));
    }
    if let Some(problem) = &storage.problem {
        list.push(("Problem", html! { bdi { (visible(problem)) } }));
    }
    let can_restore =
        matches!(storage.state, StorageState::Archived | StorageState::Archiving | StorageState::Restored);
    let body = html! {
        (pairs(list))
        @if !storage.state.is_gone() {
            div.actions {
                @if can_restore { (restore(page)) }
                (delete(page))
            }
        }
    };
    section("storage", "Storage", &html! {}, &body)
}

fn form(page: &ArtifactPage<'_>, verb: &str, fields: &Markup) -> Markup {
    let refused = page.refused.filter(|refused| refused.verb == verb);
    let actor = page.refused.map_or("", |refused| refused.actor);
    html! {
        form.form method="post" action=(page.base.to(&format!("artifacts/{}/{verb}", page.detail.artifact.id))) {
            input type="hidden" name="csrf" value=(page.token);
            (fields)
            (actor_field(&format!("{verb}-actor"), actor, None))
            div.actions {
                @if verb == "delete" { button.danger type="submit" { "Delete the bytes" } }
                @else { button.primary type="submit" { "Restore" } }
            }
            @if refused.is_some() { p.note { "Nothing was changed." } }
        }
    }
}

fn restore(page: &ArtifactPage<'_>) -> Markup {
    let fields = html! {
        p { "The archive makes a copy that can be read for some days. Until it is there the state is restoring." }
        div.field {
            label for="restore-days" { "Days" }
            input #restore-days name="days" type="number" required min=(RESTORE_DAYS.start()) max=(RESTORE_DAYS.end()) value=(DAYS);
        }
        div.field {
            label for="restore-tier" { "Speed " span.note { "minutes, hours, or half a day; the faster, the more it costs" } }
            select #restore-tier name="tier" {
                @for tier in TIERS { option value=(tier) selected[tier == "standard"] { (tier) } }
            }
        }
    };
    let is_open = page.refused.is_some_and(|refused| refused.verb == "restore");
    menu("menu-restore", &html! { "Restore…" }, None, is_open, &form(page, "restore", &fields))
}

fn delete(page: &ArtifactPage<'_>) -> Markup {
    let typed = page.refused.filter(|refused| refused.verb == "delete").map_or("", |refused| refused.reason);
    let fields = html! {
        p { "The bytes are deleted for ever. Name, sha256, lineage and proofs stay, and say who deleted it and why." }
        div.field {
            label for="delete-reason" { "Reason" }
            input #delete-reason name="reason" required maxlength=(MAX_REASON_CHARS) autocomplete="off" value=(typed);
        }
    };
    let is_open = page.refused.is_some_and(|refused| refused.verb == "delete");
    menu("menu-delete", &html! { "Delete…" }, None, is_open, &form(page, "delete", &fields))
}
