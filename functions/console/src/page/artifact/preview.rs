//! What an artifact holds. Nothing of it runs: text is escaped, and only pictures are shown as what they are.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::{ArtifactPage, Stored};
use crate::archive::{End, Listing, PackedFile};
use crate::content::{Content, Image};
use crate::page::format;
use crate::page::icon::icon;
use crate::page::json::pretty;
use crate::page::markdown::markdown;
use crate::page::parts::{fold, many, section};
use crate::page::source::{lines, visible};

/// Lines of a text.
const LINES: usize = 2_000;
/// A longer text scrolls in its frame, so that what is below it stays near.
const TALL: usize = 40;
/// Characters that take as much room, if they are on few lines.
const TALL_CHARACTERS: usize = 4_000;

/// What is in the frame of a preview.
struct Framed {
    note: String,
    /// Whether it scrolls.
    is_tall: bool,
    /// Whether the end is missing.
    is_cut: bool,
    body: Markup,
}

pub(super) fn preview(page: &ArtifactPage<'_>, stored: &Stored) -> Markup {
    let body = match &stored.content {
        _ if page.detail.artifact.size_bytes == 0 => nothing(page, "It is empty", "The artifact has no bytes."),
        Content::Markdown(text) => of_markdown(page, stored, text),
        Content::Json(text) => of_json(page, stored, text),
        Content::Text(text) => of_text(page, stored, text),
        Content::Image(image) => picture(page, stored, *image),
        Content::Archive => archive(page, stored.files.as_ref()),
        Content::Other(what) => nothing(page, "No preview", &format!("It is {what}. Download it to open it.")),
    };
    section("preview", "Preview", &html! {}, &body)
}

fn is_part(page: &ArtifactPage<'_>, stored: &Stored) -> bool {
    stored.shown_bytes < page.detail.artifact.size_bytes
}

fn of_markdown(page: &ArtifactPage<'_>, stored: &Stored, text: &str) -> Markup {
    let shown = markdown(text);
    let left_out = shown.left_out.words();
    let note = if left_out.is_empty() { "rendered".to_owned() } else { format!("rendered without {left_out}") };
    let is_tall = is_tall(text);
    let is_cut = shown.is_cut || is_part(page, stored);
    html! {
        (frame(page, &Framed { note, is_tall, is_cut, body: html! { div.markdown { (shown.markup) } } }))
        (fold("Source", "as stored", false, &of_text(page, stored, text)))
    }
}

fn of_json(page: &ArtifactPage<'_>, stored: &Stored, text: &str) -> Markup {
    let shown = pretty(text);
    let is_tall = is_tall(text) || shown.markup.0.lines().count() > TALL;
    let body = html! { pre.output { (shown.markup) } };
    frame(page, &Framed { note: "indented".into(), is_tall, is_cut: shown.is_cut || is_part(page, stored), body })
}

fn of_text(page: &ArtifactPage<'_>, stored: &Stored, text: &str) -> Markup {
    let all: Vec<String> = text.lines().take(LINES + 1).map(str::to_owned).collect();
    let shown = &all[..all.len().min(LINES)];
    let is_cut = all.len() > LINES || is_part(page, stored);
    let count = many(shown.len() as u64, "line", "lines");
    let is_within_line = all.len() == 1 && is_part(page, stored);
    let note = match is_cut {
        true if is_within_line => "the beginning of the first line".to_owned(),
        true => beginning(&count),
        false => count,
    };
    let body = html! { div.code { (lines(1, shown, &BTreeMap::new())) } };
    html! {
        @if let Some(why) = not_rendered(&page.detail.artifact.media_type) { p.note { (why) } }
        (frame(page, &Framed { note, is_tall: is_tall(text), is_cut, body }))
    }
}

fn is_tall(text: &str) -> bool {
    text.lines().count() > TALL || text.len() > TALL_CHARACTERS
}

/// Why a text is shown as its source, although its media type promises more.
fn not_rendered(media_type: &str) -> Option<&'static str> {
    let media_type = media_type.to_ascii_lowercase();
    if media_type.starts_with("image/svg") {
        Some("An SVG can run scripts, so this is its source.")
    } else if media_type.contains("html") {
        Some("A page of HTML can run scripts, so this is its source.")
    } else if media_type.starts_with("image/") {
        Some("It says that it is a picture, and its bytes are text.")
    } else {
        None
    }
}

fn picture(page: &ArtifactPage<'_>, stored: &Stored, image: Image) -> Markup {
    let Some(url) = &stored.image_url else {
        return nothing(page, "No preview", "The picture is too large for this page. Download it to see it.");
    };
    let alt = format!("Preview of {}", visible(&page.detail.name));
    let (width, height) = image.size.unzip();
    let note = image.size.map(|(width, height)| format!("{width} × {height}")).unwrap_or_default();
    let body = html! {
        div.picture { img src=(url) width=[width] height=[height] alt=(alt) referrerpolicy="no-referrer"; }
    };
    frame(page, &Framed { note, is_tall: false, is_cut: false, body })
}

fn archive(page: &ArtifactPage<'_>, files: Option<&Listing>) -> Markup {
    let Some(files) = files.filter(|files| files.count > 0) else {
        return nothing(
            page,
            "No preview",
            "It is compressed, and this page finds no files in it. Download it to open it.",
        );
    };
    let count = many(files.count, "file", "files");
    let note = match files.end {
        End::Whole => format!("{count}, {} unpacked", format::size(files.bytes)),
        End::Cut | End::Damaged => beginning(&count),
    };
    let body = html! { ul.files.slim { @for file in &files.files { (packed(file)) } } };
    let rest = files.count.saturating_sub(files.files.len() as u64);
    html! {
        (frame(page, &Framed { note, is_tall: files.files.len() > TALL / 2, is_cut: false, body }))
        @if rest > 0 { p.note { "And " (many(rest, "more file", "more files")) ". The download has all of them." } }
        @match files.end {
            End::Whole => {}
            End::Cut => p.note { "This page reads only the beginning of a large archive." },
            End::Damaged => p.note { strong { "The archive is damaged: " } "after these files it cannot be read." },
        }
    }
}

/// `the first 3 lines`, `the first line`.
fn beginning(count: &str) -> String {
    format!("the first {}", count.strip_prefix("1 ").unwrap_or(count))
}

fn packed(file: &PackedFile) -> Markup {
    html! {
        li {
            (icon("doc", "quiet"))
            code { bdi { (visible(&file.path)) } }
            span.note { @if let Some(target) = &file.target { "→ " bdi { (visible(target)) } } }
            span.note.number { (format::size(file.size_bytes)) }
        }
    }
}

fn frame(page: &ArtifactPage<'_>, framed: &Framed) -> Markup {
    let artifact = &page.detail.artifact;
    html! {
        figure.file {
            figcaption {
                code { bdi { (visible(&page.detail.name)) } }
                @if !framed.note.is_empty() { span.note { (framed.note) } }
            }
            @if framed.is_tall { div.tall tabindex="0" role="region" aria-label="Content" { (framed.body) } }
            @else { (framed.body) }
        }
        @if framed.is_cut {
            p.note { "This is the beginning of " (format::size(artifact.size_bytes)) ". The download has all of it." }
        }
    }
}

fn nothing(page: &ArtifactPage<'_>, title: &str, sentence: &str) -> Markup {
    let artifact = &page.detail.artifact;
    html! {
        div.blank {
            h3 { (title) }
            p.note.prose { (sentence) }
            p.note { (many(artifact.size_bytes, "byte", "bytes")) ", recorded as " code { bdi { (visible(&artifact.media_type)) } } }
        }
    }
}
