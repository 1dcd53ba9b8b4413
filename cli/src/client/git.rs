//! Starts `git` in a checkout.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};
use nofx_local::report::hinted;

/// By these Git tells a hook about its repository. The checkout may be another one, or a folder of it, so they do not
/// count here.
const OF_A_HOOK: [&str; 6] =
    ["GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_PREFIX"];

/// The settings of a checkout may name programs that git starts. A checkout is judged, so nothing of it is started here.
pub fn command(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]);
    command.args(["-c", "advice.graftFileDeprecated=false"]);
    command.args(["--no-optional-locks", "--no-replace-objects"]);
    for name in OF_A_HOOK {
        command.env_remove(name);
    }
    // Objects that a partial clone lacks would be fetched by programs that its settings name. Grafts are other histories.
    command.env("GIT_NO_LAZY_FETCH", "1").env("GIT_GRAFT_FILE", "/dev/null");
    // Its errors decide what happens next, so they must be in one language.
    command.env("LC_ALL", "C").current_dir(dir);
    command
}

/// What a command prints. An error if it fails.
pub fn run(dir: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let mut command = command(dir);
    command.args(arguments);
    let done = command.output().context("cannot run git")?;
    if !done.status.success() {
        bail!("git {}: {}", arguments.join(" "), error_of(&done));
    }
    Ok(done.stdout)
}

/// The first line of what a command prints. `None` if it fails.
pub fn line(dir: &Path, arguments: &[&str]) -> Option<String> {
    let text = String::from_utf8(run(dir, arguments).ok()?).ok()?;
    text.lines().next().map(str::to_owned)
}

/// The top folder of the work tree around `dir`. `None` if there is no repository.
pub fn top(dir: &Path) -> Result<Option<PathBuf>> {
    let done = match command(dir).args(["rev-parse", "--show-toplevel"]).output() {
        Ok(done) => done,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if dir.ancestors().any(|folder| folder.join(".git").exists()) {
                let message = format!("{} is in a Git repository, and git is not installed", dir.display());
                return Err(hinted(message, "install git"));
            }
            return Ok(None);
        }
        Err(error) => return Err(error).context("cannot run git"),
    };
    let error = error_of(&done);
    if done.status.success() {
        let mut printed = done.stdout;
        printed.pop_if(|last| *last == b'\n');
        return Ok(Some(PathBuf::from(OsString::from_vec(printed))));
    }
    if ["not a git repository", "must be run in a work tree"].iter().any(|sign| error.contains(sign)) {
        return Ok(None);
    }
    // Such as a repository of another user: without Git, ignored files would be judged too.
    bail!("git does not read {}: {error}", dir.display())
}

fn error_of(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).trim().to_owned()
}
