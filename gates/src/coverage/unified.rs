//! Reads unified diffs, as `git diff` and `diff -u` write them. Strict: unknown syntax is an error.

use super::CoverageError;

/// The part of a diff for one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileDiff {
    /// `None` for a file that is new.
    pub old: Option<String>,
    /// `None` for a file that was deleted.
    pub new: Option<String>,
    pub hunks: Vec<Hunk>,
    /// The new file is a copy: the old path still exists.
    pub copied: bool,
    /// The diff does not show how the contents differ.
    pub binary: bool,
}

/// The new side of a hunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hunk {
    /// Number of the first line, from 1.
    pub new_start: u32,
    /// The lines with their line breaks, and whether each was added.
    pub lines: Vec<(Vec<u8>, bool)>,
}

fn unparsable(line: usize, why: &str) -> CoverageError {
    CoverageError::new("diff_unparsable", format!("the diff cannot be read at line {}: {why}", line + 1))
}

/// Reads a diff. Text around the files, such as a commit message, is skipped.
pub fn parse(diff: &[u8]) -> Result<Vec<FileDiff>, CoverageError> {
    let lines: Vec<&[u8]> = diff.split_inclusive(|byte| *byte == b'\n').collect();
    let mut reader = Reader { lines, at: 0, files: Vec::new() };
    while reader.at < reader.lines.len() {
        reader.read_line()?;
    }
    if reader.files.is_empty() && !diff.iter().all(u8::is_ascii_whitespace) {
        return Err(unparsable(0, "it lists no files"));
    }
    Ok(reader.files)
}

struct Reader<'a> {
    lines: Vec<&'a [u8]>,
    at: usize,
    files: Vec<FileDiff>,
}

impl Reader<'_> {
    fn header(&self, at: usize) -> String {
        let line = self.lines.get(at).copied().unwrap_or_default();
        String::from_utf8_lossy(line).trim_end_matches(['\n', '\r']).to_string()
    }

    fn read_line(&mut self) -> Result<(), CoverageError> {
        let line = self.header(self.at);
        let here = self.at;
        self.at += 1;
        if let Some(paths) = line.strip_prefix("diff --git ") {
            let (old, new) = git_paths(paths).unwrap_or_default();
            self.files.push(FileDiff { old, new, ..FileDiff::default() });
        } else if let Some(old) = line.strip_prefix("--- ")
            && let Some(new) = self.header(self.at).strip_prefix("+++ ")
        {
            self.at += 1;
            let (old, new) = (parse_path(old, "a/"), parse_path(new, "b/"));
            match self.files.last_mut() {
                Some(file) if file.hunks.is_empty() && is_git_header_of(&self.lines, here) => {
                    (file.old, file.new) = (old, new);
                }
                _ => self.files.push(FileDiff { old, new, ..FileDiff::default() }),
            }
        } else if line.starts_with("@@@") {
            return Err(unparsable(here, "combined diffs are not supported"));
        } else if line.starts_with("@@ ") {
            self.hunk(here, &line)?;
        } else if let Some(file) = self.files.last_mut() {
            if file.hunks.is_empty() {
                read_extended_header(file, &line);
            } else if line.starts_with(['+', ' ']) {
                // Skipping it would drop an added line, which needs coverage.
                return Err(unparsable(here, "a hunk is longer than its header says"));
            }
        }
        Ok(())
    }

    fn hunk(&mut self, here: usize, header: &str) -> Result<(), CoverageError> {
        let ((_, mut old_left), (new_start, mut new_left)) =
            ranges(header).ok_or_else(|| unparsable(here, "its hunk header is not valid"))?;
        let mut lines: Vec<(Vec<u8>, bool)> = Vec::new();
        while old_left > 0 || new_left > 0 {
            let line = *self.lines.get(self.at).ok_or_else(|| unparsable(self.at, "a hunk is truncated"))?;
            let (mark, text) = line.split_first().map_or((b' ', line), |(mark, text)| (*mark, text));
            match mark {
                b' ' | b'\n' | b'\r' => {
                    // Some tools strip the space in front of an empty line.
                    let text = if mark == b' ' { text } else { line };
                    lines.push((text.to_vec(), false));
                    (old_left, new_left) = (decrement(old_left, self.at)?, decrement(new_left, self.at)?);
                }
                b'+' => {
                    lines.push((text.to_vec(), true));
                    new_left = decrement(new_left, self.at)?;
                }
                b'-' => old_left = decrement(old_left, self.at)?,
                b'\\' => {}
                _ => return Err(unparsable(self.at, "a hunk is shorter than its header says")),
            }
            self.at += 1;
            self.no_line_break(mark, &mut lines);
        }
        let file = self.files.last_mut().ok_or_else(|| unparsable(here, "a hunk without a file"))?;
        file.hunks.push(Hunk { new_start, lines });
        Ok(())
    }

    /// `\ No newline at end of file` applies to the line before it.
    fn no_line_break(&mut self, mark: u8, lines: &mut [(Vec<u8>, bool)]) {
        if !self.lines.get(self.at).is_some_and(|line| line.starts_with(b"\\")) {
            return;
        }
        if mark != b'-'
            && let Some((text, _)) = lines.last_mut()
            && text.last() == Some(&b'\n')
        {
            text.pop();
        }
        self.at += 1;
    }
}

