//! Describes routes for `openapi.json`: what a route does not declare itself. Only the tests that write the document
//! use it.

use axum::http::Method;
use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::body::{MAX_ACTOR_CHARS, MAX_REASON_CHARS};
use crate::domain::fields::Names;
use crate::domain::plan::Limits;
use crate::domain::plan_schema;
use crate::domain::tool::{HANDLERS, LONG_GATES};
use crate::error::Code;

// Patterns use no Unicode classes and no \x escapes, because some validators do not support them.
/// Control characters, for use inside a class.
const CONTROL: &str = r"\u0000-\u001f\u007f-\u009f";
/// Hidden characters (`domain::hidden`) up to U+FFFF, for use inside a class, without those that may join two others. No escape
/// of larger ones works in all validators.
const HIDDEN: &str = r"\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb";
/// Text without NUL that is not blank.
pub const FILLED: &str = r"^[^\u0000]*[^\s\u0000][^\u0000]*$";

/// The place of the document's schemas.
const PLACE: &str = "/components/schemas";

/// Schemas by name: those of answers, by their types, and those of a plan.
pub struct Schemas(SchemaGenerator);

impl Default for Schemas {
    fn default() -> Self {
        let settings = SchemaSettings::draft2020_12().for_serialize();
        let settings = settings.with(|settings| {
            settings.definitions_path = PLACE.into();
            settings.meta_schema = None;
        });
        Self(settings.into_generator())
    }
}

impl Schemas {
    /// A reference to the schema of a type. The schema is kept.
    pub fn of<T: JsonSchema>(&mut self) -> Value {
        self.0.subschema_for::<T>().to_value()
    }

    /// The schema of a bare array.
    pub fn list_of<T: JsonSchema>(&mut self) -> Value {
        json!({"type": "array", "items": self.of::<T>()})
    }

    /// The schema of `{"plan": {...}}`, with the default limits. Keeps the schemas of the plan and its parts.
    pub fn plan(&mut self) -> Value {
        let place = format!("#{PLACE}");
        let parts = plan_schema::definitions(&Limits::default(), &place);
        self.0.definitions_mut().extend(parts);
        json!({
            "type": "object",
            "properties": {"plan": {"$ref": format!("{place}/{}", plan_schema::PLAN_NAME)}},
            "required": ["plan"],
            "additionalProperties": false,
        })
    }

    /// The kept schemas.
    pub fn kept(mut self) -> Map<String, Value> {
        self.0.take_definitions(true)
    }
}

/// A route of the API.
#[derive(Debug, Clone)]
pub struct Operation {
    pub method: Method,
    pub path: &'static str,
    /// Unique, for generated clients.
    pub id: &'static str,
    pub group: &'static str,
    /// One sentence.
    pub summary: &'static str,
    pub headers: Vec<Header>,
    /// Schemas of parameters that only this operation has, or that mean something else here. The function `parameter` has
    /// the others.
    pub parameters: Vec<(&'static str, Value)>,
    pub body: Option<RequestBody>,
    /// Answers that are not problems.
    pub answers: Vec<Answer>,
    /// Codes of its problems, apart from those that follow from its method and path.
    pub codes: Vec<Code>,
}

/// A header of a request.
#[derive(Debug, Clone)]
pub struct Header {
    pub name: &'static str,
    pub about: &'static str,
    pub schema: Value,
}

/// The body of a request.
#[derive(Debug, Clone)]
pub struct RequestBody {
    pub schema: Value,
    pub example: Value,
    pub is_required: bool,
}

/// An answer that is not a problem.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub about: &'static str,
    /// None if there is no body.
    pub schema: Option<Value>,
    pub media_type: &'static str,
    /// Other media types in which it may come, as text.
    pub texts: Vec<&'static str>,
    /// Names of its headers, apart from `x-request-id`.
    pub headers: Vec<&'static str>,
    /// A recorded example in `tests/tests/functions/shapes`: the file, and the name in it.
    pub example: Option<(&'static str, &'static str)>,
}

