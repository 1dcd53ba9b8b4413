//! Reports of a command: removes old ones before it runs, and reads new ones after every process has ended.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use super::bundle::Bundle;
use super::spec::{Found, ReportFile, ReportPath};

/// The limit on one report, and on all that the bundle has when a report is added. They are kept in memory.
const MAX_REPORT_BYTES: u64 = 256 * 1024 * 1024;
/// How many files one path with a pattern may match.
const MAX_MATCHES: usize = 200;
/// How many entries are looked at for one pattern.
const MAX_LOOKED_AT: usize = 200_000;

/// Where reports are: the folder that the runner made, and the workspace.
#[derive(Debug, Clone, Copy)]
pub struct Folders<'a> {
    pub fresh: &'a Path,
    pub workspace: &'a Path,
    /// The file with the standard output.
    pub stdout: &'a Path,
    /// A file that was written just before the command started. Two file times are compared, because the file system's
    /// clock may lag behind the process's clock.
    pub started: &'a Path,
}

impl Folders<'_> {
    /// The folder and the pattern of a report. `None` for standard output.
    fn of<'a>(&'a self, report: &'a ReportPath) -> Option<(&'a Path, &'a str)> {
        match report {
            ReportPath::Stdout => None,
            ReportPath::Fresh(path) => Some((self.fresh, path)),
            ReportPath::Workspace(path) => Some((self.workspace, path)),
        }
    }
}

/// Removes reports that came with the workspace, so that only this run can write them.
pub fn remove_old(reports: &[ReportPath], folders: Folders<'_>) -> io::Result<()> {
    for report in reports {
        // The folder for fresh reports is new.
        let Some((root, pattern)) = folders.of(report).filter(|(root, _)| *root == folders.workspace) else { continue };
        for path in matches(root, pattern)? {
            let full = root.join(&path);
            match fs::symlink_metadata(&full) {
                Ok(found) if found.is_dir() => fs::remove_dir_all(&full)?,
                Ok(_) => fs::remove_file(&full)?,
                Err(_) => {}
            }
        }
    }
    Ok(())
}

/// Puts every report into the bundle, under `prefix`.
pub fn collect(
    reports: &[ReportPath],
    folders: Folders<'_>,
    prefix: &str,
    bundle: &mut Bundle,
) -> io::Result<Vec<ReportFile>> {
    let started = fs::symlink_metadata(folders.started)?.modified()?;
    let mut found = Vec::new();
    for (index, report) in reports.iter().enumerate() {
        let Some((root, pattern)) = folders.of(report) else {
            // A command that printed nothing may have left no file.
            let printed = if folders.stdout.exists() { fs::metadata(folders.stdout)?.len() } else { 0 };
            let what = match printed {
                0 => Found::File { entry: bundle.add(format!("{prefix}/stdout"), Vec::new()) },
                size if size > room(bundle) => too_large(),
                _ => Found::File { entry: bundle.add(format!("{prefix}/stdout"), fs::read(folders.stdout)?) },
            };
            found.push(ReportFile { report: index, path: "stdout".to_owned(), found: what });
            continue;
        };
        let paths = matches(root, pattern)?;
        if paths.is_empty() {
            found.push(ReportFile { report: index, path: pattern.to_owned(), found: Found::Missing });
        }
        for (number, path) in paths.into_iter().enumerate() {
            let what = match read_regular(root, &path, started, room(bundle))? {
                Ok(bytes) => Found::File { entry: bundle.add(format!("{prefix}/{index}-{number}"), bytes) },
                Err(found) => found,
            };
            found.push(ReportFile { report: index, path: path.to_string_lossy().into_owned(), found: what });
        }
    }
    Ok(found)
}

/// How many bytes of reports the bundle still takes.
fn room(bundle: &Bundle) -> u64 {
    MAX_REPORT_BYTES.saturating_sub(bundle.files.values().map(|bytes| bytes.len() as u64).sum())
}