fn decrement(left: u32, at: usize) -> Result<u32, CoverageError> {
    left.checked_sub(1).ok_or_else(|| unparsable(at, "a hunk is longer than its header says"))
}

/// Whether the lines before `---` are Git's extended header of the same file.
fn is_git_header_of(lines: &[&[u8]], at: usize) -> bool {
    const EXTENDED: [&[u8]; 9] = [
        b"index ",
        b"old mode ",
        b"new mode ",
        b"new file mode ",
        b"deleted file mode ",
        b"similarity index ",
        b"dissimilarity index ",
        b"rename ",
        b"copy ",
    ];
    let before = lines.get(..at).unwrap_or_default().iter().rev();
    before
        .copied()
        .find(|line| !EXTENDED.iter().any(|start| line.starts_with(start)))
        .is_some_and(|line| line.starts_with(b"diff --git "))
}

fn read_extended_header(file: &mut FileDiff, line: &str) {
    if line.starts_with("new file mode ") {
        file.old = None;
    } else if line.starts_with("deleted file mode ") {
        file.new = None;
    } else if let Some(path) = line.strip_prefix("rename from ").or(line.strip_prefix("copy from ")) {
        file.old = Some(unquote(path));
        file.copied = line.starts_with("copy");
    } else if let Some(path) = line.strip_prefix("rename to ").or(line.strip_prefix("copy to ")) {
        file.new = Some(unquote(path));
    } else if line == "GIT binary patch" || (line.starts_with("Binary files ") && line.ends_with(" differ")) {
        file.binary = true;
    }
}

/// Parses `a/x b/x`. The two paths differ only in their prefix, unless other headers give the paths.
fn git_paths(text: &str) -> Option<(Option<String>, Option<String>)> {
    if text.starts_with('"') {
        let (old, new) = text.split_once("\" ")?;
        return Some((parse_path(&format!("{old}\""), "a/"), parse_path(new, "b/")));
    }
    let middle = text.len() / 2;
    let (old, new) = (text.get(..middle)?, text.get(middle + 1..)?);
    let (old, new) = (parse_path(old, "a/"), parse_path(new, "b/"));
    (old == new).then_some((old, new))
}

fn parse_path(text: &str, prefix: &str) -> Option<String> {
    let path = unquote(text.split('\t').next().unwrap_or(text).trim_end());
    (path != "/dev/null").then(|| path.strip_prefix(prefix).unwrap_or(&path).to_string())
}

