//! The software bill of materials of a result: `CycloneDX` 1.6 as JSON, computed from the bytes that are stored.
//!
//! It lists the produced files with their hashes, and the dependencies that produced manifests declare. The same result of the same
//! model always has the same document: it has no clock and no random number.

use nofx_gates::file_set::FileSet;
use nofx_gates::patch::{self, FilePatch};
use serde_json::{Value, json};
use shared::domain::digest::sha256_hex;

use crate::manifest::{self, Dependency};
use crate::output::Output;
use crate::report::Generated;

/// The type of the artifact.
pub(crate) const KIND: &str = "sbom";
pub(crate) const MEDIA_TYPE: &str = "application/vnd.cyclonedx+json; version=1.6";
/// A document lists no more dependencies than this, and says how many it leaves out.
const MAX_LIBRARIES: usize = 2_000;
/// The reference of the result itself.
const ROOT: &str = "artifact";

/// A produced file.
struct File {
    path: String,
    /// `None` if only a part is known, as of a file that a patch changes.
    content: Option<Vec<u8>>,
}

/// The file name of the document about a result of this name.
pub(crate) fn name(of: &str) -> String {
    format!("{of}.cdx.json")
}

/// The document about a result.
pub(crate) fn document(generated: &Generated) -> Value {
    let stored = generated.text.as_bytes();
    let files = files(generated.output, stored);
    let mut components: Vec<Value> = files.iter().flatten().map(component_of_file).collect();
    let mut dependencies = vec![json!({ "ref": ROOT, "dependsOn": refs(&components) })];
    let (mut libraries, mut omitted) = (Vec::new(), 0);
    let own = [(ROOT.to_owned(), generated.name.as_str(), stored)];
    let of_set = files
        .iter()
        .flatten()
        .filter_map(|file| Some((file_ref(&file.path), file.path.as_str(), file.content.as_deref()?)));
    let manifests: Vec<_> = if files.is_none() { own.into() } else { of_set.collect() };
    for (file, path, content) in manifests {
        let found = std::str::from_utf8(content).map(|text| manifest::read(path, text)).unwrap_or_default();
        let kept = found.len().min(MAX_LIBRARIES - libraries.len());
        omitted += found.len() - kept;
        let of_manifest: Vec<Value> =
            found.iter().take(kept).enumerate().map(|(at, found)| component_of_library(path, at, found)).collect();
        if of_manifest.is_empty() {
            continue;
        }
        if file == ROOT {
            dependencies.clear();
        }
        dependencies.push(json!({ "ref": file, "dependsOn": refs(&of_manifest) }));
        libraries.extend(of_manifest);
    }
    let mut document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "file",
                "bom-ref": ROOT,
                "name": generated.name,
                "mime-type": generated.media_type.split(';').next().unwrap_or_default().trim(),
                "hashes": [{ "alg": "SHA-256", "content": sha256_hex(stored) }],
            },
            "tools": { "components": [
                { "type": "application", "name": "codegen", "group": "nofx", "version": env!("CARGO_PKG_VERSION") },
            ] },
            "properties": [
                { "name": "nofx:output", "value": generated.output.as_str() },
                { "name": "nofx:libraries_omitted", "value": omitted.to_string() },
            ],
        },
    });
    if !libraries.is_empty() {
        // Manifests name what they depend on directly, and nothing below.
        document["compositions"] = json!([{ "aggregate": "incomplete", "dependencies": refs(&libraries) }]);
    }
    if generated.metadata["template"] == json!(false) {
        let model = json!({ "type": "machine-learning-model", "bom-ref": "model", "group": generated.provider, "name": generated.model });
        document["formulation"] = json!([{ "bom-ref": "generation", "components": [model] }]);
    }
    components.extend(libraries);
    document["components"] = components.into();
    document["dependencies"] = dependencies.into();
    document
}

/// The files of a set or patch. `None` for a text, which is a file itself.
fn files(output: Output, stored: &[u8]) -> Option<Vec<File>> {
    match output {
        Output::Text => None,
        Output::Files => {
            let set = FileSet::read(stored).unwrap_or_default();
            let file = |file: nofx_gates::file_set::SetFile| File {
                path: file.path,
                content: Some(file.content.into_bytes()),
            };
            Some(set.files.into_iter().map(file).collect())
        }
        Output::Patch => {
            let files = patch::parse_unique(stored).unwrap_or_default();
            Some(files.iter().filter_map(patched).collect())
        }
    }
}

/// What a patch produces. `None` for a deleted file.
fn patched(file: &FilePatch<'_>) -> Option<File> {
    let path = file.new.clone()?;
    let content = file.old.is_none().then(|| file.hunks.iter().flat_map(|hunk| hunk.new.concat()).collect());
    Some(File { path, content })
}

