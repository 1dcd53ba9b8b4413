//! Unit tests are at the end of their file. If both together have more than 400 lines, the tests of `FILE.rs` are in
//! `FILE_tests.rs` next to it.

use std::fs;
use std::path::{Path, PathBuf};

const MAX_LINES: usize = 400;

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The separate file for the unit tests of `file`. For `mod.rs` it has the folder's name.
fn tests_of(file: &Path) -> PathBuf {
    let stem = file.file_stem().expect("a name").to_string_lossy().into_owned();
    let folder = file.parent().expect("a folder");
    let name = if stem == "mod" { folder.file_name().expect("a name").to_string_lossy().into_owned() } else { stem };
    folder.join(format!("{name}_tests.rs"))
}

#[test]
fn unit_tests_have_one_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in ["shared/src", "local/src", "cli/src", "perf/src", "functions"] {
        rust_files(&root.join(folder), &mut files);
    }
    let lines = |path: &Path| fs::read_to_string(path).expect("a source").lines().count();
    let (mut inline, mut alone) = (0, 0);
    let in_tests = |file: &&PathBuf| file.strip_prefix(&root).is_ok_and(|path| path.iter().any(|part| part == "tests"));
    for file in files.iter().filter(|file| !in_tests(file)) {
        let text = fs::read_to_string(file).expect("a source");
        let (tests, name) = (tests_of(file), file.display());
        if text.contains("#[cfg(test)]\nmod tests {") {
            inline += 1;
            assert!(text.lines().count() <= MAX_LINES, "{name} is long: move its tests to {}", tests.display());
            assert!(!tests.exists(), "{name} has tests in two places");
        } else if text.contains("mod tests;") {
            alone += 1;
            let path = format!("#[path = \"{}\"]", tests.file_name().expect("a name").to_string_lossy());
            assert!(text.contains(&path), "{name}: move its tests to {}", tests.display());
            assert!(lines(file) + lines(&tests) > MAX_LINES, "{name} is short enough to contain its tests");
        }
    }
    assert!(inline > 40 && alone > 1, "only {inline} and {alone} files with tests found; did the sources move?");
}
