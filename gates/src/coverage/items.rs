//! Declarations of Rust and Go that leave no code behind, and attributes of Rust that switch coverage off.

use super::lines::{LAST_LINE, Reach};
use super::plain::{Kind, Syntax, Token};

pub struct Items<'a> {
    pub tokens: &'a [Token],
    pub text: &'a str,
}

impl Items<'_> {
    fn word(&self, at: usize) -> &str {
        self.tokens.get(at).and_then(|token| self.text.get(token.start..token.end)).unwrap_or_default()
    }

    /// For each token, whether it belongs to a declaration without code.
    pub fn declared(&self, syntax: Syntax) -> Vec<bool> {
        let mut declared = vec![false; self.tokens.len()];
        let mut at = 0;
        while at < self.tokens.len() {
            let last = match syntax {
                Syntax::Rust if self.starts_item(at) => self.rust_item(at),
                Syntax::Go if self.starts_line(at) => self.go_item(at),
                _ => None,
            };
            if let Some(last) = last.filter(|last| *last >= at) {
                if let Some(range) = declared.get_mut(at..=last) {
                    range.fill(true);
                }
                at = last;
            }
            at += 1;
        }
        declared
    }

    fn starts_item(&self, at: usize) -> bool {
        at == 0 || matches!(self.word(at - 1), ";" | "}" | "{" | "]")
    }

    fn starts_line(&self, at: usize) -> bool {
        let line = |at: usize| self.tokens.get(at).map(|token| token.line);
        at == 0 || line(at - 1) != line(at)
    }

    fn partner(&self, at: usize) -> Option<usize> {
        self.tokens.get(at).and_then(|token| token.partner)
    }

    /// The token after attributes and visibility.
    fn after_attributes(&self, mut at: usize) -> Option<usize> {
        loop {
            match (self.word(at), self.word(at + 1), self.word(at + 2)) {
                ("#", "[", _) | ("pub", "(", _) => at = self.partner(at + 1)? + 1,
                ("pub" | "unsafe", _, _) => at += 1,
                _ => return Some(at),
            }
        }
    }

    fn rust_item(&self, at: usize) -> Option<usize> {
        if (self.word(at), self.word(at + 1)) == ("#", "!") {
            return self.partner(at + 2);
        }
        let item = self.after_attributes(at)?;
        match (self.word(item), self.word(item + 2)) {
            ("mod", "{") => Some(item + 2),
            ("use" | "type" | "extern", _) if self.word(item) != "extern" || self.word(item + 1) == "crate" => {
                self.item_end(item).map(|(last, _)| last)
            }
            ("mod" | "struct" | "enum" | "union", _) => self.item_end(item).map(|(last, _)| last),
            // Methods with a body are code.
            ("trait", _) => {
                let (last, body) = self.item_end(item)?;
                let signatures = body.is_some_and(|body| (body + 1..last).all(|at| self.word(at) != "{"));
                signatures.then_some(last)
            }
            _ => None,
        }
    }

    /// The last token of an item, and the brace that opens its body.
    fn item_end(&self, mut at: usize) -> Option<(usize, Option<usize>)> {
        let import = self.word(at) == "use";
        loop {
            match self.word(at) {
                ";" => return Some((at, None)),
                "{" if !import => return self.partner(at).map(|last| (last, Some(at))),
                "{" | "(" | "[" => at = self.partner(at)? + 1,
                "}" | "" => return None,
                _ => at += 1,
            }
        }
    }

    fn go_item(&self, at: usize) -> Option<usize> {
        if !matches!(self.word(at), "package" | "import" | "type") {
            return None;
        }
        let mut last = at;
        loop {
            if self.tokens.get(last).is_some_and(|token| token.kind == Kind::Open) {
                last = self.partner(last)?;
            }
            if last + 1 >= self.tokens.len() || self.starts_line_after(last + 1) {
                return Some(last);
            }
            if self.word(last + 1) == ";" {
                return Some(last + 1);
            }
            last += 1;
        }
    }

    fn starts_line_after(&self, at: usize) -> bool {
        match (at.checked_sub(1).and_then(|before| self.tokens.get(before)), self.tokens.get(at)) {
            (Some(previous), Some(token)) => previous.end_line < token.line,
            _ => true,
        }
    }

    /// The items under `#[coverage(off)]` and tarpaulin's attributes.
    pub fn switched_off(&self) -> Vec<(u32, Reach)> {
        let mut found = Vec::new();
        for (at, token) in self.tokens.iter().enumerate() {
            let inner = self.word(at + 1) == "!";
            let open = at + 1 + usize::from(inner);
            if self.word(at) != "#" || self.word(open) != "[" {
                continue;
            }
            let Some(close) = self.partner(open) else { continue };
            let off = (open..close).any(|at| {
                (self.word(at), self.word(at + 1), self.word(at + 2)) == ("coverage", "(", "off")
                    || matches!(self.word(at), "tarpaulin" | "tarpaulin_include")
            });
            if off {
                let (first, last) = if inner { self.around(at) } else { (token.line, self.item_line(close + 1)) };
                found.push((token.line, Reach { first, last, never_covers: false }));
            }
        }
        found
    }

    fn item_line(&self, at: usize) -> u32 {
        let item = self.after_attributes(at).unwrap_or(at);
        let last = self.item_end(item).map(|(last, _)| last);
        last.and_then(|last| self.tokens.get(last)).map_or(LAST_LINE, |token| token.end_line)
    }

    /// The lines of the block around an inner attribute.
    fn around(&self, at: usize) -> (u32, u32) {
        let around = self.tokens.get(..at).unwrap_or_default().iter().rev();
        let open =
            around.clone().find(|token| token.kind == Kind::Open && token.partner.is_some_and(|close| close > at));
        let close = open.and_then(|open| open.partner).and_then(|close| self.tokens.get(close));
        match (open, close) {
            (Some(open), Some(close)) => (open.line, close.end_line),
            _ => (1, LAST_LINE),
        }
    }
}
