//! Takes secrets out of logs before they become evidence.
//!
//! The text arrives in chunks that are cut anywhere. Lines are judged whole; of a line that is too long to keep, the end
//! is held back, so that a secret across two chunks is still seen whole. The number of lines stays the same.

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::secrets::shapes::{self, PRIVATE_KEY_END, PRIVATE_KEY_START};

/// A longer line is redacted in parts.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// The part of a long line that is held back. Longer secrets are taken out as a whole when they end.
const HELD_BYTES: usize = 16 * 1024;
/// How far before a secret a pattern looks.
const CONTEXT_BYTES: usize = 512;
/// Shorter values would take out half of every log.
const MIN_VALUE_BYTES: usize = 4;
const MAX_KEY_LINES: usize = 400;

/// The name of the rule for the values that the caller gives.
const VALUE: &str = "value";

/// Redacts one stream.
#[derive(Debug)]
pub struct Redactor {
    values: Option<AhoCorasick>,
    /// What came since the last line break, or since the last part of a long line.
    pending: Vec<u8>,
    /// Lines since the start of a private key.
    key_lines: Option<usize>,
    /// The pending text starts inside a secret whose beginning is already removed.
    in_secret: bool,
    redactions: u64,
}

impl Redactor {
    /// `values` are exact secrets, such as the credentials of the process. Each is also looked for in the forms in which
    /// logs show it: escaped in JSON, in URLs, and in base 64. Values below four bytes are ignored.
    pub fn new(values: &[String]) -> Self {
        let mut forms: Vec<Vec<u8>> = Vec::new();
        for value in values {
            // A value with several lines is in the log line by line.
            let parts = value.lines().map(str::trim).chain([value.as_str()]);
            forms.extend(parts.filter(|part| part.len() >= MIN_VALUE_BYTES).flat_map(forms_of));
        }
        forms.sort();
        forms.dedup();
        // Overlapping matches of a standard automaton find every value, also one inside another.
        let values = (!forms.is_empty())
            .then(|| AhoCorasick::builder().match_kind(MatchKind::Standard).build(&forms).ok())
            .flatten();
        Self { values, pending: Vec::new(), key_lines: None, in_secret: false, redactions: 0 }
    }

