//! Packs a tree. The archive's bytes depend only on the tree: on paths, contents, executable bits and links. Time, owner,
//! order on the disk and umask do not matter.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use self::gzip::Gzip;
use crate::path::{self, Names};
use crate::snapshot::{Entry, Kind, Snapshot};
use crate::unpack::{Limits, WorkspaceError};

mod gzip;

/// Maximum size of an archive.
pub const MAX_PACKED_BYTES: u64 = 64 * 1024 * 1024;
/// A file to pack, and the folder that its path starts from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub root: &'a Path,
    pub entry: &'a Entry,
}

/// The files of a snapshot.
pub fn sources(snapshot: &Snapshot) -> BTreeMap<&str, Source<'_>> {
    let of = |(path, entry)| (String::as_str(path), Source { root: snapshot.root(), entry });
    snapshot.files().iter().map(of).collect()
}

/// Packs files as a tar.gz. Refuses what `unpack` refuses, and files that changed since they were listed. So the tree that
/// somebody unpacks has the digest of these entries.
pub fn pack(files: &BTreeMap<&str, Source<'_>>, limits: Limits) -> Result<Vec<u8>, WorkspaceError> {
    pack_within(files, limits, MAX_PACKED_BYTES)
}

fn pack_within(files: &BTreeMap<&str, Source<'_>>, limits: Limits, most: u64) -> Result<Vec<u8>, WorkspaceError> {
    check(files, limits)?;
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::FileTooLarge => too_large(most),
        _ => error.into(),
    };
    let packed = Bounded { bytes: Vec::new(), most, exceeded: false };
    let mut archive = Builder::new(Gzip::new(packed).map_err(failed)?);
    for (path, source) in files {
        if let Err(error) = append(&mut archive, path, *source) {
            return Err(if archive.get_ref().target().exceeded { too_large(most) } else { error });
        }
    }
    let packed = archive.into_inner().and_then(Gzip::finish).map_err(failed)?;
    Ok(packed.bytes)
}

fn refused(message: impl Into<String>) -> WorkspaceError {
    WorkspaceError::Archive(message.into())
}

fn too_large(most: u64) -> WorkspaceError {
    refused(format!("the packed workspace has more than {most} bytes; leave out generated files"))
}

fn check(files: &BTreeMap<&str, Source<'_>>, limits: Limits) -> Result<(), WorkspaceError> {
    if files.is_empty() {
        return Err(refused("the workspace has no files"));
    }
    if files.len() > limits.entries {
        return Err(refused(format!("the workspace has more than {} files", limits.entries)));
    }
    let bytes: u64 = files.values().map(|source| source.entry.size).fold(0, u64::saturating_add);
    if bytes > limits.unpacked_bytes {
        return Err(refused(format!("the workspace has more than {} bytes", limits.unpacked_bytes)));
    }
    let mut names = Names::default();
    for path in files.keys() {
        if path::parse_file(path.as_bytes()).map_err(refused)? != *path {
            return Err(refused(format!("the path {} is not in its shortest form", path::shown(path))));
        }
        names.insert(path).map_err(refused)?;
        let mut folders = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
        if let Some(file) = folders.find(|folder| files.contains_key(folder)) {
            return Err(refused(format!("{file} is a file, and {path} needs a folder of that name")));
        }
    }
    Ok(())
}

fn append<W: Write>(archive: &mut Builder<W>, path: &str, source: Source<'_>) -> Result<(), WorkspaceError> {
    let full = source.root.join(path);
    let mut header = Header::new_gnu();
    header.set_mtime(0);
    match source.entry.kind {
        Kind::Link => {
            let target = full.read_link()?;
            let bytes = target.as_os_str().as_bytes();
            path::check_link(path, bytes).map_err(refused)?;
            same(path, &mut Hashing::new(bytes, source.entry.size), source.entry)?;
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            archive.append_link(&mut header, path, target)?;
        }
        Kind::File { executable } => {
            header.set_entry_type(EntryType::Regular);
            header.set_mode(if executable { 0o755 } else { 0o644 });
            header.set_size(source.entry.size);
            let mut content = Hashing::new(File::open(&full)?, source.entry.size);
            archive.append_data(&mut header, path, &mut content)?;
            same(path, &mut content, source.entry)?;
        }
    }
    Ok(())
}

/// Reads a file and computes Git's id of what it has read.
struct Hashing<R> {
    content: R,
    left: u64,
    hasher: Sha256,
}

impl<R: Read> Hashing<R> {
    fn new(content: R, size: u64) -> Self {
        Self { content, left: size, hasher: Sha256::new_with_prefix(format!("blob {size}\0")) }
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most) else { return Ok(0) };
        let count = self.content.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.left -= count as u64;
        Ok(count)
    }
}

/// Whether exactly the entry's content was read.
fn same<R: Read>(path: &str, read: &mut Hashing<R>, entry: &Entry) -> Result<(), WorkspaceError> {
    io::copy(read, &mut io::sink())?;
    let at_end = read.left == 0 && read.content.read(&mut [0])? == 0;
    if at_end && read.hasher.clone().finalize()[..] == entry.sha256 {
        return Ok(());
    }
    Err(refused(format!("{path} changed while it was packed; try again")))
}

/// A buffer that takes at most `most` bytes.
struct Bounded {
    bytes: Vec<u8>,
    most: u64,
    exceeded: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.bytes.len() + bytes.len()) as u64 > self.most {
            self.exceeded = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