impl Operation {
    pub fn new(
        method: Method,
        path: &'static str,
        id: &'static str,
        group: &'static str,
        summary: &'static str,
    ) -> Self {
        let (headers, parameters, answers, codes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { method, path, id, group, summary, headers, parameters, body: None, answers, codes }
    }

    /// Adds an answer. `with` and `example` describe it further.
    #[must_use]
    pub fn answers(mut self, status: u16, about: &'static str, schema: impl Into<Option<Value>>) -> Self {
        let schema = schema.into();
        let (media_type, headers) = ("application/json", Vec::new());
        self.answers.push(Answer { status, about, schema, media_type, texts: Vec::new(), headers, example: None });
        self
    }

    /// The media type of the last answer, if it is not JSON.
    #[must_use]
    pub fn as_media_type(mut self, media_type: &'static str) -> Self {
        self.answers.iter_mut().last().into_iter().for_each(|answer| answer.media_type = media_type);
        self
    }

    /// The last answer may also come as text of this media type.
    #[must_use]
    pub fn or_text(mut self, media_type: &'static str) -> Self {
        self.answers.iter_mut().last().into_iter().for_each(|answer| answer.texts.push(media_type));
        self
    }

    /// Adds a header to the last answer.
    #[must_use]
    pub fn with(mut self, header: &'static str) -> Self {
        self.answers.iter_mut().last().into_iter().for_each(|answer| answer.headers.push(header));
        self
    }

    /// Adds a recorded example to the last answer.
    #[must_use]
    pub fn example(mut self, file: &'static str, name: &'static str) -> Self {
        self.answers.iter_mut().last().into_iter().for_each(|answer| answer.example = Some((file, name)));
        self
    }

    /// The last answer has an `ETag`, and a client that sends it gets 304.
    #[must_use]
    pub fn has_etag(self) -> Self {
        self.with("ETag")
            .with("Cache-Control")
            .header("If-None-Match", "`ETag` of the answer that the client has.", json!({"type": "string"}))
            .answers(304, "The answer has not changed.", None)
            .with("ETag")
            .with("Cache-Control")
    }

    #[must_use]
    pub fn takes(mut self, schema: Value, example: Value) -> Self {
        self.body = Some(RequestBody { schema, example, is_required: true });
        self
    }

    /// The same, if the client may send no body.
    #[must_use]
    pub fn may_take(mut self, schema: Value, example: Value) -> Self {
        self.body = Some(RequestBody { schema, example, is_required: false });
        self
    }

    #[must_use]
    pub fn header(mut self, name: &'static str, about: &'static str, schema: Value) -> Self {
        self.headers.push(Header { name, about, schema });
        self
    }

    /// The parameter of this name has a schema of its own.
    #[must_use]
    pub fn parameter(mut self, name: &'static str, schema: Value) -> Self {
        self.parameters.push((name, schema));
        self
    }

    #[must_use]
    pub fn refuses(mut self, codes: &[Code]) -> Self {
        self.codes.extend(codes);
        self
    }
}

/// The schema of an object with the fields of its reader. Earlier names of a field are deprecated.
pub fn object(known: &[Names], required: &[&str], describe: impl Fn(&str) -> Value) -> Value {
    let (mut properties, mut rules) = (Map::new(), Vec::new());
    for names in known {
        let Some((name, others)) = names.split_first() else { continue };
        properties.insert((*name).to_owned(), describe(name));
        for other in others {
            let mut schema = describe(name);
            schema["description"] = json!(format!("The same as {name}."));
            schema["deprecated"] = json!(true);
            properties.insert((*other).to_owned(), schema);
        }
        let one: Vec<_> = names.iter().map(|name| json!({"required": [name]})).collect();
        let none = json!({"not": {"anyOf": one}});
        if !others.is_empty() {
            let may_miss = (!required.contains(name)).then_some(none);
            rules.push(json!({"oneOf": one.into_iter().chain(may_miss).collect::<Vec<_>>()}));
        }
    }
    let always: Vec<_> = required
        .iter()
        .filter(|name| known.iter().any(|names| names.len() == 1 && names.first() == Some(name)))
        .collect();
    let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
    if !always.is_empty() {
        schema["required"] = json!(always);
    }
    if !rules.is_empty() {
        schema["allOf"] = json!(rules);
    }
    schema
}

/// The pattern of a name of Postgres with so many parts. Each has at most 63 bytes, which a pattern cannot say.
pub fn dotted(parts: usize) -> String {
    let part = format!("[^.{CONTROL}]{{1,63}}");
    format!("^{}$", vec![part; parts].join(r"\."))
}

/// The schema of a name of a column or a role.
pub fn plain_name() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 63, "pattern": format!("^[^{CONTROL}]*$")})
}

