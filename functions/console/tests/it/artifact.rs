//! The page of an artifact. Whoever stored it chose its bytes, its name and its media type.

use console::archive::{End, Listing, PackedFile};
use console::content::{Content, Image};
use console::page::{ArtifactPage, Base, RefusedStorage, StoredArtifact as Stored, Unreadable, artifact_page};
use console::signature::{Signature, Signed, Subject};
use serde_json::{Value, json};
use shared::db::console::ArtifactDetail;

use crate::support::{HOSTILE, assert_inert, get, run_id};

const PARENT: &str = "0198c0de-0000-7000-8000-00000000000a";
const CHILD: &str = "0198c0de-0000-7000-8000-00000000000b";

/// An artifact with `text` wherever somebody could put it, with one parent and one child.
pub fn artifact(text: &str, kind: &str) -> ArtifactDetail {
    let id = run_id();
    let reference =
        |id: &Value| json!({"id": id, "uri": text, "hash": "c0de", "size_bytes": 70_000, "media_type": text});
    let near = |id: &Value| {
        json!({"id": id, "run_id": run_id(), "step_id": run_id(), "step": text, "attempt": 2, "name": text, "type": text,
               "hash": text, "ordinal": 7})
    };
    let (here, parent, child) = (json!(id), json!(PARENT), json!(CHILD));
    let detail = json!({
        "artifact": reference(&here), "name": text, "type": kind, "created_at": "2026-11-23T10:00:00Z", "run_id": id,
        "goal": text, "step": text, "ordinal": 4, "attempt": 2,
        "metadata": {"text": json!({text: text}).to_string(), "bytes": 90_000},
        "nodes": [near(&here), near(&parent), near(&child)],
        "edges": [{"from": parent, "to": here}, {"from": here, "to": child}], "truncated": true,
        "signed": (kind.starts_with("gate_")).then(|| json!({"attestation": reference(&child), "evidence": reference(&here)})),
        "waiting": 3, "storage": storage("hot", text),
    });
    serde_json::from_value(detail).expect("an artifact")
}

/// Where the bytes of an artifact are, with `text` in every text field.
fn storage(state: &str, text: &str) -> Value {
    let at = "2026-11-23T10:00:00Z";
    let restore = json!({"days": 7, "tier": "bulk", "requested_at": at, "expected_by": at});
    json!({"state": state, "since": at, "restored_until": at, "restore": restore, "actor": text, "reason": text,
           "problem": text})
}

pub fn stored(content: Content) -> Stored {
    Stored { content, is_verified: true, read_bytes: 70_000, shown_bytes: 65_536, files: None, image_url: None }
}

pub fn page(detail: &ArtifactDetail, stored: Result<&Stored, &Unreadable>, signature: Option<&Signature>) -> String {
    artifact_page(&ArtifactPage { base: Base::RUN, token: "t", detail, refused: None, stored, signature })
}

fn listing(text: &str, end: End) -> Listing {
    let file = |target: Option<&str>| PackedFile { path: text.into(), size_bytes: 9, target: target.map(Into::into) };
    Listing { files: vec![file(None), file(Some(text))], count: 900, bytes: 5_000, end }
}

fn signed(text: &str) -> Signature {
    let subjects = vec![Subject { name: "the tree", digest: text.into() }];
    let statement = json!({ text: text }).to_string();
    Signature::Valid(Signed { keyids: vec!["c0de".into()], result: "PASSED", subjects, statement })
}

