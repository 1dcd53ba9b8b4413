//! Unpacks untrusted archives. Refuses the whole archive if an entry would be written outside the target, if it would
//! mean other files on another machine, or if it exceeds a limit: a gate must never check part of a workspace.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Take, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entry, EntryType, PaxExtensions};

use crate::finding::Reason;
use crate::path::{self, Names};

/// Limits on an archive's contents.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub unpacked_bytes: u64,
    /// Of entries, and also of the folders that their paths need.
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

impl Default for Limits {
    fn default() -> Self {
        Self { unpacked_bytes: 512 * 1024 * 1024, entries: 50_000 }
    }
}

fn invalid(message: impl Into<String>) -> WorkspaceError {
    WorkspaceError::Archive(message.into())
}

/// Unpacks a tar.gz into an empty folder. Skips dependencies (`node_modules`) and history (`.git`): the gate installs
/// dependencies itself. Calls `check_cancelled` before each entry, and stops at its error.
pub fn unpack(
    packed: &[u8],
    target: &Path,
    limits: Limits,
    check_cancelled: &dyn Fn() -> io::Result<()>,
) -> Result<(), WorkspaceError> {
    // Allow for headers and padding.
    let max_bytes = limits.unpacked_bytes.saturating_add(limits.entries as u64 * 4096).saturating_add(MAX_PADDING);
    let mut archive = Archive::new(MultiGzDecoder::new(packed).take(max_bytes));
    let mut unpacker = Unpacker {
        target,
        limits,
        files: BTreeSet::new(),
        names: Names::default(),
        bytes: 0,
        entries: 0,
        headers: 0,
        folders: 0,
        extended: ExtendedNames::default(),
    };
    fs::create_dir_all(target)?;
    for entry in archive.entries().map_err(damaged)?.raw(true) {
        check_cancelled()?;
        unpacker.entry(entry.map_err(damaged)?)?;
    }
    check_end(archive.into_inner())?;
    if unpacker.entries == 0 {
        return Err(invalid("the archive is empty"));
    }
    if unpacker.extended.path.is_some() || unpacker.extended.link.is_some() {
        return Err(invalid("the archive is truncated: its last header has no entry"));
    }
    Ok(())
}

/// Zero bytes after the end. GNU tar fills the last block up, to 10 KiB by default.
const MAX_PADDING: u64 = 1024 * 1024;

