//! References in a step's inputs to upstream outputs: `${{ steps.NAME.outputs.PATH }}` or
//! `${{ steps["a name"].outputs.PATH }}`.
//!
//! A string that consists of one reference becomes the value with its JSON type. In a longer string the value is
//! inserted as text. `$${{` is a literal `${{`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::bounds::Shape;
use super::place::strings;

/// A parsed reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    pub step: String,
    /// Keys of objects and positions in lists, as the operator `#>` of Postgres takes them.
    pub path: Vec<String>,
}

/// A value that the inputs refer to.
#[derive(Debug, Clone)]
pub struct ReferencedValue {
    pub value: Value,
    pub shape: Shape,
}

impl ReferencedValue {
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

/// Adds the values to which `inputs` refer inside whole outputs. Claims return whole outputs for runs that were created
/// before paths of references were stored.
pub fn add_nested_values(inputs: &Value, values: &mut ReferencedValues) {
    if values.keys().all(|reference| !reference.path.is_empty()) {
        return;
    }
    for reference in references(inputs, "").0 {
        let whole = Reference { step: reference.step.clone(), path: Vec::new() };
        if !values.contains_key(&reference)
            && let Some(found) = values.get(&whole).and_then(|outputs| outputs.at(&reference.path))
        {
            values.insert(reference, found);
        }
    }
}

/// The values of a step's references. A reference without a value is absent.
pub type ReferencedValues = BTreeMap<Reference, ReferencedValue>;

/// Limits of resolved inputs.
#[derive(Debug, Clone, Copy)]
pub struct SizeLimits {
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

/// Maximum number of malformed references that are reported for one step.
const MAX_PROBLEMS: usize = 100;

enum Piece<'a> {
    Text(&'a str),
    /// `$${{`, which is a literal `${{`.
    Escape,
    Reference(Reference),
}

/// The references in `inputs`, and each malformed one with its JSON path below `path`.
pub fn references(inputs: &Value, path: &str) -> (BTreeSet<Reference>, Vec<(String, String)>) {
    let (mut found, mut problems) = (BTreeSet::new(), Vec::new());
    strings(inputs, path, &mut |text, place| match pieces(text) {
        Ok(pieces) => found.extend(pieces.into_iter().filter_map(|piece| match piece {
            Piece::Reference(reference) => Some(reference),
            Piece::Text(_) | Piece::Escape => None,
        })),
        Err(message) if problems.len() < MAX_PROBLEMS => problems.push((place.path(), message)),
        Err(_) => {}
    });
    (found, problems)
}

/// Replaces every reference in `inputs`, whose shape is `shape`, with its value. Stops before the result exceeds
/// `limits`.
pub fn resolve(
    inputs: Value,
    shape: Shape,
    values: &ReferencedValues,
    limits: SizeLimits,
) -> Result<Value, Unresolved> {
    let mut resolver = Resolver { values, limits, bytes: 0, memory: 0 };
    resolver.reserve(shape, 0)?;
    resolver.value(inputs, 1)
}

struct Resolver<'a> {
    values: &'a ReferencedValues,
    limits: SizeLimits,
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
            let found = lookup(reference, self.values)?;
            self.reserve(found.shape, depth - 1)?;
            return Ok(found.value.clone());
        }
        let mut resolved = String::with_capacity(text.len());
        for piece in &pieces {
            match piece {
                Piece::Text(text) => resolved.push_str(text),
                Piece::Escape => resolved.push_str("${{"),
                Piece::Reference(reference) => {
                    let found = lookup(reference, self.values)?;
                    // Inserted as text, it is a scalar as long as its JSON.
                    let bytes = found.shape.bytes;
                    self.reserve(Shape { bytes, depth: 1, memory: bytes }, depth - 1)?;
                    match &found.value {
                        Value::String(value) => resolved.push_str(value),
                        other => resolved.push_str(&other.to_string()),
                    }
                }
            }
        }
        Ok(Value::String(resolved))
    }

    /// Counts a value inside `depth` lists and objects, and checks the limits.
    fn reserve(&mut self, shape: Shape, depth: usize) -> Result<(), Unresolved> {
        self.bytes += shape.bytes;
        self.memory += shape.memory;
        let SizeLimits { bytes, memory, depth: max_depth } = self.limits;
        let message = if self.bytes > bytes {
            format!("with their references resolved, the inputs have more than {bytes} bytes")
        } else if self.memory > memory {
            format!("with their references resolved, the inputs take more than {memory} bytes of memory")
        } else if depth + shape.depth > max_depth {
            format!("with their references resolved, the inputs are nested deeper than {max_depth} levels")
        } else {
            return Ok(());
        };
        Err(Unresolved::TooLarge(message))
    }
}

