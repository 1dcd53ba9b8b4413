//! The installed tools that a command needs to see.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders and files of the system that hold programs, libraries and public data. No accounts, no keys, no services.
const SYSTEM: [&str; 26] = [
    "/bin",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/crypto-policies",
    "/etc/debian_version",
    "/etc/gai.conf",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/lsb-release",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/pki/ca-trust",
    "/etc/pki/tls",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/sbin",
    "/usr",
    "/var/lib/ca-certificates",
];

/// What a command needs to use the tools of a search path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Toolchain {
    /// For `Command::read_only`.
    pub read_only: Vec<PathBuf>,
    /// For `Command::hidden`: settings of the machine beside its tools, which may hold credentials of registries.
    pub hidden: Vec<PathBuf>,
    /// The search path with the folders of tools instead of those of version managers' stand-ins.
    pub search_path: OsString,
    /// Variables that the tools need, for example `RUSTUP_HOME`.
    pub environment: Vec<(String, OsString)>,
}

/// Finds the tools of a search path (`PATH`). Folders outside of the system are added with their prefix, for example
/// `~/.nvm/versions/node/v22.0.0`, but never a home folder.
pub fn toolchain(search_path: &std::ffi::OsStr) -> Toolchain {
    let home = env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    find(search_path, home.as_deref())
}

fn find(search_path: &std::ffi::OsStr, home: Option<&Path>) -> Toolchain {
    let mut found = Finder { home, read_only: Vec::new(), search_path: Vec::new(), environment: Vec::new() };
    found.read_only.extend(SYSTEM.iter().map(PathBuf::from).filter(|path| path.symlink_metadata().is_ok()));
    for folder in env::split_paths(search_path).filter(|folder| folder.is_absolute() && folder.is_dir()) {
        found.add_folder(&folder);
    }
    Toolchain {
        hidden: found.read_only.iter().flat_map(|prefix| settings(prefix)).collect(),
        // Paths come from a search path, so none holds the separator.
        search_path: env::join_paths(found.search_path).unwrap_or_default(),
        read_only: found.read_only,
        environment: found.environment,
    }
}

/// Where npm and pip look for the settings of the machine, relative to the prefix of Node and Python.
fn settings(prefix: &Path) -> impl Iterator<Item = PathBuf> {
    ["etc/npmrc", "pip.conf", "local/etc/npmrc", "local/pip.conf"]
        .map(|name| prefix.join(name))
        .into_iter()
        .filter(|path| path.is_file())
}

struct Finder<'a> {
    home: Option<&'a Path>,
    read_only: Vec<PathBuf>,
    search_path: Vec<PathBuf>,
    environment: Vec<(String, OsString)>,
}

