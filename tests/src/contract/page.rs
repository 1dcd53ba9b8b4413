//! Renders the document as static HTML pages without scripts.

use std::collections::BTreeSet;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use serde_json::Value;

use super::pretty::pretty;

/// The page with every operation of the document, by group.
pub fn reference(document: &Value) -> String {
    let groups: Vec<&str> =
        document["tags"].as_array().into_iter().flatten().filter_map(|tag| tag["name"].as_str()).collect();
    let operations = operations(document);
    let common_of = |is_meant: fn(&str) -> bool| {
        let meant = operations.iter().filter(|(method, ..)| is_meant(method));
        meant.map(|(_, _, operation)| refusals(operation)).reduce(|one, other| &one & &other).unwrap_or_default()
    };
    let (of_all, of_writes) = (common_of(|_| true), common_of(|method| method != "get"));
    let common = &of_all | &of_writes;
    let of_group = |group: &str| -> Vec<_> { operations.iter().filter(|one| one.2["tags"][0] == *group).collect() };
    let body = html! {
        nav aria-label="Contents" {
            strong { (text(&document["info"]["title"])) } " " small { (text(&document["info"]["version"])) }
            @for group in &groups {
                a href=(format!("#{}", anchor(group))) { (group) }
                ul {
                    @for (method, path, operation) in of_group(group) {
                        li { a href=(format!("#{}", text(&operation["operationId"]))) { (verb(method)) (path) } }
                    }
                }
            }
            a href="docs/schemas" { "Schemas" }
            a href="docs/errors" { "Error codes" }
            a href="openapi.json" { "openapi.json" }
        }
        main {
            h1 { "API" }
            p { (inline(text(&document["info"]["description"]))) }
            p { "Every operation can answer with these problems, besides those that it lists:" }
            (problems(of_all.iter()))
            p { "Every operation but " (verb("get")) "also with these:" }
            (problems(of_writes.difference(&of_all)))
            @for group in &groups {
                section id=(anchor(group)) {
                    h2 { (group) }
                    @for (method, path, described) in of_group(group) {
                        (operation(method, path, described, &common))
                    }
                }
            }
        }
    };
    page("API of the NOFX control plane", "docs/style.css", &body)
}

/// The page of the schemas, `GET /docs/schemas`. Links to schemas are written for the page `GET /docs`.
pub fn schemas(document: &Value) -> String {
    let body = html! {
        nav aria-label="Contents" {
            strong { (text(&document["info"]["title"])) } " " small { (text(&document["info"]["version"])) }
            a href="../docs" { "API" }
            a href="errors" { "Error codes" }
            a href="../openapi.json" { "openapi.json" }
        }
        main {
            h1 { "Schemas" }
            @for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
                details {
                    summary { code { (name) } " " span { (first_sentence(&schema["description"])) } }
                    div id=(name) { (fields(schema, About::FirstSentence)) }
                }
            }
        }
    };
    page("Schemas of the NOFX control plane", "style.css", &body).replace("docs/schemas#", "#")
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
        nav aria-label="Contents" {
            strong { "NOFX control plane" }
            a href="#refused-requests" { "Refused requests" }
            a href="#failed-steps" { "Failed steps" }
            a href="../docs" { "API" }
        }
        main { (PreEscaped(rendered)) }
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
            body { (body) }
        }
    };
    // HTML lets these end tags be left out, and the page has a thousand of them.
    let page = ["</dt>", "</dd>", "</li>", "</p>"].iter().fold(page.into_string(), |page, tag| page.replace(tag, ""));
    without_quotes(&page) + "\n"
}

/// The same page without the quotes that HTML lets be left out: around a word, or a link within these pages.
fn without_quotes(page: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-#./".contains(&byte);
    let (mut written, mut rest) = (String::with_capacity(page.len()), page);
    while let Some((before, after)) = rest.split_once("=\"") {
        written.extend([before, "="]);
        let value = after.split('"').next().unwrap_or_default();
        let ends_tag = after[value.len()..].strip_prefix('"').is_some_and(|next| next.starts_with([' ', '>']));
        let is_word =
            !value.is_empty() && value.bytes().all(is_plain) && !value.starts_with('/') && !value.ends_with('/');
        rest = if ends_tag && is_word {
            written.push_str(value);
            &after[value.len() + 1..]
        } else {
            written.push('"');
            after
        };
    }
    written + rest
}

