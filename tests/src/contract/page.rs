//! Renders the document as static HTML pages without scripts.

use std::collections::BTreeSet;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use serde_json::Value;

/// The page with every operation of the document.
pub fn reference(document: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let groups: Vec<String> = document["tags"].as_array().into_iter().flatten().map(|tag| text(&tag["name"])).collect();
    let operations = operations(document);
    let of_all = operations.iter().map(|(_, _, operation)| refusals(operation));
    let common = of_all.reduce(|one, other| &one & &other).unwrap_or_default();
    let body = html! {
        header {
            h1 { (text(&document["info"]["title"])) " " small { (text(&document["info"]["version"])) } }
            p { "The API, from " a href="openapi.json" { "openapi.json" } ". " (inline(&text(&document["info"]["description"]))) }
        }
        nav {
            @for group in &groups {
                a href=(format!("#{}", anchor(group))) { (group) }
            }
            a href="#schemas" { "Schemas" }
            a href="docs/errors" { "Error codes" }
        }
        (problems("Every operation can answer with these problems", common.iter()))
        @for group in &groups {
            section id=(anchor(group)) {
                h2 { (group) }
                @for (method, path, described) in operations.iter().filter(|one| one.2["tags"][0] == *group) {
                    (operation(method, path, described, &common))
                }
            }
        }
        section id="schemas" {
            h2 { "Schemas" }
            @for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
                details id=(format!("schema-{name}")) {
                    summary { code { (name) } " " (first_sentence(&schema["description"])) }
                    (fields(schema))
                }
            }
        }
    };
    page("API of the NOFX control plane", "docs/style.css", &body)
}

/// Renders a Markdown page whose headings have anchors.
pub fn errors(markdown: &str) -> String {
    let mut rendered = String::new();
    let parser = Parser::new_ext(markdown, Options::ENABLE_TABLES);
    let mut events: Vec<Event<'_>> = Vec::new();
    for event in parser {
        match event {
            // The anchor of a heading is its text, which is known only at the heading's end.
            Event::End(TagEnd::Heading(level)) => {
                let is_start = |event: &Event<'_>| matches!(event, Event::Start(Tag::Heading { .. }));
                let start = events.iter().rposition(is_start).expect("the heading's start");
                let words: String = events[start..]
                    .iter()
                    .filter_map(|event| match event {
                        Event::Text(text) | Event::Code(text) => Some(text.as_ref()),
                        _ => None,
                    })
                    .collect();
                events[start] = Event::Start(Tag::Heading {
                    level,
                    id: (level != HeadingLevel::H1).then(|| anchor(&words).into()),
                    classes: Vec::new(),
                    attrs: Vec::new(),
                });
                events.push(Event::End(TagEnd::Heading(level)));
            }
            // Other pages of the folder are not served.
            Event::Start(Tag::Link { ref dest_url, .. }) if !dest_url.starts_with('#') => {
                events.push(Event::Start(Tag::Emphasis));
            }
            Event::End(TagEnd::Link) if !in_anchor_link(&events) => events.push(Event::End(TagEnd::Emphasis)),
            other => events.push(other),
        }
    }
    pulldown_cmark::html::push_html(&mut rendered, events.into_iter());
    let body = html! {
        nav { a href="../docs" { "API" } a href="#refused-requests" { "Refused requests" } a href="#failed-steps" { "Failed steps" } }
        (PreEscaped(rendered))
    };
    page("Error codes of the NOFX control plane", "style.css", &body)
}

/// Whether the innermost open link is to an anchor of this page.
fn in_anchor_link(events: &[Event<'_>]) -> bool {
    let open = events.iter().rev().find_map(|event| match event {
        Event::Start(Tag::Link { .. }) => Some(true),
        Event::Start(Tag::Emphasis) => Some(false),
        _ => None,
    });
    open.unwrap_or(false)
}

fn page(title: &str, style: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="stylesheet" href=(style);
            }
            body { main { (body) } }
        }
    };
    page.into_string() + "\n"
}

/// Method, path and operation, in the order of the document's groups and paths.
fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    let mut all = Vec::new();
    for (path, operations) in paths {
        for method in ["get", "post", "put", "delete"] {
            if let Some(operation) = operations.get(method) {
                all.push((method, path.as_str(), operation));
            }
        }
    }
    all
}

