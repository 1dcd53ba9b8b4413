//! Why a command could not be run. What the command itself does wrong is an [`crate::Exit`].

use std::io;

use crate::command::Level;

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("the host offers the sandbox level {offered:?}, the command needs {minimum:?}: {reasons}")]
    TooWeak { offered: Level, minimum: Level, reasons: String },
    #[error("nofx_sandbox::init() was not called at the start of main, and no launcher is set")]
    NotInitialised,
    #[error("{0}")]
    Invalid(String),
    #[error("all uids for sandboxes are in use")]
    NoIdentity,
    /// The sandbox could not be built.
    #[error("the sandbox failed to {step}: {message}")]
    Failed { step: String, message: String },
    /// The launcher died, so nobody knows how the command ended. At the level `limits` without a uid of its own, the command may
    /// have killed it, and its processes may still run: a function should end its process then.
    #[error("the launcher of the sandbox died: {0}")]
    LauncherDied(String),
    /// Processes of the command survived the end.
    #[error("{0} processes of the command could not be killed")]
    Unkillable(u32),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A step of the launcher that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub step: String,
    pub message: String,
}

impl Failure {
    pub fn new(step: impl Into<String>, message: impl Into<String>) -> Self {
        Self { step: step.into(), message: message.into() }
    }
}

/// Names the step of a failed call.
pub(crate) trait Step<T> {
    fn step(self, step: &str) -> Result<T, Failure>;
}

impl<T, E: ToString> Step<T> for Result<T, E> {
    fn step(self, step: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(step, error.to_string()))
    }
}
