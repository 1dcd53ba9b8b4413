//! Workspaces: packs a directory reproducibly, and uploads it as an artifact for a plan.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nofx_gates::archive::Source;
use nofx_gates::snapshot::Snapshot;
use nofx_gates::{Limits, archive};
use nofx_local::report::{self, hinted};
use serde_json::json;
use shared::domain::{ArtifactId, digest};
use shared::view::Upload;
use tempfile::TempDir;

use crate::client::api::Api;
use crate::client::source_tree::{Base, SourceTree};

const UPLOAD_LIMIT: Duration = Duration::from_mins(5);

/// Uploads an archive. `of` is for messages. Returns the artifact's id.
pub async fn upload(api: &Api, of: &dyn Display, archive: Vec<u8>) -> Result<ArtifactId> {
    let sha256 = digest::sha256_hex(&archive);
    let body = json!({ "sha256": sha256, "size_bytes": archive.len(), "media_type": "application/gzip" });
    let upload: Upload = api.post("/workspaces", &body).await?;
    let mut request = api.storage.put(&upload.upload_url).timeout(UPLOAD_LIMIT);
    for (name, value) in &upload.headers {
        request = request.header(name, value);
    }
    let size = archive.len();
    let response = request.body(archive).send().await.context("cannot upload the workspace")?;
    let status = response.status();
    if !status.is_success() {
        let text = response.text().await.unwrap_or_default();
        bail!("the upload of the workspace was refused: {status} {}", text.chars().take(300).collect::<String>());
    }
    report::line("workspace", format_args!("{of} is artifact {} ({size} bytes)", upload.id));
    Ok(upload.id)
}

/// A tar.gz of `dir` with the files of `overlay` over it, whose bytes depend only on the tree. Leaves out what is not part of
/// a workspace, what Git ignores, and reports of earlier tests.
pub fn pack(dir: &Path, overlay: Option<&Path>) -> Result<Vec<u8>> {
    let base = Files::of_folder(dir)?;
    let overlay = overlay.map(Files::of_folder).transpose()?;
    let mut files = archive::sources(&base.snapshot);
    files.extend(overlay.iter().flat_map(|overlay| archive::sources(&overlay.snapshot)));
    packed(files, &dir.display())
}

/// The same of a base: a folder, or the commit at which HEAD left a reference of the repository around `workspace`.
pub fn pack_base(workspace: &Path, base: &str) -> Result<Vec<u8>> {
    let tree = SourceTree::of(workspace)?;
    match tree.base(base)? {
        Base::Folder(folder) => pack(&folder, None),
        Base::Reference => packed(archive::sources(&Files::copied(|to| tree.copy_base(base, to))?.snapshot), &base),
    }
}

/// Files to pack, and the copy that holds them.
struct Files {
    snapshot: Snapshot,
    _copy: Option<TempDir>,
}

impl Files {
    /// The files of a folder as they are now. In a Git repository these are the tracked ones, and new ones that it does not
    /// ignore.
    fn of_folder(dir: &Path) -> Result<Self> {
        let read = || format!("cannot read {}", dir.display());
        let tree = SourceTree::of(dir)?;
        if tree.is_git() {
            return Self::copied(|to| tree.copy_worktree(to)).with_context(read);
        }
        Ok(Self { snapshot: Snapshot::take(dir).with_context(read)?, _copy: None })
    }

    fn copied(copy: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        copy(folder.path())?;
        Ok(Self { snapshot: Snapshot::take(folder.path())?, _copy: Some(folder) })
    }
}

