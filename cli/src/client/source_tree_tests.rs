use nofx_gates::snapshot::Snapshot;

use super::*;

#[test]
fn a_program_that_the_settings_of_a_checkout_name_is_not_started() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (root, marker) = (folder.path().join("checkout"), folder.path().join("started"));
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a"), "a").unwrap();
    run(&root, &["init", "-q", "."]);
    run(&root, &["add", "a"]);
    run(&root, &["commit", "-qm", "a"]);
    run(&root, &["config", "core.fsmonitor", &format!("touch {}; true", marker.display())]);
    let tree = SourceTree::around(&root).unwrap();
    tree.copy_worktree(&copy.path().join("worktree")).unwrap();
    tree.copy_staged(&copy.path().join("staged")).unwrap();
    tree.copy_base("HEAD", &copy.path().join("commit")).unwrap();
    assert!(!marker.exists());
    // A partial clone that lacks a file.
    let object = run(&root, &["rev-parse", "HEAD:a"]);
    let (start, rest) = object.split_at(2);
    fs::remove_file(root.join(format!(".git/objects/{start}/{rest}"))).unwrap();
    for (key, value) in [
        ("core.repositoryFormatVersion", "1"),
        ("extensions.partialClone", "origin"),
        ("remote.origin.promisor", "true"),
        ("remote.origin.url", "."),
        ("remote.origin.uploadpack", &format!("touch {}; false", marker.display())),
    ] {
        run(&root, &["config", key, value]);
    }
    let missing = tree.copy_base("HEAD", &copy.path().join("missing")).unwrap_err();
    assert!(report::hint(&missing).is_some_and(|hint| hint.contains("partial clone")), "{missing:#}");
    assert!(!marker.exists());
}

#[test]
fn what_is_staged_is_what_a_commit_would_have() {
    let dir = repository();
    fs::write(dir.path().join("src/b.ts"), "two\n").unwrap();
    run(dir.path(), &["add", "--intent-to-add", "src/b.ts"]);
    let tree = SourceTree::around(dir.path()).unwrap();
    assert_eq!(digest(|to| tree.copy_staged(to)), run(dir.path(), &["write-tree"]));
    let folder = SourceTree::of(&dir.path().join("src")).unwrap();
    assert_eq!(digest(|to| folder.copy_staged(to)), run(dir.path(), &["rev-parse", "HEAD:src"]));
}

#[test]
fn a_sparse_checkout_has_deleted_nothing() {
    let dir = repository();
    run(dir.path(), &["sparse-checkout", "set", "--no-cone", "/run.sh", "/.gitattributes"]);
    assert!(!dir.path().join("src").exists());
    fs::remove_file(dir.path().join(".gitattributes")).unwrap();
    let tree = SourceTree::around(dir.path()).unwrap();
    run(dir.path(), &["rm", "--quiet", "--sparse", "--cached", ".gitattributes"]);
    assert_eq!(digest(|to| tree.copy_worktree(to)), run(dir.path(), &["write-tree"]));
}

#[test]
fn a_graft_gives_head_no_other_history() {
    let dir = repository();
    let first = run(dir.path(), &["rev-parse", "HEAD"]);
    fs::write(dir.path().join("src/a.ts"), "two\n").unwrap();
    run(dir.path(), &["commit", "--quiet", "--all", "-m", "second"]);
    run(dir.path(), &["checkout", "--quiet", "-b", "change", &first]);
    run(dir.path(), &["commit", "--quiet", "--allow-empty", "-m", "third"]);
    let [main, change] = ["@{-1}", "change"].map(|name| run(dir.path(), &["rev-parse", name]));
    fs::create_dir_all(dir.path().join(".git/info")).unwrap();
    fs::write(dir.path().join(".git/info/grafts"), format!("{change} {main}\n")).unwrap();
    let tree = SourceTree::around(dir.path()).unwrap();
    let base = format!("{first}^{{tree}}");
    assert_eq!(digest(|to| tree.copy_base(&main, to)), run(dir.path(), &["rev-parse", &base]));
}

fn run(dir: &Path, arguments: &[&str]) -> String {
    let config = ["-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "core.autocrlf=false"];
    String::from_utf8(git::run(dir, &[&config[..], arguments].concat()).unwrap()).unwrap().trim().to_owned()
}

fn repository() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &["init", "--quiet"]);
    fs::create_dir(dir.path().join("src")).unwrap();
    fs::write(dir.path().join("src/a.ts"), "one\r\n").unwrap();
    fs::write(dir.path().join("run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(dir.path().join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("src/a.ts", dir.path().join("link")).unwrap();
    fs::write(dir.path().join(".gitignore"), "out\n").unwrap();
    // Neither changes what is copied.
    fs::write(dir.path().join(".gitattributes"), "*.ts text eol=lf export-ignore\n").unwrap();
    run(dir.path(), &["add", "--all"]);
    run(dir.path(), &["commit", "--quiet", "-m", "first"]);
    dir
}

fn digest(copy: impl FnOnce(&Path) -> Result<()>) -> String {
    let dir = tempfile::tempdir().unwrap();
    copy(dir.path()).unwrap();
    Snapshot::take(dir.path()).unwrap().digest().sha1
}

#[test]
fn commits_and_the_index_have_gits_own_digest() {
    let dir = repository();
    let tree = SourceTree::around(&dir.path().join("src")).unwrap();
    let first = run(dir.path(), &["rev-parse", "HEAD^{tree}"]);
    assert_eq!(digest(|to| tree.copy_base("HEAD", to)), first);
    fs::write(dir.path().join("src/b.ts"), "two\n").unwrap();
    run(dir.path(), &["add", "src/b.ts"]);
    fs::write(dir.path().join("src/b.ts"), "three\n").unwrap();
    assert_eq!(digest(|to| tree.copy_staged(to)), run(dir.path(), &["write-tree"]));
    assert_eq!(digest(|to| tree.copy_base("HEAD", to)), first);
}

#[test]
fn the_worktree_has_new_files_but_not_ignored_or_deleted_ones() {
    let dir = repository();
    fs::write(dir.path().join("new.ts"), "new\n").unwrap();
    fs::write(dir.path().join("out"), "ignored\n").unwrap();
    fs::remove_file(dir.path().join("run.sh")).unwrap();
    let tree = SourceTree::around(dir.path()).unwrap();
    let to = tempfile::tempdir().unwrap();
    tree.copy_worktree(to.path()).unwrap();
    let copied = Snapshot::take(to.path()).unwrap();
    let names: Vec<&str> = copied.files().keys().map(String::as_str).collect();
    assert_eq!(names, [".gitattributes", ".gitignore", "link", "new.ts", "src/a.ts"]);
}

#[test]
fn an_unknown_base_and_a_folder_without_git_are_explained() {
    let dir = repository();
    let to = tempfile::tempdir().unwrap();
    let unknown = SourceTree::around(dir.path()).unwrap().copy_base("--nothing", to.path()).unwrap_err();
    assert!(unknown.to_string().contains("neither a folder nor a commit"), "{unknown}");
    let plain = tempfile::tempdir().unwrap();
    let error = SourceTree::around(plain.path()).unwrap().copy_staged(to.path()).unwrap_err();
    assert!(error.to_string().contains("not in a Git repository"), "{error}");
}
