//! What a step makes of an answer: one text, a set of files, or a patch.
//!
//! Sets and patches are asked for by a JSON schema, which providers enforce. Every answer is checked here all the same, by the rules
//! that `workspace:write` follows. Problems repeat nothing of the answer, because they become events.

use nofx_gates::file_set::{FileSet, SetFile, SetProblem};
use nofx_gates::patch;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::content::ContentType;

/// The most bytes of a patch.
const MAX_PATCH_BYTES: usize = 2 * 1024 * 1024;
/// The most files that a patch changes.
const MAX_PATCHED: usize = 500;
/// The file that the offline template writes. Few workspaces have one of this name.
const DRAFT: &str = "DRAFT.md";

/// The form of a step's result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// The answer itself.
    #[default]
    Text,
    /// A set of files, as [`FileSet`] describes it.
    Files,
    /// A unified diff.
    Patch,
}

/// The answer if a patch is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PatchAnswer {
    patch: String,
}

impl Output {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let known = [Self::Text, Self::Files, Self::Patch].into_iter().find(|output| output.as_str() == text);
        known.ok_or_else(|| "must be text, files or patch".to_owned())
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Files => "files",
            Self::Patch => "patch",
        }
    }

    /// The schema that the answer must match. `None` for a text.
    pub(crate) fn schema(self) -> Option<Value> {
        match self {
            Self::Text => None,
            Self::Files => Some(FileSet::schema()),
            Self::Patch => Some(json!({
                "type": "object",
                "additionalProperties": false,
                "required": ["patch"],
                "properties": { "patch": { "type": "string", "description": "A unified diff." } },
            })),
        }
    }

    /// The content type and the file name of the artifact. `None` for a text: the step says it.
    pub(crate) fn content(self) -> Option<(ContentType, &'static str)> {
        match self {
            Self::Text => None,
            Self::Files => Some((ContentType::JSON, "files.json")),
            Self::Patch => Some((ContentType::DIFF, "changes.diff")),
        }
    }

    /// What to store of an answer. The error says why nothing can be.
    pub(crate) fn accept(self, answer: String) -> Result<String, String> {
        match self {
            Self::Text => Ok(answer),
            Self::Files => {
                let set = FileSet::read(answer.as_bytes()).map_err(|problem| shown(&problem))?;
                set.to_json().map_err(|_| "the answer's files cannot be written".to_owned())
            }
            Self::Patch => {
                let answer: PatchAnswer = serde_json::from_str(&answer)
                    .map_err(|_| "the answer is no patch: {\"patch\": a text}".to_owned())?;
                patch_text(answer.patch)
            }
        }
    }

    /// The template's text in this form.
    pub(crate) fn offline(self, text: String) -> String {
        match self {
            Self::Text => text,
            Self::Files => {
                let set =
                    FileSet { files: vec![SetFile { path: DRAFT.to_owned(), content: text }], deleted: Vec::new() };
                set.to_json().unwrap_or_default()
            }
            Self::Patch => {
                let added: String = text.lines().flat_map(|line| ["+", line, "\n"]).collect();
                format!("--- /dev/null\n+++ b/{DRAFT}\n@@ -0,0 +1,{} @@\n{added}", text.lines().count())
            }
        }
    }

    /// The paths that a stored result writes or deletes. `None` for a text.
    pub(crate) fn paths(self, stored: &str) -> Option<Vec<String>> {
        let paths = match self {
            Self::Text => return None,
            Self::Files => FileSet::read(stored.as_bytes()).map(|set| set.paths().map(str::to_owned).collect()).ok(),
            Self::Patch => patch::parse_unique(stored.as_bytes())
                .map(|files| files.iter().map(|file| file.path().to_owned()).collect())
                .ok(),
        };
        Some(paths.unwrap_or_default())
    }
}

