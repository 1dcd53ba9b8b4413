//! Reads a unified diff.

use std::borrow::Cow;

use super::{FilePatch, Hunk, MAX_FILES};
use crate::path;

/// Reads a whole patch. The error starts with a line of the patch.
pub fn parse(patch: &[u8]) -> Result<Vec<FilePatch<'_>>, String> {
    let mut parser = Parser { lines: patch.split_inclusive(|byte| *byte == b'\n').collect(), at: 0 };
    let mut files = Vec::new();
    while let Some(line) = parser.peek() {
        if line.starts_with(b"diff --git ") {
            files.push(parser.git_file()?);
        } else if line.starts_with(b"--- ") {
            files.push(parser.plain_file()?);
        } else if is_noise(line) {
            parser.at += 1;
        } else {
            return Err(parser.stray(line));
        }
        if files.len() > MAX_FILES {
            return Err(parser.problem(&format!("the patch changes more than {MAX_FILES} files")));
        }
    }
    if files.is_empty() { Err("line 1: the patch changes no file".to_owned()) } else { Ok(files) }
}

/// Lines that programs write between files.
fn is_noise(line: &[u8]) -> bool {
    let line = text(line);
    line.is_empty()
        || line.starts_with(b"Index: ")
        || (line.starts_with(b"diff ") && !line.starts_with(b"diff --"))
        || (line.len() > 10 && line.iter().all(|byte| *byte == b'='))
}

/// A line without its newline.
fn text(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

struct Parser<'a> {
    lines: Vec<&'a [u8]>,
    at: usize,
}

/// What the lines between `diff --git` and the first hunk say.
#[derive(Default)]
struct Header {
    old: Option<Name>,
    new: Option<Name>,
    kind: Change,
    old_executable: Option<bool>,
    new_executable: Option<bool>,
}

/// What git says about the file's name.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Change {
    #[default]
    Same,
    New,
    Deleted,
    Renamed,
    Copied,
}

