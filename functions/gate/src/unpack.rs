//! Unpacks archives from untrusted sources. An archive that would write outside of the target, or more than allowed, is
//! refused as a whole: a gate must never judge a part of a workspace.

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

/// How much an archive may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub unpacked_bytes: u64,
    pub entries: usize,
}

/// Why a workspace could not be laid out, by whose fault it is.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The archive is at fault.
    #[error("{0}")]
    Archive(String),
    /// The plan or the deployment is at fault.
    #[error("{}", .0.message)]
    Workspace(Reason),
    /// The disk failed, or the attempt was cancelled.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn refused(message: impl Into<String>) -> Refusal {
    Refusal::Archive(message.into())
}

/// Unpacks a tar.gz into an empty folder, without the dependencies (`node_modules`) and the history (`.git`) in it: the
/// gate installs dependencies itself.
pub fn unpack(packed: &[u8], target: &Path, limits: Limits, attempt: &Attempt) -> Result<(), Refusal> {
    // Headers and padding add to the contents.
    let most = limits.unpacked_bytes.saturating_add(limits.entries as u64 * 2048);
    let mut archive = Archive::new(MultiGzDecoder::new(packed).take(most));
    let mut unpacker =
        Unpacker { target, limits, files: BTreeSet::new(), bytes: 0, entries: 0, named: Named::default() };
    fs::create_dir_all(target)?;
    for entry in archive.entries().map_err(damaged)?.raw(true) {
        attempt.check()?;
        unpacker.entry(entry.map_err(damaged)?)?;
    }
    if unpacker.entries == 0 {
        return Err(refused("the archive is empty"));
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "map_err passes the error by value")]
fn damaged(error: io::Error) -> Refusal {
    refused(format!("the archive cannot be read as tar.gz: {error}"))
}

