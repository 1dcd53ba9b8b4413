//! Reads Cobertura XML: `coverage > packages > package > classes > class@filename > lines > line@number@hits`.

use std::collections::BTreeMap;

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use super::{Arm, Branch, CoverageError, MeasuredFile, Position, Report, Statement};

/// Deeper documents are refused.
const MAX_DEPTH: usize = 32;
/// More source folders are refused: each file is looked up below each of them.
const MAX_SOURCES: usize = 100;

/// Reads a report. A DOCTYPE is skipped and never resolved. Entities other than XML's own are errors.
pub fn parse(text: &str) -> Result<Report, CoverageError> {
    let mut reader = Reader::from_str(text);
    let mut document = Document::default();
    loop {
        match reader.read_event().map_err(|error| unparsable(&error.to_string()))? {
            Event::Start(tag) => {
                document.open(&tag)?;
                let name = tag.name().as_ref().to_owned();
                document.path.push(name);
                if document.path.len() > MAX_DEPTH {
                    return Err(unparsable("its elements are nested too deeply"));
                }
            }
            Event::Empty(tag) => {
                document.open(&tag)?;
                document.close(tag.name().as_ref());
            }
            Event::End(tag) => {
                document.path.pop();
                document.close(tag.name().as_ref());
            }
            Event::Text(text) => document.text(&text.into_inner())?,
            Event::CData(text) => document.text(&text.into_inner())?,
            Event::GeneralRef(entity) => {
                let name = entity.into_inner();
                document.text(entity_text(&name).ok_or_else(|| unparsable("it uses an entity"))?.as_str())?;
            }
            // An internal subset could define entities.
            Event::DocType(text) if text.contains('[') => return Err(unparsable("its DOCTYPE defines entities")),
            Event::DocType(_) | Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
            Event::Eof => break,
        }
    }
    document.finish()
}

fn unparsable(why: &str) -> CoverageError {
    CoverageError::unparsable(&format!("it is not Cobertura XML: {why}"))
}

fn entity_text(name: &str) -> Option<String> {
    let character = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let digits = name.strip_prefix('#')?;
            let code = match digits.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => digits.parse().ok()?,
            };
            char::from_u32(code)?
        }
    };
    Some(character.to_string())
}

#[derive(Default)]
struct Document {
    /// The open elements.
    path: Vec<String>,
    has_root: bool,
    has_packages: bool,
    sources: Vec<String>,
    source: Option<String>,
    class: Option<Class>,
    files: BTreeMap<String, Class>,
}

/// The lines of a class, or of all classes of a file.
#[derive(Default)]
struct Class {
    filename: String,
    lines: BTreeMap<u32, Line>,
    /// The lines of its methods. A class lists all of its lines, so these count only if it lists none.
    of_methods: BTreeMap<u32, Line>,
}

#[derive(Clone, Copy)]
struct Line {
    hits: u64,
    /// How many of how many branches ran.
    branches: (u32, u32),
}

impl Class {
    /// Two classes may have statements on one line: the line is covered if all of them ran.
    fn add(&mut self, number: u32, line: Line, of_method: bool) {
        let lines = if of_method { &mut self.of_methods } else { &mut self.lines };
        let known = lines.entry(number).or_insert(line);
        known.hits = known.hits.min(line.hits);
        if line.branches.1 > known.branches.1
            || (line.branches.1 == known.branches.1 && line.branches.0 < known.branches.0)
        {
            known.branches = line.branches;
        }
    }
}

impl Document {
    fn inside(&self, name: &str) -> bool {
        self.path.last().is_some_and(|open| open == name)
    }

