//! `nofx dev`: the local stack in the foreground.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nofx_local::aws::emulator::Emulator;
use nofx_local::aws::resources::PROVIDER_KEYS;
use nofx_local::checkout::Checkout;
use nofx_local::postgres::Purpose;
use nofx_local::process::PidFile;
use nofx_local::process::signals::Signals;
use nofx_local::report::{self, hinted};
use nofx_local::stack::logins::{self, Logins};
use nofx_local::stack::{self, Options, Stack, docker};
use nofx_local::tools::node;
use shared::domain::Role;

use crate::output;

/// The port at which client commands expect the API.
pub const DEFAULT_PORT: u16 = 3000;
/// Files and folders of the state that `--reset` removes.
const RESET: [&str; 6] = ["postgres", "postgres.password", "emulator", "logs", "ports.json", logins::FOLDER];

#[derive(Clone, Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub struct Args {
    /// Delete the local database, queues and artifacts first
    #[arg(long)]
    reset: bool,
    /// Port of the API and the console
    #[arg(long, default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Do not rebuild the functions when a file changes
    #[arg(long)]
    no_reload: bool,
    /// Require logins, as a deployment does. The first start prints how the first admin logs in
    #[arg(long, conflicts_with = "docker")]
    auth: bool,
    /// Add a person who can log in, with a role: ann@local.test=approver. Implies --auth
    #[arg(long = "user", value_name = "EMAIL=ROLE", value_parser = person, conflicts_with = "docker")]
    users: Vec<(String, Role)>,
    /// Use LocalStack and Supabase Local in Docker instead of the embedded servers
    #[arg(long)]
    docker: bool,
}

impl Args {
    /// Default options, on this port.
    pub fn on_port(port: u16) -> Self {
        Self { reset: false, port, no_reload: false, auth: false, users: Vec::new(), docker: false }
    }
}

/// The stack of `nofx dev`. It holds a lock, so that there is only one in a state folder.
#[derive(Debug)]
pub struct DevStack {
    stack: Stack,
    provider_keys: usize,
    logs: PathBuf,
    has_logins: bool,
    /// Set if the stack uses containers.
    docker: Option<Checkout>,
    _lock: File,
}

/// Runs the stack until a signal.
pub async fn run(checkout: &Checkout, args: &Args) -> Result<()> {
    let mut signals = Signals::listen()?;
    let mut stack = DevStack::prepare(checkout, args).await?;
    let started = tokio::select! {
        started = stack.start(args.port) => started,
        _ = signals.next() => {
            report::line("stop", "interrupted");
            stack.stop(&mut signals).await;
            return Ok(());
        }
    };
    if started.is_ok() {
        signals.next().await;
        report::line("stop", "stopping the stack");
    }
    stack.stop(&mut signals).await;
    started
}

impl DevStack {
    /// Makes sure that this is the only stack in its state folder, and ends processes that an earlier one left behind.
    pub async fn prepare(checkout: &Checkout, args: &Args) -> Result<Self> {
        let state = checkout.state();
        fs::create_dir_all(&state).with_context(|| format!("cannot create {}", state.display()))?;
        let lock = lock(checkout)?;
        let pid_file = PidFile::new(state.join("pids.json"));
        let ended = pid_file.end_leftovers().await;
        if !ended.is_empty() {
            report::line(
                "cleanup",
                format_args!("ended processes that an earlier stack left running: {}", ended.join(", ")),
            );
        }
        stack::check_port(args.port)?;
        if args.reset {
            reset(checkout)?;
            if args.docker {
                docker::reset(checkout).await?;
            }
        }
        let variables = if args.docker {
            docker::up(checkout).await?;
            docker::variables(checkout).await?
        } else {
            BTreeMap::new()
        };
        let set = |name| variables.get(name).cloned().or_else(|| env::var(name).ok()).filter(|url| !url.is_empty());
        let logs = state.join("logs");
        let options = Options {
            state,
            http_port: Some(args.port),
            reload: !args.no_reload,
            purpose: Purpose::Persistent,
            database_url: set("DATABASE_URL"),
            aws_endpoint: set("AWS_ENDPOINT_URL"),
            variables,
            services: Some(Emulator::RUN_SERVICES),
            sweep_period: stack::sweep_period()?,
            logins: (args.auth || !args.users.is_empty()).then(|| Logins { people: args.users.clone() }),
        };
        let dotenv = checkout.dotenv()?;
        let provider_keys = PROVIDER_KEYS.iter().filter(|key| dotenv.contains_key(**key)).count();
        let docker = args.docker.then(|| checkout.clone());
        let has_logins = options.logins.is_some();
        let stack = Stack::new(checkout.clone(), options, pid_file);
        Ok(Self { stack, provider_keys, logs, has_logins, docker, _lock: lock })
    }

