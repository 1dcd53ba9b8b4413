//! What an artifact holds. Nothing of it runs: text is escaped, and only pictures are shown as what they are.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::{ArtifactPage, Stored};
use crate::content::{Content, Image};
use crate::page::format;
use crate::page::json::pretty;
use crate::page::markdown::markdown;
use crate::page::parts::many;
use crate::page::source::{lines, visible};

/// Lines of a text.
const LINES: usize = 2_000;

pub(super) fn preview(page: &ArtifactPage<'_>) -> Markup {
    let Ok(stored) = page.stored else {
        return nothing("The bytes cannot be read", "The row of the artifact is all that is here.");
    };
    if page.detail.artifact.size_bytes == 0 {
        return nothing("It is empty", "The artifact has no bytes.");
    }
    match &stored.content {
        Content::Markdown(text) => {
            let shown = markdown(text);
            let note = if shown.left_out > 0 { "rendered; HTML and images are left out" } else { "rendered" };
            frame(page, note, shown.is_cut || is_part(page, stored), &html! { div.markdown { (shown.markup) } })
        }
        Content::Json(text) => {
            let shown = pretty(text);
            let body = html! { pre.output tabindex="0" role="region" aria-label="JSON" { (shown.markup) } };
            frame(page, "indented", shown.is_cut || is_part(page, stored), &body)
        }
        Content::Text(text) => of_text(page, stored, text),
        Content::Image(image) => picture(page, stored, *image),
        Content::Archive => nothing("No preview of an archive", "Download it to see its files."),
        Content::Binary => nothing("No preview", "It is neither text nor a picture. Download it."),
    }
}

fn is_part(page: &ArtifactPage<'_>, stored: &Stored) -> bool {
    stored.shown_bytes < page.detail.artifact.size_bytes
}

fn of_text(page: &ArtifactPage<'_>, stored: &Stored, text: &str) -> Markup {
    let all: Vec<String> = text.lines().take(LINES + 1).map(str::to_owned).collect();
    let shown = &all[..all.len().min(LINES)];
    let is_cut = all.len() > LINES || is_part(page, stored);
    let note = if is_cut {
        format!("the first {}", many(shown.len() as u64, "line", "lines"))
    } else {
        many(shown.len() as u64, "line", "lines")
    };
    frame(page, &note, is_cut, &html! { div.code { (lines(1, shown, &BTreeMap::new())) } })
}

fn picture(page: &ArtifactPage<'_>, stored: &Stored, image: Image) -> Markup {
    let Some(url) = &stored.image_url else {
        return nothing("The picture is too large for this page", "Download it.");
    };
    let alt = format!("Preview of {}", visible(&page.detail.name));
    let (width, height) = image.size.unzip();
    let note = image.size.map(|(width, height)| format!("{width} × {height}")).unwrap_or_default();
    frame(
        page,
        &note,
        false,
        &html! {
            div.picture { img src=(url) width=[width] height=[height] alt=(alt) referrerpolicy="no-referrer"; }
        },
    )
}

fn frame(page: &ArtifactPage<'_>, note: &str, is_cut: bool, body: &Markup) -> Markup {
    let artifact = &page.detail.artifact;
    html! {
        figure.file {
            figcaption { code { bdi { (visible(&page.detail.name)) } } @if !note.is_empty() { span.note { (note) } } }
            (body)
        }
        @if is_cut { p.note { "This is the beginning of " (format::size(artifact.size_bytes)) ". The download has all of it." } }
    }
}

fn nothing(title: &str, sentence: &str) -> Markup {
    html! { div.blank { h3 { (title) } p.note.prose { (sentence) } } }
}
