//! Reads the inputs of `workspace:write` and collects every problem.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nofx_gates::path;
use serde_json::Value;
use shared::domain::fields::{self, Fields, Names, Null};
use shared::domain::{ArtifactId, Problem};

const KNOWN: &[Names] = &[&["workspace"], &["from"], &["patch"], &["files"], &["delete"]];
const LISTED_FILE: &[Names] = &[&["path"], &["content"], &["base64"], &["artifact"], &["executable"]];
const NAMED_FILE: &[Names] = &[&["content"], &["base64"], &["artifact"], &["executable"]];
const PATCH: &[Names] = &[&["content"], &["artifact"]];
/// Maximum number of files that a step writes, and of paths that it deletes.
const MAX_FILES: usize = 2_000;

/// Accepted inputs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WriteInputs {
    /// A set of files or a patch, as `codegen` makes it.
    pub from: Option<ArtifactId>,
    pub patch: Option<Source>,
    pub files: Vec<File>,
    /// Paths by their place in the inputs.
    pub delete: Vec<(String, String)>,
}

/// A file to write.
#[derive(Debug, PartialEq, Eq)]
pub struct File {
    /// Where the inputs name it, such as `inputs.files[0]`.
    pub place: String,
    pub path: String,
    pub source: Source,
    pub executable: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Text(String),
    Bytes(Vec<u8>),
    Artifact(ArtifactId),
}

impl WriteInputs {
    pub fn parse(inputs: &Value) -> Result<Self, Vec<Problem>> {
        fields::read(inputs, "inputs", KNOWN, Null::Absent, |fields| {
            let from = fields.id("from", "an artifact");
            let patch = read_patch(fields);
            let files = read_files(fields);
            let delete = read_delete(fields);
            if ["from", "patch", "files", "delete"].iter().all(|name| fields.value(name).is_none()) {
                fields.problem_here(
                    "asks for no change; give files, a patch, paths to delete, or what a model made as `from`",
                );
            }
            if fields.value("from").is_some() && fields.value("patch").is_some() {
                fields.problem(
                    "patch",
                    "give either a patch or `from`, not both: each is made from the workspace as it is",
                );
            }
            check_twice(fields, &files, &delete);
            Some(Self { from, patch, files, delete })
        })
    }

    /// The artifacts that become part of the workspace.
    pub fn artifacts(&self) -> impl Iterator<Item = ArtifactId> {
        let sources = self.patch.iter().chain(self.files.iter().map(|file| &file.source));
        let named = sources.filter_map(|source| match source {
            Source::Artifact(id) => Some(*id),
            Source::Text(_) | Source::Bytes(_) => None,
        });
        self.from.into_iter().chain(named)
    }
}

/// A text, or an object that names an artifact.
fn read_patch(fields: &mut Fields<'_, '_>) -> Option<Source> {
    match fields.value("patch")? {
        Value::Object(_) => fields.object("patch", PATCH, |patch| read_source(patch, false)).flatten(),
        _ => fields.read("patch", |value| {
            let text = value.as_str().map(|text| Source::Text(text.to_owned()));
            text.ok_or_else(|| "must be a unified diff, or an object with an artifact".to_owned())
        }),
    }
}

fn read_files(fields: &mut Fields<'_, '_>) -> Vec<File> {
    let place = fields.path("files");
    let files: Vec<Result<File, Vec<Problem>>> = match fields.value("files") {
        None => return Vec::new(),
        Some(Value::Array(files)) if files.len() <= MAX_FILES => {
            files.iter().enumerate().map(|(at, file)| listed_file(file, format!("{place}[{at}]"))).collect()
        }
        Some(Value::Object(files)) if files.len() <= MAX_FILES => {
            let place = |path: &str| format!("{place}.{}", path::shown(path).trim_matches('"'));
            files.iter().map(|(path, file)| named_file(path, file, place(path))).collect()
        }
        Some(Value::Array(_) | Value::Object(_)) => {
            fields.problem("files", format!("must be at most {MAX_FILES} files"));
            return Vec::new();
        }
        Some(_) => {
            fields.problem("files", "must be a list of files, or an object of files by path");
            return Vec::new();
        }
    };
    let mut read = Vec::new();
    for file in files {
        match file {
            Ok(file) => read.push(file),
            Err(problems) => fields.problems(problems),
        }
    }
    read
}