/// A name in a header. `None` stands for `/dev/null`.
type Name = Option<Vec<u8>>;

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a [u8]> {
        self.lines.get(self.at).copied()
    }

    fn problem(&self, message: &str) -> String {
        format!("line {}: {message}", self.at + 1)
    }

    /// A line that no diff has.
    fn stray(&self, line: &[u8]) -> String {
        let shown = path::shown(&String::from_utf8_lossy(text(line)));
        let hint = if line.starts_with(b"```") {
            "; give the diff alone, without a Markdown fence and text around it"
        } else if line.starts_with(b"GIT binary patch") || line.starts_with(b"Binary files") {
            "; a binary file cannot be patched, so write it with `files`"
        } else if line.starts_with(b"@@@") || line.starts_with(b"diff --cc") || line.starts_with(b"diff --combined") {
            "; a merge has no unified diff, so compare it with one parent"
        } else if matches!(line.first(), Some(b' ' | b'+' | b'-' | b'\\')) {
            "; the hunk before it counts fewer lines than it has"
        } else {
            "; give the output of `git diff` or `diff -u` alone"
        };
        self.problem(&format!("{shown} is not part of a unified diff{hint}"))
    }

    fn git_file(&mut self) -> Result<FilePatch<'a>, String> {
        let line = self.at + 1;
        let names = text(self.peek().unwrap_or_default()).strip_prefix(b"diff --git ").unwrap_or_default();
        self.at += 1;
        let mut header = Header::default();
        while let Some(next) = self.peek() {
            if next.starts_with(b"--- ") {
                let (old, new) = self.names()?;
                (header.old, header.new) = (header.old.or(Some(old)), header.new.or(Some(new)));
                break;
            }
            if !self.extended_line(text(next), &mut header)? {
                break;
            }
            self.at += 1;
        }
        let (old, new) = match (header.old, header.new) {
            (Some(old), Some(new)) => (old, new),
            // A mode or an empty file: only the first line has the name.
            _ => same_name(names).map(|name| (Some(name.clone()), Some(name))).ok_or_else(|| {
                format!("line {line}: the names in `diff --git` cannot be told apart; make the patch with `git diff`")
            })?,
        };
        let old = if header.kind == Change::New { None } else { old };
        let new = if header.kind == Change::Deleted { None } else { new };
        let hunks = self.hunks()?;
        if hunks.is_empty() && header.kind == Change::Same && header.new_executable.is_none() {
            return Err(match self.peek() {
                Some(next) if !next.starts_with(b"diff --git ") => self.stray(next),
                _ => format!("line {line}: this file has no change"),
            });
        }
        let modes = (header.old_executable, header.new_executable);
        file(line, (old, new), header.kind == Change::Copied, modes, hunks)
    }

    /// Reads a line of git's extended header. Returns false if it is none.
    fn extended_line(&self, line: &[u8], header: &mut Header) -> Result<bool, String> {
        let after = |prefix: &str| line.strip_prefix(prefix.as_bytes());
        if let Some(mode) = after("old mode ") {
            header.old_executable = Some(self.mode(mode)?);
        } else if let Some(mode) = after("new mode ") {
            header.new_executable = Some(self.mode(mode)?);
        } else if let Some(mode) = after("new file mode ") {
            (header.kind, header.new_executable) = (Change::New, Some(self.mode(mode)?));
        } else if let Some(mode) = after("deleted file mode ") {
            (header.kind, header.old_executable) = (Change::Deleted, Some(self.mode(mode)?));
        } else if let Some(name) = after("rename from ").or_else(|| after("copy from ")) {
            header.kind = if line.starts_with(b"copy") { Change::Copied } else { Change::Renamed };
            header.old = Some(Some(self.unquoted(name)?));
        } else if let Some(name) = after("rename to ").or_else(|| after("copy to ")) {
            header.new = Some(Some(self.unquoted(name)?));
        } else if let Some(index) = after("index ") {
            // `index 1..2 120000`: the mode if it does not change.
            if let Some(at) = index.iter().position(|byte| *byte == b' ') {
                self.mode(index.get(at + 1..).unwrap_or_default())?;
            }
        } else {
            return Ok(after("similarity index ").or_else(|| after("dissimilarity index ")).is_some());
        }
        Ok(true)
    }

    fn mode(&self, mode: &[u8]) -> Result<bool, String> {
        match mode {
            b"100644" => Ok(false),
            b"100755" => Ok(true),
            b"120000" => Err(self.problem("the patch changes a link; only files can be patched")),
            b"160000" => Err(self.problem("the patch changes a submodule; only files can be patched")),
            other => Err(self.problem(&format!(
                "the mode {} is neither 100644 nor 100755",
                path::shown(&String::from_utf8_lossy(other))
            ))),
        }
    }

    fn plain_file(&mut self) -> Result<FilePatch<'a>, String> {
        let line = self.at + 1;
        let names = self.names()?;
        let hunks = self.hunks()?;
        if hunks.is_empty() {
            return Err(format!("line {line}: this file has no hunk"));
        }
        file(line, names, false, (None, None), hunks)
    }

    /// The lines `--- a/x` and `+++ b/x`.
    fn names(&mut self) -> Result<(Name, Name), String> {
        let old = self.name(b"--- ")?;
        let new = self.name(b"+++ ")?;
        let strip = |name: &Name, prefix: &[u8]| match name {
            None => Some(None),
            Some(name) => name.strip_prefix(prefix).map(|rest| Some(rest.to_vec())),
        };
        // Both names or none have git's prefixes.
        match (strip(&old, b"a/"), strip(&new, b"b/")) {
            (Some(old), Some(new)) => Ok((old, new)),
            _ => Ok((old, new)),
        }
    }

    fn name(&mut self, prefix: &[u8]) -> Result<Name, String> {
        let line = self.peek().map(text).unwrap_or_default();
        let Some(name) = line.strip_prefix(prefix) else {
            return Err(self.problem("`--- ` must be followed by a line that starts with `+++ `"));
        };
        // `diff -u` writes a tab and the time after the name.
        let name = name.split(|byte| *byte == b'\t').next().unwrap_or_default();
        let name = self.unquoted(name)?;
        self.at += 1;
        Ok(if name == b"/dev/null" { None } else { Some(name) })
    }

    fn unquoted(&self, name: &[u8]) -> Result<Vec<u8>, String> {
        let read = unquote(name).filter(|(_, rest)| rest.is_empty());
        let (name, _) = read.ok_or_else(|| self.problem("the quoted name cannot be read"))?;
        Ok(name.into_owned())
    }

    fn hunks(&mut self) -> Result<Vec<Hunk<'a>>, String> {
        let mut hunks = Vec::new();
        while let Some(line) = self.peek()
            && line.starts_with(b"@@ ")
        {
            hunks.push(self.hunk(line)?);
        }
        Ok(hunks)
    }

    fn hunk(&mut self, header: &[u8]) -> Result<Hunk<'a>, String> {
        let Some(((old_start, old_count), (_, new_count))) = hunk_header(header) else {
            return Err(self.problem("the hunk's header cannot be read; it must be like `@@ -1,2 +1,3 @@`"));
        };
        let mut hunk = Hunk { line: self.at + 1, old_start, old: Vec::new(), new: Vec::new() };
        self.at += 1;
        while hunk.old.len() < old_count || hunk.new.len() < new_count {
            let line = self.peek().unwrap_or_default();
            let (to_old, to_new) = match line.first() {
                Some(b' ' | b'\n') => (true, true),
                Some(b'-') => (true, false),
                Some(b'+') => (false, true),
                _ => return Err(self.short_hunk(&hunk, (old_count, new_count))),
            };
            if (to_old && hunk.old.len() == old_count) || (to_new && hunk.new.len() == new_count) {
                return Err(self.short_hunk(&hunk, (old_count, new_count)));
            }
            self.at += 1;
            // Some programs write an empty line of context without its space.
            let content = if line == b"\n" { line } else { line.get(1..).unwrap_or_default() };
            let content = if self.peek().is_some_and(|next| next.starts_with(b"\\ ")) {
                self.at += 1;
                text(content)
            } else if content.ends_with(b"\n") {
                content
            } else {
                return Err(self.problem("the patch ends in the middle of a line; end it with a newline"));
            };
            if to_old {
                hunk.old.push(content);
            }
            if to_new {
                hunk.new.push(content);
            }
        }
        Ok(hunk)
    }

    fn short_hunk(&self, hunk: &Hunk<'_>, (old, new): (usize, usize)) -> String {
        let (has_old, has_new) = (hunk.old.len(), hunk.new.len());
        self.problem(&format!(
            "the hunk at line {} must have {old} old and {new} new lines, and has {has_old} and {has_new} up to here",
            hunk.line
        ))
    }
}

