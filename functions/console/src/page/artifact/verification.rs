//! What vouches for the bytes of an artifact: the digest of its row, and for a gate the signature of its evidence. It says
//! only what was checked for this very page.

use maud::{Markup, html};

use super::{ArtifactPage, Unreadable, step_href};
use crate::page::EVIDENCE;
use crate::page::format;
use crate::page::icon::{Look, icon};
use crate::page::json::pretty;
use crate::page::parts::{fold, hash, notice, section};
use crate::page::source::visible;
use crate::signature::{Signature, Signed};

/// What a reader must see before the content.
pub(super) fn notices(page: &ArtifactPage<'_>) -> Markup {
    html! {
        @if let Err(why) = page.stored { (unreadable(page, why)) }
        @if let Some(signature) = page.signature { (of_gate(page, signature)) }
    }
}

fn unreadable(page: &ArtifactPage<'_>, why: &Unreadable) -> Markup {
    let body = match why {
        Unreadable::Gone => html! {
            p { strong { "The bytes are gone." } " The storage has no object at this address: somebody deleted it, or a rule of the bucket did." }
            p.note { code { bdi { (visible(&page.detail.artifact.uri)) } } }
        },
        Unreadable::Changed => html! {
            p { strong { "The bytes are not those that were recorded." } " Somebody changed the object after the step had stored it. Steps that read it fail." }
            p { "Do not rely on it. If the bucket keeps versions, an earlier one has the sha256 of this page." }
        },
        Unreadable::Refused(why) => html! {
            p { strong { "The storage refuses to return the bytes." } " " bdi { (visible(why)) } "." }
        },
        Unreadable::Stored => return html! {},
        Unreadable::Away => html! {
            p { strong { "The bytes cannot be read now." } " The storage does not answer, or it refuses this console. The log has the cause." }
            p { a href="" { "Try again" } }
        },
    };
    match why {
        Unreadable::Gone | Unreadable::Changed => notice("bad", "bad", "alert", &body),
        Unreadable::Refused(_) | Unreadable::Away | Unreadable::Stored => notice("warn", "decide", "alert", &body),
    }
}

/// What the signature of a gate says.
fn of_gate(page: &ArtifactPage<'_>, signature: &Signature) -> Markup {
    let judged = html! { @if let Some(href) = step_href(page) { p { a href=(href) { "Read what the gate found" } } } };
    match signature {
        // The signature is over the recorded digest, so it says nothing about other bytes.
        Signature::Valid(_) if page.stored.is_err() => html! {},
        Signature::Valid(signed) if !page.stored.is_ok_and(|stored| stored.is_verified) => {
            let body = html! {
                p { strong { "The signature is valid for the recorded sha256." } " The gate says " strong { (signed.result) }
                    ". The bytes were not compared with it: " code { "nofx verify" } " does that." }
                (judged)
            };
            notice("quiet", "doc", "note", &body)
        }
        Signature::Valid(signed) => {
            let what = if page.detail.kind == EVIDENCE {
                "The signature of this evidence is valid."
            } else {
                "The signature is valid."
            };
            let body = html! { p { strong { (what) } " The gate says " strong { (signed.result) } ". " (meaning(signed.result)) } (judged) };
            let (tone, symbol) = if signed.result == "PASSED" { ("good", "good") } else { ("quiet", "doc") };
            notice(tone, symbol, "note", &body)
        }
        Signature::Wrong(why) => {
            let body = html! { p { strong { "The signature proves nothing: " } bdi { (visible(why)) } "." } p { "Do not rely on this gate." } (judged) };
            notice("bad", "bad", "alert", &body)
        }
        Signature::Missing => {
            let body = html! { p { strong { "Nobody signed this evidence." } " Nothing shows that a gate wrote it." } (judged) };
            notice("warn", "decide", "note", &body)
        }
        Signature::Unchecked(why) => {
            let body = html! { p { strong { "The signature was not checked: " } bdi { (visible(why)) } "." } (judged) };
            notice("warn", "decide", "note", &body)
        }
    }
}

fn meaning(result: &str) -> &'static str {
    match result {
        "WARNED" => "It passed, and a reader should know more: the step says what.",
        "FAILED" => "The change did not pass.",
        _ => "",
    }
}

/// What was checked just now, and what that means.
pub(super) fn verification(page: &ArtifactPage<'_>) -> Markup {
    let (look, note) = compared(page);
    let body = html! {
        (state(look))
        p.note { (note) }
        @if let Some(signature) = page.signature { (signed(page, signature)) }
    };
    section("checked", "Verification", &html! { p.note { "checked for this page" } }, &body)
}

fn state(look: Look) -> Markup {
    html! { p.state { (icon(look.symbol, look.tone)) span { (look.word) } } }
}