fn operation(method: &str, path: &str, operation: &Value, common: &Refusals<'_>) -> Markup {
    let parameters: Vec<&Value> = operation["parameters"].as_array().into_iter().flatten().collect();
    let body = &operation["requestBody"]["content"]["application/json"];
    html! {
        details id=[operation["operationId"].as_str()] {
            summary {
                b class=(method) { (method.to_uppercase()) } " " code { (path) } " "
                span { (operation["summary"].as_str().unwrap_or_default()) }
            }
            @if !parameters.is_empty() {
                h3 { "Parameters" }
                table {
                    @for parameter in parameters {
                        tr {
                            td { code { (parameter["name"].as_str().unwrap_or_default()) } }
                            td { (parameter["in"].as_str().unwrap_or_default()) }
                            td { (kind(&parameter["schema"])) }
                            td { (inline(parameter["description"].as_str().unwrap_or_default())) }
                        }
                    }
                }
            }
            @if !body.is_null() {
                h3 { "Body" @if operation["requestBody"]["required"] != true { ", optional" } }
                (fields(&body["schema"]))
                pre { (pretty(&body["example"])) }
            }
            h3 { "Answers" }
            table {
                @for (status, response) in operation["responses"].as_object().into_iter().flatten() {
                    @if response["$ref"].is_null() { (answer(status, response)) }
                }
            }
            (problems("Problems", refusals(operation).difference(common)))
            @for response in operation["responses"].as_object().into_iter().flat_map(|all| all.values()) {
                @let example = &response["content"]["application/json"]["example"];
                @if !example.is_null() { pre { (pretty(example)) } }
            }
        }
    }
}

type Refusals<'a> = BTreeSet<(&'a str, String)>;

fn problems<'a>(title: &str, refusals: impl Iterator<Item = &'a (&'a str, String)>) -> Markup {
    let refusals: Vec<_> = refusals.collect();
    html! {
        @if !refusals.is_empty() {
            p { (title) ": " @for (status, codes) in refusals { (status) " " code { (codes) } " " } }
        }
    }
}

/// Status and codes of each problem. The names of the document's responses are their codes.
fn refusals(operation: &Value) -> Refusals<'_> {
    let responses = operation["responses"].as_object().into_iter().flatten();
    let refused = responses.filter_map(|(status, response)| {
        let name = response["$ref"].as_str()?.rsplit('/').next()?;
        Some((status.as_str(), name.replace('-', ", ")))
    });
    refused.collect()
}

fn answer(status: &str, response: &Value) -> Markup {
    let headers = response["headers"].as_object().into_iter().flat_map(|headers| headers.keys());
    let headers: Vec<&String> = headers.filter(|name| *name != "x-request-id").collect();
    html! {
        tr {
            td { (status) }
            td { (kind(&response["content"]["application/json"]["schema"])) }
            td {
                (inline(response["description"].as_str().unwrap_or_default()))
                @for header in headers { " Header " code { (header) } "." }
            }
        }
    }
}

/// A table of the fields of an object, or the words of an enumeration.
fn fields(schema: &Value) -> Markup {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let words = words(schema);
    html! {
        @if !words.is_empty() { p { @for word in words { code { (word) } " " } } }
        @if let Some(properties) = schema["properties"].as_object() {
            table {
                @for (name, field) in properties.iter().filter(|(_, field)| field["deprecated"] != true) {
                    tr {
                        td { code { (name) } @if !required.contains(&name.as_str()) { " ?" } }
                        td { (kind(field)) }
                        td { (inline(field["description"].as_str().unwrap_or_default())) }
                    }
                }
            }
        }
    }
}

/// The words of an enumeration. Words with a description are alternatives.
fn words(schema: &Value) -> Vec<String> {
    let listed = |schema: &Value| -> Vec<String> {
        let words = schema["enum"].as_array().into_iter().flatten().chain([&schema["const"]]);
        words.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let alternatives = schema["oneOf"].as_array().into_iter().flatten().flat_map(listed);
    listed(schema).into_iter().chain(alternatives).collect()
}

/// The type of a value, with a link if it has a name.
fn kind(schema: &Value) -> Markup {
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        return html! { a href=(format!("#schema-{name}")) { (name) } };
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        return html! {
            @for (at, choice) in choices.iter().enumerate() { @if at > 0 { " or " } (kind(choice)) }
        };
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let format = schema["format"].as_str().filter(|format| ["uuid", "date-time"].contains(format));
    html! {
        (types.join(" or "))
        @if types.contains(&"array") && schema["items"].is_object() { " of " (kind(&schema["items"])) }
        @if let Some(format) = format { ", " (format) }
    }
}

/// Text with `code` and [links](to).
fn inline(text: &str) -> Markup {
    let mut rendered = String::new();
    let is_paragraph =
        |event: &Event<'_>| matches!(event, Event::Start(Tag::Paragraph) | Event::End(TagEnd::Paragraph));
    // The document has absolute links, but the page may be below a prefix, so make them relative.
    let text = text.replace("](/docs", "](docs");
    pulldown_cmark::html::push_html(&mut rendered, Parser::new(&text).filter(|event| !is_paragraph(event)));
    PreEscaped(rendered)
}

fn first_sentence(description: &Value) -> Markup {
    let text = description.as_str().unwrap_or_default();
    inline(text.split("\n\n").next().unwrap_or_default())
}

/// Does not escape quotes, which makes the page a third smaller.
fn pretty(value: &Value) -> Markup {
    PreEscaped(format!("{value:#}").replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"))
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}
