//! One program of an ecosystem in the sandbox, and the folder that is all it can write to.
//!
//! Whoever takes over an installer, for example with an archive that its unpacker does not expect, holds nothing: no file
//! of the host but tools and the operator's settings for packages, no process, and no other attempt.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nofx_sandbox::{self as sandbox, Exit, Identity, Limit, Network, Output};

use super::command::{self, Call};
use super::{InstallSettings, blocking};
use crate::blocking::spawn_blocking;
use crate::dependencies::{InstallPlan, Toolchain};
use crate::finding::{ExamineError, InfraError, Reason};

/// How a program ended, and what it printed.
#[derive(Debug)]
pub struct Ran {
    pub exit: Exit,
    pub output: Output,
}

impl Ran {
    /// Start and end of the output.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&[&self.output.head[..], &self.output.tail].concat()).into_owned()
    }
}

/// A folder that belongs to the programs that run in it.
///
/// Where the sandbox has uids of its own, the folder belongs to one of them until [`Self::take_back`].
pub struct Writable {
    folder: PathBuf,
    identity: Option<Arc<Identity>>,
}

impl Writable {
    /// Gives a folder to the programs. Nobody else may have a file of it.
    pub async fn give(folder: &Path, settings: &InstallSettings) -> Result<Self, ExamineError> {
        let own = folder.to_path_buf();
        let has_uids = settings.at_most.as_ref().is_none_or(|host| host.own_uid);
        let given = spawn_blocking(move || -> Result<Self, ExamineError> {
            let identity = if has_uids { Identity::acquire()? } else { None };
            if let Some(identity) = &identity {
                sandbox::give(&own, identity)?;
            }
            Ok(Self { folder: own, identity: identity.map(Arc::new) })
        });
        given.await.map_err(InfraError::task_failed)?
    }

    /// Runs a program. `stdout` is a file for its standard output alone.
    pub async fn run(
        &self,
        call: Call,
        of: (&InstallPlan, &Toolchain),
        settings: &InstallSettings,
        deadline: Instant,
        stdout: Option<PathBuf>,
    ) -> Result<Ran, ExamineError> {
        let (plan, toolchain) = of;
        let mut command = sandbox::Command::new(call.argv, command::sources(plan.ecosystem, &self.folder));
        command.environment = call.environment;
        command.timeout = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        command.read_only = [&settings.read_only[..], &toolchain.folders, &call.read_only].concat();
        command.writable = vec![self.folder.clone()];
        command.network = if call.network { Network::Open } else { Network::None };
        command.stdout = stdout;
        command.identity.clone_from(&self.identity);
        command.at_most.clone_from(&settings.at_most);
        let program = command.argv.first().cloned().unwrap_or_default();
        let finished = sandbox::run(&command).await?;
        match finished.exit {
            Exit::NotStarted { message } | Exit::CompanionFailed { message, .. } => {
                let message = format!("{program} cannot run in the sandbox: {message}");
                Err(Reason::new("toolchain_missing", message).into())
            }
            exit => Ok(Ran { exit, output: finished.output }),
        }
    }

    /// Makes this process the owner again. Fails if a part of the folder stays with the programs' uid, which a later
    /// command may have.
    pub async fn take_back(mut self) -> Result<(), ExamineError> {
        if self.identity.is_some() {
            let folder = self.folder.clone();
            blocking(move || sandbox::take(&folder)).await?;
            self.identity = None;
        }
        Ok(())
    }
}

impl Drop for Writable {
    fn drop(&mut self) {
        // Without `take_back`, so that who has the uid next finds nothing until somebody deletes the folder.
        if self.identity.is_some() {
            let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            let _ = std::os::unix::fs::lchown(&self.folder, Some(uid), Some(gid));
            let _ = fs::set_permissions(&self.folder, Permissions::from_mode(0o700));
        }
    }
}

/// How a program failed, for people.
pub fn failure(program: &str, exit: &Exit) -> String {
    match exit {
        Exit::OverLimit(Limit::Memory) => format!("{program} needs more memory than the sandbox allows"),
        Exit::OverLimit(Limit::Disk) => format!("{program} writes more than the sandbox allows"),
        _ => format!("{program} failed"),
    }
}