fn too_large() -> Found {
    Found::Refused { why: format!("the reports have more than {MAX_REPORT_BYTES} bytes") }
}

/// Reads a file of at most `limit` bytes if neither it nor one of its folders is a link, and no other name leads to it. All processes of the
/// command have ended, so nothing changes meanwhile.
fn read_regular(root: &Path, path: &Path, started: SystemTime, limit: u64) -> io::Result<Result<Vec<u8>, Found>> {
    let refused = |why: &str| Ok(Err(Found::Refused { why: why.to_owned() }));
    let mut full = root.to_path_buf();
    for part in path.components() {
        full.push(part);
        if fs::symlink_metadata(&full)?.is_symlink() {
            return refused("it is a link, or in a folder that is one");
        }
    }
    let found = fs::symlink_metadata(&full)?;
    if !found.is_file() {
        return refused("it is not a file");
    }
    if found.nlink() > 1 {
        return refused("it has a second name (a hard link)");
    }
    if found.len() > limit {
        return Ok(Err(too_large()));
    }
    if found.modified()? < started {
        return Ok(Err(Found::Stale));
    }
    let mut bytes = Vec::new();
    File::open(&full)?.take(limit).read_to_end(&mut bytes)?;
    Ok(Ok(bytes))
}

/// The paths below `root` that a pattern matches, in order. `*` stands for a part of one name, `**` for any folders.
/// Folders that are links are not entered.
fn matches(root: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let parts: Vec<&str> = Path::new(pattern)
        .components()
        .map(|part| match part {
            Component::Normal(part) => part.to_str().unwrap_or_default(),
            _ => "",
        })
        .collect();
    if parts.is_empty() || parts.contains(&"") {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the report path {pattern:?} is not relative"),
        ));
    }
    let mut found = Vec::new();
    let mut left = MAX_LOOKED_AT;
    visit(root, Path::new(""), &parts, &mut found, &mut left)?;
    found.sort();
    found.dedup();
    Ok(found)
}

fn visit(root: &Path, folder: &Path, parts: &[&str], found: &mut Vec<PathBuf>, left: &mut usize) -> io::Result<()> {
    let Some((part, rest)) = parts.split_first() else { return Ok(()) };
    if !part.contains('*') {
        let path = folder.join(part);
        return enter(root, path, rest, found, left);
    }
    if *part == "**" {
        visit(root, folder, rest, found, left)?;
    }
    let Ok(entries) = fs::read_dir(root.join(folder)) else { return Ok(()) };
    for entry in entries {
        *left = left.checked_sub(1).ok_or_else(|| io::Error::other("a report path matches too many folders"))?;
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if *part == "**" {
            if entry.file_type()?.is_dir() && !crate::snapshot::SKIPPED.contains(&name) {
                visit(root, &folder.join(name), parts, found, left)?;
            }
        } else if matches_name(part, name) {
            enter(root, folder.join(name), rest, found, left)?;
        }
    }
    Ok(())
}

fn enter(root: &Path, path: PathBuf, rest: &[&str], found: &mut Vec<PathBuf>, left: &mut usize) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(root.join(&path)) else { return Ok(()) };
    if rest.is_empty() {
        if found.len() >= MAX_MATCHES {
            return Err(io::Error::other(format!("a report path matches more than {MAX_MATCHES} files")));
        }
        found.push(path);
    } else if metadata.is_dir() {
        visit(root, &path, rest, found, left)?;
    } else if metadata.is_symlink() {
        // Reported as refused, not as missing.
        found.push(path);
    }
    Ok(())
}

