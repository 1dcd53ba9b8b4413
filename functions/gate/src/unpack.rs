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
            Err(Refusal::Archive(why)) => Err(why),
            Err(other) => panic!("{other}"),
        }
    }

    const FILE: EntryType = EntryType::Regular;
    const LINK: EntryType = EntryType::Symlink;

    #[test]
    fn files_folders_and_links_inside_are_unpacked() {
        let work = try_unpack(&pack(&[
            (EntryType::Directory, "./", ""),
            (FILE, "./a/b.txt", "hello"),
            (LINK, "a/c", "../a/b.txt"),
        ]))
        .unwrap();
        assert_eq!(fs::read_to_string(work.path().join("target/a/c")).unwrap(), "hello");
    }

    #[test]
    fn a_path_out_of_the_workspace_is_refused() {
        for path in ["../evil", "a/../../evil", "/etc/evil", "a\\..\\..\\evil"] {
            let why = try_unpack(&pack(&[(FILE, path, "x")])).unwrap_err();
            assert!(why.contains("leads out"), "{path}: {why}");
        }
    }

    #[test]
    fn a_long_name_is_checked_like_a_short_one() {
        let name = format!("{}../../../../evil", "a/../".repeat(30));
        let why =
            try_unpack(&pack(&[(EntryType::GNULongName, "././@LongLink", &name), (FILE, "short", "x")])).unwrap_err();
        assert!(why.contains("leads out"), "{why}");
    }

    #[test]
    fn a_link_out_of_the_workspace_is_refused() {
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
    fn devices_hard_links_and_doubles_are_refused() {
        for kind in [EntryType::Fifo, EntryType::Char, EntryType::Block, EntryType::Link] {
            assert!(try_unpack(&pack(&[(FILE, "b", "x"), (kind, "a", "b")])).is_err(), "{kind:?}");
        }
        assert!(try_unpack(&pack(&[(FILE, "a", "x"), (FILE, "./a", "y")])).unwrap_err().contains("twice"));
    }

    #[test]
    fn too_many_bytes_or_entries_are_refused_without_being_written() {
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
    fn what_is_no_archive_is_refused() {
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
    fn dependencies_in_the_archive_are_left_out() {
        let work = try_unpack(&pack(&[
            (FILE, "a", "x"),
            (FILE, "p/node_modules/b/c.js", "evil"),
            (FILE, ".git/config", "evil"),
        ]))
        .unwrap();
        assert!(!work.path().join("target/p/node_modules").exists() && !work.path().join("target/.git").exists());
    }
}