/// `{path, content | base64 | artifact, executable}`.
fn listed_file(file: &Value, place: String) -> Result<File, Vec<Problem>> {
    fields::read(file, &place.clone(), LISTED_FILE, Null::Absent, |fields| {
        fields.require(&["path"]);
        let path = fields.read("path", |value| {
            let path = value.as_str().ok_or("must be a string")?;
            path::parse_file(path.as_bytes())
        });
        let (source, executable) = (read_source(fields, true), read_executable(fields));
        Some(File { place, path: path?, source: source?, executable })
    })
}

/// The same with its path as the key. A string is its content.
fn named_file(path: &str, file: &Value, place: String) -> Result<File, Vec<Problem>> {
    let path = path::parse_file(path.as_bytes()).map_err(|message| vec![Problem::new(place.clone(), message)])?;
    if let Value::String(content) = file {
        return Ok(File { place, path, source: Source::Text(content.clone()), executable: None });
    }
    fields::read(file, &place.clone(), NAMED_FILE, Null::Absent, |fields| {
        let (source, executable) = (read_source(fields, true), read_executable(fields));
        Some(File { place, path, source: source?, executable })
    })
}

fn read_source(fields: &mut Fields<'_, '_>, may_be_bytes: bool) -> Option<Source> {
    let given = ["content", "base64", "artifact"].iter().filter(|name| fields.value(name).is_some()).count();
    if given != 1 {
        let names = if may_be_bytes { "content, base64 and artifact" } else { "content and artifact" };
        fields.problem_here(format!("must have exactly one of {names}"));
        return None;
    }
    let text = fields.read("content", |value| {
        let text = value.as_str().map(|text| Source::Text(text.to_owned()));
        text.ok_or_else(|| "must be a string; use base64 for bytes".to_owned())
    });
    let bytes = fields.read("base64", |value| {
        let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok());
        bytes.map(Source::Bytes).ok_or_else(|| "must be bytes in base64, with its padding".to_owned())
    });
    text.or(bytes).or(fields.id("artifact", "an artifact").map(Source::Artifact))
}

fn read_executable(fields: &mut Fields<'_, '_>) -> Option<bool> {
    fields.read("executable", |value| value.as_bool().ok_or_else(|| "must be true or false".to_owned()))
}

fn read_delete(fields: &mut Fields<'_, '_>) -> Vec<(String, String)> {
    let place = fields.path("delete");
    let paths = fields.list("delete", MAX_FILES, |value| {
        let asked = value.as_str().ok_or("must be a string")?;
        let path = path::parse_file(asked.as_bytes())?;
        // With a slash at the end it names a folder.
        Ok(if asked.ends_with('/') { format!("{path}/") } else { path })
    });
    paths.into_iter().enumerate().map(|(at, path)| (format!("{place}[{at}]"), path)).collect()
}