impl Finder<'_> {
    fn add_folder(&mut self, folder: &Path) {
        if folder.ends_with("shims") && folder.parent().is_some_and(|parent| parent.join("versions").is_dir()) {
            self.add_pyenv(folder.parent().unwrap_or(folder));
            return;
        }
        if folder.join("rustup").exists() {
            let root = env::var_os("RUSTUP_HOME").map(PathBuf::from).or_else(|| Some(self.home?.join(".rustup")));
            self.add_rustup(folder, root);
            return;
        }
        self.search_path.push(folder.to_owned());
        // Version managers put links into the search path.
        let Ok(real) = folder.canonicalize() else { return };
        let prefix = real.parent().filter(|prefix| real.ends_with("bin") && self.is_prefix(prefix));
        self.add(prefix.unwrap_or(&real).to_owned());
        if prefix.is_none() {
            self.add_link_targets(&real);
        }
        if real != folder {
            self.add(folder.to_owned());
        }
    }

    /// Whether a folder belongs to tools alone. `~/.local` does not: it holds the data of applications.
    fn is_prefix(&self, folder: &Path) -> bool {
        let is_shared = self.home.is_some_and(|home| home.starts_with(folder) || folder == home.join(".local"));
        !is_shared && folder.parent().is_some()
    }

    /// Tools that links in a folder lead to, for example those of pipx. Only their own prefix is added.
    fn add_link_targets(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            let Some(target) = is_link.then(|| entry.path().canonicalize().ok()).flatten() else { continue };
            let prefix = target.parent().filter(|bin| bin.ends_with("bin")).and_then(Path::parent);
            match prefix.filter(|prefix| self.is_prefix(prefix)) {
                Some(prefix) => self.add(prefix.to_owned()),
                None => self.add(target),
            }
        }
    }

    /// pyenv's stand-ins are scripts that need all of pyenv. The chosen versions do without.
    fn add_pyenv(&mut self, root: &Path) {
        let chosen = fs::read_to_string(root.join("version")).unwrap_or_default();
        for version in chosen.split_whitespace().filter(|version| !version.contains('/') && *version != "..") {
            let prefix = root.join("versions").join(version);
            if prefix.join("bin").is_dir() {
                self.search_path.push(prefix.join("bin"));
                self.add(prefix);
            }
        }
    }

    /// rustup's stand-ins need its settings and toolchains, which they find by a variable. The folder of cargo also holds the
    /// token of a registry, so only its programs are added.
    fn add_rustup(&mut self, bin: &Path, root: Option<PathBuf>) {
        self.search_path.push(bin.to_owned());
        self.add(bin.to_owned());
        let Some(root) = root.filter(|root| root.is_dir()) else { return };
        for part in ["settings.toml", "toolchains", "update-hashes"] {
            let path = root.join(part);
            if path.exists() {
                self.add(path);
            }
        }
        self.environment.push(("RUSTUP_HOME".into(), root.into_os_string()));
    }

    /// Adds a path unless another one covers it.
    fn add(&mut self, path: PathBuf) {
        let is_home = self.home.is_some_and(|home| home.starts_with(&path));
        if !is_home && path.parent().is_some() && !self.read_only.iter().any(|known| path.starts_with(known)) {
            self.read_only.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn home_with(files: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().canonicalize().unwrap();
        for file in files {
            fs::create_dir_all(home.join(file).parent().unwrap()).unwrap();
            fs::write(home.join(file), "").unwrap();
        }
        (folder, home)
    }

    fn visible(found: &Toolchain, path: &Path) -> bool {
        found.read_only.iter().any(|known| path.starts_with(known))
    }

    #[test]
    fn a_version_managers_node_is_visible_with_its_libraries_and_nothing_beside_it() {
        let (_folder, home) = home_with(&[
            ".nvm/versions/node/v22/bin/node",
            ".nvm/versions/node/v22/lib/npm.js",
            ".npmrc",
            ".nvm/other",
        ]);
        symlink(home.join(".nvm/versions/node/v22/bin"), home.join("link")).unwrap();
        for search_path in [home.join(".nvm/versions/node/v22/bin"), home.join("link")] {
            let found = find(search_path.as_os_str(), Some(&home));
            assert!(visible(&found, &home.join(".nvm/versions/node/v22/lib/npm.js")));
            assert!(visible(&found, &search_path.join("node")));
            assert!(!visible(&found, &home.join(".nvm/other")) && !visible(&found, &home.join(".npmrc")));
            assert_eq!(found.search_path, search_path.as_os_str());
        }
    }

    #[test]
    fn settings_beside_tools_are_hidden() {
        let (_folder, home) =
            home_with(&["node/bin/node", "node/etc/npmrc", "node/etc/other", ".pyenv/versions/3/bin/python"]);
        fs::write(home.join(".pyenv/versions/3/pip.conf"), "").unwrap();
        let search_path = env::join_paths([home.join("node/bin"), home.join(".pyenv/versions/3/bin")]).unwrap();
        let found = find(&search_path, Some(&home));
        for path in ["node/etc/npmrc", ".pyenv/versions/3/pip.conf"] {
            assert!(found.hidden.contains(&home.join(path)), "{path} is not in {:?}", found.hidden);
        }
        assert!(!found.hidden.contains(&home.join("node/etc/other")));
    }

    #[test]
    fn pyenvs_stand_ins_are_replaced_by_the_chosen_version() {
        let (_folder, home) = home_with(&[
            ".pyenv/shims/python",
            ".pyenv/versions/3.12.1/bin/python",
            ".pyenv/versions/3.11.0/bin/python",
            ".pyenv/version",
        ]);
        fs::write(home.join(".pyenv/version"), "3.12.1\n").unwrap();
        let found = find(home.join(".pyenv/shims").as_os_str(), Some(&home));
        assert_eq!(found.search_path, home.join(".pyenv/versions/3.12.1/bin").as_os_str());
        assert!(visible(&found, &home.join(".pyenv/versions/3.12.1/bin/python")));
        assert!(!visible(&found, &home.join(".pyenv/versions/3.11.0")));
    }

    #[test]
    fn cargo_is_visible_without_its_credentials() {
        let (_folder, home) = home_with(&[
            ".cargo/bin/rustup",
            ".cargo/credentials.toml",
            ".rustup/toolchains/stable/bin/cargo",
            ".rustup/settings.toml",
        ]);
        let mut found = Finder { home: Some(&home), read_only: vec![], search_path: vec![], environment: vec![] };
        found.add_rustup(&home.join(".cargo/bin"), Some(home.join(".rustup")));
        let found = Toolchain { read_only: found.read_only, ..Toolchain::default() };
        assert!(visible(&found, &home.join(".rustup/toolchains/stable/bin/cargo")));
        assert!(visible(&found, &home.join(".cargo/bin/rustup")));
        assert!(!visible(&found, &home.join(".cargo/credentials.toml")));
    }

    #[test]
    fn a_home_folder_is_never_visible() {
        let (_folder, home) =
            home_with(&["bin/tool", ".ssh/id", ".local/bin/tool", ".local/share/secret", "apps/x/bin/x"]);
        symlink(home.join("apps/x/bin/x"), home.join(".local/bin/x")).unwrap();
        let search_path = env::join_paths([home.join("bin"), home.join(".local/bin"), home.clone()]).unwrap();
        let found = find(&search_path, Some(&home));
        assert!(visible(&found, &home.join("bin/tool")) && visible(&found, &home.join("apps/x/bin/x")));
        for hidden in [".ssh/id", ".local/share/secret"] {
            assert!(!visible(&found, &home.join(hidden)), "{hidden}");
        }
    }
}
