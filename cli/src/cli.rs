//! The command line: commands in groups, global options, exit codes.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use nofx_local::checkout::Checkout;
use shared::domain::gate::Decision;

use crate::client::api::Api;
use crate::commands::{
    admin, artifact, artifacts, audit, completions, control, costs, decide, demo, deploy, deploy_local, dev, env, exec,
    gate, get, inbox, keys, limits, lineage, link, login, logout, logs, man, member, migrate, migration, open, plan,
    policy, profile, proof, queues, rules, run, runs, show, timeline, token, verify, watch, whoami, why, worker,
};
use crate::output::color::{self, BOLD, LIVE, paint};

/// The command of the NOFX control plane
#[derive(Debug, Parser)]
#[command(
    name = "nofx",
    version,
    after_help = AFTER_HELP,
    styles = color::help(),
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, clap::Args)]
struct Global {
    /// Call the API of this profile: nofx profile list
    #[arg(
        long,
        global = true,
        env = "NOFX_PROFILE",
        hide_env_values = true,
        value_name = "NAME",
        help_heading = "Global options"
    )]
    profile: Option<String>,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN", help_heading = "Global options")]
    color: color::Choice,
}

const AFTER_HELP: &str = "\
Environment:
  NOFX_API_URL  Address of the API; wins over profiles [default: http://127.0.0.1:3000]
  NOFX_TOKEN    Token that identifies you to the API; wins over nofx login
  NOFX_PROFILE  Profile to use instead of the default one
  NOFX_CONFIG   File with the profiles [default: ~/.config/nofx/config.toml]
  NO_COLOR      No colours; CLICOLOR_FORCE=1 wants them also in a pipe

Exit status:
  0  success
  1  failure, or the run did not succeed
  2  wrong usage
  3  nofx gate cannot judge
  4  the run waits for a decision (with --exit-when-blocked)
  5  what was named does not exist
  6  nothing answers at the API's address
  7  nofx verify: what was signed holds, and the gate or the run did not pass
  8  you are not logged in, or your token is not valid: nofx login
  130  Ctrl-C
  exec returns the status of its command, or 128 plus the number of the signal that ended it.";

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Call(Call),
    /// Run the local stack in the foreground, until Ctrl-C
    Dev(dev::Args),
    /// Run the sample plans, and check that each ends as expected
    Demo(demo::Args),
    /// Check a plan, draw its graph, or print the schema of plans
    #[command(subcommand)]
    Plan(plan::Command),
    /// Judge code in a checkout, without a control plane
    Gate(gate::Command),
    /// Verify the proof of a run, or the attestation of a gate, with public keys
    Verify(verify::Args),
    /// Manage the deployments that this command can call
    #[command(subcommand)]
    Profile(profile::Command),
    /// Log in to the API, and store the session for it
    Login(login::Args),
    /// End the session, and forget it
    Logout(logout::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Write man pages into a folder
    Man(man::Args),

    /// Build the functions and deploy them to AWS
    Deploy(deploy::Args),
    /// Deploy to an emulator on this machine, and run the sample plans there
    DeployLocal(deploy_local::Args),
    /// Create the first admin of a tenant, create a token, or set limits, with the login of the database's owner
    #[command(subcommand)]
    Admin(admin::Command),
    /// Apply pending migrations to a database
    Migrate(migrate::Args),
    /// Write the next migration, with the SQL functions that changed
    Migration(migration::Args),
    /// Serve a queue on this machine, with the environment of `nofx env`
    #[command(subcommand)]
    Worker(worker::Queue),
    /// Print the functions' environment variables, for a shell: eval "$(nofx env)"
    Env(env::Args),
    /// Run a command with a throwaway Postgres and AWS emulator
    Exec(exec::Args),
}

/// Commands that call the API.
#[derive(Debug, Subcommand)]
enum Call {
    /// Start a run of a plan, and print its id
    Run(run::Args),
    /// Follow a run until it ends
    Watch(watch::Args),
    /// List the newest runs, with filters
    Runs(runs::Args),
    /// Show a run and its steps, or one step with its inputs and outputs
    Show(show::Args),
    /// Say what a run or a step waits for, or why it failed
    Why(why::Args),
    /// Tell what happened in a run, in sentences
    Timeline(timeline::Args),
    /// Print the output that a step's command left
    Logs(logs::Args),
    /// List what a run stored
    Artifacts(artifacts::Args),
    /// Show where the bytes of an artifact are; restore or delete them
    #[command(subcommand)]
    Artifact(artifact::Command),
    /// Download an artifact, and check its sha256
    Get(get::Args),
    /// Show which artifacts of a run were made from which
    Lineage(lineage::Args),
    /// Open the console in a browser
    Open(open::Args),
    /// List the gates that wait for a decision
    Inbox(inbox::Args),
    /// Approve a gate: the step or run that waits for it continues
    Approve(decide::Args),
    /// Reject a gate: the step or run that waits for it fails
    #[command(mut_arg("reason", |reason| reason.required(true)))]
    Reject(decide::Args),
    /// Waive a gate: let it pass without evidence
    #[command(mut_arg("reason", |reason| reason.required(true)))]
    Waive(decide::Args),
    /// Make a one-time link to a gate, for one person, and print it
    Link(link::Args),
    /// Start a failed or cancelled run again; what succeeded is kept
    Retry(control::Args),
    /// Cancel a run: what is running no longer counts
    Cancel(control::Args),
    /// Pause a run: running steps finish, no other one starts
    Pause(control::Args),
    /// Resume a paused run
    Resume(control::Args),
    /// Download the proof of a run that has ended: one file that verifies offline
    Proof(proof::Args),
    /// List the public keys that verify proofs and attestations
    Keys(keys::Args),
    /// Show and change what gates demand, whatever a plan says
    #[command(subcommand)]
    Policy(policy::Command),
    /// Show and change which tables plans may write
    #[command(subcommand)]
    Rules(rules::Command),
    /// Show your name, tenant, role and permissions
    Whoami(whoami::Args),
    /// Create, list and revoke API tokens of agents and services
    #[command(subcommand)]
    Token(token::Command),
    /// List, set and remove the members of the tenant
    #[command(subcommand)]
    Member(member::Command),
    /// Show what model calls cost: of a run by step and model, or of the tenant by day and model
    Costs(costs::Args),
    /// Show the limits of the tenant, and how much of each it uses
    Limits(limits::Args),
    /// List, export and verify the record of who changed what
    #[command(subcommand)]
    Audit(audit::Command),
    /// List the queues of handlers; show and redrive their dead letters
    Queues(queues::Args),
}

/// The commands in the order of `nofx --help`.
pub const GROUPS: [(&str, &[&str]); 7] = [
    ("Start", &["run", "watch", "dev", "demo"]),
    ("Look", &["runs", "show", "why", "timeline", "logs", "artifacts", "artifact", "get", "lineage", "open"]),
    ("Decide and steer", &["inbox", "approve", "reject", "waive", "link", "retry", "cancel", "pause", "resume"]),
    ("Write and prove", &["plan", "gate", "proof", "verify", "keys"]),
    ("Govern and operate", &["policy", "rules", "audit", "member", "token", "limits", "costs", "queues", "admin"]),
    ("Set up", &["login", "logout", "whoami", "profile", "completions", "man"]),
    ("Work in a checkout", &["deploy", "deploy-local", "migrate", "migration", "worker", "env", "exec"]),
];

/// The command line with its help.
pub fn command() -> clap::Command {
    let command = Cli::command();
    let help = groups(&command);
    command.help_template(help)
}

/// The template of `nofx --help`: clap cannot group commands.
fn groups(command: &clap::Command) -> StyledStr {
    let names = GROUPS.iter().flat_map(|(_, names)| names.iter());
    let width = names.map(|name| name.len()).max().unwrap_or(0);
    let mut help = String::from("{before-help}{about-with-newline}\n{usage-heading} {usage}\n");
    for (title, names) in GROUPS {
        let _ = write!(help, "\n{}\n", paint(BOLD, format_args!("{title}:")));
        for name in names {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about).map(ToString::to_string);
            let _ = writeln!(help, "  {}  {}", paint(LIVE, format_args!("{name:width$}")), about.unwrap_or_default());
        }
    }
    help.push_str("\n{options}{after-help}");
    StyledStr::from(help)
}

