//! Reads unified diffs, as `git diff` and `diff -u` write them. Strict: unknown syntax is an error.

use std::collections::BTreeSet;

use super::CoverageError;

/// The part of a diff for one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileDiff {
    /// `None` for a file that is new.
    pub old: Option<String>,
    /// `None` for a file that was deleted.
    pub new: Option<String>,
    /// The paths may begin with a folder that the workspace does not have: `diff -r base head`.
    pub loose: bool,
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

/// Reads a diff. Text between the files, such as a commit message, is skipped.
pub fn parse(diff: &[u8]) -> Result<Vec<FileDiff>, CoverageError> {
    let lines: Vec<&[u8]> = diff.split_inclusive(|byte| *byte == b'\n').collect();
    let mut reader = Reader { lines, at: 0, open: None, files: Vec::new() };
    while reader.at < reader.lines.len() {
        reader.read_line()?;
    }
    reader.close()?;
    if reader.files.is_empty() && !diff.iter().all(u8::is_ascii_whitespace) {
        return Err(unparsable(0, "it lists no files"));
    }
    Ok(reader.files)
}

/// Every path under which the workspace may have a file of the diff.
pub fn paths(diff: &[u8]) -> Result<BTreeSet<String>, CoverageError> {
    let files = parse(diff)?;
    let named = files.iter().flat_map(|file| file.old.iter().chain(&file.new).map(|path| (path, file.loose)));
    Ok(named.flat_map(|(path, loose)| candidates(path, loose).map(str::to_owned).collect::<Vec<_>>()).collect())
}

/// The path, and without its first folder if the diff is loose.
pub fn candidates(path: &str, loose: bool) -> impl Iterator<Item = &str> {
    let shorter = path.split_once('/').map(|(_, rest)| rest).filter(|rest| loose && !rest.is_empty());
    [path].into_iter().chain(shorter)
}

/// A file whose part of the diff is not complete yet.
#[expect(clippy::struct_excessive_bools, reason = "each is a line of Git's header")]
#[derive(Default)]
struct Open {
    /// The line on which it starts.
    line: usize,
    /// `a/x b/y` of Git's header.
    git: Option<String>,
    /// The names after `---` and `+++`.
    names: Option<(String, String)>,
    /// The names of a rename or a copy, without prefix.
    from: Option<String>,
    to: Option<String>,
    created: bool,
    deleted: bool,
    copied: bool,
    binary: bool,
    hunks: Vec<Hunk>,
}

struct Reader<'a> {
    lines: Vec<&'a [u8]>,
    at: usize,
    open: Option<Open>,
    files: Vec<FileDiff>,
}