    fn open(&mut self, tag: &BytesStart<'_>) -> Result<(), CoverageError> {
        let name = tag.name();
        let name = name.as_ref();
        if self.path.is_empty() {
            if self.has_root || name != "coverage" {
                return Err(unparsable("its root is not one element `coverage`"));
            }
            self.has_root = true;
        }
        match name {
            "packages" => self.has_packages = true,
            "source" if self.inside("sources") => self.source = Some(String::new()),
            "class" if self.inside("classes") => {
                if self.class.is_some() {
                    return Err(unparsable("a class stands inside a class"));
                }
                let filename = attribute(tag, "filename")?.filter(|name| !name.trim().is_empty());
                let filename = filename.ok_or_else(|| unparsable("a class has no filename"))?;
                self.class = Some(Class { filename, ..Class::default() });
            }
            "line" if self.inside("lines") => {
                let of_method = self.path.iter().rev().nth(1).is_none_or(|element| element != "class");
                let Some(class) = self.class.as_mut() else { return Ok(()) };
                let number = attribute(tag, "number")?.and_then(|text| text.trim().parse::<u32>().ok());
                let hits = attribute(tag, "hits")?.and_then(|text| text.trim().parse::<u64>().ok());
                let (Some(number), Some(hits)) = (number.filter(|number| *number > 0), hits) else {
                    return Err(unparsable(&format!("a line of {} has no number or no hits", class.filename)));
                };
                let branches = match attribute(tag, "condition-coverage")? {
                    None => (0, 0),
                    Some(text) => {
                        conditions(&text).ok_or_else(|| unparsable("a condition-coverage is not `50% (1/2)`"))?
                    }
                };
                class.add(number, Line { hits, branches }, of_method);
            }
            _ => {}
        }
        Ok(())
    }

    fn close(&mut self, name: &str) {
        match name {
            "class" if self.inside("classes") => {
                let Some(class) = self.class.take() else { return };
                let file = self.files.entry(class.filename.clone()).or_default();
                let lines = if class.lines.is_empty() { class.of_methods } else { class.lines };
                for (number, line) in lines {
                    file.add(number, line, false);
                }
                file.filename = class.filename;
            }
            "source" => self
                .sources
                .extend(self.source.take().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())),
            _ => {}
        }
    }

    fn text(&mut self, text: &str) -> Result<(), CoverageError> {
        if let Some(source) = self.source.as_mut() {
            source.push_str(text);
        } else if self.path.is_empty() && !text.trim().is_empty() {
            return Err(unparsable("there is text outside its root"));
        }
        Ok(())
    }

    fn finish(self) -> Result<Report, CoverageError> {
        if !self.has_root || !self.path.is_empty() {
            return Err(unparsable("it is truncated"));
        }
        if !self.has_packages {
            return Err(unparsable("it has no element `packages`"));
        }
        if self.sources.len() > MAX_SOURCES {
            return Err(unparsable(&format!("it has more than {MAX_SOURCES} source folders")));
        }
        if self.files.is_empty() {
            return Err(CoverageError::new("report_empty", "the coverage report lists no files"));
        }
        let sources = self.sources;
        let files = self.files.into_values().map(|class| MeasuredFile {
            paths: paths(&class.filename, &sources),
            statements: class.lines.iter().map(|(line, found)| Statement::of_line(*line, found.hits)).collect(),
            arms: class.lines.iter().flat_map(|(line, found)| arms(*line, found.branches)).collect(),
        });
        Ok(Report { files: files.collect(), ..Report::default() })
    }
}

/// A relative name is below one of the source folders.
fn paths(filename: &str, sources: &[String]) -> Vec<String> {
    let drive = filename.as_bytes().get(1) == Some(&b':');
    if filename.starts_with(['/', '\\']) || drive || sources.is_empty() {
        return vec![filename.to_owned()];
    }
    sources.iter().map(|source| format!("{source}/{filename}")).chain([filename.to_owned()]).collect()
}

fn arms(line: u32, (ran, all): (u32, u32)) -> impl Iterator<Item = Arm> {
    let start = Position { line, column: 0 };
    let branch = Branch { start, end: start, kind: 0 };
    (0..all).map(move |index| Arm { line, branch, index, hits: u64::from(index < ran) })
}

/// `50% (1/2)`
fn conditions(text: &str) -> Option<(u32, u32)> {
    const MAX_ARMS: u32 = 1_000;
    let (_, inner) = text.split_once('(')?;
    let (ran, all) = inner.trim_end().strip_suffix(')')?.split_once('/')?;
    let (ran, all): (u32, u32) = (ran.trim().parse().ok()?, all.trim().parse().ok()?);
    (ran <= all && all <= MAX_ARMS).then_some((ran, all))
}

