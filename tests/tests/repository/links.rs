//! Every relative link in the documentation has a target, and every named file exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the checkout").to_owned()
}

/// The pages of the checkout by relative path.
fn pages(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
    const SKIPPED: [&str; 4] = ["target", "node_modules", ".local", ".git"];
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.file_name().is_some_and(|name| SKIPPED.iter().any(|other| name == *other)) {
            continue;
        }
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            let text = fs::read_to_string(&path).expect("a page");
            found.insert(path.strip_prefix(root()).expect("below the root").to_owned(), text);
        }
    }
}

/// The lines of a page outside fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// The code spans of a line, and the rest of the line.
fn code_spans(line: &str) -> (Vec<&str>, String) {
    let parts: Vec<&str> = line.split('`').collect();
    let (code, text): (Vec<_>, Vec<_>) = parts.into_iter().enumerate().partition(|(at, _)| at % 2 == 1);
    (code.into_iter().map(|(_, part)| part).collect(), text.into_iter().map(|(_, part)| part).collect())
}

/// The relative targets of `[text](target)` in a line.
fn links(line: &str) -> Vec<String> {
    let (_, text) = code_spans(line);
    let targets = text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()));
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:")).collect()
}

/// The anchors that GitHub gives the headings of a page.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let kept = line.trim_start_matches('#').trim().to_lowercase();
            let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
            let times = seen.entry(anchor.clone()).or_default();
            *times += 1;
            if *times == 1 { anchor } else { format!("{anchor}-{}", *times - 1) }
        })
        .collect()
}

fn all_pages() -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    pages(&root(), &mut found);
    assert!(found.len() > 8, "too few pages; did they move? {:?}", found.keys());
    found
}

#[test]
fn every_relative_link_has_a_target() {
    let pages = all_pages();
    let (mut checked, mut broken) = (0, Vec::new());
    for (page, text) in &pages {
        for link in prose(text).flat_map(links) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { root().join(page) } else { root().join(page).with_file_name(file) };
            let Ok(target) = target.canonicalize() else {
                broken.push(format!("{}: {link}: no such file", page.display()));
                continue;
            };
            if !anchor.is_empty() && !anchors(&fs::read_to_string(&target).expect("a page")).contains(anchor) {
                broken.push(format!("{}: {link}: no such heading", page.display()));
            }
            checked += 1;
        }
    }
    assert!(checked > 20, "only {checked} links were found");
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

/// Whether this is a path in the checkout: it starts with a folder at the root and has no placeholder.
fn is_path(text: &str) -> bool {
    let folder = text.split('/').next().unwrap_or_default();
    text.contains('/')
        && !text.contains(|c: char| c.is_whitespace() || "*<>{}$()".contains(c))
        && !text.contains("NNNN")
        && !folder.is_empty()
        && !["target", ".local"].contains(&folder)
        && root().join(folder).is_dir()
}

#[test]
fn every_file_named_on_a_page_exists() {
    let (mut checked, mut missing) = (0, Vec::new());
    for (page, text) in all_pages() {
        for path in prose(&text).flat_map(|line| code_spans(line).0).filter(|code| is_path(code)) {
            let next_to_page = root().join(&page).with_file_name(path);
            if !root().join(path).exists() && !next_to_page.exists() {
                missing.push(format!("{}: {path}", page.display()));
            }
            checked += 1;
        }
    }
    assert!(checked > 30, "only {checked} paths were found");
    assert!(missing.is_empty(), "named, but missing:\n{}", missing.join("\n"));
}

#[test]
fn links_and_anchors_are_parsed_like_githubs() {
    let page = "# `codegen` inputs\n## A b-c: d?\n## A b-c: d?\n```sh\n# no heading [no](link)\n```\n\
                [a](b.md#c) `[no](link)` [web](https://example.org) [here](#there)";
    let expected = ["a-b-c-d", "a-b-c-d-1", "codegen-inputs"];
    assert_eq!(anchors(page), expected.map(str::to_owned).into());
    assert_eq!(prose(page).flat_map(links).collect::<Vec<_>>(), ["b.md#c", "#there"]);
}
