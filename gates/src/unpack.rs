//! Unpacks untrusted archives. Rejects the whole archive if an entry would be written outside the target or exceeds a
//! limit: a gate must never check part of a workspace.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entry, EntryType, PaxExtensions};

use crate::attempt::Attempt;
use crate::finding::Reason;
use crate::tree::SKIPPED;

/// Limits on an archive's contents.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub unpacked_bytes: u64,
    pub entries: usize,
}

/// Why a workspace cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// The archive is invalid.
    #[error("{0}")]
    Archive(String),
    /// The plan names no workspace, and the deployment has no usable default.
    #[error("{}", .0.message)]
    Workspace(Reason),
    /// The disk failed, or the attempt was cancelled.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn invalid(message: impl Into<String>) -> WorkspaceError {
    WorkspaceError::Archive(message.into())
}

/// Unpacks a tar.gz into an empty folder. Skips dependencies (`node_modules`) and history (`.git`): the gate installs
/// dependencies itself.
pub fn unpack(packed: &[u8], target: &Path, limits: Limits, attempt: &Attempt) -> Result<(), WorkspaceError> {
    // Allow for headers and padding.
    let max_bytes = limits.unpacked_bytes.saturating_add(limits.entries as u64 * 2048);
    let mut archive = Archive::new(MultiGzDecoder::new(packed).take(max_bytes));
    let mut unpacker =
        Unpacker { target, limits, files: BTreeSet::new(), bytes: 0, entries: 0, names: ExtendedNames::default() };
    fs::create_dir_all(target)?;
    for entry in archive.entries().map_err(damaged)?.raw(true) {
        attempt.check_cancelled()?;
        unpacker.entry(entry.map_err(damaged)?)?;
    }
    if unpacker.entries == 0 {
        return Err(invalid("the archive is empty"));
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "map_err passes the error by value")]
fn damaged(error: io::Error) -> WorkspaceError {
    invalid(format!("the archive cannot be read as tar.gz: {error}"))
}

/// The path and link target that an extension header gives for the next entry.
#[derive(Default)]
struct ExtendedNames {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

struct Unpacker<'a> {
    target: &'a Path,
    limits: Limits,
    files: BTreeSet<PathBuf>,
    bytes: u64,
    entries: usize,
    names: ExtendedNames,
}

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), WorkspaceError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(invalid(format!("the archive has more than {} entries", self.limits.entries)));
        }
        match entry.header().entry_type() {
            EntryType::GNULongName => self.names.path = Some(long_name(&mut entry)?),
            EntryType::GNULongLink => self.names.link = Some(long_name(&mut entry)?),
            EntryType::XHeader => self.extension(&mut entry)?,
            // `git archive` writes one that holds the commit as a comment.
            EntryType::XGlobalHeader => {}
            kind => {
                let names = std::mem::take(&mut self.names);
                let path = names.path.unwrap_or_else(|| entry.header().path_bytes().into_owned());
                let link = names.link.or_else(|| entry.header().link_name_bytes().map(std::borrow::Cow::into_owned));
                self.write_entry(kind, &path, link, &mut entry)?;
            }
        }
        Ok(())
    }

    fn extension<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), WorkspaceError> {
        let bytes = read_extension(entry)?;
        for extension in PaxExtensions::new(&bytes) {
            let extension = extension.map_err(damaged)?;
            match extension.key_bytes() {
                b"path" => self.names.path = Some(extension.value_bytes().to_vec()),
                b"linkpath" => self.names.link = Some(extension.value_bytes().to_vec()),
                // It would override the size in the header, which the byte limit uses.
                b"size" => return Err(invalid("the archive holds a file of more than 8 GiB")),
                _ => {}
            }
        }
        Ok(())
    }

    fn write_entry<R: Read>(
        &mut self,
        kind: EntryType,
        path: &[u8],
        link: Option<Vec<u8>>,
        entry: &mut Entry<'_, R>,
    ) -> Result<(), WorkspaceError> {
        let path = safe_path(path)?;
        if path.components().any(|part| SKIPPED.iter().any(|skipped| part.as_os_str() == *skipped)) {
            return Ok(());
        }
        match kind {
            EntryType::Directory => {
                self.create_folder(&path)?;
            }
            EntryType::Regular | EntryType::Continuous => self.file(&path, entry)?,
            EntryType::Symlink => self.link(&path, &link.unwrap_or_default())?,
            EntryType::Link => return Err(invalid(format!("{} is a hard link; pack it as a file", path.display()))),
            _ => return Err(invalid(format!("{} is neither a file nor a folder", path.display()))),
        }
        Ok(())
    }

    /// Creates a folder below the target. No part of its path may be a link, because a link could point outside the
    /// target.
    fn create_folder(&self, path: &Path) -> Result<PathBuf, WorkspaceError> {
        let mut folder = self.target.to_path_buf();
        for part in path.components() {
            folder.push(part);
            match fs::symlink_metadata(&folder) {
                Ok(found) if found.is_dir() => {}
                Ok(_) => {
                    return Err(invalid(format!("{} goes through an entry that is not a folder", path.display())));
                }
                Err(_) => fs::create_dir(&folder)?,
            }
        }
        Ok(folder)
    }

    fn new_path(&mut self, path: &Path) -> Result<PathBuf, WorkspaceError> {
        let name = path.file_name().ok_or_else(|| invalid("the archive holds a file without a name"))?;
        let full = self.create_folder(path.parent().unwrap_or(Path::new("")))?.join(name);
        // The second check catches file systems on which `A` and `a` are the same name.
        if !self.files.insert(path.to_path_buf()) || fs::symlink_metadata(&full).is_ok() {
            return Err(invalid(format!("{} is in the archive twice", path.display())));
        }
        Ok(full)
    }

    fn file<R: Read>(&mut self, path: &Path, entry: &mut Entry<'_, R>) -> Result<(), WorkspaceError> {
        let size = entry.header().entry_size().map_err(damaged)?;
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.unpacked_bytes {
            return Err(invalid(format!("the archive holds more than {} bytes", self.limits.unpacked_bytes)));
        }
        let full = self.new_path(path)?;
        let executable = entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
        let mode = if executable { 0o755 } else { 0o644 };
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(full)?;
        copy(entry, &mut file, size)
    }

    /// Creates a link. It must point to a path inside the workspace. All folders above the link are real, so each
    /// leading `..` goes up exactly one level. A `..` after a name is rejected, because that name may be a link.
    fn link(&mut self, path: &Path, to: &[u8]) -> Result<(), WorkspaceError> {
        let outside = || invalid(format!("{} is a link that may point outside the workspace", path.display()));
        let to = PathBuf::from(std::str::from_utf8(to).map_err(|_| outside())?);
        let mut depth = path.components().count().saturating_sub(1);
        let mut has_name = false;
        for part in to.components() {
            match part {
                Component::Normal(_) => has_name = true,
                Component::CurDir => {}
                Component::ParentDir if !has_name && depth > 0 => depth -= 1,
                _ => return Err(outside()),
            }
        }
        if to.as_os_str().is_empty() {
            return Err(outside());
        }
        symlink(to, self.new_path(path)?)?;
        Ok(())
    }
}

