//! Notices when a file changes from which functions are built.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::report;

/// How often the files are looked at. One look takes some milliseconds. The alternative, a watch of the system for each folder
/// in each host of functions, reaches the limits of small machines.
const PERIOD: Duration = Duration::from_millis(500);
/// What no function is built from, beside hidden files: below the checkout's root, and anywhere.
const OTHER: [&str; 9] = ["target", "cli", "docs", "local", "perf", "tests", "migrations", "supabase", "localstack"];
const NOWHERE: [&str; 3] = ["node_modules", "target", "tests"];

/// Files with their sizes and times, as one number.
type State = u64;
/// Path, bytes and time of the last change.
type File = (PathBuf, u64, Option<SystemTime>);

/// What the last looks saw.
#[derive(Debug, Default)]
struct Seen {
    /// What was built last.
    built: Option<State>,
    last: Option<State>,
}

impl Seen {
    /// Whether the files must be built again. The first state is built anyway.
    fn is_change(&mut self, state: State) -> bool {
        let is_settled = self.last.replace(state) == Some(state);
        is_settled && self.built != Some(state) && self.built.replace(state).is_some()
    }
}

/// Counts the changes of the files below `root` while the receiver exists. Files that are being written count once, when
/// they stay the same for a period.
pub fn poll(root: &Path) -> watch::Receiver<u64> {
    let (sender, receiver) = watch::channel(0);
    let root = root.to_owned();
    tokio::spawn(async move {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = Seen::default();
        loop {
            tokio::select! {
                () = sender.closed() => return,
                _ = ticks.tick() => {}
            }
            let dir = root.clone();
            let Ok(state) = tokio::task::spawn_blocking(move || read(&dir)).await else { return };
            if seen.is_change(state) {
                report::line("reload", "a file has changed: the functions are built again");
                sender.send_modify(|changes| *changes += 1);
            }
        }
    });
    receiver
}

/// Changes never.
pub fn none() -> watch::Receiver<u64> {
    watch::channel(0).1
}

fn read(root: &Path) -> State {
    let mut files = BTreeSet::new();
    add(root, &|name| OTHER.contains(&name), &mut files);
    let mut hasher = DefaultHasher::new();
    files.hash(&mut hasher);
    hasher.finish()
}

fn add(dir: &Path, is_other: &dyn Fn(&str) -> bool, files: &mut BTreeSet<File>) {
    // A folder that was just removed has no files.
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.') && !is_other(name)) else { continue };
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            add(&entry.path(), &|name| NOWHERE.contains(&name), files);
        } else if metadata.is_file() && Path::new(name).extension() != Some("md".as_ref()) {
            files.insert((entry.path(), metadata.len(), metadata.modified().ok()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn only_files_of_functions_count() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "functions/echo/src/lib.rs", "a");
        let before = read(dir.path());
        for path in [
            "target/debug/echo",
            ".git/HEAD",
            ".local/log",
            "cli/src/lib.rs",
            "docs/plans.md",
            "functions/node_modules/a.js",
            "functions/echo/.lib.rs.swp",
            "shared/tests/it.rs",
            "functions/README.md",
        ] {
            write(dir.path(), path, "changed");
            assert_eq!(read(dir.path()), before, "{path}");
        }
        for path in ["functions/echo/src/lib.rs", "shared/src/lib.rs", "Cargo.toml", "functions/console/assets/app.css"]
        {
            let before = read(dir.path());
            write(dir.path(), path, "changed");
            assert_ne!(read(dir.path()), before, "{path}");
        }
        let before = read(dir.path());
        fs::remove_file(dir.path().join("shared/src/lib.rs")).unwrap();
        assert_ne!(read(dir.path()), before, "a removed file");
    }

    #[test]
    fn a_later_time_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "functions/echo/src/lib.rs", "a");
        let before = read(dir.path());
        let file = fs::File::options().write(true).open(dir.path().join("functions/echo/src/lib.rs")).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(10)).unwrap();
        assert_ne!(read(dir.path()), before);
    }

    #[test]
    fn a_change_counts_once_when_it_is_complete() {
        let mut seen = Seen::default();
        let mut is_change = |state| seen.is_change(state);
        assert_eq!([1, 1, 1].map(&mut is_change), [false; 3], "the first state");
        assert_eq!([2, 3, 3, 3].map(&mut is_change), [false, false, true, false], "a file that is being written");
        assert_eq!([4, 3, 3].map(&mut is_change), [false; 3], "a file that was put back at once");
    }
}
