use std::fs;

use super::*;

fn planned(files: &[(&str, &str)]) -> Result<Option<InstallPlan>, Reason> {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    plan(&Snapshot::take(folder.path()).unwrap()).map_err(|error| match error {
        ExamineError::GateFailed(reason) => reason,
        ExamineError::Infra(error) => panic!("{error}"),
    })
}

const SUM: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn lock(packages: &str) -> String {
    format!("version = 4\n[[package]]\nname = \"x\"\nversion = \"0.1.0\"\n{}", packages.replace("SUM", SUM))
}

const SOURCE: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

#[test]
fn crates_that_are_not_pinned_by_checksum_are_refused() {
    let manifest = "[package]\nname = \"x\"\nversion = \"0.1.0\"\n[dependencies]\na = \"1\"\n";
    for (packages, why) in [
        ("[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"git+https://h/a?rev=1#1\"\n".to_owned(), "comes from"),
        ("[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"registry+https://evil.example/index\"\nchecksum = \"SUM\"\n".to_owned(), "comes from"),
        ("[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"sparse+http://127.0.0.1/\"\nchecksum = \"SUM\"\n".to_owned(), "comes from"),
        ("[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n".to_owned(), "no source"),
        (format!("[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n{SOURCE}\n"), "no checksum"),
        (format!("[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n{SOURCE}\nchecksum = \"00\"\n"), "no checksum"),
        (format!("[[package]]\nname = \"../a\"\nversion = \"1.0.0\"\n{SOURCE}\nchecksum = \"SUM\"\n"), "not a crate"),
        (format!("[[package]]\nname = \"a\"\nversion = \"1/..\"\n{SOURCE}\nchecksum = \"SUM\"\n"), "not a crate"),
    ] {
        let reason = planned(&[("Cargo.toml", manifest), ("Cargo.lock", &lock(&packages))]).expect_err(&packages);
        assert!(reason.code == "lockfile_refused" && reason.message.contains(why), "{packages}: {reason:?}");
    }
    for text in ["", "version = 1\n", "[", "version = 99\n"] {
        assert_eq!(
            planned(&[("Cargo.toml", manifest), ("Cargo.lock", text)]).unwrap_err().code,
            "lockfile_refused",
            "{text}"
        );
    }
    assert_eq!(planned(&[("Cargo.toml", manifest)]).unwrap_err().code, "no_lockfile");
}

#[test]
fn manifests_that_name_other_sources_are_refused() {
    for (lines, why) in [
        ("[dependencies]\na = { git = \"https://h/a\" }", "`git`"),
        ("[dependencies.a]\nregistry = \"evil\"", "`registry`"),
        ("[dependencies.a]\nregistry-index = \"https://evil.example\"", "`registry-index`"),
        ("[dev-dependencies]\na = { path = \"../a\" }", "outside the workspace"),
        ("[build-dependencies]\na = { path = \"/etc\" }", "outside the workspace"),
        ("[dependencies]\na = { path = 1 }", "outside the workspace"),
        ("[target.'cfg(unix)'.dependencies]\na = { git = \"https://h/a\" }", "target.cfg(unix).dependencies"),
        ("[patch.crates-io]\na = { git = \"https://h/a\" }", "patch.crates-io"),
        ("[patch.'https://h']\na = { path = \"../../a\" }", "outside the workspace"),
        ("[replace]\n\"a:1.0.0\" = { path = \"a\" }", "outdated"),
        ("[workspace.dependencies]\na = { git = \"https://h/a\" }", "workspace.dependencies"),
        ("[workspace]\nmembers = [\"../*\"]", "leaves the workspace"),
        ("[dependencies]\na = { path = \"gone\" }", "no Cargo.toml"),
        ("[", "cannot be read"),
    ] {
        let manifest = format!("[package]\nname = \"x\"\nversion = \"0.1.0\"\n{lines}\n");
        let reason = planned(&[("Cargo.toml", &manifest), ("Cargo.lock", &lock(""))]).expect_err(lines);
        assert!(reason.code == "manifest_refused" && reason.message.contains(why), "{lines}: {reason:?}");
    }
}

#[test]
fn cargo_sees_dependencies_and_one_empty_library() {
    let root = "cargo-features = [\"x\"]\n[package]\nname = \"x\"\nversion = \"0.1.0\"\nedition = \"2024\"\nbuild = \"evil.rs\"\nlinks = \"y\"\n[dependencies]\na = \"1\"\n[[bin]]\nname = \"z\"\npath = \"/etc/passwd\"\n[workspace]\nmembers = [\"m\"]\nexclude = [\"e\"]\n[profile.dev]\ndebug = 1\n[target.'cfg(unix)'.dependencies]\nb.workspace = true\n[workspace.dependencies]\nb = \"1\"\n[features]\nf = []\n";
    let packages = format!(
        "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n{SOURCE}\nchecksum = \"SUM\"\n[[package]]\nname = \"m\"\nversion = \"0.1.0\"\n"
    );
    let member = "[package]\nname = \"m\"\nversion = \"0.1.0\"\n";
    let files = [
        ("Cargo.toml", root),
        ("m/Cargo.toml", member),
        ("e/Cargo.toml", "[dependencies]\nq = { git = \"x\" }\n"),
        (".cargo/config.toml", "[source.crates-io]\nreplace-with = \"evil\"\n"),
        ("Cargo.lock", &lock(&packages)),
    ];
    let plan = planned(&files).unwrap().unwrap();
    assert_eq!(
        plan.files.keys().collect::<Vec<_>>(),
        ["Cargo.lock", "Cargo.toml", "lib.rs", "m/Cargo.toml", "m/lib.rs"]
    );
    let written: Table = std::str::from_utf8(&plan.files["Cargo.toml"]).unwrap().parse().unwrap();
    assert_eq!(
        written.keys().collect::<Vec<_>>(),
        ["dependencies", "features", "lib", "package", "target", "workspace"]
    );
    let package = written["package"].as_table().unwrap();
    assert_eq!((package["build"].as_bool(), package.contains_key("links")), (Some(false), false));
    assert_eq!(written["workspace"]["members"].as_array().unwrap(), &[Value::String("m".into())]);
    assert_eq!(plan.packages(), 1);
}

#[test]
fn this_workspace_is_accepted() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = tempfile::tempdir().unwrap();
    let mut folders = vec![root.clone()];
    for parent in ["functions", "."] {
        folders.extend(fs::read_dir(root.join(parent)).unwrap().flatten().map(|entry| entry.path()));
    }
    for path in folders.iter().filter(|path| path.join("Cargo.toml").is_file()) {
        let target = folder.path().join(
            path.strip_prefix(&root)
                .unwrap()
                .components()
                .filter(|part| part.as_os_str() != ".")
                .collect::<std::path::PathBuf>(),
        );
        fs::create_dir_all(&target).unwrap();
        fs::copy(path.join("Cargo.toml"), target.join("Cargo.toml")).unwrap();
    }
    fs::copy(root.join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
    let plan = plan(&Snapshot::take(folder.path()).unwrap()).unwrap().unwrap();
    assert!(plan.packages() > 100);
}
