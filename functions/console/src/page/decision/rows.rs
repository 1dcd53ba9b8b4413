//! The rows that a `db_write` writes. A reader must be able to tell every value from every other one: a text stands in
//! quotes, and white space that a browser would swallow has a sign.

use maud::{Markup, html};
use serde_json::{Map, Value};
use shared::domain::rule::Op;

use crate::page::format;
use crate::page::parts::{many, pairs};
use crate::page::source::visible;
use crate::write::Write;

/// Rows of a table that are shown at first, and on a page of all rows.
const ROWS: usize = 20;
const PAGE: usize = 200;
/// The same of columns.
const COLUMNS: usize = 12;
const PAGE_COLUMNS: usize = 60;
/// Characters of a value and of a column's name that are shown.
const VALUE: usize = 200;
const NAME: usize = 100;

/// Which rows to show.
pub(in crate::page) struct Rows<'a> {
    /// The first row of the page. None for the beginning of the table.
    pub first: Option<usize>,
    /// The address of the page from this row on.
    pub href: &'a dyn Fn(usize) -> String,
}

pub(in crate::page) fn preview(write: &Write, rows: &Rows<'_>) -> Markup {
    html! {
        @if !write.is_resolved {
            p.note { "Some values are outputs of steps that have not run, or are too large for this page. References stand for them." }
        }
        @if !write.rows.is_empty() { (table(write, rows)) }
        @if !write.key.is_empty() || !write.set.is_empty() {
            (pairs([("Where", values(&write.key)), ("Set", values(&write.set))].into_iter().filter(|(name, _)| *name == "Where" || !write.set.is_empty())))
        }
        @if write.op != Op::Insert { p.note { (expected(write)) } }
    }
}

/// How many rows an update or a delete touches.
fn expected(write: &Write) -> Markup {
    html! {
        @if write.finds_nothing() { strong { "A null in the key equals nothing, so it finds no row. " } }
        @match write.expected_rows {
            Some(rows) => { "It must touch exactly " (many(rows, "row", "rows")) ", or else nothing is written." },
            None => "The plan does not say how many rows it must touch. If it finds none, it succeeds too.",
        }
    }
}

fn table(write: &Write, rows: &Rows<'_>) -> Markup {
    let columns = write.columns();
    let (most_rows, most_columns) = if rows.first.is_some() { (PAGE, PAGE_COLUMNS) } else { (ROWS, COLUMNS) };
    let first = rows.first.unwrap_or(0).min(write.rows.len().saturating_sub(1));
    let listed = &write.rows[first..write.rows.len().min(first + most_rows)];
    let shown = &columns[..columns.len().min(most_columns)];
    let is_number = |column: &str| write.rows.iter().all(|row| row.get(column).is_some_and(Value::is_number));
    let classes: Vec<_> = shown.iter().map(|column| is_number(column).then_some("number")).collect();
    html! {
        table.table role="table" {
            thead role="rowgroup" {
                tr role="row" {
                    @for (column, class) in shown.iter().zip(&classes) {
                        th role="columnheader" scope="col" class=[class] { bdi { (name(column)) } }
                    }
                }
            }
            tbody role="rowgroup" {
                @for row in listed {
                    tr role="row" {
                        @for (column, class) in shown.iter().zip(&classes) {
                            td role="cell" class=[class] data-label=(name(column)) {
                                @if let Some(value) = row.get(*column) { (shown_value(value)) } @else { span.note { "default" } }
                            }
                        }
                    }
                }
            }
        }
        @if columns.len() > shown.len() || write.rows.len() > listed.len() {
            (rest(write, rows, first, listed.len(), (shown.len(), columns.len())))
        }
    }
}

/// Which rows and columns the table has, and the way to the others.
fn rest(write: &Write, rows: &Rows<'_>, first: usize, listed: usize, columns: (usize, usize)) -> Markup {
    let total = write.rows.len();
    let number = |number: usize| format::number(number as u64);
    let (shown, all) = columns;
    html! {
        p.note {
            "Rows " (number(first + 1)) " to " (number(first + listed)) " of " (number(total)) "."
            @if all > shown { " " (shown) " of " (number(all)) " columns." }
        }
        nav.pages aria-label="Rows" {
            @if rows.first.is_none() { a href=((rows.href)(0)) { "Show all " (number(total)) " rows" } }
            @else {
                @if first > 0 { a href=((rows.href)(first.saturating_sub(PAGE))) rel="prev" { "Rows before" } }
                @if first + listed < total { a href=((rows.href)(first + listed)) rel="next" { "More rows" } }
            }
        }
    }
}

fn name(column: &str) -> String {
    visible(&format::cut(column, NAME))
}

fn values(columns: &Map<String, Value>) -> Markup {
    html! {
        @for (index, (column, value)) in columns.iter().take(COLUMNS).enumerate() {
            @if index > 0 { ", " }
            code { bdi { (name(column)) } } " = " (shown_value(value))
        }
        @if columns.len() > COLUMNS { " and " (columns.len() - COLUMNS) " more" }
    }
}

