//! Which artifacts a step's inputs name. The worker looks them up, because handlers have no database.

use std::collections::BTreeSet;

use serde_json::Value;

use super::id::ArtifactId;
use super::place::Place;
use super::plan::PlanWorkspace;
use super::problem::Problem;

/// Ids in a list. A longer list is refused by the handler.
const MAX_LISTED: usize = 20;

/// The artifacts that inputs name, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArtifactInputs {
    /// The workspace to use instead of the plan's.
    pub workspace: Option<PlanWorkspace>,
    /// The base to compare the workspace with, instead of the workspace's.
    pub base: Option<ArtifactId>,
    /// Every id with its path, also those above.
    pub places: Vec<(String, ArtifactId)>,
}

impl ArtifactInputs {
    /// Reads the inputs of a tool that takes artifacts: `workspace` and `base` of a gate; `workspace`, `from`,
    /// `files[].artifact` and `patch.artifact` of `workspace:write`; `artifacts` of `codegen`. Everything else is the handler's to check.
    pub fn read(tool: &str, inputs: &Value) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader::default();
        let root = Place::Root("inputs");
        match tool {
            // Its `base` is a name in a repository.
            "workspace:git" => {}
            "codegen" => reader.list(inputs, &root),
            "workspace:write" => {
                reader.workspace(inputs, &root);
                reader.id(inputs, "from", &root);
                reader.files(inputs, &root);
                if let Some(patch) = inputs.get("patch") {
                    reader.id(patch, "artifact", &Place::Key(&root, "patch"));
                }
            }
            _ => {
                reader.workspace(inputs, &root);
                reader.base(inputs, &root);
            }
        }
        if reader.problems.is_empty() { Ok(reader.read) } else { Err(reader.problems) }
    }

    /// Every id once.
    pub fn ids(&self) -> BTreeSet<ArtifactId> {
        self.places.iter().map(|(_, id)| *id).collect()
    }
}

#[derive(Default)]
struct Reader {
    read: ArtifactInputs,
    problems: Vec<Problem>,
}

impl Reader {
    fn problem(&mut self, place: &Place<'_>, message: &str) {
        self.problems.push(Problem::new(place.path(), message));
    }

    /// An artifact's id. Null counts as absent.
    fn id(&mut self, object: &Value, key: &str, parent: &Place<'_>) -> Option<ArtifactId> {
        let value = object.get(key).filter(|value| !value.is_null())?;
        let place = Place::Key(parent, key);
        let id = value.as_str().and_then(|text| text.parse().ok());
        match id {
            Some(id) => self.read.places.push((place.path(), id)),
            None => self.problem(&place, "must be the id of an artifact (a UUID), such as an output of another step"),
        }
        id
    }

    /// An id, or `{archive, base, diff}` as in a plan.
    fn workspace(&mut self, inputs: &Value, root: &Place<'_>) {
        let place = Place::Key(root, "workspace");
        let (archive, base, diff) = match inputs.get("workspace") {
            None | Some(Value::Null) => return,
            Some(object @ Value::Object(fields)) => {
                for key in fields.keys().filter(|key| !matches!(key.as_str(), "archive" | "base" | "diff")) {
                    self.problem(&Place::Key(&place, key), "is not a known field; the fields are archive, base, diff");
                }
                if fields.get("archive").is_none_or(Value::is_null) {
                    self.problem(&Place::Key(&place, "archive"), "is missing");
                }
                let mut id = |key| self.id(object, key, &place);
                (id("archive"), id("base"), id("diff"))
            }
            Some(Value::String(_)) => (self.id(inputs, "workspace", root), None, None),
            Some(_) => {
                self.problem(&place, "must be the id of an archive, or an object with an archive");
                return;
            }
        };
        if base.is_some() && diff.is_some() {
            self.problem(&place, "has a base and a diff; give only one of them");
        }
        self.read.workspace = archive.map(|archive| PlanWorkspace { archive, base, diff });
    }

    fn base(&mut self, inputs: &Value, root: &Place<'_>) {
        self.read.base = self.id(inputs, "base", root);
        let other = self.read.workspace.is_some_and(|workspace| workspace.base.is_some() || workspace.diff.is_some());
        if self.read.base.is_some() && other {
            let message = "the workspace has a base or a diff already; give only one of them";
            self.problem(&Place::Key(root, "base"), message);
        }
    }

    /// A list of ids. What is not a list, or too long, is the handler's to report.
    fn list(&mut self, inputs: &Value, root: &Place<'_>) {
        let place = Place::Key(root, "artifacts");
        let ids = inputs.get("artifacts").and_then(Value::as_array).filter(|ids| ids.len() <= MAX_LISTED);
        for (at, value) in ids.into_iter().flatten().enumerate() {
            if let Some(id) = value.as_str().and_then(|text| text.parse().ok()) {
                self.read.places.push((Place::Index(&place, at).path(), id));
            }
        }
    }