/// Whether a name matches a pattern with `*`.
fn matches_name(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = rest.get(at + piece.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Sample {
        fresh: tempfile::TempDir,
        workspace: tempfile::TempDir,
        marker: tempfile::NamedTempFile,
    }

    impl Sample {
        fn new(files: &[&str]) -> Self {
            let marker = tempfile::NamedTempFile::new().unwrap();
            let sample = Self { fresh: tempfile::tempdir().unwrap(), workspace: tempfile::tempdir().unwrap(), marker };
            for path in files {
                sample.write(path);
            }
            sample
        }

        fn write(&self, path: &str) {
            let path = self.workspace.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "report").unwrap();
        }

        fn folders(&self) -> Folders<'_> {
            let marker = self.marker.path();
            Folders { fresh: self.fresh.path(), workspace: self.workspace.path(), stdout: marker, started: marker }
        }

        fn collect(&self, pattern: &str) -> Vec<ReportFile> {
            collect(&[ReportPath::Workspace(pattern.into())], self.folders(), "reports", &mut Bundle::default())
                .unwrap()
        }
    }

    #[test]
    fn reports_of_every_package_are_found_but_not_those_of_dependencies() {
        let sample = Sample::new(&["coverage/c.json", "p/a/coverage/c.json", "node_modules/x/coverage/c.json"]);
        let found = sample.collect("**/coverage/c.json");
        let paths: Vec<&str> = found.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["coverage/c.json", "p/a/coverage/c.json"]);
        assert!(found.iter().all(|file| matches!(file.found, Found::File { .. })));
    }

    #[test]
    fn an_old_report_is_removed_before_the_run() {
        let sample = Sample::new(&["coverage/c.json", "src/c.json"]);
        let reports = [ReportPath::Workspace("coverage/*.json".into()), ReportPath::Fresh("x.xml".into())];
        remove_old(&reports, sample.folders()).unwrap();
        assert_eq!(sample.collect("coverage/*.json")[0].found, Found::Missing);
        assert!(sample.workspace.path().join("src/c.json").exists());
    }

    #[test]
    fn a_link_a_second_name_and_a_folder_are_refused() {
        let sample = Sample::new(&["real/c.json", "folder/c.json/x"]);
        let root = sample.workspace.path();
        symlink("real/c.json", root.join("link.json")).unwrap();
        symlink("real", root.join("linked")).unwrap();
        fs::hard_link(root.join("real/c.json"), root.join("second.json")).unwrap();
        for path in ["link.json", "linked/c.json", "second.json", "folder/c.json"] {
            assert!(matches!(sample.collect(path)[0].found, Found::Refused { .. }), "{path}");
        }
    }

    #[test]
    fn reports_that_are_too_large_together_are_refused() {
        let sample = Sample::new(&["a.xml", "b.xml"]);
        for name in ["a.xml", "b.xml"] {
            let file = File::options().write(true).open(sample.workspace.path().join(name)).unwrap();
            file.set_len(MAX_REPORT_BYTES / 2 + 1).unwrap();
        }
        let found = sample.collect("*.xml");
        assert!(matches!(found[0].found, Found::File { .. }));
        assert!(matches!(&found[1].found, Found::Refused { why } if why.contains("the reports have more than")));
    }

    #[test]
    fn a_report_from_before_the_command_is_stale() {
        let sample = Sample::new(&["coverage/c.json"]);
        let file = File::options().write(true).open(sample.workspace.path().join("coverage/c.json")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(sample.collect("coverage/c.json")[0].found, Found::Stale);
    }

    #[test]
    fn a_path_that_leaves_the_workspace_is_an_error() {
        let sample = Sample::new(&[]);
        for path in ["../x", "/etc/passwd", "a/../../x", ""] {
            let reports = [ReportPath::Workspace(path.into())];
            assert!(collect(&reports, sample.folders(), "r", &mut Bundle::default()).is_err(), "{path}");
        }
    }

    #[test]
    fn a_star_stands_for_a_part_of_a_name() {
        for (pattern, name, expected) in [
            ("*.xml", "a.xml", true),
            ("TEST-*.xml", "TEST-a.b.xml", true),
            ("a*b*c", "a1b2c", true),
            ("a*", "b", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches_name(pattern, name), expected, "{pattern} {name}");
        }
    }
}
