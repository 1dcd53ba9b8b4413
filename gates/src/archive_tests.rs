use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use shared::domain::digest::sha256_hex;

use super::*;
use crate::unpack::unpack;

fn write(root: &Path, path: &str, content: impl AsRef<[u8]>) {
    let full = root.join(path);
    fs::create_dir_all(full.parent().unwrap()).unwrap();
    fs::write(full, content).unwrap();
}

fn executable(root: &Path, path: &str) {
    fs::set_permissions(root.join(path), fs::Permissions::from_mode(0o700)).unwrap();
}

fn packed(root: &Path) -> Result<Vec<u8>, String> {
    pack(&sources(&Snapshot::take(root).unwrap()), Limits::default()).map_err(|error| error.to_string())
}

fn sample() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "src/a.ts", "a");
    write(root.path(), "src-b", "b");
    write(root.path(), "run.sh", "#!/bin/sh\n");
    write(root.path(), &format!("{}/x", "long-name-".repeat(20)), "");
    executable(root.path(), "run.sh");
    symlink("../run.sh", root.path().join("src/link")).unwrap();
    root
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let one = sample();
    let first = packed(one.path()).unwrap();
    let two = tempfile::tempdir().unwrap();
    unpack(&first, two.path(), Limits::default(), &|| Ok(())).unwrap();
    write(two.path(), "node_modules/a/b.js", "x");
    write(two.path(), ".git/config", "x");
    fs::create_dir(two.path().join("empty")).unwrap();
    fs::set_permissions(two.path().join("src/a.ts"), fs::Permissions::from_mode(0o600)).unwrap();
    let old = File::options().write(true).open(two.path().join("src-b")).unwrap();
    old.set_modified(UNIX_EPOCH + Duration::from_secs(1000)).unwrap();
    assert_eq!(packed(two.path()).unwrap(), first);
    assert_eq!(Snapshot::take(one.path()).unwrap().digest(), Snapshot::take(two.path()).unwrap().digest());
    executable(two.path(), "src/a.ts");
    assert_ne!(packed(two.path()).unwrap(), first);
}

#[test]
fn the_bytes_do_not_change_with_a_release_of_a_library() {
    // If this fails after an update, the same tree gets another archive than before. That breaks nothing, because verdicts
    // belong to tree digests, but say so in the commit.
    assert_eq!(
        sha256_hex(&packed(sample().path()).unwrap()),
        "92d2f193716f3d5edadaef14e0957f0ffdb2a2c0df1d85fe8b27a41ee977cd21"
    );
}

#[test]
fn what_unpack_refuses_is_not_packed() {
    let links: [(&str, &str); 3] = [("a", "/etc/passwd"), ("a", "../b"), ("d/a", "../../b")];
    for (path, target) in links {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "d/x", "x");
        symlink(target, root.path().join(path)).unwrap();
        assert!(packed(root.path()).unwrap_err().contains("outside the workspace"), "{target}");
    }
    for (one, other, why) in
        [("a", "A", "only in case"), ("a\nb", "c", "control"), (".Git/a", "c", ".git on"), ("a\\b", "c", "leaves")]
    {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), one, "x");
        write(root.path(), other, "y");
        assert!(packed(root.path()).unwrap_err().contains(why), "{one:?}");
    }
    assert!(packed(tempfile::tempdir().unwrap().path()).unwrap_err().contains("no files"));
}

#[test]
fn a_file_and_a_folder_of_one_name_are_refused() {
    let (base, overlay) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(base.path(), "a/b", "x");
    write(overlay.path(), "a", "y");
    let (base, overlay) = (Snapshot::take(base.path()).unwrap(), Snapshot::take(overlay.path()).unwrap());
    let mut files = sources(&base);
    files.extend(sources(&overlay));
    assert!(pack(&files, Limits::default()).unwrap_err().to_string().contains("a is a file, and a/b needs a folder"));
}

#[test]
fn limits_hold() {
    let root = sample();
    let snapshot = Snapshot::take(root.path()).unwrap();
    for (limits, why) in [
        (Limits { entries: 4, ..Limits::default() }, "more than 4 files"),
        (Limits { unpacked_bytes: 5, ..Limits::default() }, "more than 5 bytes"),
    ] {
        assert!(pack(&sources(&snapshot), limits).unwrap_err().to_string().contains(why));
    }
}

#[test]
fn a_file_that_changes_meanwhile_is_noticed() {
    let root = sample();
    let snapshot = Snapshot::take(root.path()).unwrap();
    for content in ["b", "", "ab"] {
        fs::write(root.path().join("src/a.ts"), content).unwrap();
        let refused = pack(&sources(&snapshot), Limits::default());
        assert!(refused.is_err(), "{content:?}");
    }
}

#[test]
fn an_archive_ends_at_the_limit_of_packed_bytes() {
    let root = sample();
    let snapshot = Snapshot::take(root.path()).unwrap();
    let size = packed(root.path()).unwrap().len() as u64;
    assert!(pack_within(&sources(&snapshot), Limits::default(), size).is_ok());
    for most in [0, 10, size - 1] {
        let refused = pack_within(&sources(&snapshot), Limits::default(), most).unwrap_err().to_string();
        assert!(refused.contains(&format!("more than {most} bytes")), "{refused}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn unpack_reads_back_what_pack_wrote(files in prop::collection::btree_map("[a-z]{1,3}(/[A-Za-z0-9._-]{1,120}){0,3}", any::<Vec<u8>>(), 1..8)) {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in &files {
            let full = root.path().join(path);
            // A name may be taken as a file or as a folder.
            if fs::create_dir_all(full.parent().unwrap()).is_ok() && !full.exists() {
                let _ = fs::write(full, content);
            }
        }
        let before = Snapshot::take(root.path()).unwrap();
        if let Ok(archive) = pack(&sources(&before), Limits::default()) {
            let target = tempfile::tempdir().unwrap();
            unpack(&archive, target.path(), Limits::default(), &|| Ok(())).unwrap();
            let after = Snapshot::take(target.path()).unwrap();
            prop_assert_eq!(after.files(), before.files());
            prop_assert_eq!(pack(&sources(&after), Limits::default()).unwrap(), archive);
        }
    }
}
