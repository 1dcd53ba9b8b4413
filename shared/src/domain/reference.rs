//! References in a step's inputs to upstream outputs: `${{ steps.NAME.outputs.PATH }}` or
//! `${{ steps["a name"].outputs.PATH }}`.
//!
//! A string that is nothing but a reference becomes the value with its JSON type. In a longer string the value is
//! inserted as text. `$${{` is a literal `${{`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::bounds::Shape;
use super::place::strings;

/// A parsed reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    pub step: String,
    /// Keys of objects and positions in lists, in the form that Postgres' `#>` takes.
    pub path: Vec<String>,
}

/// A value that the inputs refer to.
#[derive(Debug, Clone)]
pub struct Referred {
    pub value: Value,
    pub shape: Shape,
}

impl Referred {
    pub fn new(value: Value, text: &str) -> Self {
        Self { value, shape: Shape::of(text) }
    }

    /// The value at a path below this one.
    fn at(&self, path: &[String]) -> Option<Self> {
        let found = path.iter().try_fold(&self.value, |value, part| match value {
            Value::Array(items) => items.get(part.parse::<usize>().ok()?),
            other => other.get(part),
        })?;
        Some(Self::new(found.clone(), &found.to_string()))
    }
}

/// Adds the values inside whole outputs to which `inputs` refer. Claims return whole outputs for runs from before the
/// paths of references were stored.
pub fn look_inside(inputs: &Value, referents: &mut Referents) {
    if referents.keys().all(|reference| !reference.path.is_empty()) {
        return;
    }
    for reference in references(inputs, "").0 {
        let whole = Reference { step: reference.step.clone(), path: Vec::new() };
        if !referents.contains_key(&reference)
            && let Some(found) = referents.get(&whole).and_then(|outputs| outputs.at(&reference.path))
        {
            referents.insert(reference, found);
        }
    }
}

/// The values of a step's references. A reference without a value is absent.
pub type Referents = BTreeMap<Reference, Referred>;

/// How large inputs may become.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub bytes: usize,
    pub memory: usize,
    pub depth: usize,
}

/// Why inputs cannot be resolved. The message is for the plan's author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unresolved {
    Missing(String),
    TooLarge(String),
}

/// One part of a path, as written.
#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Key(String),
    Index(usize),
}

/// Most malformed references that are reported for one step.
const MAX_PROBLEMS: usize = 100;

enum Piece<'a> {
    Text(&'a str),
    Open,
    Reference(Reference),
}

/// The references in `inputs`, and each malformed one with its JSON path below `path`.
pub fn references(inputs: &Value, path: &str) -> (BTreeSet<Reference>, Vec<(String, String)>) {
    let (mut found, mut problems) = (BTreeSet::new(), Vec::new());
    strings(inputs, path, &mut |text, place| match pieces(text) {
        Ok(pieces) => found.extend(pieces.into_iter().filter_map(|piece| match piece {
            Piece::Reference(reference) => Some(reference),
            Piece::Text(_) | Piece::Open => None,
        })),
        // A step may have very many. The first ones are enough to start with.
        Err(message) if problems.len() < MAX_PROBLEMS => problems.push((place.path(), message)),
        Err(_) => {}
    });
    (found, problems)
}

/// Replaces every reference in `inputs`, whose shape is `shape`, with its value. Stops before the result exceeds
/// `room`.
pub fn resolve(inputs: Value, shape: Shape, referents: &Referents, room: Room) -> Result<Value, Unresolved> {
    let mut resolver = Resolver { referents, room, bytes: 0, memory: 0 };
    resolver.take(shape, 0)?;
    resolver.value(inputs, 1)
}

struct Resolver<'a> {
    referents: &'a Referents,
    room: Room,
    bytes: usize,
    memory: usize,
}

