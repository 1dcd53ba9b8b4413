//! Workspaces: packs a directory reproducibly, and uploads it as an artifact for a plan.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nofx_gates::snapshot::Snapshot;
use nofx_gates::{Limits, archive};
use nofx_local::report::{self, hinted};
use serde_json::json;
use shared::domain::{ArtifactId, digest};
use shared::view::Upload;

use crate::client::api::Api;

const UPLOAD_LIMIT: Duration = Duration::from_mins(5);

/// Packs `dir`, with the files of `overlay` over it, and uploads it. Returns the artifact's id.
pub async fn upload(api: &Api, dir: &Path, overlay: Option<&Path>) -> Result<ArtifactId> {
    let archive = pack(dir, overlay)?;
    let sha256 = digest::sha256_hex(&archive);
    let body = json!({ "sha256": sha256, "size_bytes": archive.len(), "media_type": "application/gzip" });
    let upload: Upload = api.post("/workspaces", &body).await?;
    let mut request = api.http.put(&upload.upload_url).timeout(UPLOAD_LIMIT);
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
    report::line("workspace", format_args!("{} is artifact {} ({size} bytes)", dir.display(), upload.id));
    Ok(upload.id)
}

/// A tar.gz whose bytes depend only on the tree. Leaves out what is not part of a workspace, and reports of earlier tests.
pub fn pack(dir: &Path, overlay: Option<&Path>) -> Result<Vec<u8>> {
    let base = snapshot(dir)?;
    let overlay = overlay.map(snapshot).transpose()?;
    let mut files = archive::sources(&base);
    files.extend(overlay.iter().flat_map(archive::sources));
    let projects = files.keys().filter_map(|path| path.strip_suffix("package.json"));
    let reports: Vec<String> = projects
        .filter(|folder| folder.is_empty() || folder.ends_with('/'))
        .map(|folder| format!("{folder}coverage/"))
        .collect();
    files.retain(|path, _| !reports.iter().any(|folder| path.starts_with(folder.as_str())));
    if files.is_empty() {
        return Err(hinted(format!("{} contains no files", dir.display()), "name the directory of a workspace"));
    }
    archive::pack(&files, Limits::default()).with_context(|| format!("cannot pack {}", dir.display()))
}

fn snapshot(dir: &Path) -> Result<Snapshot> {
    Snapshot::take(dir).with_context(|| format!("cannot read {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

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
