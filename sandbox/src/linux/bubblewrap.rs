//! Namespaces through bubblewrap, for hosts that allow user namespaces to it alone.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::landlock::DEVICES;
use super::privileges;
use crate::command::Network;
use crate::error::{Failure, Step};
use crate::launcher::{self, Stage};
use crate::wire::Spec;

/// Where the launcher appears in the sandbox.
const LAUNCHER: &str = "/.nofx-launcher";

/// What the launcher itself needs to start, if it is linked dynamically. The command sees it too.
const LIBRARIES: [&str; 5] = ["/usr", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache"];

/// Finds `bwrap` in the folders of the system. Those of the user's PATH may be writable for others.
pub(super) fn find() -> Option<PathBuf> {
    ["/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap"].into_iter().map(PathBuf::from).find(|path| path.is_file())
}

/// A command line that starts process 1 of new namespaces.
pub(super) fn command_line(spec: &Spec, program: &Path) -> Result<Command, Failure> {
    let launcher = std::env::current_exe().step("find the launcher")?;
    if let Some(uid) = spec.plan.uid {
        privileges::change_uid(uid).step("change the uid")?;
    }
    let mut command = Command::new(program);
    command.env_clear();
    command.args(["--unshare-user", "--unshare-all", "--die-with-parent", "--as-pid-1", "--new-session"]);
    command.args(["--hostname", "sandbox"]);
    if spec.network == Network::Open {
        command.arg("--share-net");
    }
    command.args(["--proc", "/proc"]);
    let size = spec.limits.disk_bytes.unwrap_or(u64::MAX / 2).to_string();
    for folder in ["/tmp", "/dev/shm"] {
        command.args(["--perms", "1777", "--size", &size, "--tmpfs", folder]);
    }
    for device in DEVICES {
        command.args(["--dev-bind", device, device]);
    }
    for (name, target) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
        command.args(["--symlink", &format!("/proc/self/fd{target}"), &format!("/dev/{name}")]);
    }
    command.arg("--ro-bind").arg(launcher).arg(LAUNCHER);
    command.args(mounts(spec));
    command.args(["--remount-ro", "/", "--", LAUNCHER]);
    let next = launcher::command_line(Stage::Init).step("find the launcher")?;
    command.args(next.get_args());
    Ok(command)
}

/// The option for a file that must look empty.
const HIDE: &str = "--dev-bind";

/// Paths in their order, so that those inside of others come after them.
fn mounts(spec: &Spec) -> Vec<OsString> {
    let accounts = ["/etc/passwd", "/etc/group"].map(PathBuf::from);
    let mut paths: Vec<(PathBuf, &str)> = Vec::new();
    let read_only = LIBRARIES.map(PathBuf::from).into_iter().chain(accounts).chain(spec.read_only.iter().cloned());
    // bubblewrap skips what does not exist, but fails on what this uid cannot reach.
    for path in read_only.filter(|path| path.symlink_metadata().is_ok()) {
        if !paths.iter().any(|(known, _)| *known == path) {
            paths.push((path, "--ro-bind-try"));
        }
    }
    paths.extend(spec.writable.iter().map(|path| (path.clone(), "--bind")));
    let hidden = spec.hidden.iter().filter_map(|path| path.canonicalize().ok()).filter(|path| path.is_file());
    paths.extend(hidden.map(|path| (path, HIDE)));
    if spec.network == Network::Open {
        let names = ["/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf"];
        paths.extend(names.map(|path| (PathBuf::from(path), "--ro-bind-try")));
    }
    paths.sort();
    let mut arguments: Vec<OsString> = Vec::new();
    for (path, option) in paths {
        if option == HIDE {
            arguments.extend([option.into(), "/dev/null".into(), path.into_os_string()]);
            continue;
        }
        match std::fs::read_link(&path) {
            // Files below /etc are often links to elsewhere. Folders of the system are links to each other.
            Ok(target) if path.is_dir() => {
                arguments.extend(["--symlink".into(), target.into_os_string(), path.into_os_string()]);
            }
            _ => arguments.extend([option.into(), path.clone().into_os_string(), path.into_os_string()]),
        }
    }
    arguments
}