impl Resolver<'_> {
    fn value(&mut self, value: Value, depth: usize) -> Result<Value, Unresolved> {
        Ok(match value {
            Value::String(text) if text.contains("${{") => self.text(&text, depth)?,
            Value::Array(items) => {
                Value::Array(items.into_iter().map(|item| self.value(item, depth + 1)).collect::<Result<_, _>>()?)
            }
            Value::Object(map) => Value::Object(
                map.into_iter()
                    .map(|(key, value)| Ok((key, self.value(value, depth + 1)?)))
                    .collect::<Result<Map<_, _>, Unresolved>>()?,
            ),
            other => other,
        })
    }

    fn text(&mut self, text: &str, depth: usize) -> Result<Value, Unresolved> {
        let pieces = pieces(text).map_err(Unresolved::Missing)?;
        if let [Piece::Reference(reference)] = pieces.as_slice() {
            let referred = lookup(reference, self.referents)?;
            self.take(referred.shape, depth - 1)?;
            return Ok(referred.value.clone());
        }
        let mut resolved = String::with_capacity(text.len());
        for piece in &pieces {
            match piece {
                Piece::Text(text) => resolved.push_str(text),
                Piece::Open => resolved.push_str("${{"),
                Piece::Reference(reference) => {
                    let referred = lookup(reference, self.referents)?;
                    // Inserted as text it is as long as its JSON, and a scalar.
                    let bytes = referred.shape.bytes;
                    self.take(Shape { bytes, depth: 1, memory: bytes }, depth - 1)?;
                    match &referred.value {
                        Value::String(value) => resolved.push_str(value),
                        other => resolved.push_str(&other.to_string()),
                    }
                }
            }
        }
        Ok(Value::String(resolved))
    }

    /// Takes room for a value inside `depth` lists and objects.
    fn take(&mut self, shape: Shape, depth: usize) -> Result<(), Unresolved> {
        self.bytes += shape.bytes;
        self.memory += shape.memory;
        let Room { bytes, memory, depth: deepest } = self.room;
        let message = if self.bytes > bytes {
            format!("with their references resolved, the inputs have more than {bytes} bytes")
        } else if self.memory > memory {
            format!("with their references resolved, the inputs take more than {memory} bytes of memory")
        } else if depth + shape.depth > deepest {
            format!("with their references resolved, the inputs are nested deeper than {deepest} levels")
        } else {
            return Ok(());
        };
        Err(Unresolved::TooLarge(message))
    }
}

