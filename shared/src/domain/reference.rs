//! References of a step's inputs to upstream outputs: `${{ steps.NAME.outputs.PATH }}` or
//! `${{ steps["a name"].outputs.PATH }}`.
//!
//! A string that is one whole reference takes the JSON type of the value; inside a longer string the value is written
//! into the text. `$${{` stands for a literal `${{`.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::place::strings;

/// A parsed reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub step: String,
    pub path: Vec<Segment>,
}

/// One part of a path into outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    Key(String),
    Index(usize),
}

/// Most malformed references that are told of one step.
const MAX_PROBLEMS: usize = 100;

enum Piece<'a> {
    Text(&'a str),
    Open,
    Reference(Reference),
}

/// Names of the steps that `inputs` refers to; each malformed reference with its JSON path below `path`.
pub fn referenced_steps(inputs: &Value, path: &str) -> (BTreeSet<String>, Vec<(String, String)>) {
    let (mut names, mut problems) = (BTreeSet::new(), Vec::new());
    strings(inputs, path, &mut |text, place| match pieces(text) {
        Ok(pieces) => names.extend(pieces.into_iter().filter_map(|piece| match piece {
            Piece::Reference(reference) => Some(reference.step),
            Piece::Text(_) | Piece::Open => None,
        })),
        // A step may hold very many: whoever reads them mends the first ones first.
        Err(message) if problems.len() < MAX_PROBLEMS => problems.push((place.path(), message)),
        Err(_) => {}
    });
    (names, problems)
}

/// Replaces every reference by the upstream value. `upstream` maps step names to their outputs.
pub fn resolve(inputs: &Value, upstream: &Map<String, Value>) -> Result<Value, String> {
    Ok(match inputs {
        Value::String(text) => resolve_text(text, upstream)?,
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| resolve(item, upstream)).collect::<Result<_, _>>()?)
        }
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, value)| Ok((key.clone(), resolve(value, upstream)?)))
                .collect::<Result<_, String>>()?,
        ),
        other => other.clone(),
    })
}

fn resolve_text(text: &str, upstream: &Map<String, Value>) -> Result<Value, String> {
    let pieces = pieces(text)?;
    if let [Piece::Reference(reference)] = pieces.as_slice() {
        return lookup(reference, upstream).cloned();
    }
    let mut resolved = String::with_capacity(text.len());
    for piece in &pieces {
        match piece {
            Piece::Text(text) => resolved.push_str(text),
            Piece::Open => resolved.push_str("${{"),
            Piece::Reference(reference) => match lookup(reference, upstream)? {
                Value::String(value) => resolved.push_str(value),
                other => resolved.push_str(&other.to_string()),
            },
        }
    }
    Ok(Value::String(resolved))
}

fn lookup<'a>(reference: &Reference, upstream: &'a Map<String, Value>) -> Result<&'a Value, String> {
    let outputs = upstream.get(&reference.step).ok_or_else(|| format!("step \"{}\" has no outputs", reference.step))?;
    reference.path.iter().try_fold(outputs, |value, segment| {
        match segment {
            Segment::Key(key) => value.get(key),
            Segment::Index(index) => value.get(index),
        }
        .ok_or_else(|| format!("the outputs of step \"{}\" have no {segment:?}", reference.step))
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
            return Err("a reference names a step: ${{ steps.NAME.outputs.PATH }}".into());
        };
        if self.segment()? != Some(Segment::Key("outputs".into())) {
            return Err(format!("a reference reads outputs: ${{{{ steps[\"{step}\"].outputs.PATH }}}}"));
        }
        let mut path = Vec::new();
        while let Some(segment) = self.segment()? {
            path.push(segment);
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
                return Err("a reference has a name after each dot".into());
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
            self.rest = &rest[strings.byte_offset()..];
            self.expect("]")?;
            return Ok(Some(Segment::Key(key)));
        }
        let length = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let index = rest[..length].parse().map_err(|_| "a reference's [..] holds a number or a \"string\"")?;
        self.rest = &rest[length..];
        self.expect("]")?;
        Ok(Some(Segment::Index(index)))
    }

    fn spaces(&mut self) {
        self.rest = self.rest.trim_start_matches(' ');
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(token).ok_or_else(|| {
            format!("a reference looks like ${{{{ steps.NAME.outputs.PATH }}}}; \"{token}\" is missing")
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn upstream() -> Map<String, Value> {
        let value = json!({"build": {"n": 3, "list": [{"a": "x"}]}, "a name": {"out put": "y"}});
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn a_whole_reference_takes_the_type_of_the_value() {
        let inputs = json!({"n": "${{ steps.build.outputs.n }}", "all": ["${{steps.build.outputs}}"]});
        assert_eq!(resolve(&inputs, &upstream()).unwrap(), json!({"n": 3, "all": [{"n": 3, "list": [{"a": "x"}]}]}));
    }

    #[test]
    fn inside_text_the_value_is_written_out() {
        let inputs = json!(r#"n=${{ steps.build.outputs.n }} ${{ steps["a name"].outputs["out put"] }} $${{ no }}"#);
        assert_eq!(resolve(&inputs, &upstream()).unwrap(), json!("n=3 y ${{ no }}"));
        let inputs = json!("${{ steps.build.outputs.list[0].a }}!");
        assert_eq!(resolve(&inputs, &upstream()).unwrap(), json!("x!"));
    }

    #[test]
    fn a_missing_output_is_an_error_and_never_an_empty_text() {
        for text in
            ["${{ steps.build.outputs.nope }}", "${{ steps.other.outputs.n }}", "${{ steps.build.outputs.list[7] }}"]
        {
            assert!(resolve(&json!(text), &upstream()).is_err(), "{text}");
        }
    }

    #[test]
    fn malformed_references_are_told_with_their_place() {
        for text in [
            "${{ steps.a }}",
            "${{ env.X }}",
            "${{ steps.a.outputs.x",
            "${{ steps[\"a].outputs }}",
            "${{ steps[1].outputs }}",
        ] {
            let (_, problems) = referenced_steps(&json!({"x": [text]}), "inputs");
            assert_eq!(problems.len(), 1, "{text}");
            assert_eq!(problems[0].0, "inputs.x[0]");
        }
    }
}