/// Copies exactly `size` bytes. A read error means a damaged archive, a write error a failing disk.
fn copy<R: Read>(from: &mut Entry<'_, R>, to: &mut File, size: u64) -> Result<(), WorkspaceError> {
    use std::io::Write;
    let mut buffer = vec![0; 64 * 1024];
    let mut remaining = size;
    while remaining > 0 {
        let count = from.read(&mut buffer).map_err(damaged)?;
        if count == 0 {
            return Err(invalid("the archive is truncated"));
        }
        to.write_all(buffer.get(..count).unwrap_or_default())?;
        remaining = remaining.saturating_sub(count as u64);
    }
    Ok(())
}

/// The body of an extension header. The limit keeps one header from filling the memory.
fn read_extension<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, WorkspaceError> {
    const MAX_BYTES: u64 = 64 * 1024;
    let mut bytes = Vec::new();
    entry.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(damaged)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(invalid(format!("the archive has a header of more than {MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

fn long_name<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, WorkspaceError> {
    let mut name = read_extension(entry)?;
    while name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

/// Parses a relative path that stays below its root.
fn safe_path(bytes: &[u8]) -> Result<PathBuf, WorkspaceError> {
    let text = std::str::from_utf8(bytes).map_err(|_| invalid("a path in the archive is not UTF-8"))?;
    let unsafe_path = || invalid(format!("the path {text:?} leaves the workspace"));
    if text.contains('\0') || text.contains('\\') {
        return Err(unsafe_path());
    }
    let mut path = PathBuf::new();
    for part in Path::new(text).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(unsafe_path()),
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::{Builder, Header};

    use super::*;

    const LIMITS: Limits = Limits { unpacked_bytes: 100_000, entries: 20 };

    /// Writes the name without the crate's checks, as an attacker would.
    fn header(kind: EntryType, path: &str, size: usize, link: &str) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(0o644);
        header.set_size(size as u64);
        header.set_cksum();
        header
    }

    fn pack(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (kind, path, content) in entries {
            let (data, link) =
                if *kind == EntryType::Regular || kind.is_gnu_longname() { (*content, "") } else { ("", *content) };
            builder.append(&header(*kind, path, data.len(), link), data.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn try_unpack(packed: &[u8]) -> Result<tempfile::TempDir, String> {
        let work = tempfile::tempdir().unwrap();
        let attempt = Attempt::begin(work.path()).unwrap();
        let target = work.path().join("target");
        match unpack(packed, &target, LIMITS, &attempt) {
            Ok(()) => Ok(work),
            Err(WorkspaceError::Archive(why)) => Err(why),
            Err(other) => panic!("{other}"),
        }
    }

    const FILE: EntryType = EntryType::Regular;
    const LINK: EntryType = EntryType::Symlink;

    #[test]
    fn files_folders_and_links_are_unpacked() {
        let work = try_unpack(&pack(&[
            (EntryType::Directory, "./", ""),
            (FILE, "./a/b.txt", "hello"),
            (LINK, "a/c", "../a/b.txt"),
        ]))
        .unwrap();
        assert_eq!(fs::read_to_string(work.path().join("target/a/c")).unwrap(), "hello");
    }

    #[test]
    fn a_path_outside_the_workspace_is_rejected() {
        for path in ["../evil", "a/../../evil", "/etc/evil", "a\\..\\..\\evil"] {
            let why = try_unpack(&pack(&[(FILE, path, "x")])).unwrap_err();
            assert!(why.contains("leaves the workspace"), "{path}: {why}");
        }
    }

    #[test]
    fn a_long_name_is_checked_like_a_short_one() {
        let name = format!("{}../../../../evil", "a/../".repeat(30));
        let why =
            try_unpack(&pack(&[(EntryType::GNULongName, "././@LongLink", &name), (FILE, "short", "x")])).unwrap_err();
        assert!(why.contains("leaves the workspace"), "{why}");
    }

    #[test]
    fn a_link_that_points_outside_the_workspace_is_rejected() {
        for to in ["/etc", "..", "../..", "b/../..", "b/../../c", ""] {
            assert!(try_unpack(&pack(&[(LINK, "a", to)])).is_err(), "{to}");
        }
        assert!(try_unpack(&pack(&[(LINK, "a/b", "../../c")])).is_err());
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        assert!(
            try_unpack(&pack(&[(EntryType::Directory, "real/", ""), (LINK, "a", "real"), (FILE, "a/b", "x")])).is_err()
        );
        assert!(try_unpack(&pack(&[(FILE, "real", "y"), (LINK, "a", "real"), (FILE, "a", "x")])).is_err());
    }

    #[test]
    fn devices_hard_links_and_duplicates_are_rejected() {
        for kind in [EntryType::Fifo, EntryType::Char, EntryType::Block, EntryType::Link] {
            assert!(try_unpack(&pack(&[(FILE, "b", "x"), (kind, "a", "b")])).is_err(), "{kind:?}");
        }
        assert!(try_unpack(&pack(&[(FILE, "a", "x"), (FILE, "./a", "y")])).unwrap_err().contains("twice"));
    }

    #[test]
    fn an_archive_with_too_many_bytes_or_entries_is_rejected() {
        let big = "x".repeat(60_000);
        assert!(try_unpack(&pack(&[(FILE, "a", &big), (FILE, "b", &big)])).unwrap_err().contains("bytes"));
        let names: Vec<String> = (0..21).map(|number| number.to_string()).collect();
        let many: Vec<_> = names.iter().map(|name| (FILE, name.as_str(), "")).collect();
        assert!(try_unpack(&pack(&many)).unwrap_err().contains("entries"));
    }

    #[test]
    fn a_header_cannot_fill_the_memory() {
        let name = "x".repeat(70_000);
        assert!(
            try_unpack(&pack(&[(EntryType::GNULongName, "l", &name), (FILE, "a", "x")]))
                .unwrap_err()
                .contains("a header of more than")
        );
    }

    #[test]
    fn invalid_and_truncated_archives_are_rejected() {
        for bytes in [b"".as_slice(), b"hello", &[0x1f, 0x8b, 8, 0]] {
            assert!(try_unpack(bytes).is_err());
        }
        let whole = pack(&[(FILE, "a", &"some text ".repeat(2000))]);
        assert!(try_unpack(&whole[..whole.len() / 2]).is_err());
        let mut empty = GzEncoder::new(Vec::new(), Compression::fast());
        empty.write_all(&[0; 1024]).unwrap();
        assert!(try_unpack(&empty.finish().unwrap()).unwrap_err().contains("empty"));
    }

    #[test]
    fn dependencies_in_the_archive_are_skipped() {
        let work = try_unpack(&pack(&[
            (FILE, "a", "x"),
            (FILE, "p/node_modules/b/c.js", "evil"),
            (FILE, ".git/config", "evil"),
        ]))
        .unwrap();
        assert!(!work.path().join("target/p/node_modules").exists() && !work.path().join("target/.git").exists());
    }
}
