//! Workspaces: packs a directory reproducibly, and uploads it as an artifact for a plan.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use flate2::{Compression, GzBuilder};
use nofx_local::report::{self, hinted};
use serde_json::json;
use shared::domain::{ArtifactId, digest};
use shared::view::Upload;

use crate::client::api::Api;

/// Generated directories, and those that are not part of a workspace.
const SKIPPED: [&str; 3] = ["node_modules", ".git", "coverage"];
const UNPACKED_MAX_BYTES: u64 = 256 * 1024 * 1024;
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

/// A tar.gz whose bytes depend only on the files' paths, contents and executable bits.
pub fn pack(dir: &Path, overlay: Option<&Path>) -> Result<Vec<u8>> {
    let mut files = BTreeMap::new();
    collect(dir, Path::new(""), &mut files)?;
    if let Some(overlay) = overlay {
        collect(overlay, Path::new(""), &mut files)?;
    }
    if files.is_empty() {
        return Err(hinted(format!("{} contains no files", dir.display()), "name the directory of a workspace"));
    }
    let encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
    let mut archive = tar::Builder::new(encoder);
    let mut total_bytes = 0;
    for (name, path) in files {
        let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        total_bytes += content.len() as u64;
        if total_bytes > UNPACKED_MAX_BYTES {
            bail!("{} is larger than {} MB", dir.display(), UNPACKED_MAX_BYTES / 1024 / 1024);
        }
        let mode = fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?.permissions().mode();
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(if mode & 0o111 == 0 { 0o644 } else { 0o755 });
        header.set_mtime(0);
        archive
            .append_data(&mut header, &name, content.as_slice())
            .with_context(|| format!("cannot pack {}", path.display()))?;
    }
    let mut encoder = archive.into_inner().context("cannot finish the archive")?;
    encoder.flush().context("cannot finish the archive")?;
    encoder.finish().context("cannot finish the archive")
}

/// Maps the name of each file below `dir` to its path. Links are skipped, because they may lead out of the workspace.
fn collect(dir: &Path, prefix: &Path, files: &mut BTreeMap<PathBuf, PathBuf>) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", dir.display()))?;
        let name = entry.file_name();
        let kind = entry.file_type().with_context(|| format!("cannot read {}", entry.path().display()))?;
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        if kind.is_dir() {
            collect(&entry.path(), &prefix.join(&name), files)?;
        } else if kind.is_file() {
            files.insert(prefix.join(&name), entry.path());
        } else {
            report::line("workspace", format_args!("skipped {}: not a regular file", entry.path().display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn write(dir: &Path, name: &str, content: &str) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn unpack(archive: &[u8]) -> BTreeMap<String, String> {
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(archive));
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (entry.path().unwrap().display().to_string(), text)
        });
        entries.collect()
    }

    #[test]
    fn equal_files_give_equal_archives() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(one.path(), "src/a.ts", "a");
        write(one.path(), "package.json", "{}");
        write(two.path(), "package.json", "{}");
        write(two.path(), "src/a.ts", "a");
        write(two.path(), "node_modules/x/index.js", "x");
        write(two.path(), "src/coverage/lcov.info", "x");
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
    fn links_are_skipped() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a.ts", "a");
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("b.ts")).unwrap();
        assert_eq!(unpack(&pack(dir.path(), None).unwrap()).len(), 1);
    }
}
