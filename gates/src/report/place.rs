//! Names files as the workspace does.

use std::collections::BTreeSet;

use crate::coverage::paths::PathIndex;

use super::{MAX_NAME_CHARS, text};

/// Where the reports were written: the folder of the workspace at that time, and its files.
pub struct Place<'a> {
    root: String,
    files: PathIndex<'a>,
}

impl<'a> Place<'a> {
    /// `root` is the absolute path of the workspace during the run. `files` are relative, with slashes.
    pub fn new(root: &str, files: impl Iterator<Item = &'a str>) -> Self {
        let root = slashes(root);
        Self { files: PathIndex::new(files.collect::<BTreeSet<_>>().into_iter(), std::slice::from_ref(&root)), root }
    }

    /// The path below the workspace of a path in a report. A path that is not of the workspace is returned as it is,
    /// without characters that a terminal would obey.
    pub fn locate(&self, reported: &str) -> String {
        let path = slashes(reported.trim());
        if path.is_empty() {
            return String::new();
        }
        if let Ok(Some(file)) = self.files.find(&path) {
            return file.to_owned();
        }
        let below = path.strip_prefix(self.root.as_str()).filter(|_| !self.root.is_empty());
        let below = below.and_then(|rest| rest.strip_prefix('/')).unwrap_or(&path);
        // A package lies where it is installed, which is nothing to a reader.
        let is_outside = below.starts_with("../") || below.starts_with('/');
        let package = below.find("/node_modules/").filter(|_| is_outside).and_then(|at| below.get(at + 1..));
        text::clean(package.unwrap_or(below.strip_prefix("./").unwrap_or(below)), MAX_NAME_CHARS)
    }

    /// The path of a URI, which has percent-encoded characters.
    pub fn locate_uri(&self, uri: &str) -> String {
        let path = uri.strip_prefix("file://").map_or(uri, |rest| {
            // file://host/path names a host. Only an empty one and localhost are usual.
            rest.strip_prefix("localhost").filter(|rest| rest.starts_with('/')).unwrap_or(rest)
        });
        self.locate(&percent_decoded(path))
    }

    /// The file, if the workspace has it.
    pub fn known(&self, reported: &str) -> Option<&'a str> {
        self.files.find(&slashes(reported)).ok().flatten()
    }
}

fn slashes(path: &str) -> String {
    let path = path.replace('\\', "/");
    let path = path.trim_end_matches('/');
    // file:///C:/x gives /C:/x.
    let is_drive = path.starts_with('/') && path.get(2..3) == Some(":");
    path.get(usize::from(is_drive)..).unwrap_or(path).to_owned()
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = (*byte == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        if let Some(value) = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            decoded.push(value);
            at += 3;
        } else {
            decoded.push(*byte);
            at += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_this_and_other_machines_become_paths_of_the_workspace() {
        let place = Place::new("/work/w", ["src/a b.ts", "pkg/x/src/c.ts"].into_iter());
        for reported in ["/work/w/src/a b.ts", "C:\\ci\\w\\src\\a b.ts", "./src/a b.ts", "/home/ci/src/a b.ts"] {
            assert_eq!(place.locate(reported), "src/a b.ts", "{reported}");
        }
        assert_eq!(place.locate("src/c.ts"), "pkg/x/src/c.ts");
        assert_eq!(place.locate_uri("file:///work/w/src/a%20b.ts"), "src/a b.ts");
        assert_eq!(place.locate_uri("file:///C:/ci/src/a%20b.ts"), "src/a b.ts");
        assert_eq!(place.locate_uri("src/a%20b.ts"), "src/a b.ts");
    }

    #[test]
    fn a_path_that_is_not_of_the_workspace_stays_as_it_is() {
        let place = Place::new("/work/w", ["src/a.ts"].into_iter());
        assert_eq!(place.locate("/usr/lib/x.py"), "/usr/lib/x.py");
        assert_eq!(place.locate("/work/w/dist/x.js"), "dist/x.js");
        assert_eq!(place.locate("/work/wide/x.js"), "/work/wide/x.js");
        assert_eq!(place.locate("../../installs/4a6d/node_modules/@x/y/z.d.ts"), "node_modules/@x/y/z.d.ts");
        assert_eq!(place.locate_uri("%zz%"), "%zz%");
        assert_eq!(place.locate(""), "");
        assert_eq!(place.locate("a\u{1b}[2J.ts"), "a.ts");
    }
}
