//! Reads YAML as JSON. Refuses YAML that JSON cannot express or that readers interpret differently, and names the line.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput, Tag};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::number::inexact_numbers;
use super::plan::MAX_JSON_DEPTH;

/// Why a text is refused, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct Refused {
    /// From 1.
    pub line: usize,
    pub message: String,
}

/// The value of a YAML document. Null if there is none. Refuses one that is larger than `max_bytes` as JSON.
pub fn to_json(text: &str, max_bytes: usize) -> Result<Value, Refused> {
    let mut reader =
        Reader { events: Parser::new_from_str(text), line: 1, max_bytes, expanded_bytes: 0, anchors: HashMap::new() };
    reader.document().map_err(|message| Refused { line: reader.line, message })
}

struct Reader<'a> {
    events: Parser<'a, StrInput<'a>>,
    /// Line of the last event.
    line: usize,
    max_bytes: usize,
    /// Size of what was read so far, with aliases expanded.
    expanded_bytes: usize,
    anchors: HashMap<usize, Node>,
}

#[derive(Clone)]
struct Node {
    value: Value,
    /// Approximate size as JSON.
    bytes: usize,
    /// Levels of nesting. 1 for a scalar.
    height: usize,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Value, String> {
        let first = loop {
            match self.next()? {
                Event::StreamStart | Event::DocumentStart(_) => {}
                Event::StreamEnd => return Ok(Value::Null),
                event => break event,
            }
        };
        let node = self.node(first, 1)?;
        loop {
            match self.next()? {
                Event::DocumentEnd => {}
                Event::StreamEnd => return Ok(node.value),
                _ => return Err("a second document starts here; a file may contain only one".to_owned()),
            }
        }
    }

    fn next(&mut self) -> Result<Event<'a>, String> {
        match self.events.next_event() {
            Some(Ok((event, span))) => {
                self.line = span.start.line();
                Ok(event)
            }
            Some(Err(error)) => {
                self.line = error.marker().line();
                Err(error.info().to_owned())
            }
            None => Ok(Event::StreamEnd),
        }
    }

    /// Reads the node that starts with `event`, at this depth.
    fn node(&mut self, event: Event<'_>, depth: usize) -> Result<Node, String> {
        check_depth(depth)?;
        let (anchor, node) = match event {
            Event::Alias(anchor) => return self.alias(anchor, depth),
            Event::Scalar(text, style, anchor, tag) => {
                let node = Node { value: scalar(&text, style, tag.as_deref())?, bytes: text.len() + 1, height: 1 };
                self.count(node.bytes)?;
                (anchor, node)
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_tag(tag.as_deref())?;
                (anchor, self.list(depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                refuse_tag(tag.as_deref())?;
                (anchor, self.object(depth)?)
            }
            event => return Err(format!("expected a value, found {event:?}")),
        };
        if anchor > 0 {
            self.count(node.bytes)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, depth: usize) -> Result<Node, String> {
        let node = self.anchors.get(&anchor).cloned().ok_or("the alias is part of its own value")?;
        check_depth(depth + node.height - 1)?;
        self.count(node.bytes)?;
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Node, String> {
        let (mut items, mut bytes, mut height) = (Vec::new(), 2, 1);
        self.count(bytes)?;
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(Node { value: Value::Array(items), bytes, height }),
                event => {
                    let item = self.node(event, depth + 1)?;
                    (bytes, height) = (bytes + item.bytes, height.max(item.height + 1));
                    items.push(item.value);
                }
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Node, String> {
        let (mut entries, mut bytes, mut height) = (Map::new(), 2, 1);
        self.count(bytes)?;
        loop {
            let event = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(Node { value: Value::Object(entries), bytes, height });
            }
            let (key, key_bytes) = self.key(event, depth)?;
            if entries.contains_key(&key) {
                return Err(format!("the key {key} is repeated in the same object"));
            }
            let event = self.next()?;
            let value = self.node(event, depth + 1)?;
            (bytes, height) = (bytes + key_bytes + value.bytes, height.max(value.height + 1));
            entries.insert(key, value.value);
        }
    }

    fn key(&mut self, event: Event<'_>, depth: usize) -> Result<(String, usize), String> {
        if matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<") {
            return Err("merge keys (<<) are not supported; write the keys out".to_owned());
        }
        let node = self.node(event, depth + 1)?;
        match node.value {
            Value::String(key) => Ok((key, node.bytes)),
            Value::Array(_) | Value::Object(_) => Err("a key must be a text".to_owned()),
            other => Err(format!("the key {other} is not a text; quote it if it is meant as one")),
        }
    }

    /// Counts bytes, and refuses too many. An alias counts with its full size each time, so that a short text cannot
    /// expand to a huge value.
    fn count(&mut self, bytes: usize) -> Result<(), String> {
        self.expanded_bytes += bytes;
        if self.expanded_bytes <= self.max_bytes {
            return Ok(());
        }
        let kib = self.max_bytes >> 10;
        Err(format!("more than {kib} KiB with its aliases expanded, which is more than a request may have"))
    }
}

fn check_depth(depth: usize) -> Result<(), String> {
    if depth <= MAX_JSON_DEPTH { Ok(()) } else { Err(format!("nested deeper than {MAX_JSON_DEPTH} levels")) }
}

/// Reads a scalar by the core schema of YAML 1.2 (section 10.3), in which `yes`, `on` and dates are strings.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
    if !is_text {
        refuse_tag(tag)?;
    }
    if is_text || style != ScalarStyle::Plain {
        return Ok(Value::from(text));
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Ok(Value::Null),
        "true" | "True" | "TRUE" => Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => Ok(Value::Bool(false)),
        _ if is_number(text) => number(text),
        _ => Ok(Value::from(text)),
    }
}

/// Whether a plain scalar is a number in the core schema.
fn is_number(text: &str) -> bool {
    let is_radix = |prefix: &str, radix: u32| {
        text.strip_prefix(prefix).is_some_and(|digits| !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix)))
    };
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let starts_with_digit = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let is_decimal =
        starts_with_digit(unsigned.strip_prefix('.').unwrap_or(unsigned)) && unsigned.parse::<f64>().is_ok();
    let is_infinite = matches!(unsigned, ".inf" | ".Inf" | ".INF");
    is_decimal || is_infinite || is_radix("0x", 16) || is_radix("0o", 8) || matches!(text, ".nan" | ".NaN" | ".NAN")
}

