//! A set of files: what a model writes when it answers with several files, and what `workspace:write` writes into a workspace.
//!
//! `{"files": [{"path": .., "content": ..}], "deleted": [path]}`. Paths follow the rules of all changes of a workspace, contents
//! are text, and everything is bounded. No path is named twice.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::path::{self, Names};

/// The most files that a set writes, and the most paths that it deletes.
pub const MAX_FILES: usize = 500;
/// The most bytes of one file.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;
/// The most bytes of all files together.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Files to write, and paths to delete.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSet {
    pub files: Vec<SetFile>,
    /// Paths of files. A server that enforces no schema may leave it out.
    #[serde(default)]
    pub deleted: Vec<String>,
}

/// A file with its whole content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetFile {
    pub path: String,
    pub content: String,
}

/// Why a text is no set of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetProblem {
    /// Such as `files[3].path`. Empty for the whole set. It repeats nothing of the text.
    pub place: String,
    /// What is wrong, as a predicate of the place. It repeats nothing of the text.
    pub rule: &'static str,
    /// The same for whoever may read the text: it can name a path.
    pub message: String,
}

impl SetProblem {
    fn new(place: impl Into<String>, rule: &'static str) -> Self {
        Self { place: place.into(), rule, message: rule.to_owned() }
    }
}

impl FileSet {
    /// The JSON schema of a set. All members are required and no others are allowed, which some providers demand; they refuse
    /// limits of lists and texts, which [`Self::read`] checks.
    pub fn schema() -> Value {
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["files", "deleted"],
            "properties": {
                "files": {
                    "type": "array",
                    "description": "The files to write.",
                    "items": {
                        "type": "object",
                        "additionalProperties": false,
                        "required": ["path", "content"],
                        "properties": {
                            "path": { "type": "string", "description": "A relative path with slashes." },
                            "content": { "type": "string", "description": "The whole content of the file." },
                        },
                    },
                },
                "deleted": {
                    "type": "array",
                    "description": "The paths of files to delete. Usually empty.",
                    "items": { "type": "string" },
                },
            },
        })
    }

    /// Reads a set and checks everything that does not depend on a workspace. The paths that it returns have single slashes.
    pub fn read(text: &[u8]) -> Result<Self, SetProblem> {
        let mut set: Self = serde_json::from_slice(text).map_err(|error| SetProblem {
            message: format!(
                "is no set of files (line {}, column {}); its form is {{\"files\": [{{\"path\", \"content\"}}], \"deleted\": [path]}}",
                error.line(),
                error.column()
            ),
            ..SetProblem::new("", "is no set of files")
        })?;
        if set.files.is_empty() && set.deleted.is_empty() {
            return Err(SetProblem::new("", "changes no file"));
        }
        for (place, count) in [("files", set.files.len()), ("deleted", set.deleted.len())] {
            if count > MAX_FILES {
                return Err(SetProblem::new(place, "has more than 500 entries"));
            }
        }
        let mut bytes = 0_usize;
        for (at, file) in set.files.iter_mut().enumerate() {
            let place = |member: &str| format!("files[{at}].{member}");
            file.path = parsed(&file.path, || place("path"))?;
            bytes += file.content.len();
            let rule = match &file.content {
                content if content.len() > MAX_FILE_BYTES => "has more than 1,048,576 bytes",
                content if content.contains('\0') => "has the character NUL, so it is no text",
                _ if bytes > MAX_BYTES => "makes all files together larger than 4,194,304 bytes",
                _ => continue,
            };
            return Err(SetProblem::new(place("content"), rule));
        }
        for (at, path) in set.deleted.iter_mut().enumerate() {
            if path.ends_with('/') {
                let rule = "ends with a slash, but a set deletes only files: name each of them";
                return Err(SetProblem::new(format!("deleted[{at}]"), rule));
            }
            *path = parsed(path, || format!("deleted[{at}]"))?;
        }
        set.check_twice()?;
        Ok(set)
    }

    /// The set as JSON, always in the same form.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Every path that it writes or deletes, in its order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|file| file.path.as_str()).chain(self.deleted.iter().map(String::as_str))
    }

    /// No path may be named twice, also not on a file system that ignores case, and none may be a folder of another.
    fn check_twice(&self) -> Result<(), SetProblem> {
        let mut places: BTreeMap<&str, String> = BTreeMap::new();
        let written = self.files.iter().enumerate().map(|(at, file)| (format!("files[{at}].path"), file.path.as_str()));
        let deleted = self.deleted.iter().enumerate().map(|(at, path)| (format!("deleted[{at}]"), path.as_str()));
        for (place, path) in written.chain(deleted) {
            if let Some(first) = places.get(path) {
                let message = format!("names {path}, which {first} names already");
                return Err(SetProblem { message, ..SetProblem::new(place, "names a path for the second time") });
            }
            places.insert(path, place);
        }
        let (mut names, files) =
            (Names::default(), self.files.iter().map(|file| file.path.as_str()).collect::<BTreeSet<_>>());
        for (at, file) in self.files.iter().enumerate() {
            let place = format!("files[{at}].path");
            names.insert(&file.path).map_err(|message| SetProblem {
                message,
                ..SetProblem::new(&place, "differs from another path only in case, or in how letters are composed")
            })?;
            let mut folders = file.path.match_indices('/').filter_map(|(end, _)| file.path.get(..end));
            if let Some(folder) = folders.find(|folder| files.contains(folder)) {
                let message = format!("is in {folder}, which is a file of this set");
                return Err(SetProblem {
                    message,
                    ..SetProblem::new(place, "is in a folder that is a file of this set")
                });
            }
        }
        Ok(())
    }
}