/// Git quotes paths with unusual bytes and uses C escapes.
fn unquote(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return text.to_string();
    };
    let mut bytes = Vec::new();
    let mut rest = inner.bytes().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'n') => bytes.push(b'\n'),
            Some(b't') => bytes.push(b'\t'),
            Some(digit @ b'0'..=b'7') => {
                let mut value = u32::from(digit - b'0');
                for _ in 0..2 {
                    value = value * 8
                        + rest.next_if(|next| matches!(next, b'0'..=b'7')).map_or(0, |next| u32::from(next - b'0'));
                }
                bytes.push(u8::try_from(value).unwrap_or(b'?'));
            }
            Some(other) => bytes.push(other),
            None => {}
        }
    }
    String::from_utf8_lossy(&bytes).to_string()
}

/// `@@ -1,2 +3,4 @@ heading`
fn ranges(header: &str) -> Option<((u32, u32), (u32, u32))> {
    let (inner, _) = header.strip_prefix("@@ ")?.split_once(" @@")?;
    let (old, new) = inner.split_once(' ')?;
    Some((range(old.strip_prefix('-')?)?, range(new.strip_prefix('+')?)?))
}

fn range(text: &str) -> Option<(u32, u32)> {
    let (start, count) = text.split_once(',').unwrap_or((text, "1"));
    Some((start.parse().ok()?, count.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_git_diff_is_read_with_its_new_lines() {
        let text = b"commit message\n\ndiff --git a/src/a.ts b/src/a.ts\nindex 1..2 100644\n--- a/src/a.ts\n+++ b/src/a.ts\n@@ -1,3 +1,3 @@ fn\n a\n-b\n+B\r\n c\n\\ No newline at end of file\ndiff --git a/x.ts b/y.ts\nsimilarity index 100%\nrename from x.ts\nrename to y.ts\n";
        let files = parse(text).unwrap();
        assert_eq!(files.len(), 2);
        assert_eq!(files[0].new.as_deref(), Some("src/a.ts"));
        let lines: Vec<_> = files[0].hunks[0].lines.iter().map(|(text, added)| (text.as_slice(), *added)).collect();
        assert_eq!(lines, [(b"a\n".as_slice(), false), (b"B\r\n", true), (b"c", false)]);
        assert_eq!((files[1].old.as_deref(), files[1].new.as_deref()), (Some("x.ts"), Some("y.ts")));
    }

    #[test]
    fn new_deleted_and_quoted_files_are_read() {
        let text = "--- /dev/null\t1970\n+++ \"b/\\303\\244 b.ts\"\n@@ -0,0 +1 @@\n+x\n--- a/old.ts\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n";
        let files = parse(text.as_bytes()).unwrap();
        assert_eq!((files[0].old.as_deref(), files[0].new.as_deref()), (None, Some("ä b.ts")));
        assert_eq!((files[1].old.as_deref(), files[1].new.as_deref()), (Some("old.ts"), None));
    }

    #[test]
    fn a_removed_line_that_looks_like_a_header_is_a_line() {
        let text = b"--- a/a.ts\n+++ b/a.ts\n@@ -1,2 +1,2 @@\n--- x\n+++ y\n z\n";
        let files = parse(text).unwrap();
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].hunks[0].lines[0], (b"++ y\n".to_vec(), true));
    }

    #[test]
    fn an_invalid_diff_is_rejected() {
        for text in [
            "hello",
            "@@ -1 +1 @@\n-a\n+b\n",
            "--- a/a\n+++ b/a\n@@ -1,2 +1,2 @@\n a\n",
            "--- a/a\n+++ b/a\n@@@ -1 -1 +1 @@@\n",
            "--- a/a\n+++ b/a\n@@ -1 +1 @@\nx\n",
            "--- a/a\n+++ b/a\n@@ -0,0 +1 @@\n+a\n+b\n",
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().code, "diff_unparsable", "{text}");
        }
        assert_eq!(parse(b"").unwrap(), []);
    }
}
