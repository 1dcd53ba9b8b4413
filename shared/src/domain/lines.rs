//! Finds the lines of places in a text of JSON or YAML, for problems that name places.

use saphyr_parser::{Event, Parser, StrInput};

/// The line of each place, from 1. A place is a path as [`super::place::Place`] writes it. If the text has no such place,
/// because a field is missing, its line is that of the nearest place around it. Reads as far as the text is YAML, which
/// nearly all JSON is; a place that it does not reach has the last line that it knows of.
pub fn lines_of(text: &str, paths: &[&str]) -> Vec<usize> {
    let mut finder = Finder { events: Parser::new_from_str(text), lines: vec![1; paths.len()], paths };
    let all: Vec<_> = (0..paths.len()).map(|path| Candidate { path, read: 0 }).collect();
    // An error ends the search.
    let _ = finder.document(&all);
    finder.lines
}

/// A path that may lead through the current node.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    path: usize,
    /// Length of the part that names the current node.
    read: usize,
}

struct Finder<'a, 'p> {
    events: Parser<'a, StrInput<'a>>,
    lines: Vec<usize>,
    paths: &'p [&'p str],
}

/// The text cannot be read further.
struct End;

impl<'a> Finder<'a, '_> {
    fn document(&mut self, all: &[Candidate]) -> Result<(), End> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(_), _) => {}
                (event, _) => return self.node(&event, all),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, usize), End> {
        match self.events.next_event() {
            Some(Ok((event, span))) => Ok((event, span.start.line())),
            Some(Err(_)) | None => Err(End),
        }
    }

    fn node(&mut self, event: &Event<'a>, candidates: &[Candidate]) -> Result<(), End> {
        match event {
            // Most nodes lead to no path. Nothing in them is compared.
            Event::SequenceStart(..) | Event::MappingStart(..) if candidates.is_empty() => self.skip(),
            Event::SequenceStart(..) => self.list(candidates),
            Event::MappingStart(..) => self.object(candidates),
            _ => Ok(()),
        }
    }

    fn skip(&mut self) -> Result<(), End> {
        let mut open = 1_usize;
        while open > 0 {
            match self.next()?.0 {
                Event::SequenceStart(..) | Event::MappingStart(..) => open += 1,
                Event::SequenceEnd | Event::MappingEnd => open -= 1,
                _ => {}
            }
        }
        Ok(())
    }

    fn list(&mut self, candidates: &[Candidate]) -> Result<(), End> {
        for index in 0_usize.. {
            let (event, line) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                break;
            }
            let found = self.narrowed(candidates, &format!("[{index}]"), line);
            self.node(&event, &found)?;
        }
        Ok(())
    }

    fn object(&mut self, candidates: &[Candidate]) -> Result<(), End> {
        loop {
            let (key, line) = self.next()?;
            let found = match &key {
                Event::MappingEnd => return Ok(()),
                Event::Scalar(key, ..) => self.narrowed(candidates, key, line),
                other => {
                    self.node(other, &[])?;
                    Vec::new()
                }
            };
            let (value, _) = self.next()?;
            self.node(&value, &found)?;
        }
    }

    /// The candidates that go on with `segment`, a key or an index. The node that it names is on `line`.
    fn narrowed(&mut self, candidates: &[Candidate], segment: &str, line: usize) -> Vec<Candidate> {
        let mut found = Vec::new();
        for Candidate { path, read } in candidates.iter().copied() {
            let rest = &self.paths[path][read..];
            let after_dot = rest.strip_prefix('.').filter(|_| !segment.starts_with('[')).unwrap_or(rest);
            let Some(more) = after_dot.strip_prefix(segment) else { continue };
            if more.is_empty() || more.starts_with(['.', '[']) {
                self.lines[path] = line;
                found.push(Candidate { path, read: self.paths[path].len() - more.len() });
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "\
# a comment
plan:
  goal: g
  steps:
    - name: write
      tool: echo
      inputs: &judged
        text: |
          two
          lines
    - {name: unit,
       timeout: 500}
    - name: \"a.b\"
      inputs: *judged
";

    #[test]
    fn places_of_yaml_have_their_lines() {
        let cases = [
            ("", 1),
            ("plan", 2),
            ("plan.goal", 3),
            ("plan.steps[0]", 5),
            ("plan.steps[0].inputs.text", 8),
            ("plan.steps[1].timeout", 12),
            ("plan.steps[2].name", 13),
            // Missing fields, and what is behind an alias.
            ("plan.steps[1].tool", 11),
            ("plan.steps[2].inputs.text", 14),
            ("plan.steps[7].name", 4),
            ("elsewhere", 1),
        ];
        let paths = cases.map(|(path, _)| path);
        assert_eq!(lines_of(YAML, &paths), cases.map(|(_, line)| line));
    }

    #[test]
    fn places_of_json_have_their_lines() {
        let json = "{\n\t\"plan\": {\"goal\": \"\\/\",\n  \"steps\": [\n{\"na.me\": 1},\n{\"name\": [],\n\"tool\": {\"a\": 1}}]}}";
        let paths = ["plan.goal", "plan.steps[0].na.me", "plan.steps[1].name", "plan.steps[1].tool.a", "plan.steps[2]"];
        assert_eq!(lines_of(json, &paths), [2, 4, 5, 6, 3]);
    }

    #[test]
    fn a_key_is_not_taken_for_the_start_of_a_longer_one() {
        let text = "a: 1\nab: 2\na.b: 3\n\"[0]\": 4\n";
        assert_eq!(lines_of(text, &["ab", "a.b", "a", "[0]"]), [2, 3, 1, 4]);
    }

    #[test]
    fn a_text_that_ends_in_an_error_has_the_lines_before_it() {
        let text = "plan:\n  goal: g\n  steps:\n  - name: [\n}\n";
        assert_eq!(lines_of(text, &["plan.goal", "plan.steps[0].name", "plan.steps[1].name"]), [2, 4, 3]);
        assert_eq!(lines_of("", &["plan"]), [1]);
    }

    #[test]
    fn a_hundred_paths_through_a_large_text_are_found_in_one_pass() {
        let steps: Vec<String> =
            (0..20_000).map(|index| format!("  - {{name: s{index}, inputs: {{a: [1, 2, 3]}}}}\n")).collect();
        let steps = steps.concat();
        let paths: Vec<String> = (0..100).map(|index| format!("plan.steps[{}].inputs.b", index * 200)).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let lines = lines_of(&format!("plan:\n steps:\n{steps}"), &paths);
        assert_eq!(lines, (0..100).map(|index| index * 200 + 3).collect::<Vec<usize>>());
    }
}