/// Reads what follows the archive's end. Other programs may read more files there, so only padding is allowed. Reading to
/// the end also checks the checksum of gzip.
fn check_end<R: Read>(mut rest: Take<R>) -> Result<(), WorkspaceError> {
    let mut buffer = vec![0; 64 * 1024];
    let mut padding = 0;
    loop {
        let count = rest.read(&mut buffer).map_err(damaged)?;
        if count == 0 {
            break;
        }
        padding += count as u64;
        if buffer.get(..count).unwrap_or_default().iter().any(|byte| *byte != 0) {
            return Err(invalid("the archive has data after its end; pack the files again"));
        }
        if padding > MAX_PADDING {
            return Err(invalid(format!("the archive has more than {MAX_PADDING} bytes of padding after its end")));
        }
    }
    if rest.limit() == 0 {
        return Err(invalid("the archive unpacks to more bytes than are allowed"));
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

/// Programs disagree on which of two names counts.
fn set_once(name: &mut Option<Vec<u8>>, value: Vec<u8>) -> Result<(), WorkspaceError> {
    match name.replace(value) {
        None => Ok(()),
        Some(first) => {
            let first = path::shown(&String::from_utf8_lossy(&first));
            Err(invalid(format!("the archive has an entry with two names, {first} and another")))
        }
    }
}

struct Unpacker<'a> {
    target: &'a Path,
    limits: Limits,
    files: BTreeSet<String>,
    names: Names,
    bytes: u64,
    entries: usize,
    /// Extension headers: at most two for an entry are useful.
    headers: usize,
    /// How many folders exist.
    folders: usize,
    extended: ExtendedNames,
}

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), WorkspaceError> {
        let kind = entry.header().entry_type();
        let is_header = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        let (count, most) = if is_header {
            (&mut self.headers, self.limits.entries.saturating_mul(2))
        } else {
            (&mut self.entries, self.limits.entries)
        };
        *count += 1;
        if *count > most {
            let what = if is_header { "extension headers" } else { "entries" };
            return Err(invalid(format!("the archive has more than {most} {what}")));
        }
        match kind {
            EntryType::GNULongName => set_once(&mut self.extended.path, long_name(&mut entry)?)?,
            EntryType::GNULongLink => set_once(&mut self.extended.link, long_name(&mut entry)?)?,
            EntryType::XHeader => self.extension(&mut entry)?,
            EntryType::XGlobalHeader => global_extension(&mut entry)?,
            kind => {
                let extended = std::mem::take(&mut self.extended);
                let path = extended.path.unwrap_or_else(|| entry.header().path_bytes().into_owned());
                let link = extended.link.or_else(|| entry.header().link_name_bytes().map(std::borrow::Cow::into_owned));
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
                b"path" => set_once(&mut self.extended.path, extension.value_bytes().to_vec())?,
                b"linkpath" => set_once(&mut self.extended.link, extension.value_bytes().to_vec())?,
                // It would override the size in the header, which the byte limit uses.
                b"size" => return Err(invalid("the archive holds a file of more than 8 GiB")),
                key if key.starts_with(b"GNU.sparse") => {
                    return Err(invalid("the archive holds a sparse file; pack it without --sparse"));
                }
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
        let names_folder = path.ends_with(b"/");
        let path = path::parse(path).map_err(invalid)?;
        if path::skipped(&path).is_some() {
            return Ok(());
        }
        match kind {
            EntryType::Directory if path.is_empty() => {}
            // Some programs unpack it as a folder.
            EntryType::Regular if names_folder => {
                return Err(invalid(format!("{path} is a file whose name ends in a slash")));
            }
            EntryType::Directory => {
                self.names.insert(&path).map_err(invalid)?;
                self.create_folder(&path)?;
            }
            EntryType::Regular | EntryType::Continuous => self.file(&path, entry)?,
            EntryType::Symlink => self.link(&path, &link.unwrap_or_default())?,
            EntryType::Link => return Err(invalid(format!("{path} is a hard link; pack it as a file"))),
            _ => return Err(invalid(format!("{path} is neither a file nor a folder"))),
        }
        Ok(())
    }

    /// Creates a folder below the target. No part of its path may be a link, because a link could point outside the
    /// target.
    fn create_folder(&mut self, path: &str) -> Result<PathBuf, WorkspaceError> {
        let mut folder = self.target.to_path_buf();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            folder.push(name);
            match fs::symlink_metadata(&folder) {
                Ok(found) if found.is_dir() => {}
                Ok(_) => return Err(invalid(format!("{path} goes through an entry that is not a folder"))),
                Err(_) => {
                    self.folders += 1;
                    if self.folders > self.limits.entries {
                        return Err(invalid(format!("the archive has more than {} folders", self.limits.entries)));
                    }
                    fs::create_dir(&folder)?;
                }
            }
        }
        Ok(folder)
    }

    fn new_path(&mut self, path: &str) -> Result<PathBuf, WorkspaceError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name.is_empty() {
            return Err(invalid("the archive holds a file without a name"));
        }
        self.names.insert(path).map_err(invalid)?;
        let full = self.create_folder(parent)?.join(name);
        // The second check catches file systems on which two names are the same for other reasons.
        if !self.files.insert(path.to_owned()) || fs::symlink_metadata(&full).is_ok() {
            return Err(invalid(format!("{path} is in the archive twice")));
        }
        Ok(full)
    }

    fn file<R: Read>(&mut self, path: &str, entry: &mut Entry<'_, R>) -> Result<(), WorkspaceError> {
        let size = entry.header().entry_size().map_err(damaged)?;
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.unpacked_bytes {
            let most = self.limits.unpacked_bytes;
            return Err(invalid(format!("the archive holds more than {most} bytes, counted up to {path}")));
        }
        let full = self.new_path(path)?;
        let executable = entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
        let mode = if executable { 0o755 } else { 0o644 };
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(full)?;
        copy(path, entry, &mut file, size)
    }

    fn link(&mut self, path: &str, to: &[u8]) -> Result<(), WorkspaceError> {
        path::check_link(path, to).map_err(invalid)?;
        let to = String::from_utf8_lossy(to).into_owned();
        symlink(to, self.new_path(path)?)?;
        Ok(())
    }
}

/// Copies exactly `size` bytes. A read error means a damaged archive, a write error a failing disk.
fn copy<R: Read>(path: &str, from: &mut Entry<'_, R>, to: &mut File, size: u64) -> Result<(), WorkspaceError> {
    let mut buffer = vec![0; 64 * 1024];
    let mut remaining = size;
    while remaining > 0 {
        let count = from.read(&mut buffer).map_err(damaged)?;
        if count == 0 {
            return Err(invalid(format!("the archive is truncated in {path}")));
        }
        to.write_all(buffer.get(..count).unwrap_or_default())?;
        remaining = remaining.saturating_sub(count as u64);
    }
    Ok(())
}

/// A header for all further entries. `git archive` writes one that holds the commit as a comment. Programs disagree on
/// what others mean.
fn global_extension<R: Read>(entry: &mut Entry<'_, R>) -> Result<(), WorkspaceError> {
    let bytes = read_extension(entry)?;
    for extension in PaxExtensions::new(&bytes) {
        let extension = extension.map_err(damaged)?;
        if extension.key_bytes() != b"comment" {
            let key = path::shown(&String::from_utf8_lossy(extension.key_bytes()));
            return Err(invalid(format!("the archive has a global header with {key}; pack the files again")));
        }
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

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