    /// Takes a chunk, and returns what can be shown already.
    pub fn push(&mut self, chunk: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(chunk.len());
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            // A large piece without a line break is taken in steps, so that what is kept stays small.
            for step in piece.chunks(MAX_LINE_BYTES) {
                self.pending.extend_from_slice(step);
                if self.pending.last() == Some(&b'\n') {
                    let line = std::mem::take(&mut self.pending);
                    self.line(&line, &mut out);
                } else if self.pending.len() > MAX_LINE_BYTES {
                    self.part(&mut out);
                }
            }
        }
        out
    }

    /// The rest of the stream.
    pub fn finish(mut self) -> (Vec<u8>, u64) {
        let mut out = Vec::new();
        let line = std::mem::take(&mut self.pending);
        self.line(&line, &mut out);
        (out, self.redactions)
    }

    /// Redacts a text at once.
    pub fn redact(values: &[String], text: &[u8]) -> Vec<u8> {
        let mut redactor = Self::new(values);
        let mut out = redactor.push(text);
        out.extend(redactor.finish().0);
        out
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let spans = self.spans(line);
        self.write(line, &spans, out);
        self.in_secret = false;
        self.key_lines = match self.key_lines {
            _ if PRIVATE_KEY_END.is_match(line) => None,
            _ if PRIVATE_KEY_START.is_match(line) => Some(0),
            Some(lines) if lines < MAX_KEY_LINES => Some(lines + 1),
            _ => None,
        };
    }

    /// Writes the start of a line that is too long to keep.
    fn part(&mut self, out: &mut Vec<u8>) {
        let pending = std::mem::take(&mut self.pending);
        let mut spans = self.spans(&pending);
        let mut cut = pending.len().saturating_sub(HELD_BYTES);
        for (start, end, _) in &spans {
            if *start > cut + CONTEXT_BYTES || *end <= cut {
                continue;
            }
            // A secret that ends here is taken out whole. One that may go on waits for its end, with the words before it
            // that tell that it is one. If it is longer than what is kept, its rest is taken out as it comes.
            let before = start.saturating_sub(CONTEXT_BYTES);
            cut = if *end < pending.len() || before == 0 { *end } else { before };
        }
        spans.retain(|(start, _, _)| *start < cut);
        let goes_on = spans.last().is_some_and(|(_, end, _)| *end == pending.len());
        self.write(pending.get(..cut).unwrap_or_default(), &spans, out);
        self.in_secret = goes_on;
        self.pending = pending.get(cut..).unwrap_or_default().to_vec();
    }

    /// What is secret: sorted, and not overlapping.
    fn spans(&self, line: &[u8]) -> Vec<(usize, usize, &'static str)> {
        let mut spans = Vec::new();
        if self.in_secret {
            let end = line.iter().position(|byte| !is_secret_byte(*byte)).unwrap_or(line.len());
            spans.push((0, end, VALUE));
        }
        spans.extend(shapes::matches(line).iter().map(|found| (found.start, found.end, found.shape.rule)));
        let found = self.values.iter().flat_map(|values| values.find_overlapping_iter(line));
        let values: Vec<(usize, usize)> = found.map(|found| (found.start(), found.end())).collect();
        if !values.is_empty() {
            // A token right after a value is not at the start of a word, until the value is gone.
            let mut rest = line.to_vec();
            for (start, end) in &values {
                rest.get_mut(*start..*end).unwrap_or_default().fill(b' ');
            }
            spans.extend(shapes::matches(&rest).iter().map(|found| (found.start, found.end, found.shape.rule)));
        }
        spans.extend(values.into_iter().map(|(start, end)| (start, end, VALUE)));
        let starts_key = PRIVATE_KEY_START.find(line).map(|found| found.end());
        if let Some(from) = starts_key.or(self.key_lines.map(|_| 0)) {
            spans.extend(key_text(line, from));
        }
        spans.sort_unstable();
        let mut merged: Vec<(usize, usize, &'static str)> = Vec::with_capacity(spans.len());
        for (start, end, rule) in spans.into_iter().filter(|(start, end, _)| start < end) {
            match merged.last_mut() {
                Some((_, last, _)) if start < *last => *last = end.max(*last),
                _ => merged.push((start, end, rule)),
            }
        }
        merged
    }

    fn write(&mut self, line: &[u8], spans: &[(usize, usize, &'static str)], out: &mut Vec<u8>) {
        let mut at = 0;
        for (start, end, rule) in spans {
            out.extend_from_slice(line.get(at..*start).unwrap_or_default());
            out.extend_from_slice(b"[redacted:");
            out.extend_from_slice(rule.as_bytes());
            out.push(b']');
            at = *end;
            self.redactions += 1;
        }
        out.extend_from_slice(line.get(at..).unwrap_or_default());
    }
}

fn is_secret_byte(byte: u8) -> bool {
    !byte.is_ascii_whitespace() && !b"\"'`,;<>".contains(&byte)
}

/// Runs of base 64 after the header of a private key.
fn key_text(line: &[u8], from: usize) -> Vec<(usize, usize, &'static str)> {
    const MIN_RUN: usize = 8;
    let is_key = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=\\".contains(&byte);
    let mut spans = Vec::new();
    let mut start = from;
    for at in from..=line.len() {
        if line.get(at).is_none_or(|byte| !is_key(*byte)) {
            if at >= start + MIN_RUN {
                spans.push((start, at, shapes::PRIVATE_KEY_RULE));
            }
            start = at + 1;
        }
    }
    spans
}

/// The value as logs show it.
fn forms_of(value: &str) -> Vec<Vec<u8>> {
    let json = serde_json::to_string(value).map(|quoted| quoted.trim_matches('"').to_owned()).unwrap_or_default();
    let percent: String = value
        .bytes()
        .map(|byte| {
            let is_plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            if is_plain { char::from(byte).to_string() } else { format!("%{byte:02X}") }
        })
        .collect();
    let forms = [value.to_owned(), json, percent, STANDARD_NO_PAD.encode(value)];
    forms.into_iter().filter(|form| form.len() >= MIN_VALUE_BYTES).map(String::into_bytes).collect()
}

#[cfg(test)]
#[path = "redact_tests.rs"]
mod tests;
