//! The files of a tar archive, perhaps compressed with gzip. Nothing is written to a disk, and whoever packed the archive is
//! not trusted: what is read of it and what is kept of it is bounded.

use std::io::Read;

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entry, EntryType};

/// Bytes that are unpacked.
const UNPACKED_BYTES: u64 = 32 << 20;
/// Files that are listed. The others are only counted.
const LISTED: usize = 200;
/// Characters of a path.
const PATH: usize = 300;

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The first files, in the order of the archive.
    pub files: Vec<PackedFile>,
    /// All files and links that were found, and their bytes as the archive says.
    pub count: u64,
    pub bytes: u64,
    pub end: End,
}

/// A file or a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedFile {
    pub path: String,
    pub size_bytes: u64,
    /// What a link points to.
    pub target: Option<String>,
}

/// How the list ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// At the end of the archive.
    Whole,
    /// Where the part of the archive ends that was read or unpacked.
    Cut,
    /// Where the archive cannot be read further.
    Damaged,
}

impl Listing {
    /// Lists the files of an archive, or of its beginning if it is not `is_whole`. It computes for a while, so it must not
    /// run beside other futures.
    pub fn of(bytes: &[u8], is_whole: bool) -> Self {
        let plain: Box<dyn Read + '_> =
            if bytes.starts_with(b"\x1f\x8b") { Box::new(MultiGzDecoder::new(bytes)) } else { Box::new(bytes) };
        let mut archive = Archive::new(plain.take(UNPACKED_BYTES));
        let mut listing = Self { files: Vec::new(), count: 0, bytes: 0, end: End::Whole };
        let read = archive
            .entries()
            .and_then(|mut entries| entries.try_for_each(|entry| entry.map(|entry| listing.add(&entry))));
        let is_out_of_room = archive.into_inner().limit() == 0;
        if read.is_err() || is_out_of_room {
            listing.end = if is_whole && !is_out_of_room { End::Damaged } else { End::Cut };
        }
        listing
    }

    fn add<R: Read>(&mut self, entry: &Entry<'_, R>) {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::Directory | EntryType::XGlobalHeader) {
            return;
        }
        self.count += 1;
        self.bytes = self.bytes.saturating_add(entry.size());
        if self.files.len() < LISTED {
            let target = entry.link_name_bytes().filter(|target| !target.is_empty());
            self.files.push(PackedFile {
                path: shortened(&entry.path_bytes()),
                size_bytes: entry.size(),
                target: target.map(|target| shortened(&target)),
            });
        }
    }
}

/// The beginning of a name, which may have megabytes and may be no UTF-8.
fn shortened(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name.get(..4 * (PATH + 1)).unwrap_or(name));
    match text.char_indices().nth(PATH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::{Builder, Header};

    use super::*;

    fn header(kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        header
    }

    fn packed(tar: &[u8]) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(tar).unwrap();
        gzip.finish().unwrap()
    }

    fn tar(files: &[(&str, usize)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (path, size) in files {
            let mut header = header(EntryType::Regular, *size as u64);
            builder.append_data(&mut header, path, vec![b'x'; *size].as_slice()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn files_and_links_are_listed_and_folders_are_not() {
        let mut builder = Builder::new(Vec::new());
        builder.append_data(&mut header(EntryType::Directory, 0), "src", io::empty()).unwrap();
        builder.append_data(&mut header(EntryType::Regular, 3), "src/a.ts", b"abc".as_slice()).unwrap();
        builder.append_link(&mut header(EntryType::Symlink, 0), "b", "src/a.ts").unwrap();
        let long = "d/".repeat(100) + "e";
        builder.append_data(&mut header(EntryType::Regular, 0), &long, io::empty()).unwrap();
        let tar = builder.into_inner().unwrap();
        let file = |path: &str, size_bytes, target: Option<&str>| PackedFile {
            path: path.into(),
            size_bytes,
            target: target.map(Into::into),
        };
        let files = vec![file("src/a.ts", 3, None), file("b", 0, Some("src/a.ts")), file(&long, 0, None)];
        let expected = Listing { files, count: 3, bytes: 3, end: End::Whole };
        assert_eq!(Listing::of(&packed(&tar), true), expected);
        assert_eq!(Listing::of(&tar, true), expected);
    }

    #[test]
    fn the_beginning_of_an_archive_is_listed_and_damage_is_said() {
        // What gzip cannot shorten, so that half of the bytes are about half of the files.
        let mut builder = Builder::new(Vec::new());
        let noise: Vec<u8> =
            (0_u32..40_000).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for (number, part) in noise.chunks(16_000).enumerate() {
            builder.append_data(&mut header(EntryType::Regular, 16_000), format!("f{number}"), part).unwrap();
        }
        let whole = packed(&builder.into_inner().unwrap());
        let half = &whole[..whole.len() / 2];
        let cut = Listing::of(half, false);
        assert!(cut.end == End::Cut && (2..9).contains(&cut.count), "{cut:?}");
        assert_eq!(Listing::of(half, true), Listing { end: End::Damaged, ..cut });
        let no_archive = Listing::of(&packed(b"only text"), true);
        assert_eq!((no_archive.count, no_archive.end), (0, End::Damaged));
        assert_eq!(Listing::of(b"\x1f\x8b", true).end, End::Damaged);
    }

    #[test]
    fn a_bomb_is_unpacked_only_so_far() {
        // A gibibyte that takes a megabyte.
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        let (mut first, zeros) = (header(EntryType::Regular, 1 << 30), vec![0; 1 << 20]);
        first.set_path("zeros").unwrap();
        first.set_cksum();
        gzip.write_all(first.as_bytes()).unwrap();
        (0..64).for_each(|_| gzip.write_all(&zeros).unwrap());
        let bomb = gzip.finish().unwrap();
        assert!(bomb.len() < 1 << 20);
        let listing = Listing::of(&bomb, true);
        assert_eq!((listing.count, listing.bytes, listing.end), (1, 1 << 30, End::Cut));
    }

    #[test]
    fn many_files_and_long_or_hostile_names_are_bounded() {
        let names: Vec<String> = (0..LISTED + 50).map(|number| format!("f{number}")).collect();
        let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let listing = Listing::of(&tar(&files), true);
        assert_eq!((listing.files.len(), listing.count), (LISTED, LISTED as u64 + 50));

        let mut builder = Builder::new(Vec::new());
        let name = b"../\xff\xfe".repeat(100_000);
        builder.append(&header(EntryType::GNULongName, name.len() as u64), name.as_slice()).unwrap();
        builder.append(&header(EntryType::Regular, u64::from(u32::MAX)), io::empty()).unwrap();
        let listing = Listing::of(&packed(&builder.into_inner().unwrap()), true);
        let path = &listing.files[0].path;
        assert!(path.starts_with("../\u{fffd}") && path.ends_with('…') && path.chars().count() == PATH + 1);
        assert_eq!(listing.end, End::Damaged, "the bytes that it promises are missing");
    }
}