/// Method, path and operation: short paths first.
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
    all.sort_by_key(|(_, path, _)| path.matches('/').count());
    all
}

/// The style of a method without a class is that of `get`.
fn verb(method: &str) -> Markup {
    html! { b class=[(method != "get").then_some(method)] { (method.to_uppercase()) } " " }
}

/// The id is inside of the element that opens, because browsers open what is around the target of a link.
fn operation(method: &str, path: &str, operation: &Value, common: &Refusals<'_>) -> Markup {
    // The path itself says that it takes an id.
    let is_told = |parameter: &&Value| parameter["in"] != "path" || !text(&parameter["description"]).is_empty();
    let parameters: Vec<&Value> = operation["parameters"].as_array().into_iter().flatten().filter(is_told).collect();
    let body = &operation["requestBody"]["content"]["application/json"];
    html! {
        details {
            summary { (verb(method)) code { (path) } " " span { (text(&operation["summary"])) } }
            div id=[operation["operationId"].as_str()] {
                @if !parameters.is_empty() {
                    h3 { "Parameters" }
                    dl {
                        @for parameter in parameters {
                            (field(text(&parameter["name"]), &parameter["schema"], text(&parameter["description"]), text(&parameter["in"])))
                        }
                    }
                }
                @if !body.is_null() {
                    h3 { "Body" @if operation["requestBody"]["required"] != true { ", optional" } }
                    (fields(&body["schema"], About::All))
                    pre { (pretty(&body["example"])) }
                }
                h3 { "Answers" }
                @for (status, response) in operation["responses"].as_object().into_iter().flatten() {
                    @if response["$ref"].is_null() { (answer(status, response)) }
                }
                (problems(refusals(operation).difference(common)))
            }
        }
    }
}

/// Status and code of each problem.
type Refusals<'a> = BTreeSet<(&'a str, &'a str)>;

fn problems<'a>(refusals: impl Iterator<Item = &'a (&'a str, &'a str)>) -> Markup {
    let refusals: Vec<_> = refusals.collect();
    html! {
        @if !refusals.is_empty() {
            ul.problems {
                @for (status, code) in refusals {
                    li { (status) " " a href=(format!("docs/errors#{code}")) { (code) } }
                }
            }
        }
    }
}

/// The names of the document's responses are the codes of the problems.
fn refusals(operation: &Value) -> Refusals<'_> {
    let responses = operation["responses"].as_object().into_iter().flatten();
    let named = responses.filter_map(|(status, response)| Some((status.as_str(), response["$ref"].as_str()?)));
    let codes = named.flat_map(|(status, name)| {
        let codes = name.rsplit('/').next().unwrap_or_default().split('-');
        codes.map(move |code| (status, code))
    });
    codes.collect()
}

fn answer(status: &str, response: &Value) -> Markup {
    let headers = response["headers"].as_object().into_iter().flat_map(|headers| headers.keys());
    // What every answer with an `ETag` has.
    let is_usual = |name: &str| status == "304" || name == "x-request-id" || name == "Cache-Control";
    let headers: Vec<&String> = headers.filter(|name| !is_usual(name)).collect();
    let of_type = response["content"].as_object().and_then(|content| content.iter().next());
    let (media_type, content) = of_type.map_or(("", &Value::Null), |(name, content)| (name.as_str(), content));
    html! {
        p {
            b { (status) } " " (kind(&content["schema"])) " " @if media_type == "application/jsonl" { "JSON lines " }
            (inline(text(&response["description"])))
            @for header in headers { " Header " code { (header) } "." }
        }
        @if !content["example"].is_null() { pre { (pretty(&content["example"])) } }
    }
}

/// How much the page says about a field. `openapi.json` says all of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    All,
    FirstSentence,
}

impl About {
    fn of(self, description: &Value) -> &str {
        let about = text(description);
        match self {
            Self::All => about,
            Self::FirstSentence => about.find(". ").map_or(about, |end| &about[..=end]),
        }
    }
}