impl Reader<'_> {
    fn header(&self, at: usize) -> String {
        let line = self.lines.get(at).copied().unwrap_or_default();
        String::from_utf8_lossy(line).trim_end_matches(['\n', '\r']).to_string()
    }

    fn close(&mut self) -> Result<(), CoverageError> {
        if let Some(open) = self.open.take() {
            self.files.push(open.finish()?);
        }
        Ok(())
    }

    fn read_line(&mut self) -> Result<(), CoverageError> {
        let line = self.header(self.at);
        let here = self.at;
        self.at += 1;
        if let Some(names) = line.strip_prefix("diff --git ") {
            self.close()?;
            self.open = Some(Open { line: here, git: Some(names.to_owned()), ..Open::default() });
        } else if let Some(old) = line.strip_prefix("--- ")
            && let Some(new) = self.header(self.at).strip_prefix("+++ ")
        {
            self.names(here, old, new)?;
        } else if line.starts_with("@@@") || line.starts_with("diff --cc ") || line.starts_with("diff --combined ") {
            return Err(unparsable(here, "combined diffs are not supported"));
        } else if line.starts_with("@@ ") {
            self.hunk(here, &line)?;
        } else if line.starts_with("Only in ") || line.starts_with("*** ") {
            return Err(unparsable(here, "it does not show all contents; use git diff or diff -ruN"));
        } else {
            self.other_line(here, &line)?;
        }
        Ok(())
    }

    /// `--- old` and `+++ new`, after which a hunk must come.
    fn names(&mut self, here: usize, old: &str, new: &str) -> Result<(), CoverageError> {
        if !self.open.as_ref().is_some_and(|open| open.git.is_some() && open.names.is_none() && open.hunks.is_empty()) {
            self.close()?;
            self.open = Some(Open { line: here, ..Open::default() });
        }
        self.at += 1;
        if !self.header(self.at).starts_with("@@ ") {
            return Err(unparsable(self.at, "a file has names, but no hunk"));
        }
        if let Some(open) = self.open.as_mut() {
            open.names = Some((name(old), name(new)));
        }
        Ok(())
    }

    fn other_line(&mut self, here: usize, line: &str) -> Result<(), CoverageError> {
        let names = line.strip_prefix("Binary files ").and_then(|line| line.strip_suffix(" differ"));
        match self.open.as_mut() {
            Some(open) if open.git.is_some() && open.names.is_none() => open.extended_header(line),
            _ if names.is_some() => {
                let (old, new) = names.and_then(|names| names.split_once(" and ")).unwrap_or_default();
                self.close()?;
                self.open =
                    Some(Open { line: here, names: Some((name(old), name(new))), binary: true, ..Open::default() });
            }
            // Skipping these would drop an added line, which needs coverage. `-- ` ends a mail.
            Some(_)
                if line.starts_with(['+', ' ', '@', '\\']) || (line.starts_with('-') && line.trim_end() != "--") =>
            {
                return Err(unparsable(here, "a hunk is longer than its header says"));
            }
            _ => {}
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
                _ => return Err(unparsable(self.at, "a hunk is shorter than its header says")),
            }
            self.at += 1;
            self.no_line_break(mark, &mut lines);
        }
        let named = self.open.as_mut().filter(|open| open.names.is_some());
        named.ok_or_else(|| unparsable(here, "a hunk without a file"))?.hunks.push(Hunk { new_start, lines });
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

const NO_FILE: &str = "/dev/null";

impl Open {
    fn extended_header(&mut self, line: &str) {
        if line.starts_with("new file mode ") {
            self.created = true;
        } else if line.starts_with("deleted file mode ") {
            self.deleted = true;
        } else if let Some(path) = line.strip_prefix("rename from ").or(line.strip_prefix("copy from ")) {
            self.from = Some(unquote(path));
            self.copied = line.starts_with("copy");
        } else if let Some(path) = line.strip_prefix("rename to ").or(line.strip_prefix("copy to ")) {
            self.to = Some(unquote(path));
        } else if line == "GIT binary patch" || (line.starts_with("Binary files ") && line.ends_with(" differ")) {
            self.binary = true;
        }
    }

    fn finish(self) -> Result<FileDiff, CoverageError> {
        let wrong = |why| unparsable(self.line, why);
        let header = self.git.as_deref().and_then(git_names);
        let (old, new, prefixed) = match (self.names.or(header), self.from, self.to) {
            (_, Some(from), Some(to)) => (from, to, true),
            (_, Some(_), None) | (_, None, Some(_)) => return Err(wrong("a rename has only one name")),
            (Some((old, new)), None, None) => without_prefixes(old, new),
            (None, None, None) => return Err(wrong("its header names no file")),
        };
        let real =
            |path: String, gone: bool| (path != NO_FILE && !gone).then(|| path.trim_start_matches("./").to_owned());
        let (old, new) = (real(old, self.created), real(new, self.deleted));
        if old.is_none() && new.is_none() {
            return Err(wrong("its header names no file"));
        }
        if new.is_none() && self.hunks.iter().any(|hunk| !hunk.lines.is_empty()) {
            return Err(wrong("a deleted file has new lines"));
        }
        Ok(FileDiff { old, new, loose: !prefixed, hunks: self.hunks, copied: self.copied, binary: self.binary })
    }
}