/// An attribute's value. Checks all attributes, because a second one of the same name would have another value.
fn attribute(tag: &BytesStart<'_>, name: &str) -> Result<Option<String>, CoverageError> {
    let mut value = None;
    for found in tag.attributes() {
        let found = found.map_err(|error| unparsable(&error.to_string()))?;
        if found.key.as_ref() == name {
            let text =
                found.normalized_value(XmlVersion::Implicit1_0).map_err(|error| unparsable(&error.to_string()))?;
            value = Some(text.into_owned());
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(inside: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?>\n<!DOCTYPE coverage SYSTEM \"http://example.invalid/coverage-04.dtd\">\n<coverage>{inside}</coverage>\n"
        )
    }

    fn class(lines: &str) -> String {
        document(&format!(
            "<packages><package><classes><class filename=\"a.py\">{lines}</class></classes></package></packages>"
        ))
    }

    #[test]
    fn lines_branches_and_source_folders_are_read() {
        let text = document(
            "<sources><source>/ci/x &amp; y</source></sources><packages><package name=\"p\"><classes><class name=\"A\" filename=\"a&lt;b.py\"><methods><method><lines><line number=\"1\" hits=\"0\"/></lines></method></methods><lines><line number=\"1\" hits=\"3\"/><line number=\"2\" hits=\"0\" branch=\"true\" condition-coverage=\"50% (1/2)\"/></lines></class></classes></package></packages>",
        );
        let report = parse(&text).unwrap();
        let file = &report.files[0];
        assert_eq!(file.paths, ["/ci/x & y/a<b.py", "a<b.py"]);
        assert_eq!(
            file.statements.iter().map(|line| (line.start.line, line.hits)).collect::<Vec<_>>(),
            [(1, 3), (2, 0)]
        );
        assert_eq!(file.arms.iter().map(|arm| arm.hits).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn a_line_of_two_classes_is_covered_if_both_ran() {
        let text = document(
            "<packages><package><classes><class filename=\"a.cs\"><lines><line number=\"1\" hits=\"3\"/></lines></class><class filename=\"a.cs\"><lines><line number=\"1\" hits=\"0\"/></lines></class></classes></package></packages>",
        );
        assert_eq!(parse(&text).unwrap().files[0].statements[0].hits, 0);
    }

    #[test]
    fn entities_and_bombs_are_refused() {
        let bomb =
            "<!DOCTYPE coverage [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><coverage><packages/>&b;</coverage>";
        assert_eq!(parse(bomb).unwrap_err().code, "report_unparsable");
        assert_eq!(parse(&document("<packages/>&b;")).unwrap_err().code, "report_unparsable");
        let deep = "<coverage>".repeat(100_000);
        assert_eq!(parse(&deep).unwrap_err().code, "report_unparsable");
    }

    #[test]
    fn a_report_that_is_cut_off_or_strange_is_unparsable() {
        let whole = class("<lines><line number=\"1\" hits=\"1\"/></lines>");
        assert!(parse(&whole).is_ok());
        for end in 1..whole.trim_end().len() {
            assert!(parse(&whole[..end]).is_err(), "{}", &whole[..end]);
        }
        for text in [
            class("<lines><line number=\"1\"/></lines>"),
            class("<lines><line hits=\"1\"/></lines>"),
            class("<lines><line number=\"0\" hits=\"1\"/></lines>"),
            class("<lines><line number=\"1\" hits=\"-1\"/></lines>"),
            class("<lines><line number=\"1\" hits=\"1.0\"/></lines>"),
            class("<lines><line number=\"1\" hits=\"1\" hits=\"1\"/></lines>"),
            class("<lines><line number=\"1\" hits=\"1\" condition-coverage=\"half\"/></lines>"),
            document("<packages><package><classes><class/></classes></package></packages>"),
            document("<project/>"),
            format!("{whole}<coverage/>"),
            "<report><packages/></report>".to_owned(),
            "x".to_owned(),
        ] {
            assert_eq!(parse(&text).unwrap_err().code, "report_unparsable", "{text}");
        }
        assert_eq!(parse(&document("<packages/>")).unwrap_err().code, "report_empty");
    }
}
