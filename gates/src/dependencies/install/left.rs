//! What an installer left. Whoever took it over may have planted links, so that this process reads or writes elsewhere.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::finding::{ExamineError, Reason};

/// Demands that the folder holds nothing but folders, files with one name, and links that stay inside. `program` is the
/// only file outside that a link in `venv/bin` may lead to. Nothing may write to the folder meanwhile.
pub fn check(root: &Path, program: Option<&Path>) -> Result<(), ExamineError> {
    let real_root = root.canonicalize()?;
    let program = program.and_then(|program| program.canonicalize().ok());
    let programs = root.join("venv/bin");
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_symlink() {
                // A link to nothing is refused too: what is written there would be made.
                let target = path.canonicalize().ok();
                let is_inside = target.as_ref().is_some_and(|target| target.starts_with(&real_root));
                let is_program = folder == programs && target.is_some() && target == program;
                if !is_inside && !is_program {
                    return Err(refused(root, &path, "is a link that leads out of it"));
                }
            } else if !kind.is_file() {
                return Err(refused(root, &path, "is no file"));
            } else if entry.metadata()?.nlink() > 1 {
                return Err(refused(root, &path, "has another name"));
            }
        }
    }
    Ok(())
}

fn refused(root: &Path, path: &Path, why: &str) -> ExamineError {
    let shown = crate::dependencies::shown(path.strip_prefix(root).unwrap_or(path).display());
    let message =
        format!("a package is dangerous: of the installation, {shown} {why}; find out which package does that");
    Reason::new("install_failed", message).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    type Plant<'a> = &'a dyn Fn(&Path);

    #[test]
    fn links_lead_nowhere_else_and_files_have_one_name() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "").unwrap();
        let plant: [(&str, Plant); 7] = [
            ("absolute", &|path| symlink(outside.path().join("secret"), path).unwrap()),
            ("folder", &|path| symlink(outside.path(), path).unwrap()),
            ("relative", &|path| symlink("../../../../../../../../etc/passwd", path).unwrap()),
            ("dangling", &|path| symlink(outside.path().join("new"), path).unwrap()),
            ("loop", &|path| symlink("loop", path).unwrap()),
            ("name", &|path| fs::hard_link(outside.path().join("secret"), path).unwrap()),
            ("pipe", &|path| {
                let mode = rustix::fs::Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
            }),
        ];
        for (name, make) in plant {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("a/b")).unwrap();
            check(root.path(), None).unwrap();
            make(&root.path().join("a/b").join(name));
            match check(root.path(), None) {
                Err(ExamineError::GateFailed(reason)) => assert!(reason.message.contains(&format!("a/b/{name} "))),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn links_of_a_workspace_and_of_a_venv_are_fine() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().parent().unwrap().join("no-such-program");
        for folder in ["packages/a", "node_modules/@my", "venv/bin", "venv/lib"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        symlink("../../packages/a", root.path().join("node_modules/@my/a")).unwrap();
        symlink("lib", root.path().join("venv/lib64")).unwrap();
        check(root.path(), Some(&program)).unwrap();
        symlink("/bin/sh", root.path().join("venv/bin/python3")).unwrap();
        symlink("python3", root.path().join("venv/bin/python")).unwrap();
        check(root.path(), Some(Path::new("/bin/sh"))).unwrap();
        assert!(check(root.path(), Some(&program)).is_err());
        symlink("/bin/sh", root.path().join("venv/lib/sh")).unwrap();
        assert!(check(root.path(), Some(Path::new("/bin/sh"))).is_err());
    }
}
