//! The operator's settings for npm and pip: registries and their credentials.
//!
//! A program gets copies, because the uid that it has in the sandbox may not be able to read the files themselves. They are
//! deleted with its home, before any code of a workspace runs.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use super::InstallSettings;
use crate::dependencies::Ecosystem;
use crate::dependencies::programs::{Toolchain, npm_global_config};

/// The names of the copies in the program's home.
pub const NPM_USER: &str = "npmrc";
pub const NPM_GLOBAL: &str = "npmrc-global";
pub const PIP: &str = "pip.conf";

/// Where pip looks for the settings of the machine.
const PIP_OF_THE_MACHINE: [&str; 2] = ["/etc/pip.conf", "/etc/xdg/pip/pip.conf"];

/// Keys whose values are files or folders.
const PATHS: [&str; 8] =
    ["cafile", "certfile", "keyfile", "cert", "client-cert", "client_cert", "find-links", "find_links"];

/// Writes the copies. Returns the files and folders that the settings name.
pub fn copy(
    ecosystem: Ecosystem,
    settings: &InstallSettings,
    toolchain: &Toolchain,
    home: &Path,
) -> io::Result<Vec<PathBuf>> {
    let of_the_machine = || PIP_OF_THE_MACHINE.map(PathBuf::from).into_iter().find(|path| path.is_file());
    let sources = match ecosystem {
        Ecosystem::Npm => {
            vec![(NPM_USER, settings.npm_user_config.clone()), (NPM_GLOBAL, npm_global_config(toolchain))]
        }
        Ecosystem::Pip => vec![(PIP, settings.pip_config.clone().or_else(of_the_machine))],
        Ecosystem::Cargo | Ecosystem::Go => Vec::new(),
    };
    let mut named = Vec::new();
    for (name, source) in sources {
        let text = match source.map(fs::read) {
            Some(Ok(text)) => text,
            // npm and pip do without what they cannot read.
            Some(Err(error)) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                return Err(error);
            }
            _ => Vec::new(),
        };
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(home.join(name))?.write_all(&text)?;
        named.extend(paths(&String::from_utf8_lossy(&text)));
    }
    Ok(named)
}

/// The files and folders in the values of settings. A value may go on in the next lines.
fn paths(text: &str) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut is_path = false;
    for line in text.lines() {
        let value = match line.split_once('=') {
            Some((key, value)) => {
                is_path = PATHS.contains(&key.rsplit(':').next().unwrap_or_default().trim());
                value
            }
            None => line,
        };
        for word in value.split_whitespace().filter(|_| is_path) {
            let word = word.trim_matches(['"', '\'']);
            let path = Path::new(word.strip_prefix("file://").unwrap_or(word));
            let is_plain = path.components().all(|part| part != Component::ParentDir) && path.parent().is_some();
            if path.is_absolute() && is_plain && path.exists() {
                paths.push(path.to_path_buf());
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_settings_name_are_found() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ca.pem", "key.pem", "wheels", "log"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let at = |name: &str| folder.path().join(name);
        let root = folder.path().display();
        let npmrc = format!(
            "cafile=\"{root}/ca.pem\"\n//npm.example/:keyfile={root}/key.pem\n//npm.example/:_authToken={root}/log\n"
        );
        assert_eq!(paths(&npmrc), [at("ca.pem"), at("key.pem")]);
        let pip = format!(
            "[global]\ncert = {root}/ca.pem\nlog = {root}/log\nfind-links =\n    https://example.com\n    file://{root}/wheels\n    {root}/missing\n    {root}/../wheels\n    /\n"
        );
        assert_eq!(paths(&pip), [at("ca.pem"), at("wheels")]);
    }
}