fn shown(problem: &SetProblem) -> String {
    let SetProblem { place, rule, .. } = problem;
    if place.is_empty() { format!("the answer {rule}") } else { format!("the answer's {place} {rule}") }
}

/// The patch with a newline at its end, which texts in JSON often lack.
fn patch_text(mut text: String) -> Result<String, String> {
    if text.contains('\0') {
        return Err("the answer's patch has the character NUL, so it is no text".to_owned());
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    if text.len() > MAX_PATCH_BYTES {
        return Err("the answer's patch has more than 2,097,152 bytes".to_owned());
    }
    let files = patch::parse_unique(text.as_bytes()).map_err(|problem| {
        format!("the answer's patch cannot be applied to any workspace: {}", patch::without_text(&problem))
    })?;
    if files.len() > MAX_PATCHED {
        return Err("the answer's patch changes more than 500 files".to_owned());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    #[test]
    fn the_schemas_are_those_that_every_provider_enforces() {
        for output in [Output::Files, Output::Patch] {
            let schema = output.schema().unwrap();
            assert!(schema::is_strict(&schema), "{schema}");
            assert_eq!(Output::parse(output.as_str()), Ok(output));
        }
    }

    #[test]
    fn a_patch_is_taken_out_of_its_answer() {
        let patch = "--- a/a\n+++ b/a\n@@ -1 +1 @@\n-x\n+y";
        let stored = Output::Patch.accept(json!({ "patch": patch }).to_string()).unwrap();
        assert_eq!(stored, format!("{patch}\n"));
        assert_eq!(Output::Patch.paths(&stored), Some(vec!["a".to_owned()]));
    }

    #[test]
    fn a_patch_that_cannot_be_one_is_refused_without_repeating_it() {
        let hunk = "@@ -1 +1 @@\n-x\n+canary\n";
        let file = |name: &str| format!("--- a/{name}\n+++ b/{name}\n{hunk}");
        let many: String = (0..=MAX_PATCHED).map(|at| file(&format!("f{at}"))).collect();
        for (patch, reason) in [
            (
                "canary".to_owned(),
                "line 1: it is no unified diff, or changes what no patch may change, or names a file twice",
            ),
            (String::new(), "line 1: "),
            (file("../canary"), "line 1: "),
            (file(".git/canary"), "line 1: "),
            (format!("{}Binary files a/canary and b/canary differ\n", file("a")), "line 6: "),
            ("diff --git a/canary b/canary\nnew file mode 120000\n".to_owned(), "line 2: "),
            ("--- a/a\n+++ b/a\n@@ -1,2 +1 @@\n-canary\n".to_owned(), "line 5: "),
            (file("a") + &file("a"), "line 6: "),
            (file("a") + &file("A"), "line 6: "),
            (file("d/a") + &file("D/b"), "line 6: "),
            (file("\u{e9}") + &file("e\u{301}"), "line 6: "),
            (file("a\u{200b}"), "line 1: "),
            (many, "more than 500 files"),
            (format!("{}\0", file("a")), "NUL"),
            ("x".repeat(MAX_PATCH_BYTES), "more than 2,097,152 bytes"),
        ] {
            let refused = Output::Patch.accept(json!({ "patch": patch }).to_string()).unwrap_err();
            assert!(refused.contains(reason) && !refused.contains("canary"), "{patch:.60}: {refused}");
        }
        for answer in ["--- a/a\n", "{}", "{\"patch\":1}", "{\"patch\":\"\",\"x\":1}", "[", ""] {
            assert!(Output::Patch.accept(answer.to_owned()).unwrap_err().contains("no patch"), "{answer}");
        }
    }

    #[test]
    fn the_template_has_every_form() {
        let text = "# A\n\nb\n".to_owned();
        for output in [Output::Files, Output::Patch] {
            assert_eq!(output.paths(&output.offline(text.clone())), Some(vec![DRAFT.to_owned()]));
        }
        assert_eq!(Output::Text.offline(text.clone()), text);
    }
}