/// Whether the bytes have the recorded digest.
fn compared(page: &ArtifactPage<'_>) -> (Look, String) {
    let quiet = |word| Look { symbol: "pending", tone: "quiet", word };
    match page.stored {
        Ok(stored) if stored.is_verified => {
            let look = Look { symbol: "good", tone: "good", word: "The bytes match the recorded sha256." };
            (look, "All of them were read and compared just now. Steps that read them do the same.".into())
        }
        Ok(stored) => {
            let read = format::size(stored.read_bytes);
            let note = format!(
                "This page read only the first {read}. The size matches. Steps that read the artifact compare its sha256, and so does nofx get."
            );
            (quiet("The sha256 was not compared."), note)
        }
        Err(Unreadable::Gone) => (
            Look { symbol: "bad", tone: "bad", word: "There are no bytes to compare." },
            "The recorded sha256 tells whether a copy is the right one.".into(),
        ),
        Err(Unreadable::Changed) => (
            Look { symbol: "bad", tone: "bad", word: "The bytes do not match the record." },
            "Their size or their sha256 is another one.".into(),
        ),
        Err(Unreadable::Refused(_) | Unreadable::Away | Unreadable::Stored) => {
            (quiet("The sha256 was not compared."), "The bytes cannot be read now.".into())
        }
    }
}

fn signed(page: &ArtifactPage<'_>, signature: &Signature) -> Markup {
    let look = match signature {
        Signature::Valid(_) => match page.stored {
            Ok(stored) if stored.is_verified => {
                Look { symbol: "good", tone: "good", word: "A key of this system signed it." }
            }
            // The signature is over the recorded digest.
            Err(Unreadable::Changed) => {
                Look { symbol: "bad", tone: "bad", word: "A key of this system signed other bytes than these." }
            }
            _ => Look { symbol: "pending", tone: "quiet", word: "A key of this system signed the recorded sha256." },
        },
        Signature::Wrong(_) => Look { symbol: "bad", tone: "bad", word: "The signature is not valid." },
        Signature::Unchecked(_) => Look { symbol: "pending", tone: "quiet", word: "The signature was not checked." },
        Signature::Missing => Look { symbol: "decide", tone: "warn", word: "There is no attestation." },
    };
    html! {
        (state(look))
        @if let Signature::Valid(signed) = signature { (proved(page, signed)) }
        @if let Some((href, words)) = other_half(page) { p { a href=(href) { (words) } } }
    }
}

fn other_half(page: &ArtifactPage<'_>) -> Option<(String, &'static str)> {
    let signed = page.detail.signed.as_ref()?;
    let (artifact, words) = if page.detail.kind == EVIDENCE {
        (&signed.attestation, "The attestation")
    } else {
        (&signed.evidence, "The evidence that it is about")
    };
    artifact.as_ref().map(|artifact| (page.base.to(&format!("artifacts/{}", artifact.id)), words))
}

/// What a valid signature proves, and what it does not.
fn proved(page: &ArtifactPage<'_>, signed: &Signed) -> Markup {
    let is_evidence = page.detail.kind == EVIDENCE;
    let body = html! {
        ul.doubts {
            li { "Whoever held the key signed the result " strong { (signed.result) } @if !is_evidence { ", and named the digest of the evidence" } "." }
            @if is_evidence {
                li {
                    @match page.stored {
                        Ok(stored) if stored.is_verified => "The signed statement names the sha256 of this evidence.",
                        Err(Unreadable::Changed) => {
                            "The signed statement names the sha256 of the evidence that was recorded. " strong { "These bytes have another one." }
                        }
                        _ => "The signed statement names the recorded sha256. The bytes were not compared with it.",
                    }
                }
            }
            @for subject in &signed.subjects { li { "It is about " (subject.name) " " code.hash { bdi { (visible(&subject.digest)) } } } }
        }
        p { strong { "It does not prove" } " that the checks were good ones, or that nobody else held the key. This console asked its own list of keys; "
            "to trust nobody, keep the public key and run " code { "nofx verify" } "." }
    };
    html! {
        @for keyid in &signed.keyids { p.note { "Key " (hash(keyid, "id of the key")) } }
        (fold("What that proves", "", false, &body))
    }
}

/// The signed statement, which the envelope only has in base64.
pub(super) fn statement(page: &ArtifactPage<'_>) -> Markup {
    let Some(Signature::Valid(signed)) = page.signature.filter(|_| page.detail.kind != EVIDENCE) else {
        return html! {};
    };
    let shown = pretty(&signed.statement);
    let body = html! {
        pre.output tabindex="0" role="region" aria-label="Statement" { (shown.markup) }
        @if shown.is_cut { p.note { "This is the beginning. The download has all of it." } }
    };
    section("statement", "What is signed", &html! { p.note { "an in-toto statement" } }, &body)
}