/// Schemas of the fields `actor` and `reason`.
pub fn who_and_why(field: &str) -> Value {
    match field {
        "actor" => json!({
            "description": "The name to record on a stack without logins.",
            "type": ["string", "null"], "minLength": 1, "maxLength": MAX_ACTOR_CHARS,
            "pattern": readable_line(),
        }),
        "reason" => json!({
            "description": "Why.", "type": ["string", "null"], "maxLength": MAX_REASON_CHARS,
            "pattern": format!("^([^{HIDDEN}]|\\r\\n)*$"),
        }),
        other => unreachable!("the field {other} has no schema"),
    }
}

/// A pattern: one line without hidden characters.
pub fn line() -> String {
    format!("^[^{HIDDEN}\\n\\t]*$")
}

/// A pattern: the same, and not blank.
pub fn readable_line() -> String {
    let hidden = format!("{HIDDEN}\\n\\t");
    format!("^[^{hidden}]*[^\\s{hidden}][^{hidden}]*$")
}

/// A pattern: text that is not blank, without hidden characters.
pub fn readable_text() -> String {
    format!("^([^{HIDDEN}]|\\r\\n)*[^\\s{HIDDEN}]([^{HIDDEN}]|\\r\\n)*$")
}

/// The schema of a path or query parameter that several routes have.
pub fn parameter(name: &str) -> Value {
    match name {
        "id" => json!({"type": "string", "format": "uuid"}),
        "name" => json!({"description": "Name of a step.", "type": "string", "minLength": 1}),
        "table" => json!({"description": "`schema.table`.", "type": "string", "pattern": dotted(2)}),
        "handler" => {
            let names: Vec<&str> = HANDLERS.iter().chain([&LONG_GATES]).map(|handler| handler.name).collect();
            json!({"description": "Name of a handler. `gate_long` exists only where long gates do.", "enum": names})
        }
        "after" => json!({
            "description": "Cursor: `next` of the page before, which is the id of its last row. Empty for the first page.",
            "anyOf": [{"type": "string", "format": "uuid"}, {"const": ""}],
        }),
        "limit" => json!({
            "description": "Most rows of the page.",
            "type": "integer", "minimum": 1, "maximum": super::query::MAX_LIMIT, "default": super::DEFAULT_LIMIT,
        }),
        other => unreachable!("the parameter {other} has no schema"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::hidden::is_hidden;

    #[test]
    fn the_class_has_the_hidden_characters_that_it_can_name() {
        let code = |escape: &str| u32::from_str_radix(escape, 16).unwrap();
        let ends: Vec<_> = HIDDEN.split("\\u").skip(1).collect();
        let mut named = std::collections::BTreeSet::new();
        for (at, escape) in ends.iter().enumerate() {
            let last = escape.strip_suffix('-').map(|first| (code(first), code(ends[at + 1].trim_end_matches('-'))));
            let (first, last) = last.unwrap_or_else(|| (code(escape), code(escape)));
            named.extend(first..=last);
        }
        let joining = [0x200c, 0x200d, 0xfe0e, 0xfe0f];
        let hidden =
            (0..=0xffff).filter(|code| char::from_u32(*code).is_some_and(is_hidden) && !joining.contains(code));
        assert_eq!(named, hidden.collect());
    }
}
