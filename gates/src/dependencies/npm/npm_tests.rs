use std::fs;

use serde_json::json;

use super::*;
use crate::dependencies::{Link, Locked};

const SUM: &str = "sha512-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==";
const OTHER: &str = "sha512-BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB==";

fn plan_of(files: &[(&str, String)]) -> Result<Option<InstallPlan>, Reason> {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    planned(folder.path())
}

fn planned(folder: &std::path::Path) -> Result<Option<InstallPlan>, Reason> {
    plan(&Snapshot::take(folder).unwrap(), &Registries::default()).map_err(|error| match error {
        ExamineError::GateFailed(reason) => reason,
        ExamineError::Infra(error) => panic!("{error}"),
    })
}

/// A workspace with this manifest and these entries in its lock file.
fn workspace(manifest: &str, entries: &str) -> Vec<(&'static str, String)> {
    let entries = entries.replace("SUM", SUM).replace("OTHER", OTHER);
    let lock = format!(r#"{{"lockfileVersion": 3, "packages": {{"": {{}}, {entries}}}}}"#);
    vec![("package.json", manifest.to_owned()), ("package-lock.json", lock)]
}

const NEEDS_A: &str = r#"{"dependencies": {"a": "^1.0.0"}}"#;
const A: &str = r#""node_modules/a": {"version": "1.0.0", "integrity": "SUM"}"#;

fn written(plan: &InstallPlan, file: &str) -> Value {
    serde_json::from_slice(&plan.files[file]).unwrap()
}

/// Entries of a lock file, and why each is refused.
const HOSTILE: &[(&str, &str)] = &[
    (r#""node_modules/a": {"version": "git+ssh://git@host/a.git#0"}"#, "no exact version"),
    (
        r#""node_modules/a": {"version": "1.0.0", "resolved": "git+ssh://git@github.com/x/a.git#0123"}"#,
        "comes from git",
    ),
    (
        r#""node_modules/a": {"version": "1.0.0", "resolved": "git+https://x:y@host/a.git#0", "integrity": "SUM"}"#,
        "comes from git",
    ),
    (r#""node_modules/a": {"version": "1.0.0", "resolved": "github:x/a", "integrity": "SUM"}"#, "comes from git"),
    (r#""node_modules/a": {"version": "1.0.0", "resolved": "file:a.tgz", "integrity": "SUM"}"#, "known registry"),
    (r#""node_modules/a": {"version": "1.0.0", "resolved": "file:../a", "integrity": "SUM"}"#, "known registry"),
    (
        r#""node_modules/a": {"version": "1.0.0", "resolved": "http://registry.npmjs.org/a/-/a-1.0.0.tgz", "integrity": "SUM"}"#,
        "known registry",
    ),
    (
        r#""node_modules/a": {"version": "1.0.0", "resolved": "https://evil.example/a/-/a-1.0.0.tgz", "integrity": "SUM"}"#,
        "known registry",
    ),
    (
        r#""node_modules/a": {"version": "1.0.0", "resolved": "http://169.254.169.254/latest/meta-data", "integrity": "SUM"}"#,
        "known registry",
    ),
    (
        r#""node_modules/a": {"version": "1.0.0", "resolved": "http://127.0.0.1:9001/2018-06-01/runtime/invocation/next", "integrity": "SUM"}"#,
        "known registry",
    ),
    (
        r#""node_modules/a": {"version": "1.0.0", "resolved": "https://registry.npmjs.org/evil/-/evil-1.0.0.tgz", "integrity": "SUM"}"#,
        "known registry",
    ),
    (
        r#""node_modules/a": {"version": "1.0.0", "resolved": "https://registry.npmjs.org@evil.example/a/-/a-1.0.0.tgz", "integrity": "SUM"}"#,
        "known registry",
    ),
    (
        r#""node_modules/a": {"version": "1.0.0", "resolved": "https://registry.npmjs.org/a/-/../../evil/-/evil-1.0.0.tgz", "integrity": "SUM"}"#,
        "known registry",
    ),
    (r#""node_modules/a": {"version": "1.0.0", "resolved": false, "integrity": "SUM"}"#, "address false"),
    (r#""node_modules/a": {"version": "1.0.0", "resolved": ["x"], "integrity": "SUM"}"#, "address"),
    (r#""node_modules/a": {"version": "1.0.0"}"#, "no integrity"),
    (r#""node_modules/a": {"version": "1.0.0", "integrity": ""}"#, "no usable integrity"),
    (
        r#""node_modules/a": {"version": "1.0.0", "integrity": "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk="}"#,
        "no usable integrity",
    ),
    (r#""node_modules/a": {"version": "1.0.0", "integrity": "md5-1B2M2Y8AsgTpgAmY7PhCfg=="}"#, "no usable integrity"),
    (r#""node_modules/a": {"version": "1.0.0", "integrity": "sha512-AAAA"}"#, "no usable integrity"),
    (r#""node_modules/a": {"version": "1.0.0", "integrity": "sha512-*"}"#, "no usable integrity"),
    (r#""node_modules/a": {"version": "1.0.0", "integrity": 512}"#, "no integrity"),
    (r#""node_modules/a": {"version": "1.0.0", "inBundle": true}"#, "no integrity"),
    (
        r#""node_modules/a": {"version": "1.0.0", "integrity": "SUM"}, "node_modules/b": {"version": "1.0.0", "integrity": "SUM"}"#,
        "integrity of",
    ),
    (r#""node_modules/a": {"version": "^1.0.0", "integrity": "SUM"}"#, "no exact version"),
    (r#""node_modules/a": {"version": "1.0.0/../../../x", "integrity": "SUM"}"#, "no exact version"),
    (r#""node_modules/a": {"name": "../evil", "version": "1.0.0", "integrity": "SUM"}"#, "no exact version"),
    (r#""node_modules/a": {"integrity": "SUM"}"#, "no exact version"),
    (r#""node_modules/a": "1.0.0""#, "not an object"),
    (r#""node_modules/a": {"resolved": "fake", "link": true}"#, "not a package of the workspace"),
    (r#""node_modules/a": {"resolved": "../outside", "link": true}"#, "not a package of the workspace"),
    (r#""node_modules/a": {"resolved": "/etc", "link": true}"#, "not a package of the workspace"),
    (r#""node_modules/a": {"link": 1, "version": "1.0.0"}"#, "not a package of the workspace"),
    (r#""fake": {"name": "a", "version": "1.0.0"}"#, "`workspaces`"),
    (r#""../outside": {"name": "a", "version": "1.0.0"}"#, "not a place"),
    (r#""/etc": {"name": "a"}"#, "not a place"),
    (r#""node_modules/../../a": {"version": "1.0.0", "integrity": "SUM"}"#, "not a place"),
    (r#""node_modules/..": {"version": "1.0.0", "integrity": "SUM"}"#, "not a place"),
    (r#""node_modules/.bin": {"version": "1.0.0", "integrity": "SUM"}"#, "not a place"),
    (r#""node_modules/.bin/tsc": {"version": "1.0.0", "integrity": "SUM"}"#, "not a place"),
    (r#""node_modules/a\u0000b": {"version": "1.0.0", "integrity": "SUM"}"#, "not a place"),
    (r#""node_modules/a\\..\\b": {"version": "1.0.0", "integrity": "SUM"}"#, "not a place"),
    (r#""node_modules//a": {"version": "1.0.0", "integrity": "SUM"}"#, "not a place"),
    (r#""node_modules": {"version": "1.0.0", "integrity": "SUM"}"#, "not a place"),
    (r#""node_modules/@a": {"version": "1.0.0", "integrity": "SUM"}"#, "not a place"),
    (r#""src/node_modules/a": {"version": "1.0.0", "integrity": "SUM"}"#, "`workspaces`"),
    (r#""node_modules/typescript": {"name": "evil", "version": "5.0.0", "integrity": "SUM"}"#, "instead of that tool"),
    (
        r#""node_modules/@vitest/runner": {"name": "evil", "version": "5.0.0", "integrity": "SUM"}"#,
        "instead of that tool",
    ),
    (
        r#""node_modules/b/node_modules/eslint": {"name": "evil", "version": "5.0.0", "integrity": "SUM"}"#,
        "instead of that tool",
    ),
    (
        r#""node_modules/a": {"version": "1.0.0", "integrity": "SUM", "dependencies": {"b": "https://evil.example/b.tgz"}}"#,
        "comes from a URL",
    ),
    (
        r#""node_modules/a": {"version": "1.0.0", "integrity": "SUM", "peerDependencies": {"b": "git://evil.example/b"}}"#,
        "comes from git",
    ),
    (
        r#""node_modules/a": {"version": "1.0.0", "integrity": "SUM", "optionalDependencies": {"../b": "1"}}"#,
        "not a package name",
    ),
];

#[test]
fn entries_that_are_not_packages_of_a_registry_are_refused() {
    for (entry, why) in HOSTILE {
        let reason = plan_of(&workspace(NEEDS_A, entry)).expect_err(entry);
        assert_eq!(reason.code, "lockfile_refused", "{entry}: {reason:?}");
        assert!(reason.message.contains(why), "{entry}: {reason:?}");
        assert!(reason.message.starts_with("package-lock.json: \""), "{reason:?}");
    }
}

#[test]
fn a_lock_file_that_cannot_be_vetted_is_refused() {
    for (text, why) in [
        ("", "cannot be read"),
        ("[]", "not a JSON object"),
        ("{", "cannot be read"),
        (r#"{"lockfileVersion": 1, "dependencies": {"a": {"version": "1.0.0"}}}"#, "npm 7"),
        (r#"{"dependencies": {}}"#, "npm 7"),
        (r#"{"lockfileVersion": "3", "packages": {}}"#, "npm 7"),
        (r#"{"lockfileVersion": 99, "packages": {}}"#, "npm 7"),
        (r#"{"lockfileVersion": 2, "dependencies": {}}"#, "no packages"),
        (r#"{"lockfileVersion": 3, "packages": []}"#, "no packages"),
        ("<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> x\n", "cannot be read"),
    ] {
        let reason = plan_of(&[("package.json", NEEDS_A.into()), ("package-lock.json", text.into())]).unwrap_err();
        assert!(reason.code == "lockfile_refused" && reason.message.contains(why), "{text}: {reason:?}");
    }
    let reason = plan_of(&[("package.json", NEEDS_A.into())]).unwrap_err();
    assert!(reason.code == "no_lockfile" && reason.message.contains("package-lock.json"), "{reason:?}");
    let reason = plan_of(&[("package.json", NEEDS_A.into()), ("pnpm-lock.yaml", String::new())]).unwrap_err();
    assert!(reason.code == "no_lockfile" && reason.message.contains("pnpm-lock.yaml"), "{reason:?}");
}

#[test]
fn manifests_that_name_other_sources_are_refused() {
    for (manifest, why) in [
        ("[]", "not a JSON object"),
        ("{", "cannot be read"),
        (r#"{"dependencies": {"typescript": "file:fake"}}"#, "typescript@file:fake: comes from a folder"),
        (r#"{"dependencies": {"typescript": "link:fake"}}"#, "comes from a folder"),
        (r#"{"dependencies": {"typescript": "./fake"}}"#, "comes from a folder"),
        (r#"{"devDependencies": {"typescript": "npm:evil@1.0.0"}}"#, "instead of that tool"),
        (r#"{"devDependencies": {"@vitest/runner": "npm:evil@1.0.0"}}"#, "instead of that tool"),
        (r#"{"dependencies": {"a": "git+https://host/a"}}"#, "comes from git"),
        (r#"{"dependencies": {"a": "x/a"}}"#, "comes from GitHub"),
        (r#"{"dependencies": {"a": "http://127.0.0.1/a.tgz"}}"#, "comes from a URL"),
        (r#"{"optionalDependencies": {"a": "workspace:*"}}"#, "protocol"),
        (r#"{"peerDependencies": {"a": "file:../../etc"}}"#, "comes from a folder"),
        (r#"{"dependencies": {"../a": "1"}}"#, "not a package name"),
        (r#"{"dependencies": {"a": {"b": 1}}}"#, "no version"),
        (r#"{"dependencies": {"a": "1"}, "overrides": {"typescript": "npm:evil@1"}}"#, "instead of that tool"),
        (r#"{"dependencies": {"a": "1"}, "overrides": {"a": {"b": "file:b"}}}"#, "comes from a folder"),
        (r#"{"dependencies": {"a": "1"}, "overrides": {"a": {".": "git://h/b"}}}"#, "comes from git"),
        (r#"{"dependencies": {"a": "1"}, "overrides": {"a/../b": "1"}}"#, "not a package"),
        (r#"{"workspaces": ["../*"]}"#, "leaves the workspace"),
        (r#"{"workspaces": ["/etc"]}"#, "pattern"),
        (r#"{"workspaces": ["{a,b}"]}"#, "pattern"),
        (r#"{"workspaces": "packages/*"}"#, "not a list"),
        (r#"{"workspaces": [1]}"#, "not a text"),
    ] {
        let reason = plan_of(&workspace(manifest, A)).expect_err(manifest);
        assert_eq!(reason.code, "manifest_refused", "{manifest}: {reason:?}");
        assert!(reason.message.contains(why) && reason.message.starts_with("package.json"), "{manifest}: {reason:?}");
    }
}

#[test]
fn a_package_of_the_workspace_does_not_stand_in_for_a_tool() {
    let root = r#"{"workspaces": ["packages/*"]}"#;
    for (manifest, why) in [
        (r#"{"name": "typescript", "version": "5.0.0"}"#, "instead of that tool"),
        (r#"{"name": "@eslint/js"}"#, "instead of that tool"),
        (r#"{"name": "mine", "bin": {"tsc": "ok.js"}}"#, "the command tsc, which belongs to typescript"),
        (r#"{"name": "vitest-x", "bin": {"./../vitest": "ok.js"}}"#, "the command vitest"),
        (r#"{"name": "mine", "bin": {"sh": "ok.js"}}"#, "the command sh"),
        (r#"{"name": "mine", "bin": {"node": "ok.js"}}"#, "the command node"),
        (r#"{"name": "@x/eslint", "bin": "ok.js"}"#, "the command eslint"),
        (r"{}", "no valid name"),
        (r#"{"name": "../x"}"#, "no valid name"),
        (r#"{"name": "mine", "dependencies": {"a": "git://h/a"}}"#, "comes from git"),
    ] {
        let mut files = workspace(root, A);
        files.push(("packages/x/package.json", manifest.to_owned()));
        let reason = plan_of(&files).expect_err(manifest);
        assert!(reason.code == "manifest_refused" && reason.message.contains(why), "{manifest}: {reason:?}");
        assert!(reason.message.starts_with("packages/x/package.json"), "{reason:?}");
    }
}

#[test]
fn a_link_to_a_manifest_or_a_lock_file_is_refused() {
    for name in ["package.json", "package-lock.json"] {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in workspace(NEEDS_A, A) {
            fs::write(folder.path().join(path), text).unwrap();
        }
        fs::rename(folder.path().join(name), folder.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", folder.path().join(name)).unwrap();
        let reason = planned(folder.path()).unwrap_err();
        assert!(reason.code == "lockfile_refused" && reason.message.contains("symbolic link"), "{reason:?}");
    }
}

#[test]
fn npm_sees_known_fields_and_addresses_that_follow_from_names() {
    let manifest = r#"{"name": "root", "scripts": {"preinstall": "x"}, "config": {"registry": "x"}, "engines": {"node": ">=99"},
        "dependencies": {"a": "^1.0.0", "s": "npm:@s/real@^2"}, "bundleDependencies": ["a"], "publishConfig": {}}"#;
    let entries = r#""node_modules/a": {"version": "1.0.0", "resolved": "https://registry.yarnpkg.com/a/-/a-1.0.0.tgz", "integrity": "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk= SUM",
            "bin": {"tsc": "x"}, "hasInstallScript": true, "hasShrinkwrap": true, "scripts": {"install": "x"}, "gypfile": true, "extraneous": true, "devDependencies": {"z": "1"}},
        "node_modules/s": {"name": "@s/real", "version": "2.0.0", "integrity": "OTHER", "dev": true, "bundleDependencies": ["in"]},
        "node_modules/s/node_modules/in": {"version": "3.0.0", "inBundle": true}"#;
    let plan = plan_of(&workspace(manifest, entries)).unwrap().unwrap();
    assert_eq!(plan.files.keys().collect::<Vec<_>>(), ["package-lock.json", "package.json"]);
    let expected = json!({"name": "root", "private": true, "dependencies": {"a": "^1.0.0", "s": "npm:@s/real@^2"}});
    assert_eq!(written(&plan, "package.json"), expected);
    let lock = written(&plan, "package-lock.json");
    let a = json!({"version": "1.0.0", "resolved": "https://registry.npmjs.org/a/-/a-1.0.0.tgz", "integrity": SUM});
    assert_eq!(lock["packages"]["node_modules/a"], a);
    let s = json!({"name": "@s/real", "version": "2.0.0", "integrity": OTHER, "dev": true, "bundleDependencies": ["in"],
        "resolved": "https://registry.npmjs.org/@s/real/-/real-2.0.0.tgz"});
    assert_eq!(lock["packages"]["node_modules/s"], s);
    let inner = json!({"version": "3.0.0", "inBundle": true});
    assert_eq!(lock["packages"]["node_modules/s/node_modules/in"], inner);
    let locked = |path: &str, name: &str, version: &str| Locked {
        path: path.into(),
        name: name.into(),
        version: version.into(),
        optional: false,
        direct: true,
    };
    assert_eq!(plan.packages, [locked("node_modules/a", "a", "1.0.0"), locked("node_modules/s", "@s/real", "2.0.0")]);
}

#[test]
fn a_key_that_is_there_twice_counts_once() {
    let twice = r#"{"dependencies": {"a": "git://h/a"}, "dependencies": {"a": "^1.0.0"}}"#;
    let plan = plan_of(&workspace(twice, A)).unwrap().unwrap();
    assert_eq!(written(&plan, "package.json")["dependencies"], json!({"a": "^1.0.0"}));
    assert!(!String::from_utf8_lossy(&plan.files["package.json"]).contains("git"));
}

#[test]
fn a_package_of_the_workspace_is_not_where_an_installation_has_something_else() {
    for folder in [".installer", ".installer/cache", "layout.json"] {
        let root = format!(r#"{{"workspaces": [{folder:?}]}}"#);
        let path: &'static str = format!("{folder}/package.json").leak();
        let mut files = workspace(&root, A);
        files.push((path, r#"{"name": "b", "version": "1.0.0"}"#.into()));
        let reason = plan_of(&files).expect_err(folder);
        assert!(reason.code == "manifest_refused" && reason.message.contains("of installations"), "{reason:?}");
    }
}

#[test]
fn packages_of_the_workspace_are_links_to_their_folders() {
    let root =
        r#"{"workspaces": {"packages": ["packages/*", "!packages/old"]}, "dependencies": {"b": "file:packages/b"}}"#;
    let entries = r#""packages/b": {"name": "b", "version": "1.0.0"}, "node_modules/b": {"resolved": "packages/b", "link": true}"#;
    let mut files = workspace(root, entries);
    files.push((
        "packages/b/package.json",
        r#"{"name": "b", "version": "1.0.0", "bin": "./cli.js", "scripts": {"prepare": "x"}}"#.into(),
    ));
    files.push(("packages/old/package.json", "broken".into()));
    files.push(("fixtures/package.json", r#"{"dependencies": {"x": "git://h/x"}}"#.into()));
    let plan = plan_of(&files).unwrap().unwrap();
    let link = Link {
        path: "node_modules/b".into(),
        folder: "packages/b".into(),
        commands: BTreeMap::from([("b".into(), "cli.js".into())]),
    };
    assert_eq!(plan.links, [link]);
    assert_eq!(written(&plan, "package.json")["workspaces"], json!(["packages/b"]));
    assert_eq!(written(&plan, "packages/b/package.json"), json!({"name": "b", "version": "1.0.0", "private": true}));
    assert_eq!(plan.files.len(), 3);
    // A link whose name is that of another package.
    let mut files = workspace(root, &entries.replace("node_modules/b", "node_modules/c"));
    files.push(("packages/b/package.json", r#"{"name": "b", "version": "1.0.0"}"#.into()));
    assert!(plan_of(&files).unwrap_err().message.contains("whose name is another one"));
}

#[test]
fn only_one_harmless_setting_of_the_workspace_counts() {
    let mut files = workspace(NEEDS_A, A);
    assert!(!plan_of(&files).unwrap().unwrap().legacy_peer_deps);
    files.push((".npmrc", "git=./evil\nlegacy-peer-deps = true\nregistry=http://evil.example\n".into()));
    let plan = plan_of(&files).unwrap().unwrap();
    assert!(plan.legacy_peer_deps);
    assert!(!plan.files.contains_key(".npmrc") && !format!("{:?}", plan.files).contains("evil"));
}

#[test]
fn a_workspace_without_dependencies_needs_no_installation() {
    assert!(plan_of(&[("package.json", r#"{"scripts": {"lint": "true"}}"#.into())]).unwrap().is_none());
    assert!(plan_of(&[("README.md", String::new())]).unwrap().is_none());
}

#[test]
fn the_sample_workspace_is_accepted_as_it_is() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/workspace");
    let plan = planned(&folder).unwrap().unwrap();
    assert!(plan.packages() > 200);
}
