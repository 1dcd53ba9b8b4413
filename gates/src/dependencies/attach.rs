//! Shows an installation to a workspace, without copying it.
//!
//! npm: `node_modules` is a folder of the workspace, so that tools can keep their caches in it. Its packages are links
//! into the installation. Node, TypeScript and bundlers resolve links first, so packages find each other there.
//!
//! A package of a registry that imports a package of the workspace itself finds that package's manifest only.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::Ecosystem;
use super::install::Installed;
use super::verify::Layout;

/// The folders in which Python looks for the project's own modules. They come last, unlike those of `PYTHONPATH`: a file
/// `src/pytest.py` must not run instead of pytest.
pub const PROJECT_PATH: &str = "NOFX_PROJECT_PATH";

/// A link in `node_modules` to that of the installation. The links to packages go through it and so stay short: ext4 keeps
/// up to 59 bytes in the inode, and needs a block for a longer one, which takes up to milliseconds to free.
const INSTALLED: &str = ".nofx";

/// What the tested command gets besides its minimal environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attached {
    pub environment: Vec<(String, String)>,
    /// Folders to put before PATH, in this order.
    pub path: Vec<PathBuf>,
    /// Folders that the command must be able to read, and must not be able to write.
    pub read_only: Vec<PathBuf>,
}

/// Blocks. The workspace must not have a `node_modules`, and none of its code may have run.
pub fn attach(installed: &Installed, workspace: &Path) -> io::Result<Attached> {
    let folder = &installed.folder;
    let mut attached = Attached { read_only: vec![folder.clone()], ..Attached::default() };
    attached.read_only.extend(installed.toolchain.folders.iter().cloned());
    let mut set = |name: &str, value: String| attached.environment.push((name.into(), value));
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    match installed.ecosystem {
        Ecosystem::Npm => {
            attach_node_modules(&Layout::load(folder)?, folder, workspace)?;
            attached.path.push(workspace.join("node_modules/.bin"));
        }
        Ecosystem::Pip => {
            set("VIRTUAL_ENV", text(folder.join("venv")));
            // Bytecode of the packages is there already.
            set("PYTHONDONTWRITEBYTECODE", "1".into());
            // The project itself is not installed: that would run its build.
            set(PROJECT_PATH, format!("{}:{}", text(workspace.join("src")), text(workspace.to_path_buf())));
            attached.path.push(folder.join("venv/bin"));
        }
        Ecosystem::Cargo => {
            set("CARGO_HOME", text(folder.join("home")));
            set("CARGO_NET_OFFLINE", "true".into());
            attached
                .path
                .extend(installed.toolchain.programs.get("cargo").and_then(|cargo| cargo.parent()).map(Into::into));
        }
        Ecosystem::Go => {
            set("GOMODCACHE", text(folder.join("modules")));
            for (name, value) in [("GOFLAGS", "-mod=readonly"), ("GOPROXY", "off"), ("GOTOOLCHAIN", "local")] {
                set(name, value.into());
            }
        }
    }
    Ok(attached)
}

fn attach_node_modules(layout: &Layout, installation: &Path, workspace: &Path) -> io::Result<()> {
    for folder in &layout.folders {
        let place = workspace.join(&folder.path);
        // Links were not followed when the workspace was read, so none leads out of it now.
        if !is_real_folder(workspace, &folder.path) {
            return Err(io::Error::other(format!("{} is not a folder of the workspace", folder.path)));
        }
        let modules = place.join("node_modules");
        DirBuilder::new().create(&modules)?;
        if !folder.packages.is_empty() {
            symlink(installation.join(&folder.path).join("node_modules"), modules.join(INSTALLED))?;
        }
        for name in &folder.packages {
            symlink(out_of_scope(name).join(INSTALLED).join(name), in_scope(&modules, name)?)?;
        }
        let to_workspace =
            folder.path.split('/').filter(|part| !part.is_empty()).fold(PathBuf::from(".."), |up, _| up.join(".."));
        for (name, target) in &folder.links {
            symlink(out_of_scope(name).join(&to_workspace).join(target), in_scope(&modules, name)?)?;
        }
        if !folder.commands.is_empty() {
            let commands = modules.join(".bin");
            DirBuilder::new().create(&commands)?;
            for (name, path) in &folder.commands {
                symlink(Path::new("..").join(path), commands.join(name))?;
            }
        }
    }
    Ok(())
}

/// The way from a package's folder to `node_modules`.
fn out_of_scope(name: &str) -> &'static Path {
    Path::new(if name.contains('/') { ".." } else { "" })
}

/// The place of a package. Makes the folder of its scope.
fn in_scope(modules: &Path, name: &str) -> io::Result<PathBuf> {
    if let Some((scope, _)) = name.split_once('/') {
        match DirBuilder::new().create(modules.join(scope)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(modules.join(name))
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

/// Whether a path and all its folders are no links.
pub(super) fn is_real_folder(root: &Path, relative: &str) -> bool {
    let mut path = root.to_path_buf();
    relative.split('/').filter(|part| !part.is_empty()).all(|part| {
        path.push(part);
        is_folder(&path)
    })
}

#[cfg(test)]
mod tests {
    use super::super::verify::Folder;
    use super::*;

    #[test]
    fn links_are_short_and_lead_to_the_packages() {
        let temporary = tempfile::tempdir().unwrap();
        let [installation, workspace] =
            ["installation", "workspace"].map(|name| temporary.path().join(name).join("x".repeat(64)));
        for package in ["node_modules/ms", "node_modules/@types/ms", "apps/web/node_modules/ms"] {
            fs::create_dir_all(installation.join(package)).unwrap();
        }
        fs::create_dir_all(workspace.join("apps/web")).unwrap();
        fs::create_dir_all(workspace.join("packages/a")).unwrap();
        let folder = |path: &str, packages: &[&str]| Folder {
            path: path.into(),
            packages: packages.iter().map(ToString::to_string).collect(),
            links: ["a", "@my/a"].map(|name| (name.into(), "packages/a".into())).into(),
            ..Folder::default()
        };
        let layout = Layout { folders: vec![folder("", &["ms", "@types/ms"]), folder("apps/web", &["ms"])] };
        attach_node_modules(&layout, &installation, &workspace).unwrap();
        let of_workspace = ["", "apps/web/"].into_iter().flat_map(|folder| {
            ["a", "@my/a"].map(|name| (format!("{folder}node_modules/{name}"), workspace.join("packages/a")))
        });
        let of_installation = ["node_modules/ms", "node_modules/@types/ms", "apps/web/node_modules/ms"]
            .map(|path| (path.to_owned(), installation.join(path)));
        for (link, target) in of_workspace.chain(of_installation) {
            let link = workspace.join(link);
            assert_eq!(link.canonicalize().unwrap(), target.canonicalize().unwrap(), "{}", link.display());
            assert!(fs::read_link(&link).unwrap().as_os_str().len() < 60, "{}", link.display());
        }
    }
}