fn number(text: &str) -> Result<Value, String> {
    // Some readers take `017` for 17, others for 15.
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return Err(format!("{text} is not how JSON writes a number; write it in decimal, or quote it"));
    }
    match serde_json::from_str(text) {
        Ok(number) if inexact_numbers(text, 1).is_empty() => Ok(Value::Number(number)),
        _ => Err(format!("{text} cannot be kept exactly; quote it to make it a text")),
    }
}

fn refuse_tag(tag: Option<&Tag>) -> Result<(), String> {
    match tag {
        None => Ok(()),
        Some(tag) if tag.is_yaml_core_schema() => Err(format!("the tag !!{} is not supported", tag.suffix)),
        Some(tag) => Err(format!("the tag {tag} is not supported")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const MAX_BYTES: usize = 2 << 20;

    fn refusal(text: &str) -> String {
        to_json(text, MAX_BYTES).expect_err(text).to_string()
    }

    #[test]
    fn plain_scalars_follow_yaml_1_2() {
        let text = "\
%YAML 1.2
---
# a comment
plan:
  texts: [yes, off, 2026-01-02, 12:30:45, 1_000, 1.2.3, \"1\", '~', !!str 12, v1, .]
  numbers: [1, -2, 1.50, 3e2, 9007199254740992]
  rest: [true, FALSE, null, ~, ]
  none:
  reference: ${{ steps.build.outputs.artifact_id }}
  long: |
    one
    two
  folded: >-
    one
    two
...
";
        let expected = json!({"plan": {
            "texts": ["yes", "off", "2026-01-02", "12:30:45", "1_000", "1.2.3", "1", "~", "12", "v1", "."],
            "numbers": [1, -2, 1.5, 300.0, 9_007_199_254_740_992_u64],
            "rest": [true, false, null, null],
            "none": null,
            "reference": "${{ steps.build.outputs.artifact_id }}",
            "long": "one\ntwo\n",
            "folded": "one two",
        }});
        assert_eq!(to_json(text, MAX_BYTES).unwrap(), expected);
        assert_eq!(to_json("", MAX_BYTES).unwrap(), Value::Null);
        assert_eq!(to_json("---\n# nothing\n", MAX_BYTES).unwrap(), Value::Null);
    }

    #[test]
    fn an_alias_repeats_its_value_and_a_later_anchor_replaces_an_earlier_one() {
        let text = "a: &x {b: [1]}\nc: *x\nd: &x two\n*x : *x\n";
        assert_eq!(
            to_json(text, MAX_BYTES).unwrap(),
            json!({"a": {"b": [1]}, "c": {"b": [1]}, "d": "two", "two": "two"})
        );
    }

    #[test]
    fn yaml_that_json_cannot_express_is_refused_with_its_line() {
        for (text, expected) in [
            ("a: 1\nb: 2\na: 3\n", "line 3: the key a is repeated in the same object"),
            ("a:\n  {b: 1, \"b\": 2}", "line 2: the key b is repeated in the same object"),
            (
                "a: 1\nb: 12345678901234567890123\n",
                "line 2: 12345678901234567890123 cannot be kept exactly; quote it to make it a text",
            ),
            (
                "a: 0.12345678901234567890",
                "line 1: 0.12345678901234567890 cannot be kept exactly; quote it to make it a text",
            ),
            ("a: 1e400", "line 1: 1e400 cannot be kept exactly; quote it to make it a text"),
            ("a:\n- 017", "line 2: 017 is not how JSON writes a number; write it in decimal, or quote it"),
            ("a: 0x1F", "line 1: 0x1F is not how JSON writes a number; write it in decimal, or quote it"),
            ("a: 0o17", "line 1: 0o17 is not how JSON writes a number; write it in decimal, or quote it"),
            ("a: .5", "line 1: .5 is not how JSON writes a number; write it in decimal, or quote it"),
            ("a: +1", "line 1: +1 is not how JSON writes a number; write it in decimal, or quote it"),
            ("a: .nan", "line 1: .nan is not how JSON writes a number; write it in decimal, or quote it"),
            ("a: -.INF", "line 1: -.INF is not how JSON writes a number; write it in decimal, or quote it"),
            ("a: 1\nb: !secret x", "line 2: the tag !secret is not supported"),
            ("a: !!binary aGk=", "line 1: the tag !!binary is not supported"),
            ("a: !!python/object:os.system x", "line 1: the tag !!python/object:os.system is not supported"),
            ("a:\n- !set {b: 1}", "line 2: the tag !set is not supported"),
            ("a: !list [1]", "line 1: the tag !list is not supported"),
            ("a: 1\n---\nb: 2\n", "line 2: a second document starts here; a file may contain only one"),
            ("a: 1\n...\n---\n", "line 3: a second document starts here; a file may contain only one"),
            ("a: &x {b: 1}\nc:\n  <<: *x\n", "line 3: merge keys (<<) are not supported; write the keys out"),
            ("a: &x [*x]", "line 1: the alias is part of its own value"),
            ("1: a", "line 1: the key 1 is not a text; quote it if it is meant as one"),
            ("true: a", "line 1: the key true is not a text; quote it if it is meant as one"),
            ("? [a]\n: b", "line 1: a key must be a text"),
        ] {
            assert_eq!(refusal(text), expected, "{text}");
        }
        for text in ["a: *x", "a: [1, 2\nb: 3", "a:\n\tb: 1", "a: \"\\ud83d\"", "a: b: c", "a: @x"] {
            assert!(refusal(text).starts_with("line "), "{text}");
        }
    }

    #[test]
    fn the_nesting_limit_is_that_of_the_api_also_with_aliases() {
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(
            to_json(&nested(MAX_JSON_DEPTH - 1), MAX_BYTES).unwrap(),
            serde_json::from_str::<Value>(&nested(63)).unwrap()
        );
        assert_eq!(refusal(&nested(MAX_JSON_DEPTH)), "line 1: nested deeper than 64 levels");
        // The parser reads ahead and has its own limit.
        assert_eq!(refusal(&"[".repeat(1_000_000)), "line 1: recursion limit exceeded");
        assert_eq!(refusal(&"- ".repeat(1_000_000)), "line 1: nested deeper than 64 levels");
        let by_alias = format!("a: &x {}\nb: {}*x{}\n", nested(40), "[".repeat(40), "]".repeat(40));
        assert_eq!(refusal(&by_alias), "line 2: nested deeper than 64 levels");
    }

    #[test]
    fn an_alias_bomb_is_refused_before_it_is_expanded() {
        let ten = |item: &str| [item; 10].join(", ");
        let levels = (1..30).map(|level| format!("a{level}: &a{level} [{}]", ten(&format!("*a{}", level - 1))));
        let bomb = format!("a0: &a0 [{}]\n{}\n", ten("x"), levels.collect::<Vec<_>>().join("\n"));
        let anchors: Vec<_> = (0..60).map(|level| format!("&a{level} [")).collect();
        let in_each_other = format!("{}{}{}", anchors.concat(), "x,".repeat(200_000), "]".repeat(60));
        for text in [bomb, in_each_other, "x".repeat(3 << 20), format!("[{}]", "a,".repeat(2 << 20))] {
            // Expanded, the first one would have 10^29 items.
            let refusal = refusal(&text);
            assert!(
                refusal.ends_with("KiB with its aliases expanded, which is more than a request may have"),
                "{refusal}"
            );
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        // Larger integers are refused.
        let integer = -(1_i64 << 53)..=1 << 53;
        let number = prop_oneof![integer.prop_map(Value::from), any::<f64>().prop_map(Value::from)];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            number,
            any::<String>().prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..6).prop_map(Value::from),
                btree_map("\\PC{0,20}", inner, 0..6).prop_map(|entries| entries.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_is_yaml(value in any_json()) {
            let object = json!({"value": value});
            prop_assert_eq!(to_json(&object.to_string(), MAX_BYTES).unwrap(), object.clone());
            prop_assert_eq!(to_json(&serde_json::to_string_pretty(&object).unwrap(), MAX_BYTES).unwrap(), object);
        }
    }
}