    /// A list of `{path, artifact}`, or an object of `{artifact}` by path.
    fn files(&mut self, inputs: &Value, root: &Place<'_>) {
        let place = Place::Key(root, "files");
        match inputs.get("files") {
            Some(Value::Array(files)) => {
                for (at, file) in files.iter().enumerate() {
                    self.id(file, "artifact", &Place::Index(&place, at));
                }
            }
            Some(Value::Object(files)) => {
                for (path, file) in files {
                    self.id(file, "artifact", &Place::Key(&place, path));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const A: &str = "00000000-0000-0000-0000-00000000000a";
    const B: &str = "00000000-0000-0000-0000-00000000000b";
    const C: &str = "00000000-0000-0000-0000-00000000000c";

    fn id(text: &str) -> ArtifactId {
        text.parse().unwrap()
    }

    #[test]
    fn a_gate_takes_a_workspace_by_id_or_as_an_object_and_a_base() {
        let read = |inputs: Value| ArtifactInputs::read("gate:lint", &inputs).unwrap();
        let by_id = read(json!({"workspace": A, "base": B, "files": 1}));
        assert_eq!((by_id.workspace.unwrap().archive, by_id.base), (id(A), Some(id(B))));
        assert_eq!(by_id.places, [("inputs.workspace".to_owned(), id(A)), ("inputs.base".to_owned(), id(B))]);
        let object = read(json!({"workspace": {"archive": A, "base": B, "diff": null}})).workspace.unwrap();
        assert_eq!((object.archive, object.base, object.diff), (id(A), Some(id(B)), None));
        assert_eq!(read(json!({"workspace": null, "base": B})).workspace, None);
        assert_eq!(read(json!({})), ArtifactInputs::default());
    }

    #[test]
    fn write_takes_artifacts_as_files_and_patch() {
        let files = json!([{"path": "a", "artifact": A}, {"path": "b", "content": "x"}, {"path": "c", "artifact": A}]);
        let read = |files: Value| {
            let inputs = json!({"workspace": B, "files": files, "patch": {"artifact": C}, "base": "x"});
            ArtifactInputs::read("workspace:write", &inputs).unwrap()
        };
        let list = read(files);
        assert_eq!(list.ids(), BTreeSet::from([id(A), id(B), id(C)]));
        assert_eq!(list.places[2], ("inputs.files[2].artifact".to_owned(), id(A)));
        assert_eq!(read(json!({"src/a": {"artifact": A}})).places[1].0, "inputs.files.src/a.artifact");
        let from = ArtifactInputs::read("workspace:write", &json!({"from": A})).unwrap();
        assert_eq!(from.places, [("inputs.from".to_owned(), id(A))]);
        let inline = json!({"files": {"a": "text"}, "patch": "--- a"});
        assert_eq!(ArtifactInputs::read("workspace:write", &inline).unwrap(), ArtifactInputs::default());
        // Names in a repository, not artifacts.
        let git = json!({"base": "main", "workspace": 1});
        assert_eq!(ArtifactInputs::read("workspace:git", &git).unwrap(), ArtifactInputs::default());
    }

    #[test]
    fn codegen_takes_a_list() {
        let read = |inputs: Value| ArtifactInputs::read("codegen", &inputs).unwrap();
        let list = read(json!({"artifacts": [A, "x", B, A], "workspace": C}));
        assert_eq!(list.ids(), BTreeSet::from([id(A), id(B)]));
        assert_eq!(list.places[1], ("inputs.artifacts[2]".to_owned(), id(B)));
        for none in [json!({}), json!({"artifacts": A}), json!({"artifacts": vec![A; 21]})] {
            assert_eq!(read(none), ArtifactInputs::default());
        }
    }

    #[test]
    fn every_wrong_id_is_reported_with_its_path() {
        let problems = |tool: &str, inputs: Value| -> Vec<String> {
            let problems = ArtifactInputs::read(tool, &inputs).unwrap_err();
            problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
        };
        let id = "must be the id of an artifact (a UUID), such as an output of another step";
        assert_eq!(
            problems("gate:unit", json!({"workspace": "main", "base": 1})),
            [format!("inputs.workspace: {id}"), format!("inputs.base: {id}")]
        );
        assert_eq!(
            problems("gate:unit", json!({"workspace": {"base": A, "diff": B, "x": 1}})),
            [
                "inputs.workspace.x: is not a known field; the fields are archive, base, diff",
                "inputs.workspace.archive: is missing",
                "inputs.workspace: has a base and a diff; give only one of them",
            ]
        );
        assert_eq!(
            problems("gate:unit", json!({"workspace": {"archive": A, "base": B}, "base": C})),
            ["inputs.base: the workspace has a base or a diff already; give only one of them"]
        );
        assert_eq!(
            problems(
                "workspace:write",
                json!({"workspace": 1, "files": [{"artifact": {}}], "patch": {"artifact": "x"}})
            ),
            [
                "inputs.workspace: must be the id of an archive, or an object with an archive".to_owned(),
                format!("inputs.files[0].artifact: {id}"),
                format!("inputs.patch.artifact: {id}"),
            ]
        );
    }
}
