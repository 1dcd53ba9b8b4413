//! The process that restricts itself and starts the command.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Failure, SandboxError, Step};
use crate::platform;
use crate::wire::{self, Event, Spec};

/// The first argument of a launcher. What it shall do comes over its standard input, because arguments are public.
const FLAG: &str = "--nofx-sandbox-launcher";

static INITIALISED: AtomicBool = AtomicBool::new(false);
static LAUNCHER: OnceLock<PathBuf> = OnceLock::new();

/// Which process of the chain a launcher is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The child of `run`, outside of the namespaces.
    Guard,
    /// Process 1 of the namespaces.
    Init,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Guard => "guard",
            Self::Init => "init",
        }
    }
}

/// Must be the first call in `main` of a process that runs commands, before it starts threads. If the process is a launcher, the
/// call never returns.
pub fn init() {
    INITIALISED.store(true, Ordering::Relaxed);
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().as_deref() != Some(OsStr::new(FLAG)) {
        return;
    }
    let stage = match arguments.next().as_deref().and_then(OsStr::to_str) {
        Some("guard") => Stage::Guard,
        Some("init") => Stage::Init,
        _ => std::process::exit(2),
    };
    std::process::exit(i32::from(serve(stage).is_err()))
}

/// Names another executable as launcher: one whose `main` begins with [`init`]. For processes that have no such `main`, as the
/// tests of another crate. Only the first call has an effect.
pub fn set_launcher(path: PathBuf) {
    let _ = LAUNCHER.set(path);
}

/// A command line that starts a launcher with an empty environment.
pub(crate) fn command_line(stage: Stage) -> Result<std::process::Command, SandboxError> {
    let program = match LAUNCHER.get() {
        Some(path) => path.clone(),
        // Without `init`, the executable would run its own `main` again.
        None if !INITIALISED.load(Ordering::Relaxed) => return Err(SandboxError::NotInitialised),
        None if cfg!(target_os = "linux") => PathBuf::from("/proc/self/exe"),
        None => std::env::current_exe()?,
    };
    let mut command = std::process::Command::new(program);
    command.args([FLAG, stage.name()]).env_clear();
    Ok(command)
}

fn serve(stage: Stage) -> Result<(), Failure> {
    let mut channel = Channel::from_stdin().step("take over the socket")?;
    let result = wire::read::<Spec>(&mut channel.socket)
        .step("read the command")
        .and_then(|spec| platform::serve(stage, &spec, &mut channel));
    if let Err(failure) = &result {
        channel.send(&Event::Failed { step: failure.step.clone(), message: failure.message.clone() })?;
    }
    result
}

/// The launcher's end of the socket.
pub(crate) struct Channel {
    socket: UnixStream,
}

impl Channel {
    /// Moves the socket away from file descriptor 0, so that the command does not inherit it.
    fn from_stdin() -> io::Result<Self> {
        let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
        let null = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        Ok(Self { socket: socket.into() })
    }

    pub fn send(&mut self, event: &Event) -> Result<(), Failure> {
        wire::write(&mut self.socket, event).step("report to the parent")
    }

    /// For the standard input of the next launcher.
    #[cfg(target_os = "linux")]
    pub fn to_stdio(&self) -> io::Result<std::process::Stdio> {
        Ok(std::process::Stdio::from(std::os::fd::OwnedFd::from(self.socket.try_clone()?)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
