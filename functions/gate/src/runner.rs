//! Where commands run: in the function `gate_runner`, or in a process of the program `gate_runner` on this machine.

mod lambda;
mod process;

use std::path::PathBuf;

use nofx_gates::judge::{Archive, Runner, RunnerLost};
use nofx_gates::run::{Bundle, Job};
use shared::invoke::Functions;
use shared::storage::StepStore;

use lambda::LambdaRunner;
use process::ProcessRunner;

/// Where commands run.
#[derive(Clone)]
pub enum Runners {
    /// The function with this name.
    Lambda { functions: Functions, name: String },
    /// This program, as a child process without any of our variables.
    Process { program: PathBuf },
}

/// The runner of one attempt.
pub enum AttemptRunner<'a> {
    Lambda(LambdaRunner<'a>),
    Process(ProcessRunner<'a>),
}

impl Runners {
    /// `process` names the program `gate_runner` beside this one, `process:PATH` another one, and any other text a
    /// function.
    pub fn new(setting: &str, functions: Functions) -> Self {
        let beside = || std::env::current_exe().unwrap_or_default().with_file_name("gate_runner");
        match setting.split_once(':') {
            Some(("process", path)) => Self::Process { program: PathBuf::from(path) },
            None if setting == "process" => Self::Process { program: beside() },
            _ => Self::Lambda { functions, name: setting.to_owned() },
        }
    }

    /// A runner for archives that are not stored. `None` if commands run in a function, which reads them from storage.
    pub fn without_storage(&self) -> Option<AttemptRunner<'_>> {
        match self {
            Self::Lambda { .. } => None,
            Self::Process { program } => Some(AttemptRunner::Process(ProcessRunner::new(program))),
        }
    }

    pub fn for_attempt<'a>(&'a self, store: &'a StepStore) -> AttemptRunner<'a> {
        match self {
            Self::Lambda { functions, name } => AttemptRunner::Lambda(LambdaRunner::new(functions, name, store)),
            Self::Process { program } => AttemptRunner::Process(ProcessRunner::new(program)),
        }
    }
}

impl Runner for AttemptRunner<'_> {
    async fn run(&self, archive: &Archive, job: Job) -> Result<Bundle, RunnerLost> {
        match self {
            Self::Lambda(runner) => runner.run(archive, job).await,
            Self::Process(runner) => runner.run(archive, job).await,
        }
    }
}