/// Words of other commands, with ours.
const SYNONYMS: [(&str, &[&str]); 17] = [
    ("run", &["submit", "start", "create", "new"]),
    ("runs", &["list", "ls", "ps"]),
    ("show", &["status", "describe", "inspect"]),
    ("why", &["explain"]),
    ("timeline", &["events", "history"]),
    ("watch", &["follow", "tail", "attach"]),
    ("cancel", &["stop", "kill", "abort"]),
    ("get", &["download"]),
    ("dev", &["up", "serve", "server"]),
    ("inbox", &["gates", "approvals", "pending"]),
    ("retry", &["rerun", "restart"]),
    ("gate", &["check", "lint", "test", "judge"]),
    ("verify", &["prove"]),
    ("profile", &["config", "context"]),
    ("login", &["signin", "auth"]),
    ("logout", &["signout"]),
    ("member", &["user", "users"]),
];

/// The error, with a suggestion if the command is a word that other tools use.
fn suggested(mut error: clap::Error) -> clap::Error {
    // The usage names the command whose subcommand is unknown.
    let is_first = error.get(ContextKind::Usage).is_some_and(|usage| usage.to_string().contains("nofx [OPTIONS]"));
    if is_first
        && error.kind() == ErrorKind::InvalidSubcommand
        && let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand)
        && let Some((ours, _)) = SYNONYMS.iter().find(|(_, theirs)| theirs.contains(&word.as_str()))
    {
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![(*ours).to_owned()]));
    } else if let Some(ContextValue::Strings(similar)) = error.get(ContextKind::SuggestedSubcommand)
        && let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand)
    {
        // clap lists the nearest one last, and also words that have little in common.
        let near = similar.iter().rev().find(|known| is_typo(word, known)).cloned();
        match near {
            Some(near) => error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![near])),
            None => error.remove(ContextKind::SuggestedSubcommand),
        };
    }
    error
}