/// What happens to a path must not depend on an order.
fn check_twice(fields: &mut Fields<'_, '_>, files: &[File], delete: &[(String, String)]) {
    let mut places: BTreeMap<&str, &str> = BTreeMap::new();
    let written = files.iter().map(|file| (file.place.as_str(), file.path.as_str()));
    let deleted = delete.iter().map(|(place, path)| (place.as_str(), path.trim_end_matches('/')));
    for (place, path) in written.chain(deleted) {
        if let Some(first) = places.insert(path, place) {
            let message = format!("names {path}, which {first} names already; name it once");
            fields.problems([Problem::new(place, message)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(inputs: &Value) -> Vec<String> {
        let problems = WriteInputs::parse(inputs).unwrap_err();
        problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    #[test]
    fn files_are_a_list_or_an_object() {
        let id = "00000000-0000-0000-0000-00000000000a";
        let list = json!({"files": [
            {"path": "./src//a.ts", "content": "a"},
            {"path": "b", "base64": "AAE=", "executable": true},
            {"path": "c", "artifact": id, "executable": null},
        ]});
        let object = json!({"files": {
            "src/a.ts": "a", "b": {"base64": "AAE=", "executable": true}, "c": {"artifact": id},
        }});
        for inputs in [list, object] {
            let mut files = WriteInputs::parse(&inputs).unwrap().files;
            files.sort_by(|one, other| one.path.cmp(&other.path));
            let read: Vec<_> = files.iter().map(|file| (file.path.as_str(), &file.source, file.executable)).collect();
            assert_eq!(
                read,
                [
                    ("b", &Source::Bytes(vec![0, 1]), Some(true)),
                    ("c", &Source::Artifact(id.parse().unwrap()), None),
                    ("src/a.ts", &Source::Text("a".into()), None),
                ]
            );
        }
    }

    #[test]
    fn every_problem_is_reported_with_its_path() {
        let inputs = json!({
            "files": [
                {"path": "../a", "content": "x"},
                {"path": "b"},
                {"path": "c", "content": "x", "base64": "AA=="},
                {"content": 1},
                {"path": "d", "base64": "A"},
                {"path": "e", "content": "x", "mode": 1},
                {"path": "f", "content": "x", "executable": "yes"},
                "g",
            ],
            "delete": [".git/config", 1],
            "patch": 1,
            "base": "x",
        });
        let found = problems(&inputs);
        for expected in [
            "inputs.base: is not a known field; the fields are workspace, from, patch, files, delete",
            "inputs.patch: must be a unified diff, or an object with an artifact",
            "inputs.files[0].path: the path \"../a\" leaves the workspace; use a path without `..`",
            "inputs.files[1]: must have exactly one of content, base64 and artifact",
            "inputs.files[2]: must have exactly one of content, base64 and artifact",
            "inputs.files[3].path: is missing",
            "inputs.files[3].content: must be a string; use base64 for bytes",
            "inputs.files[4].base64: must be bytes in base64, with its padding",
            "inputs.files[5].mode: is not a known field; the fields are path, content, base64, artifact, executable",
            "inputs.files[6].executable: must be true or false",
            "inputs.files[7]: must be an object",
            "inputs.delete[0]: the path \".git/config\" is in .git, which is not part of a workspace",
            "inputs.delete[1]: must be a string",
        ] {
            assert!(found.iter().any(|problem| problem == expected), "{expected}\n{found:#?}");
        }
        assert_eq!(found.len(), 13, "{found:#?}");
    }

    #[test]
    fn a_path_is_named_once() {
        assert_eq!(
            problems(
                &json!({"files": [{"path": "a", "content": ""}, {"path": "./a", "content": ""}], "delete": ["a/"]})
            ),
            [
                "inputs.files[1]: names a, which inputs.files[0] names already; name it once",
                "inputs.delete[0]: names a, which inputs.files[1] names already; name it once",
            ]
        );
        let id = "00000000-0000-0000-0000-00000000000a";
        assert_eq!(
            problems(&json!({"from": id, "patch": "x"})),
            ["inputs.patch: give either a patch or `from`, not both: each is made from the workspace as it is"]
        );
        let both = WriteInputs::parse(&json!({"from": id, "files": {"a": ""}})).unwrap();
        assert_eq!(both.artifacts().collect::<Vec<_>>(), [id.parse().unwrap()]);
        assert_eq!(
            problems(&json!({})),
            ["inputs: asks for no change; give files, a patch, paths to delete, or what a model made as `from`"]
        );
    }
}