/// Every kind of content and every state, with `text` in each.
fn pages(text: &str) -> Vec<String> {
    let (plain, evidence, attestation) =
        (artifact(text, "text"), artifact(text, "gate_evidence"), artifact(text, "gate_attestation"));
    let archive = |end| Stored { files: Some(listing(text, end)), ..stored(Content::Archive) };
    let contents = [
        stored(Content::Text(text.into())),
        stored(Content::Markdown(format!("{text}\n\n# {text}\n\n[{text}]({text})\n\n`{text}`"))),
        stored(Content::Json(json!({ text: [text] }).to_string())),
        archive(End::Whole),
        archive(End::Damaged),
        stored(Content::Archive),
        stored(Content::Other("a zip archive")),
        stored(Content::Image(Image { media_type: "image/png", size: None })),
    ];
    let states = [Unreadable::Gone, Unreadable::Changed, Unreadable::Refused(text.into()), Unreadable::Away];
    let signatures =
        [signed(text), Signature::Wrong(text.into()), Signature::Unchecked(text.into()), Signature::Missing];
    let content = stored(Content::Json("{}".into()));
    let shown = contents.iter().map(|stored| page(&plain, Ok(stored), None));
    let unreadable = states.iter().map(|why| page(&plain, Err(why), None));
    let of_gates = signatures
        .iter()
        .flat_map(|signature| [&evidence, &attestation].map(|detail| page(detail, Ok(&content), Some(signature))));
    let archived = ["archiving", "archived", "restoring", "restored", "deleting", "deleted"].map(|state| {
        let kept = ArtifactDetail {
            storage: serde_json::from_value(storage(state, text)).expect("a storage"),
            ..artifact(text, "text")
        };
        // What somebody typed goes back into its field as it is.
        let typed = text.replace(['\u{202e}', '\u{200b}', '\u{1b}'], "");
        let refusal = |verb| RefusedStorage { verb, actor: &typed, reason: &typed, why: text };
        let refused = ["restore", "delete"].map(refusal);
        refused.map(|refused| {
            let (base, stored) = (Base::GATE, Err(&Unreadable::Stored));
            let (token, refused) = ("t", Some(refused));
            artifact_page(&ArtifactPage { base, token, detail: &kept, refused, stored, signature: None })
        })
    });
    shown.chain(unreadable).chain(of_gates).chain(archived.into_iter().flatten()).collect()
}

#[test]
fn hostile_text_in_an_artifact_is_inert() {
    for text in HOSTILE {
        for page in pages(text) {
            assert_inert(&page, text);
        }
    }
}

#[test]
fn text_of_an_artifact_cannot_change_its_direction_or_hide() {
    for page in pages("a\u{202e}b\u{200b}\u{1b}[31m") {
        let shown = page.split("<h1>").nth(1).expect("a title");
        assert!(!shown.contains(['\u{202e}', '\u{200b}', '\u{1b}']) && shown.contains("⟨U+202E⟩"), "{shown}");
    }
}

#[test]
fn no_link_of_an_artifact_is_one_of_the_page() {
    let hostile =
        "[a](javascript:alert(1)) <https://evil.test> ![p](https://evil.test/p.png) <a href=\"//evil.test\">b</a>";
    let shown = page(&artifact("x", "text"), Ok(&stored(Content::Markdown(hostile.into()))), None);
    assert!(!shown.contains("href=\"javascript:") && !shown.contains("href=\"//") && !shown.contains("href=\"http"));
    assert!(!shown.contains("<img"), "{shown}");
}

#[test]
fn only_a_picture_is_an_image_and_only_from_its_signed_address() {
    let image = Content::Image(Image { media_type: "image/png", size: Some((640, 240)) });
    let small = Stored { image_url: Some("https://store.test/a.png?a=1&b=\"".into()), ..stored(image.clone()) };
    let shown = page(&artifact("x", "image"), Ok(&small), None);
    assert_eq!(shown.matches("<img").count(), 1);
    assert!(shown.contains(
        "<img src=\"https://store.test/a.png?a=1&amp;b=&quot;\" width=\"640\" height=\"240\" alt=\"Preview of x\" referrerpolicy=\"no-referrer\">"
    ));
    let large = page(&artifact("x", "image"), Ok(&stored(image)), None);
    assert!(!large.contains("<img") && large.contains("too large for this page"));
    for (media_type, words) in [
        ("image/svg+xml", "An SVG can run scripts"),
        ("text/html; charset=utf-8", "HTML can run scripts"),
        ("image/png", "its bytes are text"),
    ] {
        let mut detail = artifact("x", "image");
        detail.artifact.media_type = media_type.into();
        let shown = page(&detail, Ok(&stored(Content::Text("<svg/>".into()))), None);
        assert!(shown.contains(words) && !shown.contains("<img") && shown.contains("&lt;svg/&gt;"), "{media_type}");
    }
}

#[test]
fn files_of_an_archive_are_listed_with_what_is_missing() {
    let shown = |end| {
        let stored = Stored { files: Some(listing("src/a.ts", end)), ..stored(Content::Archive) };
        page(&artifact("x", "workspace"), Ok(&stored), None)
    };
    let whole = shown(End::Whole);
    assert!(
        whole.contains("900 files, 4.8") && whole.contains("And 898 more files") && whole.contains("→ <bdi>src/a.ts")
    );
    assert!(shown(End::Cut).contains("only the beginning of a large archive"));
    assert!(shown(End::Damaged).contains("The archive is damaged"));
}