fn packed(mut files: BTreeMap<&str, Source<'_>>, of: &dyn Display) -> Result<Vec<u8>> {
    let projects = files.keys().filter_map(|path| path.strip_suffix("package.json"));
    let reports: Vec<String> = projects
        .filter(|folder| folder.is_empty() || folder.ends_with('/'))
        .map(|folder| format!("{folder}coverage/"))
        .collect();
    files.retain(|path, _| !reports.iter().any(|folder| path.starts_with(folder.as_str())));
    if files.is_empty() {
        return Err(hinted(format!("{of} contains no files"), "name the directory of a workspace"));
    }
    archive::pack(&files, Limits::default()).with_context(|| format!("cannot pack {of}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::client::git;

    fn write(dir: &Path, name: &str, content: &str) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn unpack(archive: &[u8]) -> BTreeMap<String, String> {
        let target = tempfile::tempdir().unwrap();
        nofx_gates::unpack(archive, target.path(), Limits::default(), &|| Ok(())).unwrap();
        let snapshot = Snapshot::take(target.path()).unwrap();
        let text = |path: &String| String::from_utf8(snapshot.read(path).unwrap().unwrap_or_default()).unwrap();
        snapshot.files().keys().map(|path| (path.clone(), text(path))).collect()
    }

    #[test]
    fn equal_files_give_equal_archives() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(one.path(), "src/a.ts", "a");
        write(one.path(), "package.json", "{}");
        write(two.path(), "package.json", "{}");
        write(two.path(), "src/a.ts", "a");
        write(two.path(), "node_modules/x/index.js", "x");
        write(two.path(), "coverage/lcov.info", "x");
        let old = fs::File::options().write(true).open(two.path().join("package.json")).unwrap();
        old.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1000)).unwrap();
        let archive = pack(one.path(), None).unwrap();
        assert_eq!(archive, pack(two.path(), None).unwrap());
        assert_eq!(unpack(&archive).keys().collect::<Vec<_>>(), ["package.json", "src/a.ts"]);
    }

    /// Ignored files may hold secrets, or be larger than an archive.
    #[test]
    fn what_git_ignores_is_not_packed_and_the_base_is_the_commit_at_which_head_left_the_branch() {
        let dir = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            let config = ["-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "init.defaultBranch=main"];
            git::run(dir.path(), &[&config[..], arguments].concat()).unwrap();
        };
        write(dir.path(), ".gitignore", ".env\ntarget/\n");
        write(dir.path(), "a.ts", "old");
        git(&["init", "--quiet"]);
        git(&["add", "."]);
        git(&["commit", "--quiet", "--message", "one"]);
        git(&["branch", "change"]);
        write(dir.path(), "a.ts", "later");
        git(&["commit", "--quiet", "--all", "--message", "two"]);
        git(&["switch", "--quiet", "change"]);
        for (name, content) in [("a.ts", "new"), ("b.ts", "b"), (".env", "KEY=x"), ("target/large", "x")] {
            write(dir.path(), name, content);
        }
        let files = unpack(&pack(dir.path(), None).unwrap());
        assert_eq!(files.keys().collect::<Vec<_>>(), [".gitignore", "a.ts", "b.ts"]);
        assert_eq!(files["a.ts"], "new");
        let base = unpack(&pack_base(dir.path(), "main").unwrap());
        assert_eq!((base.len(), base["a.ts"].as_str()), (2, "old"));
        let folder = dir.path().display().to_string();
        assert_eq!(pack_base(dir.path(), &folder).unwrap(), pack(dir.path(), None).unwrap());
        let unknown = format!("{:#}", pack_base(dir.path(), "mian").unwrap_err());
        assert!(unknown.contains("\"mian\" is neither a folder nor a commit"), "{unknown}");
    }

    #[test]
    fn an_overlay_replaces_and_adds_files() {
        let (base, overlay) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(base.path(), "src/a.ts", "a");
        write(base.path(), "src/b.ts", "b");
        write(overlay.path(), "src/a.ts", "other");
        write(overlay.path(), "c.ts", "c");
        let files = unpack(&pack(base.path(), Some(overlay.path())).unwrap());
        assert_eq!(files.len(), 3);
        assert_eq!((files["src/a.ts"].as_str(), files["c.ts"].as_str()), ("other", "c"));
    }

    #[test]
    fn a_folder_of_sources_named_coverage_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["p/package.json", "p/coverage/report.json", "p/src/coverage/judge.ts", "x-package.json"] {
            write(dir.path(), path, "x");
        }
        let files = unpack(&pack(dir.path(), None).unwrap());
        assert_eq!(files.keys().collect::<Vec<_>>(), ["p/package.json", "p/src/coverage/judge.ts", "x-package.json"]);
    }

    #[test]
    fn executable_bits_and_inner_links_are_kept_and_other_links_refused() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a.sh", "#!/bin/sh\n");
        let plain = pack(dir.path(), None).unwrap();
        fs::set_permissions(dir.path().join("a.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_ne!(pack(dir.path(), None).unwrap(), plain);
        symlink("a.sh", dir.path().join("b")).unwrap();
        assert_eq!(unpack(&pack(dir.path(), None).unwrap()).len(), 2);
        symlink("/etc/passwd", dir.path().join("c")).unwrap();
        let refused = format!("{:#}", pack(dir.path(), None).unwrap_err());
        assert!(refused.contains("c is a link that may point outside the workspace"), "{refused}");
    }
}