    /// Starts the stack and prints its addresses.
    pub async fn start(&mut self, port: u16) -> Result<()> {
        if let Err(error) = node::check().await {
            report::line("warning", format_args!("{error:#}: gates of TypeScript workspaces will fail"));
        }
        self.stack.start().await?;
        self.summary(port);
        Ok(())
    }

    /// Stops the stack in order. After another signal, kills it at once.
    pub async fn stop(&mut self, signals: &mut Signals) {
        tokio::select! {
            () = self.stop_in_order() => return,
            _ = signals.next() => {}
        }
        report::line("stop", "at once");
        self.stack.kill().await;
    }

    async fn stop_in_order(&mut self) {
        self.stack.stop().await;
        if let Some(checkout) = &self.docker
            && let Err(error) = docker::down(checkout).await
        {
            report::print_error(&error);
        }
    }

    fn summary(&self, port: u16) {
        report::line("", "");
        report::line("API", format_args!("http://127.0.0.1:{port}"));
        report::line("console", format_args!("http://127.0.0.1:{port}/ui/runs"));
        match self.provider_keys {
            0 => {
                report::line(
                    "models",
                    "none: codegen fills in templates (put a provider key into .env to use a model)",
                );
            }
            keys => report::line("models", format_args!("{keys} provider keys from .env")),
        }
        report::line("logs", self.logs.display());
        if self.has_logins {
            self.show_logins();
        }
        let url = if port == DEFAULT_PORT { String::new() } else { format!("NOFX_API_URL=http://127.0.0.1:{port} ") };
        report::line("try", format_args!("{url}{} run examples/release.yaml --watch", output::program()));
        report::line("", "Ctrl-C stops the stack");
    }

    /// How people log in. A password is shown when it is made, and never again.
    fn show_logins(&self) {
        for user in &self.stack.new_users {
            report::line("login", format_args!("{} ({}), password {}", user.email, user.role, user.password));
        }
        let known = if self.stack.new_users.is_empty() {
            "; nofx dev --auth --reset deletes the passwords and the database"
        } else {
            "; the passwords are shown only once"
        };
        report::line("", format_args!("{} login --email {}{known}", output::program(), logins::ADMIN));
    }
}

/// A person with a role, such as `ann@local.test=approver`.
fn person(text: &str) -> Result<(String, Role), &'static str> {
    let (email, role) = text.rsplit_once('=').ok_or("write EMAIL=ROLE, such as ann@local.test=approver")?;
    let role = Role::parse(role).ok_or("a role is viewer, operator, approver or admin")?;
    let is_address = email.len() <= 255
        && email.bytes().all(|byte| byte.is_ascii_graphic())
        && email.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty());
    if is_address { Ok((email.to_owned(), role)) } else { Err("this is not an e-mail address") }
}

/// Locks the state folder.
fn lock(checkout: &Checkout) -> Result<File> {
    let path = checkout.state().join("lock");
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let owner = fs::read_to_string(&path).unwrap_or_default();
            return Err(hinted(
                format!("the local stack of this checkout is already running (process {})", owner.trim()),
                "use it, or stop it with Ctrl-C in its terminal",
            ));
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    file.set_len(0).context("cannot write the lock")?;
    write!(file, "{}", std::process::id()).context("cannot write the lock")?;
    Ok(file)
}

fn reset(checkout: &Checkout) -> Result<()> {
    for name in RESET {
        let path = checkout.state().join(name);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    report::line("reset", "removed the local database, queues and artifacts");
    Ok(())
}