/// Takes off the prefixes that Git writes: `a/` and `b/`, or others for the index and the work tree.
fn without_prefixes(old: String, new: String) -> (String, String, bool) {
    const PREFIXES: [(&str, &str); 6] =
        [("a/", "b/"), ("i/", "w/"), ("c/", "i/"), ("c/", "w/"), ("o/", "w/"), ("1/", "2/")];
    let strip = |path: &str, prefix: &str| {
        (path == NO_FILE).then(|| path.to_owned()).or(path.strip_prefix(prefix).map(str::to_owned))
    };
    let stripped = PREFIXES.iter().find_map(|(before, after)| strip(&old, before).zip(strip(&new, after)));
    match stripped {
        Some((old, new)) => (old, new, true),
        None => (old, new, false),
    }
}

/// Parses `a/x b/x`. The two paths differ only in their prefix, unless other headers give the paths.
fn git_names(text: &str) -> Option<(String, String)> {
    if text.starts_with('"') {
        let (old, new) = text.split_once("\" ")?;
        return Some((name(&format!("{old}\"")), name(new)));
    }
    let middle = text.len() / 2;
    let (old, new) = (name(text.get(..middle)?), name(text.get(middle + 1..)?));
    let (short_old, short_new, prefixed) = without_prefixes(old.clone(), new.clone());
    (old == new || (prefixed && short_old == short_new)).then_some((old, new))
}

fn name(text: &str) -> String {
    unquote(text.split('\t').next().unwrap_or(text).trim_end())
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
            "--- a/a\n+++ b/a\n@@-0,0 +1@@\n+a\n",
            "--- a/a\n+++ b/a\n+a\n",
            "--- a/a\n+++ b/a\n",
            "--- a/a\n+++ b/a\n@@ -1 +1 @@\n-a\n+b\n@@-5 +5@@\n-a\n+b\n",
            "diff --git a/x.ts b/y.ts\nindex 1..2 100644\n",
            "diff --git a/x b/x\nrename from x\n",
            "diff --git a/x b/x\n@@ -1 +1 @@\n-a\n+b\n",
            "diff --cc a.ts\nindex 1,2..3\n",
            "Only in base: a.ts\n",
            "*** a/a\n--- b/a\n",
            "--- a/a\n+++ /dev/null\n@@ -1 +1 @@\n-a\n+b\n",
            "--- /dev/null\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n",
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().code, "diff_unparsable", "{text}");
        }
        assert_eq!(parse(b"").unwrap(), []);
    }

    #[test]
    fn prefixes_are_taken_off_only_if_git_wrote_them() {
        let paths = |old: &str, new: &str| {
            let files = parse(format!("--- {old}\n+++ {new}\n@@ -1 +1 @@\n-a\n+b\n").as_bytes()).unwrap();
            (files[0].old.clone().unwrap_or_default(), files[0].new.clone().unwrap_or_default(), files[0].loose)
        };
        let owned = |old: &str, new: &str, loose| (old.to_owned(), new.to_owned(), loose);
        assert_eq!(paths("a/x.ts", "b/x.ts"), owned("x.ts", "x.ts", false));
        assert_eq!(paths("i/x.ts", "w/x.ts"), owned("x.ts", "x.ts", false));
        assert_eq!(paths("b/x.ts", "b/x.ts"), owned("b/x.ts", "b/x.ts", true));
        assert_eq!(paths("src/x.ts", "src/x.ts"), owned("src/x.ts", "src/x.ts", true));
        assert_eq!(paths("base/x.ts\t2026", "./head/x.ts\t2026"), owned("base/x.ts", "head/x.ts", true));
        assert_eq!(
            parse(b"diff --git a/x.ts b/x.ts\nold mode 100644\nnew mode 100755\n").unwrap()[0].new.as_deref(),
            Some("x.ts")
        );
        assert_eq!(candidates("base/x.ts", true).collect::<Vec<_>>(), ["base/x.ts", "x.ts"]);
    }

    #[test]
    fn the_end_of_a_mail_is_skipped() {
        let text = b"From 1 Mon\nSubject: x\n\n---\n a.ts | 1 +\n\ndiff --git a/a.ts b/a.ts\n--- a/a.ts\n+++ b/a.ts\n@@ -0,0 +1 @@\n+x\n-- \n2.39.5\n\n";
        assert_eq!(parse(text).unwrap().len(), 1);
    }
}