fn file_ref(path: &str) -> String {
    format!("file:{path}")
}

fn component_of_file(file: &File) -> Value {
    let mut component = json!({ "type": "file", "bom-ref": file_ref(&file.path), "name": file.path });
    match &file.content {
        Some(content) => component["hashes"] = json!([{ "alg": "SHA-256", "content": sha256_hex(content) }]),
        None => component["properties"] = json!([{ "name": "nofx:change", "value": "patched" }]),
    }
    component
}

fn component_of_library(manifest: &str, at: usize, found: &Dependency) -> Value {
    // npm's scope is the group.
    let shown = without_login(&found.name);
    let (group, name) = match shown.split_once('/').filter(|(group, name)| group.starts_with('@') && !name.is_empty()) {
        Some((group, name)) => (Some(group), name),
        None => (None, shown.as_str()),
    };
    let mut properties = vec![
        json!({ "name": "nofx:manifest", "value": manifest }),
        json!({ "name": "nofx:section", "value": without_login(&found.section) }),
    ];
    let declared = found.declared.as_deref().map(without_login);
    properties.extend(declared.map(|declared| json!({ "name": "nofx:declared", "value": declared })));
    let mut component = json!({
        "type": "library",
        "bom-ref": format!("library:{manifest}:{at}"),
        "name": name,
        "scope": found.scope.as_str(),
        "properties": properties,
    });
    for (member, value) in
        [("group", group.map(str::to_owned)), ("version", found.pinned.clone()), ("purl", found.purl())]
    {
        if let Some(value) = value {
            component[member] = value.into();
        }
    }
    component
}

/// A text without what may be secret in its URLs: names, passwords and queries. `user:password@host:path`, which git takes too,
/// loses its login as well. Proofs, which strangers read, include the document.
fn without_login(text: &str) -> String {
    let words = text
        .split_inclusive(char::is_whitespace)
        .map(|word| if word.contains("://") { of_url(word) } else { of_git(word) });
    words.collect()
}

fn of_url(word: &str) -> String {
    let mut shown = String::new();
    let mut rest = word;
    while let Some((scheme, after)) = rest.split_once("://") {
        let end = after.find(['/', '?', '#', '"', '<', '>', '\\']).unwrap_or(after.len());
        let (authority, path) = after.split_at(end);
        shown.extend([scheme, "://", authority.rsplit('@').next().unwrap_or_default()]);
        rest = path;
        if let Some(query) = path.find('?').filter(|at| path.find('#').is_none_or(|fragment| *at < fragment)) {
            shown.push_str(path.get(..query).unwrap_or_default());
            rest = path.find('#').and_then(|fragment| path.get(fragment..)).unwrap_or_default();
        }
    }
    shown + rest
}

fn of_git(word: &str) -> String {
    let Some((login, place)) = word.rsplit_once('@') else { return word.to_owned() };
    let has_password = login.contains(':') && !login.contains('/') && place.contains(':');
    if has_password { place.to_owned() } else { word.to_owned() }
}

