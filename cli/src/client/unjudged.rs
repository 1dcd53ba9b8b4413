//! Files of a checkout that are not in its archive, so that no gate sees them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::git;
use super::source_tree::SourceTree;

/// What an archive of a checkout does not have.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unjudged {
    /// Files that Git tracks, submodules, repositories inside, and files that no `.gitignore` of the tree names: a part of the
    /// checkout, whatever the settings of Git on this machine say.
    pub left_out: BTreeSet<String>,
    /// Files and folders that a `.gitignore` names; in a folder without Git those that are no part of a workspace.
    pub ignored: BTreeSet<String>,
}

impl Unjudged {
    /// Of a checkout, whose archive has the files `packed`.
    pub fn of(tree: &SourceTree, packed: &BTreeSet<&str>) -> Result<Self> {
        let mut unjudged = Self::default();
        if !tree.is_git() {
            beside(tree.root(), "", packed, &mut unjudged.ignored)?;
            return Ok(unjudged);
        }
        let list = |options: &[&str]| -> Result<Vec<String>> {
            let listed = git::run(tree.root(), &[&["ls-files", "-z"][..], options].concat())?;
            let records = listed.split(|byte| *byte == 0).filter(|record| !record.is_empty());
            Ok(records.map(|record| String::from_utf8_lossy(record).into_owned()).collect())
        };
        for record in list(&["--cached", "--stage"])? {
            // `mode id stage<TAB>path`
            let (head, path) = record.split_once('\t').context("git ls-files printed something unexpected")?;
            let is_module = head.starts_with("160000 ");
            let is_there = fs::symlink_metadata(tree.root().join(path)).is_ok();
            if is_module || is_there && !packed.contains(path) {
                unjudged.left_out.insert(path.to_owned());
            }
        }
        let others = list(&["--others", "--exclude-per-directory=.gitignore"])?;
        unjudged.left_out.extend(others.into_iter().filter(|path| !packed.contains(path.as_str())));
        let ignored = ["--others", "--ignored", "--directory", "--exclude-per-directory=.gitignore"];
        unjudged.ignored.extend(list(&ignored)?);
        Ok(unjudged)
    }
}

/// Files of a folder that are not packed. Of a folder that is left out only its name.
fn beside(folder: &Path, prefix: &str, packed: &BTreeSet<&str>, found: &mut BTreeSet<String>) -> Result<()> {
    let read = || format!("cannot read {}", folder.display());
    for entry in fs::read_dir(folder).with_context(read)? {
        let entry = entry.with_context(read)?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().with_context(read)?.is_dir() {
            let inside = format!("{path}/");
            if packed.range(inside.as_str()..).next().is_some_and(|next| next.starts_with(&inside)) {
                beside(&entry.path(), &inside, packed, found)?;
            } else if fs::read_dir(entry.path()).with_context(read)?.next().is_some() {
                found.insert(inside);
            }
        } else if !packed.contains(path.as_str()) {
            found.insert(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }

    fn git(dir: &Path, arguments: &[&str]) {
        let config = ["-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "init.defaultBranch=main"];
        git::run(dir, &[&config[..], arguments].concat()).unwrap();
    }

    fn unjudged(dir: &Path, packed: &[&str]) -> (Vec<String>, Vec<String>) {
        let found = Unjudged::of(&SourceTree::of(dir).unwrap(), &packed.iter().copied().collect()).unwrap();
        (found.left_out.into_iter().collect(), found.ignored.into_iter().collect())
    }

    #[test]
    fn what_only_this_machine_ignores_is_left_out_and_what_the_tree_ignores_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::write(root.join(".gitignore"), ".env\ntarget/\n").unwrap();
        for path in ["a.ts", "node_modules/x/index.js", "new.ts", ".env", "target/large", "hidden.ts"] {
            write(root, path);
        }
        git(root, &["init", "--quiet"]);
        git(root, &["add", "a.ts", ".gitignore", "node_modules"]);
        git(root, &["commit", "--quiet", "--message", "one"]);
        fs::create_dir_all(root.join(".git/info")).unwrap();
        fs::write(root.join(".git/info/exclude"), "hidden.ts\n").unwrap();
        let packed = [".gitignore", "a.ts", "new.ts"];
        let ignored = vec![".env".to_owned(), "target/".to_owned()];
        assert_eq!(unjudged(root, &packed), (vec!["hidden.ts".into(), "node_modules/x/index.js".into()], ignored));

        // A repository inside, and one as a submodule.
        fs::remove_file(root.join("hidden.ts")).unwrap();
        git(root, &["rm", "--quiet", "-r", "--cached", "node_modules"]);
        fs::remove_dir_all(root.join("node_modules")).unwrap();
        for name in ["inner", "module"] {
            write(root, &format!("{name}/b.ts"));
            git(&root.join(name), &["init", "--quiet"]);
            git(&root.join(name), &["add", "."]);
            git(&root.join(name), &["commit", "--quiet", "--message", "one"]);
        }
        git(root, &["add", "module"]);
        assert_eq!(unjudged(root, &packed).0, ["inner/", "module"]);
        // A tracked file that is deleted is no part of the checkout.
        fs::remove_file(root.join("a.ts")).unwrap();
        assert_eq!(unjudged(root, &[".gitignore", "new.ts"]).0, ["inner/", "module"]);
    }

    #[test]
    fn of_a_folder_without_git_installed_packages_and_reports_are_ignored() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a.ts", "src/b.ts", "node_modules/x/index.js", "coverage/lcov.info"] {
            write(dir.path(), path);
        }
        fs::create_dir(dir.path().join("empty")).unwrap();
        let (left_out, ignored) = unjudged(dir.path(), &["a.ts", "src/b.ts"]);
        assert_eq!((left_out, ignored), (Vec::new(), vec!["coverage/".to_owned(), "node_modules/".to_owned()]));
    }
}
