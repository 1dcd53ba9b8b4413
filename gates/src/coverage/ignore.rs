//! Comments that tell coverage tools to ignore code.

/// The tool that a comment speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    Istanbul,
    C8,
    V8,
    Node,
    Deno,
}

impl Tool {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "istanbul" => Self::Istanbul,
            "c8" => Self::C8,
            "v8" => Self::V8,
            "node:coverage" => Self::Node,
            _ => return None,
        })
    }

    /// How many lines after the comment the tool ignores. Istanbul goes by nodes alone. A tool that goes by lines writes
    /// one hit for each of them.
    pub fn lines(self, count: Option<u32>) -> Option<u32> {
        (self != Self::Istanbul).then(|| count.unwrap_or(1))
    }

    /// Vitest ignores the node after `v8 ignore next`, c8 and Node only lines. So hits beyond the lines are measured.
    pub fn node_never_covers(self) -> bool {
        self == Self::V8
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The next node, or this many lines.
    Next(Option<u32>),
    If,
    Else,
    File,
    Start,
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hint {
    pub tool: Tool,
    pub scope: Scope,
}

/// The hint of a comment of JavaScript. The tools want it at the start of the comment.
pub fn hint(comment: &str) -> Option<Hint> {
    let mut words = comment.split_whitespace();
    let first = words.next()?;
    if let Some(scope) = first.strip_prefix("deno-coverage-ignore") {
        let scope = match scope {
            "" => Scope::Next(None),
            "-start" => Scope::Start,
            "-stop" => Scope::Stop,
            "-file" => Scope::File,
            _ => return None,
        };
        return Some(Hint { tool: Tool::Deno, scope });
    }
    let tool = Tool::named(first)?;
    let (verb, rest) = (words.next()?, words.next());
    let scope = match (tool, leading_word(verb)) {
        (Tool::Node, "disable") => Scope::Start,
        (Tool::Node, "enable") => Scope::Stop,
        (_, "ignore") => match leading_word(rest?) {
            "next" => Scope::Next(words.next().and_then(leading_number)),
            "if" => Scope::If,
            "else" => Scope::Else,
            "file" => Scope::File,
            "start" => Scope::Start,
            "stop" => Scope::Stop,
            _ => return None,
        },
        _ => return None,
    };
    Some(Hint { tool, scope })
}

fn leading_word(text: &str) -> &str {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default()
}

fn leading_number(text: &str) -> Option<u32> {
    text.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok())
}

/// What a line says about the lines from here on. The tools look for this in any text, not only in comments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// `never_covers`: the tool writes hits for the lines that it ignores.
    Start {
        never_covers: bool,
    },
    Stop,
    Line,
    File,
    /// Toggles.
    Flip,
}

/// Marks that tools find in the text of a line, in any language.
pub fn mark(line: &str) -> Option<Mark> {
    const MARKS: [(&str, Mark); 15] = [
        ("LCOV_EXCL_START", Mark::Start { never_covers: false }),
        ("LCOV_EXCL_STOP", Mark::Stop),
        ("LCOV_EXCL_LINE", Mark::Line),
        ("GCOVR_EXCL_START", Mark::Start { never_covers: false }),
        ("GCOVR_EXCL_STOP", Mark::Stop),
        ("GCOVR_EXCL_LINE", Mark::Line),
        ("GRCOV_EXCL_START", Mark::Start { never_covers: false }),
        ("GRCOV_EXCL_STOP", Mark::Stop),
        ("GRCOV_EXCL_LINE", Mark::Line),
        ("@codeCoverageIgnoreStart", Mark::Start { never_covers: false }),
        ("@codeCoverageIgnoreEnd", Mark::Stop),
        ("@codeCoverageIgnore", Mark::Line),
        ("coverage:ignore-line", Mark::Line),
        ("coverage:ignore-start", Mark::Start { never_covers: false }),
        ("coverage:ignore-end", Mark::Stop),
    ];
    if line.contains("coverage:ignore-file") {
        return Some(Mark::File);
    }
    if line.contains(":nocov:") {
        return Some(Mark::Flip);
    }
    if let Some((_, rest)) = line.split_once("nocov")
        && line.contains('#')
    {
        return Some(match leading_word(rest.trim_start()) {
            "start" => Mark::Start { never_covers: false },
            "end" => Mark::Stop,
            _ => Mark::Line,
        });
    }
    if let Some((_, mark)) = MARKS.iter().find(|(text, _)| line.contains(text)) {
        return Some(*mark);
    }
    script_mark(line)
}

/// `v8 ignore start`, `node:coverage disable`
fn script_mark(line: &str) -> Option<Mark> {
    if !(line.contains("ignore") || line.contains("coverage")) {
        return None;
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    words.windows(2).enumerate().find_map(|(at, pair)| {
        let [first, verb] = pair else { return None };
        let name = first.trim_start_matches(|c: char| !c.is_alphanumeric());
        if let Some(verb) = name.strip_prefix("deno-coverage-ignore-") {
            return (verb == "start")
                .then_some(Mark::Start { never_covers: false })
                .or((verb == "stop").then_some(Mark::Stop));
        }
        let tool = Tool::named(name)?;
        let verb = match (tool, leading_word(verb)) {
            (Tool::Node, "disable") => "start",
            (Tool::Node, "enable") => "stop",
            (_, "ignore") => leading_word(words.get(at + 2)?),
            _ => return None,
        };
        match verb {
            "start" => Some(Mark::Start { never_covers: tool != Tool::Istanbul }),
            "stop" => Some(Mark::Stop),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_stands_at_the_start_of_a_comment_with_any_white_space() {
        let scope = |text: &str| hint(text).map(|hint| hint.scope);
        assert_eq!(scope(" istanbul \t ignore\n next "), Some(Scope::Next(None)));
        assert_eq!(scope("c8 ignore next 3"), Some(Scope::Next(Some(3))));
        assert_eq!(scope("istanbul ignore else -- @preserve"), Some(Scope::Else));
        assert_eq!(scope("v8 ignore file"), Some(Scope::File));
        assert_eq!(scope("node:coverage disable"), Some(Scope::Start));
        for text in [
            "",
            "istanbul",
            "istanbul ignore",
            "istanbul ignore nextish",
            "* istanbul ignore next",
            "see istanbul ignore next",
        ] {
            assert_eq!(scope(text), None, "{text}");
        }
    }

    #[test]
    fn marks_are_found_anywhere_in_a_line() {
        assert_eq!(mark("x; /* v8 ignore  start */"), Some(Mark::Start { never_covers: true }));
        assert_eq!(mark("<!-- /* v8 ignore stop */ -->"), Some(Mark::Stop));
        assert_eq!(mark("/* node:coverage enable */"), Some(Mark::Stop));
        assert_eq!(mark("x() // LCOV_EXCL_LINE"), Some(Mark::Line));
        assert_eq!(mark("x()  # nocov start"), Some(Mark::Start { never_covers: false }));
        assert_eq!(mark("# :nocov:"), Some(Mark::Flip));
        assert_eq!(mark("const coverage = ignore(start);"), None);
    }
}
