use std::os::unix::fs::symlink;

use super::*;

/// A workspace with an installation, as npm leaves it, that was kept once.
struct Kept {
    work: tempfile::TempDir,
    pool: Pool,
}

impl Kept {
    fn new() -> Self {
        let work = tempfile::tempdir().unwrap();
        let kept = Self { pool: Pool::new(work.path().join("installs"), 4), work };
        kept.install();
        kept
    }

    fn install(&self) {
        let target = self.target();
        fs::create_dir_all(target.join("a")).unwrap();
        fs::create_dir(target.join(".bin")).unwrap();
        fs::write(target.join("a/index.js"), "good").unwrap();
        symlink("../a/index.js", target.join(".bin/a")).unwrap();
        let lent = Pool::note("key".into(), &target).unwrap();
        self.pool.give_back(lent, &target).unwrap();
        assert!(!target.exists());
    }

    fn target(&self) -> PathBuf {
        self.work.path().join("node_modules")
    }

    fn lend(&self) -> Option<Lent> {
        self.pool.lend("key", &self.target()).unwrap()
    }

    fn kept_file(&self) -> PathBuf {
        let place = fs::read_dir(self.work.path().join("installs/key")).unwrap().next().unwrap().unwrap().path();
        place.join("node_modules/a/index.js")
    }
}

/// Keeps the length, and sets the modification time back.
fn tamper(file: &Path) {
    let modified = fs::metadata(file).unwrap().modified().unwrap();
    fs::write(file, "evil").unwrap();
    fs::File::options().write(true).open(file).unwrap().set_modified(modified).unwrap();
}

#[test]
fn an_installation_is_lent_to_one_at_a_time_and_comes_back() {
    let kept = Kept::new();
    let lent = kept.lend().unwrap();
    assert_eq!(fs::read_to_string(kept.target().join(".bin/a")).unwrap(), "good");
    assert!(kept.pool.lend("key", &kept.work.path().join("other")).unwrap().is_none());
    kept.pool.give_back(lent, &kept.target()).unwrap();
    assert!(kept.lend().is_some());
}

#[test]
fn what_tests_changed_is_not_kept() {
    let kept = Kept::new();
    let lent = kept.lend().unwrap();
    tamper(&kept.target().join("a/index.js"));
    kept.pool.give_back(lent, &kept.target()).unwrap();
    fs::remove_dir_all(kept.target()).unwrap();
    assert!(kept.lend().is_none());
}

#[test]
fn what_tests_removed_or_replaced_is_not_kept() {
    let changes: [fn(&Path); 3] = [
        |target| fs::remove_file(target.join(".bin/a")).unwrap(),
        |target| {
            fs::write(target.join("b"), "good").unwrap();
            fs::rename(target.join("b"), target.join("a/index.js")).unwrap();
        },
        |target| {
            fs::rename(target, target.with_extension("away")).unwrap();
            symlink(target.with_extension("away"), target).unwrap();
        },
    ];
    for change in changes {
        let kept = Kept::new();
        let lent = kept.lend().unwrap();
        change(&kept.target());
        kept.pool.give_back(lent, &kept.target()).unwrap();
        assert!(kept.pool.lend("key", &kept.work.path().join("next")).unwrap().is_none());
    }
}

#[test]
fn what_tests_added_is_removed_and_the_rest_is_kept() {
    let kept = Kept::new();
    let lent = kept.lend().unwrap();
    fs::create_dir_all(kept.target().join(".vite/vitest")).unwrap();
    fs::write(kept.target().join(".vite/vitest/results.json"), "{}").unwrap();
    fs::write(kept.target().join("a/added.js"), "evil").unwrap();
    kept.pool.give_back(lent, &kept.target()).unwrap();
    assert!(kept.lend().is_some());
    assert!(!kept.target().join(".vite").exists() && !kept.target().join("a/added.js").exists());
}

#[test]
fn an_installation_that_was_changed_while_kept_is_not_lent_whatever_its_manifest_says() {
    let kept = Kept::new();
    let file = kept.kept_file();
    tamper(&file);
    let root = file.parent().unwrap().parent().unwrap();
    fs::write(root.parent().unwrap().join("manifest"), digest(&manifest(root, 100).unwrap())).unwrap();
    assert!(kept.lend().is_none());
    assert!(!kept.target().exists() && !file.exists());
}

#[test]
fn an_installation_survives_a_restart_only_with_its_manifest() {
    let mut kept = Kept::new();
    kept.pool = Pool::new(kept.work.path().join("installs"), 4);
    let lent = kept.lend().unwrap();
    kept.pool.give_back(lent, &kept.target()).unwrap();
    kept.pool = Pool::new(kept.work.path().join("installs"), 4);
    fs::write(kept.kept_file().parent().unwrap().parent().unwrap().with_file_name("manifest"), "").unwrap();
    assert!(kept.lend().is_none());
}

#[test]
fn only_so_many_installations_are_kept() {
    let mut kept = Kept::new();
    kept.pool.most = 2;
    kept.install();
    kept.install();
    assert_eq!(fs::read_dir(kept.work.path().join("installs/key")).unwrap().count(), 2);
}