fn lookup<'a>(reference: &Reference, referents: &'a Referents) -> Result<&'a Referred, Unresolved> {
    referents.get(reference).ok_or_else(|| {
        let Reference { step, path } = reference;
        Unresolved::Missing(if path.is_empty() {
            format!("step \"{step}\" has no outputs")
        } else {
            format!("the outputs of step \"{step}\" have no {}", path.join("."))
        })
    })
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${{") {
        if rest[..start].ends_with('$') {
            pieces.extend([Piece::Text(&rest[..start - 1]), Piece::Open]);
            rest = &rest[start + 3..];
            continue;
        }
        if start > 0 {
            pieces.push(Piece::Text(&rest[..start]));
        }
        let mut parser = Parser { rest: &rest[start + 3..] };
        pieces.push(Piece::Reference(parser.reference()?));
        rest = parser.rest;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn reference(&mut self) -> Result<Reference, String> {
        self.spaces();
        self.expect("steps")?;
        let Some(Segment::Key(step)) = self.segment()? else {
            return Err("a reference must name a step: ${{ steps.NAME.outputs.PATH }}".into());
        };
        if self.segment()? != Some(Segment::Key("outputs".into())) {
            return Err(format!("a reference must read outputs: ${{{{ steps[\"{step}\"].outputs.PATH }}}}"));
        }
        let mut path = Vec::new();
        while let Some(segment) = self.segment()? {
            path.push(match segment {
                Segment::Key(key) => key,
                Segment::Index(index) => index.to_string(),
            });
        }
        self.spaces();
        self.expect("}}")?;
        Ok(Reference { step, path })
    }

    /// `.name`, `["any text"]` or `[3]`.
    fn segment(&mut self) -> Result<Option<Segment>, String> {
        if let Some(rest) = self.rest.strip_prefix('.') {
            let length =
                rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).unwrap_or(rest.len());
            if length == 0 {
                return Err("a reference must have a name after each dot".into());
            }
            self.rest = &rest[length..];
            return Ok(Some(Segment::Key(rest[..length].to_owned())));
        }
        let Some(rest) = self.rest.strip_prefix('[') else { return Ok(None) };
        if rest.starts_with('"') {
            let mut strings = serde_json::Deserializer::from_str(rest).into_iter::<String>();
            let Some(Ok(key)) = strings.next() else {
                return Err("a reference's [\"...\"] is not a JSON string".into());
            };
            if key.contains('\0') {
                return Err("a reference's [\"...\"] contains NUL, which no output can have".into());
            }
            // Postgres would read it as a position in a list, counted from the end or with leading spaces.
            let looks_like_number = key.trim_start().parse::<i64>().is_ok();
            if looks_like_number && !key.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(format!("a reference's [\"{key}\"] looks like a position; write positions like [0]"));
            }
            self.rest = &rest[strings.byte_offset()..];
            self.expect("]")?;
            return Ok(Some(Segment::Key(key)));
        }
        let length = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let index = rest[..length].parse().map_err(|_| "a reference's [..] must contain a number or a \"string\"")?;
        self.rest = &rest[length..];
        self.expect("]")?;
        Ok(Some(Segment::Index(index)))
    }

    fn spaces(&mut self) {
        self.rest = self.rest.trim_start_matches(' ');
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(token).ok_or_else(|| {
            format!("\"{token}\" is missing; a reference looks like ${{{{ steps.NAME.outputs.PATH }}}}")
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ROOM: Room = Room { bytes: 1_000, memory: 100_000, depth: 8 };

    fn reference(step: &str, path: &[&str]) -> Reference {
        Reference { step: step.into(), path: path.iter().map(|&part| part.to_owned()).collect() }
    }

    /// Resolves as after a claim: each reference of the inputs has its value in these outputs.
    fn resolved(inputs: &Value, outputs: &Value, room: Room) -> Result<Value, Unresolved> {
        let (found, problems) = references(inputs, "inputs");
        assert_eq!(problems, []);
        let value = |reference: &Reference| {
            let mut at = outputs.get(&reference.step)?;
            for part in &reference.path {
                at = if at.is_array() { at.get(part.parse::<usize>().ok()?) } else { at.get(part) }?;
            }
            Some(Referred::new(at.clone(), &at.to_string()))
        };
        let referents =
            found.into_iter().filter_map(|reference| Some((reference.clone(), value(&reference)?))).collect();
        resolve(inputs.clone(), Shape::of(&inputs.to_string()), &referents, room)
    }

    fn outputs() -> Value {
        json!({"build": {"n": 3, "list": [{"a": "x"}]}, "a name": {"out put": "y"}})
    }

    #[test]
    fn a_whole_reference_takes_the_type_of_the_value() {
        let inputs = json!({"n": "${{ steps.build.outputs.n }}", "all": ["${{steps.build.outputs}}"]});
        let expected = json!({"n": 3, "all": [{"n": 3, "list": [{"a": "x"}]}]});
        assert_eq!(resolved(&inputs, &outputs(), ROOM).unwrap(), expected);
    }

    #[test]
    fn inside_text_the_value_is_written_out() {
        let inputs = json!(r#"n=${{ steps.build.outputs.n }} ${{ steps["a name"].outputs["out put"] }} $${{ no }}"#);
        assert_eq!(resolved(&inputs, &outputs(), ROOM).unwrap(), json!("n=3 y ${{ no }}"));
        let inputs = json!("${{ steps.build.outputs.list[0].a }}!");
        assert_eq!(resolved(&inputs, &outputs(), ROOM).unwrap(), json!("x!"));
    }

    #[test]
    fn a_missing_output_is_an_error_and_never_an_empty_text() {
        for text in
            ["${{ steps.build.outputs.nope }}", "${{ steps.other.outputs.n }}", "${{ steps.build.outputs.list[7] }}"]
        {
            assert!(matches!(resolved(&json!(text), &outputs(), ROOM), Err(Unresolved::Missing(_))), "{text}");
        }
    }

    #[test]
    fn references_that_multiply_are_stopped_before_they_are_built() {
        let outputs = json!({"a": {"text": "x".repeat(400), "deep": [[[[[[1]]]]]]}});
        let text = |reference: &str| format!("${{{{ steps.a.outputs.{reference} }}}}");
        let cases = [
            (json!([text("text"), text("text"), text("text")]), "1000 bytes"),
            (json!(format!("{} {} {}", text("text"), text("text"), text("text"))), "1000 bytes"),
            (json!([[text("deep")]]), "8 levels"),
        ];
        for (inputs, expected) in cases {
            let Err(Unresolved::TooLarge(message)) = resolved(&inputs, &outputs, ROOM) else {
                panic!("{inputs} was resolved");
            };
            assert!(message.contains(expected), "{message}");
        }
        assert!(resolved(&json!([text("deep")]), &outputs, ROOM).is_ok());
        let narrow = Room { memory: 1_000, ..ROOM };
        assert!(matches!(resolved(&json!([text("deep")]), &outputs, narrow), Err(Unresolved::TooLarge(_))));
    }

    #[test]
    fn references_are_found_once_each_with_their_paths() {
        let inputs = json!(["${{ steps.a.outputs.x[1] }}", {"k": "${{steps.a.outputs.x[1]}} ${{ steps.b.outputs }}"}]);
        let (found, _) = references(&inputs, "inputs");
        assert_eq!(found, [reference("a", &["x", "1"]), reference("b", &[])].into());
    }

    #[test]
    fn malformed_references_are_named_with_their_place() {
        for text in [
            "${{ steps.a }}",
            "${{ env.X }}",
            "${{ steps.a.outputs.x",
            "${{ steps[\"a].outputs }}",
            "${{ steps[1].outputs }}",
            "${{ steps.a.outputs[\"-1\"] }}",
            "${{ steps.a.outputs[\" 1\"] }}",
            "${{ steps.a.outputs[\"\\u0000\"] }}",
        ] {
            let (_, problems) = references(&json!({"x": [text]}), "inputs");
            assert_eq!(problems.len(), 1, "{text}");
            assert_eq!(problems[0].0, "inputs.x[0]");
        }
    }
}