fn parsed(path: &str, place: impl FnOnce() -> String) -> Result<String, SetProblem> {
    path::parse_file(path.as_bytes())
        .map_err(|message| SetProblem { message, ..SetProblem::new(place(), "is no path of a workspace") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &Value) -> Result<FileSet, SetProblem> {
        FileSet::read(value.to_string().as_bytes())
    }

    fn file(path: &str) -> Value {
        json!({ "path": path, "content": "x\n" })
    }

    #[test]
    fn a_set_is_read_and_written_in_one_form() {
        let set = read(&json!({ "deleted": ["./old"], "files": [file("src//a.ts"), file("b")] })).unwrap();
        assert_eq!(set.paths().collect::<Vec<_>>(), ["src/a.ts", "b", "old"]);
        let text = set.to_json().unwrap();
        assert_eq!(
            text,
            r#"{"files":[{"path":"src/a.ts","content":"x\n"},{"path":"b","content":"x\n"}],"deleted":["old"]}"#
        );
        assert_eq!(FileSet::read(text.as_bytes()), Ok(set));
        assert_eq!(
            read(&json!({ "files": [file("a")] })).unwrap().deleted,
            [""; 0],
            "a server without schemas leaves it out"
        );
        assert!(read(&json!({ "files": [], "deleted": ["a"] })).is_ok());
    }

    #[test]
    fn whatever_is_no_set_is_refused_without_repeating_it() {
        let many: Vec<Value> = (0..=MAX_FILES).map(|at| file(&format!("f{at}"))).collect();
        let long = |bytes: usize| json!({ "path": "long", "content": "x".repeat(bytes) });
        let canary = |value: Value| (value, "");
        for ((value, place), rule) in [
            (canary(json!([])), "is no set of files"),
            (canary(json!({})), "is no set of files"),
            (canary(json!({ "files": [file("a")], "canary": 1 })), "is no set of files"),
            (canary(json!({ "files": [{ "path": "canary" }] })), "is no set of files"),
            (canary(json!({ "files": [{ "path": "a", "content": "x", "mode": "canary" }] })), "is no set of files"),
            (canary(json!({ "files": [{ "path": "a", "content": null }] })), "is no set of files"),
            (canary(json!({ "files": [], "deleted": [] })), "changes no file"),
            ((json!({ "files": many }), "files"), "has more than 500 entries"),
            ((json!({ "files": [], "deleted": vec!["a"; MAX_FILES + 1] }), "deleted"), "has more than 500 entries"),
            ((json!({ "files": [file("a"), file("../canary")] }), "files[1].path"), "is no path of a workspace"),
            ((json!({ "files": [file("/canary")] }), "files[0].path"), "is no path of a workspace"),
            ((json!({ "files": [file("C:\\canary")] }), "files[0].path"), "is no path of a workspace"),
            ((json!({ "files": [file(".git/hooks/canary")] }), "files[0].path"), "is no path of a workspace"),
            ((json!({ "files": [file("a\u{202e}canary")] }), "files[0].path"), "is no path of a workspace"),
            ((json!({ "files": [file("")] }), "files[0].path"), "is no path of a workspace"),
            ((json!({ "files": [], "deleted": ["../canary"] }), "deleted[0]"), "is no path of a workspace"),
            ((json!({ "files": [file("a\u{200b}canary")] }), "files[0].path"), "is no path of a workspace"),
            (
                (json!({ "files": [], "deleted": ["canary/"] }), "deleted[0]"),
                "ends with a slash, but a set deletes only files: name each of them",
            ),
            (
                (json!({ "files": [file("canary"), file("./canary")] }), "files[1].path"),
                "names a path for the second time",
            ),
            (
                (json!({ "files": [file("canary")], "deleted": ["canary"] }), "deleted[0]"),
                "names a path for the second time",
            ),
            (
                (json!({ "files": [file("canary"), file("CANARY")] }), "files[1].path"),
                "differs from another path only in case, or in how letters are composed",
            ),
            (
                (json!({ "files": [file("canary/x"), file("canary")] }), "files[0].path"),
                "is in a folder that is a file of this set",
            ),
            (
                (json!({ "files": [{ "path": "a", "content": "canary\0" }] }), "files[0].content"),
                "has the character NUL, so it is no text",
            ),
            ((json!({ "files": [long(MAX_FILE_BYTES + 1)] }), "files[0].content"), "has more than 1,048,576 bytes"),
        ] {
            let problem = read(&value).unwrap_err();
            assert_eq!((problem.place.as_str(), problem.rule), (place, rule), "{}", problem.message);
            assert!(!format!("{} {}", problem.place, problem.rule).contains("canary"));
        }
        let five: Vec<Value> =
            (0..5).map(|at| json!({ "path": format!("f{at}"), "content": "x".repeat(MAX_FILE_BYTES) })).collect();
        let problem = read(&json!({ "files": five })).unwrap_err();
        assert_eq!(
            (problem.place.as_str(), problem.rule),
            ("files[4].content", "makes all files together larger than 4,194,304 bytes")
        );
        for text in [&b""[..], b"{\"files\":[", b"{\"files\":[],\"files\":[]}", b"\xff", b"{\"files\":[]} x"] {
            assert_eq!(FileSet::read(text).unwrap_err().rule, "is no set of files");
        }
    }

    #[test]
    fn the_schema_and_the_reader_have_the_same_members() {
        let schema = FileSet::schema();
        let written = serde_json::to_value(FileSet {
            files: vec![SetFile { path: "a".into(), content: String::new() }],
            deleted: vec![],
        })
        .unwrap();
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&written), names(&schema["properties"]));
        let item = &schema["properties"]["files"]["items"];
        assert_eq!(names(&written["files"][0]), names(&item["properties"]));
        for object in [&schema, item] {
            let mut required: Vec<_> =
                object["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
            required.sort_unstable();
            assert_eq!(required, names(&object["properties"]));
        }
    }
}
