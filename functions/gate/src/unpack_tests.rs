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
    let why = try_unpack(&pack(&[(EntryType::GNULongName, "././@LongLink", &name), (FILE, "short", "x")])).unwrap_err();
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
    let work =
        try_unpack(&pack(&[(FILE, "a", "x"), (FILE, "p/node_modules/b/c.js", "evil"), (FILE, ".git/config", "evil")]))
            .unwrap();
    assert!(!work.path().join("target/p/node_modules").exists() && !work.path().join("target/.git").exists());
}