fn file(
    line: usize,
    (old, new): (Name, Name),
    is_copy: bool,
    (old_executable, new_executable): (Option<bool>, Option<bool>),
    hunks: Vec<Hunk<'_>>,
) -> Result<FilePatch<'_>, String> {
    let read = |name: Name| {
        let parsed = name.map(|name| path::parse_file(&name)).transpose();
        parsed.map_err(|message| format!("line {line}: {message}"))
    };
    let (old, new) = (read(old)?, read(new)?);
    if old.is_none() && new.is_none() {
        return Err(format!("line {line}: both names are /dev/null"));
    }
    Ok(FilePatch { line, old, new, is_copy, old_executable, new_executable, hunks })
}

/// The name in `a/x b/x`.
fn same_name(names: &[u8]) -> Option<Vec<u8>> {
    if names.starts_with(b"\"") {
        let (old, rest) = unquote(names)?;
        let (new, rest) = unquote(rest.strip_prefix(b" ")?)?;
        let name = old.strip_prefix(b"a/")?;
        return (rest.is_empty() && new.strip_prefix(b"b/") == Some(name)).then(|| name.to_vec());
    }
    // The two halves have the same length.
    let (old, new) = (names.get(..names.len() / 2)?, names.get(names.len() / 2 + 1..)?);
    let name = old.strip_prefix(b"a/")?;
    (new.strip_prefix(b"b/") == Some(name)).then(|| name.to_vec())
}

/// Reads a name, which git puts in quotes if it has unusual characters. Returns it and the rest.
fn unquote(name: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let Some(mut rest) = name.strip_prefix(b"\"") else { return Some((name.into(), &[])) };
    let mut read = Vec::new();
    loop {
        let (first, after) = rest.split_first()?;
        rest = after;
        match first {
            b'"' => return Some((read.into(), rest)),
            b'\\' => {
                let (escape, after) = rest.split_first()?;
                let (byte, used) = match escape {
                    b'a' => (7, 1),
                    b'b' => (8, 1),
                    b't' => (b'\t', 1),
                    b'n' => (b'\n', 1),
                    b'v' => (11, 1),
                    b'f' => (12, 1),
                    b'r' => (b'\r', 1),
                    b'"' | b'\\' => (*escape, 1),
                    _ => (u8::from_str_radix(std::str::from_utf8(rest.get(..3)?).ok()?, 8).ok()?, 3),
                };
                read.push(byte);
                rest = if used == 1 { after } else { rest.get(used..)? };
            }
            byte => read.push(*byte),
        }
    }
}

/// Start and count of the old and of the new lines.
fn hunk_header(line: &[u8]) -> Option<((usize, usize), (usize, usize))> {
    let line = std::str::from_utf8(line.strip_prefix(b"@@ -")?.split(|byte| *byte == b'@').next()?).ok()?;
    let (old, new) = line.strip_suffix(' ')?.split_once(" +")?;
    let range = |text: &str| -> Option<(usize, usize)> {
        let (start, count) = text.split_once(',').unwrap_or((text, "1"));
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
        let (start, count) = (number(start)?, number(count)?);
        (start > 0 || count == 0).then_some((start, count))
    };
    line.ends_with(' ').then_some(())?;
    Some((range(old)?, range(new)?))
}
