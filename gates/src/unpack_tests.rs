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
    let target = work.path().join("target");
    match unpack(packed, &target, LIMITS, &|| Ok(())) {
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
    let why = try_unpack(&pack(&[(EntryType::GNULongName, "././@LongLink", &name), (FILE, "short", "x")])).unwrap_err();
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
    let work =
        try_unpack(&pack(&[(FILE, "a", "x"), (FILE, "p/node_modules/b/c.js", "evil"), (FILE, ".git/config", "evil")]))
            .unwrap();
    assert!(!work.path().join("target/p/node_modules").exists() && !work.path().join("target/.git").exists());
}

/// A tar without gzip.
fn tar_of(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
    let mut tar = Vec::new();
    MultiGzDecoder::new(pack(entries).as_slice()).read_to_end(&mut tar).unwrap();
    tar
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A header with more names, as `pax` writes it.
fn pax(key: &str, value: &str) -> String {
    let record = |length: usize| format!("{length} {key}={value}\n");
    let mut length = record(0).len();
    while record(length).len() != length {
        length = record(length).len();
    }
    record(length)
}

#[test]
fn a_wrong_checksum_is_refused() {
    let good = pack(&[(FILE, "a", "hello")]);
    for from_end in [1, 5, 8] {
        let mut bad = good.clone();
        let at = bad.len() - from_end;
        bad[at] ^= 1;
        assert!(try_unpack(&bad).unwrap_err().contains("cannot be read"), "byte {from_end} from the end");
    }
    let bad = &good[..good.len() - 4];
    assert!(try_unpack(bad).unwrap_err().contains("cannot be read"));
}

#[test]
fn data_after_the_end_is_refused() {
    let (first, second) = (tar_of(&[(FILE, "a", "x")]), tar_of(&[(FILE, "b", "evil")]));
    assert!(try_unpack(&gzip(&[first.clone(), second.clone()].concat())).unwrap_err().contains("after its end"));
    // The same in a second member of gzip, and without gzip.
    assert!(try_unpack(&[gzip(&first), gzip(&second)].concat()).unwrap_err().contains("after its end"));
    assert!(try_unpack(&[gzip(&first), second].concat()).unwrap_err().contains("cannot be read"));
    let late = [first.as_slice(), &vec![0; 70_000], b"x"].concat();
    assert!(try_unpack(&gzip(&late)).unwrap_err().contains("after its end"));
    let endless = [first.as_slice(), &vec![0; 1_100_000]].concat();
    assert!(try_unpack(&gzip(&endless)).unwrap_err().contains("padding"));
    try_unpack(&gzip(&[first.as_slice(), &[0; 9216]].concat())).unwrap();
}

#[test]
fn an_archive_is_not_cut_at_the_limit() {
    let limits = Limits { unpacked_bytes: 1, entries: 2 };
    let work = tempfile::tempdir().unwrap();
    let many = vec![0; 2 * usize::try_from(MAX_PADDING).unwrap()];
    let entries = [tar_of(&[(FILE, "a", "x")])[..1024].to_vec(), many].concat();
    let refused = unpack(&gzip(&entries), work.path(), limits, &|| Ok(()));
    assert!(matches!(refused, Err(WorkspaceError::Archive(_))), "{refused:?}");
}

#[test]
fn a_name_that_no_file_system_stores_is_refused_and_named() {
    let wide = "x".repeat(256);
    let deep = "d/".repeat(64) + "a";
    for (name, why) in [
        (wide.as_str(), "256 bytes"),
        (&deep, "65 levels"),
        (&"12345678/".repeat(101), "908 bytes"),
        ("a\nb", "control"),
        (".Git/config", ".git on some"),
    ] {
        let message = try_unpack(&pack(&[(EntryType::GNULongName, "l", name), (FILE, "a", "x")])).unwrap_err();
        assert!(message.contains(why), "{message}");
        let start: String = name.chars().take(5).collect();
        assert!(message.contains(format!("{start:?}").trim_matches('"')), "{message}");
    }
}

#[test]
fn names_that_differ_only_in_case_are_refused() {
    for (one, other) in [("src/a", "src/A"), ("src/a", "SRC/b"), ("Ü", "ü")] {
        let message = try_unpack(&pack(&[(FILE, one, "x"), (FILE, other, "y")])).unwrap_err();
        assert!(message.contains("only in case") && message.contains(other), "{message}");
    }
}

#[test]
fn an_entry_with_two_meanings_is_refused() {
    let x = EntryType::XHeader;
    let with_body = |kind, body: &str| {
        let mut builder = Builder::new(Vec::new());
        builder.append(&header(kind, "h", body.len(), ""), body.as_bytes()).unwrap();
        builder.append(&header(FILE, "a", 1, ""), b"x".as_slice()).unwrap();
        try_unpack(&gzip(&builder.into_inner().unwrap()))
    };
    for (kind, body, why) in [
        (x, pax("size", "9"), "8 GiB"),
        (x, pax("GNU.sparse.name", "b"), "sparse"),
        (x, pax("path", "b") + &pax("path", "c"), "two names"),
        (x, pax("path", "../b"), "leaves"),
        (EntryType::XGlobalHeader, pax("path", "b"), "global header"),
        (EntryType::XGlobalHeader, pax("size", "0"), "global header"),
    ] {
        let message = with_body(kind, &body).unwrap_err();
        assert!(message.contains(why), "{message}");
    }
    with_body(EntryType::XGlobalHeader, &pax("comment", "of git")).unwrap();
    assert!(try_unpack(&pack(&[(FILE, "a/", "")])).unwrap_err().contains("slash"));
    let mut lost = Builder::new(Vec::new());
    lost.append(&header(FILE, "a", 1, ""), b"x".as_slice()).unwrap();
    lost.append(&header(EntryType::GNULongName, "l", 1, ""), b"y".as_slice()).unwrap();
    assert!(try_unpack(&gzip(&lost.into_inner().unwrap())).unwrap_err().contains("no entry"));
}

#[test]
fn folders_are_limited_like_entries() {
    let deep: Vec<String> = (0..2).map(|number| format!("{number}/{}", "d/".repeat(12))).collect();
    let entries: Vec<_> = deep
        .iter()
        .flat_map(|path| [(EntryType::GNULongName, "l", path.as_str()), (EntryType::Directory, "a", "")])
        .collect();
    assert!(try_unpack(&pack(&entries)).unwrap_err().contains("20 folders"));
}

#[test]
fn a_cancelled_attempt_stops() {
    let work = tempfile::tempdir().unwrap();
    let packed = pack(&[(FILE, "a", "x")]);
    let stopped = unpack(&packed, work.path(), LIMITS, &|| Err(io::ErrorKind::Interrupted.into()));
    assert!(matches!(stopped, Err(WorkspaceError::Io(_))) && fs::read_dir(work.path()).unwrap().count() == 0);
}