/// What an extension header says about the next entry.
#[derive(Default)]
struct Named {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

struct Unpacker<'a> {
    target: &'a Path,
    limits: Limits,
    files: BTreeSet<PathBuf>,
    bytes: u64,
    entries: usize,
    named: Named,
}

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), Refusal> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(refused(format!("the archive has more than {} entries", self.limits.entries)));
        }
        match entry.header().entry_type() {
            EntryType::GNULongName => self.named.path = Some(long_name(&mut entry)?),
            EntryType::GNULongLink => self.named.link = Some(long_name(&mut entry)?),
            EntryType::XHeader => self.extension(&mut entry)?,
            // `git archive` writes one: a comment with the commit.
            EntryType::XGlobalHeader => {}
            kind => {
                let named = std::mem::take(&mut self.named);
                let path = named.path.unwrap_or_else(|| entry.header().path_bytes().into_owned());
                let link = named.link.or_else(|| entry.header().link_name_bytes().map(std::borrow::Cow::into_owned));
                self.place(kind, &path, link, &mut entry)?;
            }
        }
        Ok(())
    }

    fn extension<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), Refusal> {
        let bytes = small(entry)?;
        for extension in PaxExtensions::new(&bytes) {
            let extension = extension.map_err(damaged)?;
            match extension.key_bytes() {
                b"path" => self.named.path = Some(extension.value_bytes().to_vec()),
                b"linkpath" => self.named.link = Some(extension.value_bytes().to_vec()),
                // It would override the size in the header, which the limit counts.
                b"size" => return Err(refused("the archive holds a file of more than 8 GiB")),
                _ => {}
            }
        }
        Ok(())
    }

    fn place<R: Read>(
        &mut self,
        kind: EntryType,
        path: &[u8],
        link: Option<Vec<u8>>,
        entry: &mut Entry<'_, R>,
    ) -> Result<(), Refusal> {
        let path = safe_path(path)?;
        if path.components().any(|part| SKIPPED.iter().any(|skipped| part.as_os_str() == *skipped)) {
            return Ok(());
        }
        match kind {
            EntryType::Directory => {
                self.real_folder(&path)?;
            }
            EntryType::Regular | EntryType::Continuous => self.file(&path, entry)?,
            EntryType::Symlink => self.link(&path, &link.unwrap_or_default())?,
            EntryType::Link => return Err(refused(format!("{} is a hard link; pack it as a file", path.display()))),
            _ => return Err(refused(format!("{} is neither a file nor a folder", path.display()))),
        }
        Ok(())
    }

    /// Creates a folder below the target. No part of its path may be a link, because a link could lead out of the
    /// target.
    fn real_folder(&self, path: &Path) -> Result<PathBuf, Refusal> {
        let mut folder = self.target.to_path_buf();
        for part in path.components() {
            folder.push(part);
            match fs::symlink_metadata(&folder) {
                Ok(found) if found.is_dir() => {}
                Ok(_) => {
                    return Err(refused(format!("{} leads through something that is not a folder", path.display())));
                }
                Err(_) => fs::create_dir(&folder)?,
            }
        }
        Ok(folder)
    }

    fn fresh(&mut self, path: &Path) -> Result<PathBuf, Refusal> {
        let name = path.file_name().ok_or_else(|| refused("the archive holds a file without a name"))?;
        let full = self.real_folder(path.parent().unwrap_or(Path::new("")))?.join(name);
        // The second check catches file systems on which `A` and `a` are the same name.
        if !self.files.insert(path.to_path_buf()) || fs::symlink_metadata(&full).is_ok() {
            return Err(refused(format!("{} is in the archive twice", path.display())));
        }
        Ok(full)
    }

    fn file<R: Read>(&mut self, path: &Path, entry: &mut Entry<'_, R>) -> Result<(), Refusal> {
        let size = entry.header().entry_size().map_err(damaged)?;
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.unpacked_bytes {
            return Err(refused(format!("the archive holds more than {} bytes", self.limits.unpacked_bytes)));
        }
        let full = self.fresh(path)?;
        let executable = entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
        let mode = if executable { 0o755 } else { 0o644 };
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(full)?;
        copy(entry, &mut file, size)
    }

    /// A link may point to another place in the workspace, never out of it. All folders above the link are real, so
    /// each leading `..` goes up by exactly one. A `..` after a name is refused, because that name may itself be a
    /// link.
    fn link(&mut self, path: &Path, to: &[u8]) -> Result<(), Refusal> {
        let outside = || refused(format!("{} is a link that may lead out of the workspace", path.display()));
        let to = PathBuf::from(std::str::from_utf8(to).map_err(|_| outside())?);
        let mut depth = path.components().count().saturating_sub(1);
        let mut named = false;
        for part in to.components() {
            match part {
                Component::Normal(_) => named = true,
                Component::CurDir => {}
                Component::ParentDir if !named && depth > 0 => depth -= 1,
                _ => return Err(outside()),
            }
        }
        if to.as_os_str().is_empty() {
            return Err(outside());
        }
        symlink(to, self.fresh(path)?)?;
        Ok(())
    }
}

/// Copies exactly `size` bytes. Read errors blame the archive, write errors the disk.
fn copy<R: Read>(from: &mut Entry<'_, R>, to: &mut File, size: u64) -> Result<(), Refusal> {
    use std::io::Write;
    let mut buffer = vec![0; 64 * 1024];
    let mut left = size;
    while left > 0 {
        let count = from.read(&mut buffer).map_err(damaged)?;
        if count == 0 {
            return Err(refused("the archive is cut off"));
        }
        to.write_all(buffer.get(..count).unwrap_or_default())?;
        left = left.saturating_sub(count as u64);
    }
    Ok(())
}

/// The body of an extension header. Real ones are short. Without a limit one header could fill the memory.
fn small<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, Refusal> {
    const MOST: u64 = 64 * 1024;
    let mut bytes = Vec::new();
    entry.take(MOST + 1).read_to_end(&mut bytes).map_err(damaged)?;
    if bytes.len() as u64 > MOST {
        return Err(refused(format!("the archive has a header of more than {MOST} bytes")));
    }
    Ok(bytes)
}

fn long_name<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, Refusal> {
    let mut name = small(entry)?;
    while name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

/// A relative path that stays below its root.
fn safe_path(bytes: &[u8]) -> Result<PathBuf, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|_| refused("a path in the archive is not UTF-8"))?;
    let unsafe_path = || refused(format!("the path {text:?} leads out of the workspace"));
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
#[path = "unpack_tests.rs"]
mod tests;