fn refs(components: &[Value]) -> Vec<&Value> {
    components.iter().map(|component| &component["bom-ref"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generated(output: Output, name: &str, text: &str) -> Generated {
        Generated {
            name: name.to_owned(),
            kind: "code",
            media_type: "application/json",
            text: text.to_owned(),
            output,
            metadata: json!({ "template": false }),
            provider: "openai",
            model: "gpt-6-luna-2026".to_owned(),
            made_from: Vec::new(),
            kept: None,
            events: Vec::new(),
        }
    }

    fn named<'d>(document: &'d Value, name: &str) -> &'d Value {
        document["components"].as_array().unwrap().iter().find(|component| component["name"] == name).unwrap()
    }

    #[test]
    fn a_set_has_its_files_with_hashes_and_their_dependencies() {
        let set = json!({ "files": [
            { "path": "src/a.ts", "content": "export {};\n" },
            { "path": "web/package.json", "content": r#"{"dependencies":{"@a/b":"1.2.3","c":"^2.0.0"}}"# },
        ], "deleted": ["old"] });
        let generated = generated(Output::Files, "files.json", &set.to_string());
        let document = document(&generated);
        assert_eq!(document, super::document(&generated), "it is always the same");
        let sha256 = |text: &str| json!([{ "alg": "SHA-256", "content": sha256_hex(text.as_bytes()) }]);
        assert_eq!(document["metadata"]["component"]["hashes"], sha256(&generated.text));
        assert_eq!(named(&document, "src/a.ts")["hashes"], sha256("export {};\n"));
        let scoped = named(&document, "b");
        assert_eq!(
            (&scoped["group"], &scoped["version"], &scoped["purl"]),
            (&json!("@a"), &json!("1.2.3"), &json!("pkg:npm/%40a/b@1.2.3"))
        );
        let open = named(&document, "c");
        assert_eq!((&open["version"], &open["purl"]), (&Value::Null, &json!("pkg:npm/c")), "no version is guessed");
        assert_eq!(open["properties"][2], json!({ "name": "nofx:declared", "value": "^2.0.0" }));
        assert_eq!(
            document["dependencies"],
            json!([
                { "ref": "artifact", "dependsOn": ["file:src/a.ts", "file:web/package.json"] },
                { "ref": "file:web/package.json", "dependsOn": ["library:web/package.json:0", "library:web/package.json:1"] },
            ])
        );
        assert_eq!(document["formulation"][0]["components"][0]["name"], "gpt-6-luna-2026");
        assert!(!document.to_string().contains("old"), "a deleted file is not produced");
    }

    #[test]
    fn of_a_patch_only_new_files_are_known_whole() {
        let text = "--- /dev/null\n+++ b/requirements.txt\n@@ -0,0 +1 @@\n+a==1.0\n--- a/b\n+++ b/b\n@@ -1 +1 @@\n-x\n+y\n--- a/c\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n";
        let document = document(&generated(Output::Patch, "changes.diff", text));
        assert_eq!(named(&document, "requirements.txt")["hashes"][0]["content"], sha256_hex(b"a==1.0\n"));
        assert_eq!(named(&document, "a")["purl"], "pkg:pypi/a@1.0");
        let changed = named(&document, "b");
        assert_eq!((&changed["hashes"], &changed["properties"][0]["value"]), (&Value::Null, &json!("patched")));
        assert_eq!(document["components"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn a_text_is_the_file_itself() {
        let document = document(&generated(Output::Text, "Cargo.toml", "[dependencies]\na = \"1\"\n"));
        assert_eq!(document["components"].as_array().unwrap().len(), 1);
        assert_eq!(document["dependencies"], json!([{ "ref": "artifact", "dependsOn": ["library:Cargo.toml:0"] }]));
        let mut drafted = generated(Output::Text, "README.md", "# A\n");
        drafted.metadata["template"] = json!(true);
        let document = super::document(&drafted);
        assert_eq!(
            (&document["components"], &document["formulation"]),
            (&json!([]), &Value::Null),
            "no model wrote it"
        );
    }

    #[test]
    fn a_login_in_a_url_is_not_repeated() {
        for (declared, shown) in [
            ("git+https://me:canary@h.test/x@1.0", "git+https://h.test/x@1.0"),
            ("me:canary@h.test:x/y.git", "h.test:x/y.git"),
            ("git@h.test:x/y.git", "git@h.test:x/y.git"),
            ("npm:@a/b@1.0.0", "npm:@a/b@1.0.0"),
            ("@ https://h.test/?next=https://u:canary@h2.test/z#egg=x", "@ https://h.test/#egg=x"),
            ("https://h.test/x.tgz?token=canary", "https://h.test/x.tgz"),
            ("https://h.test/x#https://u:canary@h2.test", "https://h.test/x#https://h2.test"),
            ("https://a.test/ https://u:canary@b.test", "https://a.test/ https://b.test"),
            ("@ https://canary@h.test", "@ https://h.test"),
            ("https://h.test/@a/b", "https://h.test/@a/b"),
            ("^1.2.3", "^1.2.3"),
        ] {
            assert_eq!(without_login(declared), shown);
        }
        let text = r#"{"dependencies":{"a":"git+https://me:canary@h.test/a.git"}}"#;
        assert!(!document(&generated(Output::Text, "package.json", text)).to_string().contains("canary"));
        let text = "[target.'cfg(https://u:canary@h)'.dependencies]\nz = \"1\"\n\"https://u:canary@h\" = \"1\"\n";
        assert!(!document(&generated(Output::Text, "Cargo.toml", text)).to_string().contains("canary"));
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let entries: serde_json::Map<_, _> =
            (0..MAX_LIBRARIES + 3).map(|at| (format!("d{at}"), json!("1.0.0"))).collect();
        let document =
            document(&generated(Output::Text, "package.json", &json!({ "dependencies": entries }).to_string()));
        assert_eq!(document["components"].as_array().unwrap().len(), MAX_LIBRARIES);
        assert_eq!(document["metadata"]["properties"][1]["value"], "3");
    }
}
