//! Sizes of JSON values, measured on the text before a value is built.

use std::io;

use serde::Serialize;
use serde_json::Value;

/// Size of a JSON text, and of its value once parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Length of the text.
    pub bytes: usize,
    /// Levels of nesting: 1 for a scalar, one more for each list or object around it.
    pub depth: usize,
    /// Upper bound in bytes for the memory of the parsed value. A short text can contain many small objects.
    pub memory: usize,
}

impl Shape {
    /// Measures a well-formed JSON text in one pass without allocation.
    pub fn of(json: &str) -> Self {
        let (mut open, mut deepest, mut memory) = (0_usize, 0_usize, 32 + json.len());
        let (mut in_string, mut escaped) = (false, false);
        for byte in json.bytes() {
            if in_string {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => in_string = true,
                b'{' | b'[' => {
                    open += 1;
                    deepest = deepest.max(open);
                    // The first node of a map has room for 11 entries. A list starts with room for 4.
                    memory += if byte == b'{' { 640 } else { 128 };
                }
                b'}' | b']' => open = open.saturating_sub(1),
                // Nodes of a map are at least half full. Lists grow by doubling.
                b':' => memory += 130,
                b',' => memory += 48,
                _ => {}
            }
        }
        // A scalar in the innermost list or object is one more level. An empty list or object has none.
        Self { bytes: json.len(), depth: deepest + 1, memory }
    }
}

/// Levels of nesting: 1 for a scalar or an empty list, one more for each list or object around it. Iterative, because a
/// client's value may be as deep as the parser allows.
pub fn json_depth(value: &Value) -> usize {
    let mut deepest = 0;
    let mut open = vec![(value, 1)];
    while let Some((value, depth)) = open.pop() {
        deepest = deepest.max(depth);
        match value {
            Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(map) => open.extend(map.values().map(|item| (item, depth + 1))),
            _ => {}
        }
    }
    deepest
}

/// Bytes of the value as compact JSON.
pub fn json_bytes(value: &impl Serialize) -> usize {
    struct Counter(usize);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    // It fails only for a map whose keys are not strings. Such a value cannot be stored.
    serde_json::to_writer(&mut counter, value).map_or(usize::MAX, |()| counter.0)
}

/// At most the first `max` bytes of a text, cut between characters. A cut text ends with its total size.
pub fn shortened(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let end = (0..=max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    format!("{}... ({} bytes in all)", &text[..end], text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn depth_and_bytes_are_those_of_the_json_text() {
        for (value, depth) in [(json!(1), 1), (json!([]), 1), (json!({"a": [1]}), 3), (json!([[], {"b": {}}]), 3)] {
            assert_eq!(json_depth(&value), depth, "{value}");
            assert_eq!(json_bytes(&value), value.to_string().len(), "{value}");
        }
    }

    #[test]
    fn the_shape_of_a_text_bounds_the_value() {
        for value in [json!(1), json!({"a": [1, {"b": "}{[]\\\"["}]}), json!([[[[]]]]), json!([{"": 0}, {"": 0}])] {
            let text = value.to_string();
            let shape = Shape::of(&text);
            assert_eq!(shape.bytes, text.len());
            let depth = json_depth(&value);
            assert!((depth..=depth + 1).contains(&shape.depth), "{value}: {shape:?}");
            assert!(shape.memory >= shape.bytes + 32);
        }
        // Measured: a map with one entry takes one node of 632 bytes.
        assert!(Shape::of(r#"[{"":0},{"":0}]"#).memory >= 2 * 632);
    }

    #[test]
    fn a_shortened_text_keeps_whole_characters_and_says_what_is_missing() {
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(shortened("aüb", 2), "a... (4 bytes in all)");
    }
}