/// Whether one word is the other with a slip of the fingers, or two in a long one.
fn is_typo(word: &str, known: &str) -> bool {
    strsim::osa_distance(word, known) <= (word.chars().count() / 3).max(1)
}

impl Cli {
    /// Reads the arguments. Prints help, the version or a mistake, and exits then.
    pub fn read() -> Self {
        let matches = command().try_get_matches().unwrap_or_else(|error| suggested(error).exit());
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Runs the command.
    pub async fn run(self) -> Result<ExitCode> {
        self.global.color.apply();
        let profile = self.global.profile.as_deref();
        match self.command {
            Command::Dev(args) => dev::run(&Checkout::find()?, &args).await?,
            Command::Demo(args) => demo::run(&Checkout::find()?, &args).await?,
            Command::Exec(args) => return exec::run(&Checkout::find()?, &args).await,
            Command::Deploy(args) => deploy::run(&Checkout::find()?, &args).await?,
            Command::DeployLocal(args) => deploy_local::run(&Checkout::find()?, &args).await?,
            Command::Env(args) => env::run(&Checkout::find()?, &args).await?,
            Command::Admin(command) => admin::run(&command).await?,
            Command::Migrate(args) => migrate::run(&args).await?,
            Command::Migration(args) => migration::run(&args)?,
            Command::Worker(queue) => worker::run(queue)?,
            Command::Gate(command) => return gate::run(&command).await,
            Command::Completions(args) => completions::run(&args)?,
            Command::Man(args) => man::run(&args)?,
            Command::Login(args) => login::run(profile, &args).await?,
            Command::Logout(args) => logout::run(profile, &args).await?,
            Command::Profile(command) => profile::run(&command, profile)?,
            Command::Plan(command) => plan::run(profile, &command).await?,
            Command::Verify(args) => return verify::run(profile, &args).await,
            Command::Call(call) => return call.run(&Api::connect(profile).await?).await,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Call {
    async fn run(self, api: &Api) -> Result<ExitCode> {
        match self {
            Self::Run(args) => return run::run(api, &args).await,
            Self::Watch(args) => return watch::run(api, &args).await,
            Self::Runs(args) => runs::run(api, &args).await?,
            Self::Show(args) => show::run(api, &args).await?,
            Self::Why(args) => why::run(api, &args).await?,
            Self::Timeline(args) => timeline::run(api, &args).await?,
            Self::Logs(args) => logs::run(api, &args).await?,
            Self::Artifacts(args) => artifacts::run(api, &args).await?,
            Self::Artifact(command) => artifact::run(api, &command).await?,
            Self::Get(args) => get::run(api, &args).await?,
            Self::Open(args) => open::run(api, &args).await?,
            Self::Inbox(args) => inbox::run(api, &args).await?,
            Self::Approve(args) => decide::run(api, Decision::Approve, &args).await?,
            Self::Reject(args) => decide::run(api, Decision::Reject, &args).await?,
            Self::Waive(args) => decide::run(api, Decision::Waive, &args).await?,
            Self::Link(args) => link::run(api, &args).await?,
            Self::Retry(args) => control::run(api, control::Verb::Retry, &args).await?,
            Self::Cancel(args) => control::run(api, control::Verb::Cancel, &args).await?,
            Self::Pause(args) => control::run(api, control::Verb::Pause, &args).await?,
            Self::Resume(args) => control::run(api, control::Verb::Resume, &args).await?,
            Self::Policy(command) => policy::run(api, &command).await?,
            Self::Rules(command) => rules::run(api, &command).await?,
            Self::Whoami(args) => whoami::run(api, &args).await?,
            Self::Token(command) => token::run(api, &command).await?,
            Self::Member(command) => member::run(api, &command).await?,
            Self::Audit(command) => audit::run(api, &command).await?,
            Self::Costs(args) => costs::run(api, &args).await?,
            Self::Limits(args) => limits::run(api, &args).await?,
            Self::Queues(args) => queues::run(api, &args).await?,
            Self::Lineage(args) => lineage::run(api, &args).await?,
            Self::Proof(args) => proof::run(api, &args).await?,
            Self::Keys(args) => keys::run(api, &args).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
