//! What vouches for the bytes of an artifact: the digest of its row, and for a gate the signature of its evidence.

use maud::{Markup, html};

use super::{ArtifactPage, step_href};
use crate::page::icon::{Look, icon};
use crate::page::json::pretty;
use crate::page::parts::{hash, notice, section};
use crate::page::source::visible;
use crate::signature::Signature;

/// What a reader must see before the content.
pub(super) fn notices(page: &ArtifactPage<'_>) -> Markup {
    html! {
        @if let Err(why) = page.stored {
            (notice("bad", "bad", "alert", &html! {
                p { strong { "Its bytes cannot be shown." } " " bdi { (visible(why)) } }
            }))
        }
        @if let Some(signature) = page.signature { (of_gate(page, signature)) }
    }
}

/// What the signature of a gate says.
fn of_gate(page: &ArtifactPage<'_>, signature: &Signature) -> Markup {
    let is_evidence = page.detail.kind == crate::page::EVIDENCE;
    let judged = step_href(page).map(|href| html! { p { a href=(href) { "Read what the gate found" } } });
    match signature {
        // The signature is over the recorded digest, so it says nothing about other bytes.
        Signature::Valid(_) if page.stored.is_err() => html! {},
        Signature::Valid(signed) => {
            let what = if is_evidence { "The signature of this evidence is valid." } else { "The signature is valid." };
            let body = html! {
                p { strong { (what) } " The gate says " strong { (signed.result) } ". Its key is one of this system, which vouches for itself: to trust "
                    "nobody, keep the key and run " code { "nofx verify" } "." }
                (judged.unwrap_or_default())
            };
            notice("good", "good", "note", &body)
        }
        Signature::Wrong(why) => {
            let body = html! { p { strong { "The signature proves nothing: " } bdi { (visible(why)) } "." } (judged.unwrap_or_default()) };
            notice("bad", "bad", "alert", &body)
        }
        Signature::Missing => {
            let body = html! { p { strong { "Nobody signed this evidence." } } (judged.unwrap_or_default()) };
            notice("warn", "decide", "note", &body)
        }
        Signature::Unchecked(why) => {
            let body = html! { p { strong { "The signature was not checked: " } bdi { (visible(why)) } "." } (judged.unwrap_or_default()) };
            notice("warn", "decide", "note", &body)
        }
    }
}

pub(super) fn verification(page: &ArtifactPage<'_>) -> Markup {
    let good = ("good", "good");
    let (tone, symbol, words, note) = match page.stored {
        Ok(stored) if stored.is_verified => (
            good.0,
            good.1,
            "The bytes match the recorded sha256.",
            "Compared just now, as each step does that reads it.",
        ),
        Ok(_) => (
            "quiet",
            "pending",
            "The digest was not compared.",
            "This page read only the beginning, and the size matches. Each step that reads it compares the digest, and so does nofx get.",
        ),
        Err(_) => (
            "bad",
            "bad",
            "The bytes were not compared.",
            "They cannot be read, or they are not those that were recorded.",
        ),
    };
    let body = html! {
        p.state { (icon(symbol, tone)) span { (words) } }
        p.note { (note) }
        @if let Some(signature) = page.signature { (signed(page, signature)) }
    };
    section("checked", "Verification", &html! {}, &body)
}

fn signed(page: &ArtifactPage<'_>, signature: &Signature) -> Markup {
    let Look { symbol, tone, word } = match signature {
        Signature::Valid(_) => Look { symbol: "good", tone: "good", word: "Signed by a key of this system." },
        Signature::Wrong(_) => Look { symbol: "bad", tone: "bad", word: "The signature is not valid." },
        Signature::Unchecked(_) => Look { symbol: "pending", tone: "quiet", word: "The signature was not checked." },
        Signature::Missing => Look { symbol: "pending", tone: "warn", word: "There is no attestation." },
    };
    let other = page.detail.signed.as_ref().and_then(|signed| {
        let is_evidence = page.detail.kind == crate::page::EVIDENCE;
        let (artifact, words) =
            if is_evidence { (&signed.attestation, "The attestation") } else { (&signed.evidence, "The evidence") };
        artifact.as_ref().map(|artifact| (page.base.to(&format!("artifacts/{}", artifact.id)), words))
    });
    html! {
        p.state { (icon(symbol, tone)) span { (word) } }
        @if let Signature::Valid(signed) = signature {
            @for keyid in &signed.keyids { p { "Key " (hash(keyid, "id of the key")) } }
        }
        @if let Some((href, words)) = other { p { a href=(href) { (words) } } }
    }
}

/// The signed statement, which the envelope only has in base64.
pub(super) fn statement(page: &ArtifactPage<'_>) -> Markup {
    let Some(Signature::Valid(signed)) = page.signature.filter(|_| page.detail.kind != crate::page::EVIDENCE) else {
        return html! {};
    };
    let body =
        html! { pre.output tabindex="0" role="region" aria-label="Statement" { (pretty(&signed.statement).markup) } };
    section("statement", "What is signed", &html! { p.note { "an in-toto statement" } }, &body)
}