/// A text is in quotes. Anything else is as in JSON.
fn shown_value(value: &Value) -> Markup {
    let Value::String(text) = value else {
        let json = value.to_string();
        let class = value.is_null().then_some("note");
        return html! { bdi class=[class] { (visible(&format::cut(&json, VALUE))) } (more(&json)) };
    };
    html! { bdi.text { "\"" (spaced(&text.chars().take(VALUE).collect::<String>())) "\"" } (more(text)) }
}

fn more(text: &str) -> Markup {
    let more = text.chars().count().saturating_sub(VALUE);
    html! { @if more > 0 { span.note { " and " (format::number(more as u64)) " more characters" } } }
}

/// A text whose white space has signs, apart from single spaces between other characters.
fn spaced(text: &str) -> Markup {
    let characters: Vec<char> = text.chars().collect();
    let is_single = |at: usize| {
        let is_other = |at: Option<usize>| at.and_then(|at| characters.get(at)).is_some_and(|c| !c.is_whitespace());
        is_other(at.checked_sub(1)) && is_other(Some(at + 1))
    };
    let mut pieces: Vec<(bool, String)> = Vec::new();
    for (at, character) in characters.iter().enumerate() {
        let sign = match character {
            ' ' if is_single(at) => None,
            ' ' => Some("·".to_owned()),
            '\n' => Some("↵".to_owned()),
            '\t' => Some("⇥".to_owned()),
            // No-break spaces and others look like the usual one.
            other if other.is_whitespace() => Some(format!("⟨U+{:04X}⟩", u32::from(*other))),
            _ => None,
        };
        let is_sign = sign.is_some();
        let piece = sign.unwrap_or_else(|| character.to_string());
        match pieces.last_mut() {
            Some((last, text)) if *last == is_sign => text.push_str(&piece),
            _ => pieces.push((is_sign, piece)),
        }
    }
    html! {
        @for (is_sign, piece) in &pieces {
            @if *is_sign { span.space { (piece) } } @else { (visible(piece)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn html(value: &Value) -> String {
        shown_value(value).into_string()
    }

    #[test]
    fn every_value_looks_different_from_every_other() {
        let text = |inner: &str| format!("<bdi class=\"text\">&quot;{inner}&quot;</bdi>");
        let space = |sign: &str| format!("<span class=\"space\">{sign}</span>");
        let cases = [
            (json!(7), "<bdi>7</bdi>".to_owned()),
            (json!("7"), text("7")),
            (json!(null), "<bdi class=\"note\">null</bdi>".to_owned()),
            (json!("null"), text("null")),
            (json!(true), "<bdi>true</bdi>".to_owned()),
            (json!(""), text("")),
            (json!("a b"), text("a b")),
            (json!(" a"), text(&format!("{}a", space("·")))),
            (json!("a "), text(&format!("a{}", space("·")))),
            (json!("a  b"), text(&format!("a{}b", space("··")))),
            (json!("a\nb\tc"), text(&format!("a{}b{}c", space("↵"), space("⇥")))),
            (json!("a\u{a0}b"), text(&format!("a{}b", space("⟨U+00A0⟩")))),
            (json!("a·b↵"), text("a·b↵")),
            (json!("a\u{200b}"), text("a⟨U+200B⟩")),
            (json!([1, "x"]), "<bdi>[1,&quot;x&quot;]</bdi>".to_owned()),
            (json!("[1,\"x\"]"), text("[1,&quot;x&quot;]")),
        ];
        for (value, expected) in &cases {
            assert_eq!(html(value), *expected, "{value}");
        }
        let long = html(&json!("x".repeat(1_205)));
        assert!(long.contains("x&quot;</bdi><span class=\"note\"> and 1,005 more characters</span>"), "{long}");
    }

    fn shown(count: usize, first: Option<usize>) -> String {
        let row = |number: usize| json!({"number": number}).as_object().cloned().unwrap_or_default();
        let rows = (0..count).map(row).collect();
        let (key, set, operation) = (Map::new(), Map::new(), Err(String::new()));
        let write = Write { op: Op::Insert, rows, key, set, expected_rows: None, is_resolved: true, operation };
        preview(&write, &Rows { first, href: &|first| format!("?rows={first}") }).into_string()
    }

    #[test]
    fn all_rows_can_be_reached() {
        let few = shown(20, None);
        assert!(few.matches("<td").count() == 20 && !few.contains("?rows="), "{few}");
        let first = shown(450, None);
        assert_eq!(first.matches("<td").count(), 20);
        assert!(
            first.contains("Rows 1 to 20 of 450.") && first.contains("href=\"?rows=0\">Show all 450 rows"),
            "{first}"
        );
        let mut seen = Vec::new();
        let mut next = Some(0);
        while let Some(from) = next {
            let page = shown(450, Some(from));
            let cells = page.split("<bdi>").skip(2).filter_map(|rest| rest.split('<').next()?.parse::<usize>().ok());
            seen.extend(cells);
            let link = page.split("href=\"?rows=").skip(1).find(|rest| rest.contains("rel=\"next\""));
            next = link.and_then(|_| page.rsplit("href=\"?rows=").next()?.split('"').next()?.parse().ok());
            next = next.filter(|_| page.contains("rel=\"next\""));
        }
        assert_eq!(seen, (0..450).collect::<Vec<_>>());
        assert!(shown(450, Some(9_999)).contains("Rows 450 to 450 of 450."), "an old link shows the end");
    }
}