/// The fields of an object, or the words of an enumeration.
fn fields(schema: &Value, about: About) -> Markup {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let note = |name: &str| if required.contains(&name) { "" } else { "optional" };
    let alternatives: Vec<&Value> = schema["oneOf"].as_array().into_iter().flatten().collect();
    let conditions = schema["allOf"].as_array().into_iter().flatten().filter(|rule| !rule["if"].is_null());
    html! {
        @if let Some(properties) = schema["properties"].as_object() {
            dl {
                @for (name, property) in properties.iter().filter(|(_, property)| property["deprecated"] != true) {
                    (field(name, property, about.of(&property["description"]), note(name)))
                }
            }
            @for condition in conditions { (conditional(condition)) }
        } @else if alternatives.is_empty() {
            p { (kind(schema)) (facts(schema)) }
        } @else {
            @for alternative in alternatives {
                p { (kind(alternative)) (facts(alternative)) " " (first_sentence(&alternative["description"])) }
            }
        }
    }
}

fn field(name: &str, schema: &Value, about: &str, note: &str) -> Markup {
    let choices = schema["anyOf"].as_array().into_iter().flatten().filter(|choice| choice["description"].is_string());
    html! {
        dt { b { (name) } " " (kind(schema)) (facts(schema)) @if !note.is_empty() { ", " (note) } }
        @if !about.is_empty() {
            dd {
                (inline(about))
                @for choice in choices { br; (kind(choice)) ": " (inline(text(&choice["description"]))) }
            }
        }
    }
}

/// What holds for fields of an object if another field has certain values.
fn conditional(rule: &Value) -> Markup {
    let of = |part: &str| rule[part]["properties"].as_object().into_iter().flatten().next();
    html! {
        @if let (Some((name, values)), Some((bound, limits))) = (of("if"), of("then")) {
            p {
                "With " code { (name) } " "
                @if let Some(pattern) = values["pattern"].as_str() { code { (pattern) } } @else { (kind(values)) }
                ": " code { (bound) } (facts(limits)) "."
            }
        }
    }
}

/// The type of a value, with a link if it has a name; or its values.
fn kind(schema: &Value) -> Markup {
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        return html! { a href=(format!("docs/schemas#{name}")) { (name) } };
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        // Those with a description stand below the field.
        let choices: Vec<&Value> = choices.iter().filter(|choice| choice["description"].is_null()).collect();
        return html! {
            @for (at, choice) in choices.iter().enumerate() { @if at > 0 { " or " } (kind(choice)) (facts(choice)) }
        };
    }
    let values = schema["enum"].as_array().into_iter().flatten().chain(schema.get("const"));
    let values: Vec<String> =
        values.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect();
    if !values.is_empty() {
        return html! {
            @for (at, value) in values.iter().enumerate() {
                @if at > 0 { " " } @if value.is_empty() { "empty" } @else { code { (value) } }
            }
        };
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let pattern = schema["pattern"].as_str().filter(|_| schema["description"].is_string() && types == ["string"]);
    let format = schema["format"].as_str().filter(|format| ["uuid", "date-time"].contains(format));
    html! {
        (types.join(" or "))
        @if types.contains(&"array") && schema["items"].is_object() { " of " (kind(&schema["items"])) }
        @if let Some(format) = format { ", " (format) }
        @if let Some(pattern) = pattern.filter(|pattern| pattern.len() < 40) { " " code { (pattern) } }
    }
}

/// The bounds of a value, and what it is by default.
fn facts(schema: &Value) -> String {
    let number = |name: &str| schema[name].as_u64();
    // The first is empty, so that a comma stands before each.
    let mut facts = vec![String::new()];
    match (number("minimum"), number("maximum").filter(|most| *most < u64::from(u32::MAX))) {
        (Some(least), Some(most)) => facts.push(format!("{least} to {most}")),
        (None, Some(most)) => facts.push(format!("at most {most}")),
        // Every count has this minimum.
        (Some(least), None) if least > 0 => facts.push(format!("at least {least}")),
        _ => {}
    }
    for (name, unit) in [("maxLength", "characters"), ("maxItems", "entries"), ("maxProperties", "entries")] {
        facts.extend(number(name).map(|most| format!("at most {most} {unit}")));
    }
    facts.extend(schema.get("default").map(|default| format!("default {default}")));
    facts.join(", ")
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

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}