#[test]
fn nothing_is_called_checked_that_was_not_checked_for_this_page() {
    let detail = artifact("x", "text");
    let (whole, part) =
        (stored(Content::Text("x".into())), Stored { is_verified: false, ..stored(Content::Text("x".into())) });
    let matches = "The bytes match the recorded sha256";
    assert!(page(&detail, Ok(&whole), None).contains(matches));
    let shown = page(&detail, Ok(&part), None);
    assert!(
        !shown.contains(matches)
            && shown.contains("The sha256 was not compared")
            && shown.contains("only the first 68")
    );
    for why in [Unreadable::Gone, Unreadable::Changed, Unreadable::Refused("no".into()), Unreadable::Away] {
        let shown = page(&detail, Err(&why), None);
        assert!(!shown.contains(matches) && !shown.to_lowercase().contains("verified"), "{why:?}");
    }
    // A signature is over the recorded digest: it vouches for no other bytes.
    let valid = signed("k");
    let evidence = artifact("x", "gate_evidence");
    assert!(page(&evidence, Ok(&whole), Some(&valid)).contains("The signature of this evidence is valid"));
    assert!(
        !page(&evidence, Err(&Unreadable::Changed), Some(&valid)).contains("The signature of this evidence is valid")
    );
    let tick = "A key of this system signed it.";
    assert!(page(&evidence, Ok(&whole), Some(&valid)).contains(tick));
    for stored in [Ok(&part), Err(&Unreadable::Changed), Err(&Unreadable::Gone), Err(&Unreadable::Away)] {
        let shown = page(&evidence, stored, Some(&valid));
        assert!(!shown.contains(tick) && !shown.contains("names the sha256 of this evidence"), "{stored:?}: {shown}");
    }
    let changed = page(&evidence, Err(&Unreadable::Changed), Some(&valid));
    assert!(changed.contains("signed other bytes than these") && !changed.contains("class=\"icon good\""), "{changed}");
    for (other, words) in [
        (Signature::Wrong("no key".into()), "proves nothing: </strong><bdi>no key"),
        (Signature::Unchecked("KMS".into()), "was not checked: </strong><bdi>KMS"),
        (Signature::Missing, "Nobody signed this evidence"),
    ] {
        let shown = page(&evidence, Ok(&whole), Some(&other));
        assert!(shown.contains(words) && !shown.contains("is valid"), "{shown}");
    }
}

#[test]
fn what_cannot_be_read_is_said_first_and_the_row_stays() {
    let detail = artifact("x", "text");
    for (why, words, has_download) in [
        (Unreadable::Gone, "The bytes are gone", false),
        (Unreadable::Changed, "not those that were recorded", true),
        (Unreadable::Refused("it is archived".into()), "it is archived", false),
        (Unreadable::Away, "cannot be read now", true),
    ] {
        let shown = page(&detail, Err(&why), None);
        let (said, facts) = (shown.find(words).expect(words), shown.find("id=\"facts\"").expect("facts"));
        assert!(said < facts && shown.contains("role=\"alert\"") && shown.contains("id=\"lineage\""), "{why:?}");
        assert_eq!(shown.contains("artifacts/signed?id="), has_download, "{why:?}");
    }
}

#[test]
fn parents_and_children_are_links_with_their_steps() {
    let shown = page(&artifact("x", "text"), Ok(&stored(Content::Text("x".into()))), None);
    for id in [PARENT, CHILD] {
        // In the graph and beside it.
        assert_eq!(shown.matches(&format!("href=\"../artifacts/{id}\"")).count(), 2, "{id}");
    }
    assert_eq!(shown.matches(&format!("href=\"../runs/{}/steps/7\"", run_id())).count(), 2);
    assert!(shown.contains(&format!("href=\"../runs/{}/steps/4?attempt=2\"", run_id())), "the step that made it");
    assert!(shown.contains("data-copy=\"c0de\" aria-label=\"Copy the sha256\""));
}

#[test]
fn a_large_artifact_stays_a_small_page() {
    let detail = artifact("x", "text");
    let long = ["x\n".repeat(32_000), "[1,".repeat(21_000), "- a\n".repeat(16_000), "<".repeat(65_536)];
    for text in long {
        for content in [Content::Text(text.clone()), Content::Json(text.clone()), Content::Markdown(text.clone())] {
            assert!(page(&detail, Ok(&stored(content)), None).len() < 800 << 10, "{text:.20}");
        }
    }
}

#[tokio::test]
async fn an_artifact_needs_a_database_and_a_valid_id() {
    assert_eq!(get(&format!("/ui/artifacts/{}", run_id())).await.status, 503);
    assert_eq!(get("/ui/artifacts/nonsense").await.status, 404);
}