fn lookup<'a>(reference: &Reference, values: &'a ReferencedValues) -> Result<&'a ReferencedValue, Unresolved> {
    values.get(reference).ok_or_else(|| {
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
            pieces.extend([Piece::Text(&rest[..start - 1]), Piece::Escape]);
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
            // Postgres would read such a key as a position in a list: `-1` from the end, ` 1` with the space ignored.
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

    const LIMITS: SizeLimits = SizeLimits { bytes: 1_000, memory: 100_000, depth: 8 };

    fn reference(step: &str, path: &[&str]) -> Reference {
        Reference { step: step.into(), path: path.iter().map(|&part| part.to_owned()).collect() }
    }

    /// Resolves as after a claim: each reference of the inputs has its value in these outputs.
    fn resolved(inputs: &Value, outputs: &Value, limits: SizeLimits) -> Result<Value, Unresolved> {
        let (found, problems) = references(inputs, "inputs");
        assert_eq!(problems, []);
        let value = |reference: &Reference| {
            let mut at = outputs.get(&reference.step)?;
            for part in &reference.path {
                at = if at.is_array() { at.get(part.parse::<usize>().ok()?) } else { at.get(part) }?;
            }
            Some(ReferencedValue::new(at.clone(), &at.to_string()))
        };
        let values = found.into_iter().filter_map(|reference| Some((reference.clone(), value(&reference)?))).collect();
        resolve(inputs.clone(), Shape::of(&inputs.to_string()), &values, limits)
    }

    fn outputs() -> Value {
        json!({"build": {"n": 3, "list": [{"a": "x"}]}, "a name": {"out put": "y"}})
    }

    #[test]
    fn a_whole_reference_takes_the_type_of_the_value() {
        let inputs = json!({"n": "${{ steps.build.outputs.n }}", "all": ["${{steps.build.outputs}}"]});
        let expected = json!({"n": 3, "all": [{"n": 3, "list": [{"a": "x"}]}]});
        assert_eq!(resolved(&inputs, &outputs(), LIMITS).unwrap(), expected);
    }

    #[test]
    fn inside_text_the_value_is_written_out() {
        let inputs = json!(r#"n=${{ steps.build.outputs.n }} ${{ steps["a name"].outputs["out put"] }} $${{ no }}"#);
        assert_eq!(resolved(&inputs, &outputs(), LIMITS).unwrap(), json!("n=3 y ${{ no }}"));
        let inputs = json!("${{ steps.build.outputs.list[0].a }}!");
        assert_eq!(resolved(&inputs, &outputs(), LIMITS).unwrap(), json!("x!"));
    }

    #[test]
    fn a_missing_output_is_an_error_and_never_an_empty_text() {
        for text in
            ["${{ steps.build.outputs.nope }}", "${{ steps.other.outputs.n }}", "${{ steps.build.outputs.list[7] }}"]
        {
            assert!(matches!(resolved(&json!(text), &outputs(), LIMITS), Err(Unresolved::Missing(_))), "{text}");
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
            let Err(Unresolved::TooLarge(message)) = resolved(&inputs, &outputs, LIMITS) else {
                panic!("{inputs} was resolved");
            };
            assert!(message.contains(expected), "{message}");
        }
        assert!(resolved(&json!([text("deep")]), &outputs, LIMITS).is_ok());
        let narrow = SizeLimits { memory: 1_000, ..LIMITS };
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
