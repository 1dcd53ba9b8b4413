//! `nofx deploy`: release builds, and `sam deploy` to an account of AWS.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Context, Result, bail};
use nofx_local::checkout::Checkout;
use nofx_local::function;
use nofx_local::process::Ledger;
use nofx_local::report::{self, hinted};
use nofx_local::throwaway::Throwaway;
use nofx_local::tools::python::{self, PythonEnv};
use tokio::process::Command;

use crate::deploy::package::{self, Architecture, DATABASE_CA};
use crate::deploy::sam::{self, Environment};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Which environment of samconfig.toml
    #[arg(default_value = "dev")]
    environment: String,
    /// Ask for every parameter, and save the answers in samconfig.toml
    #[arg(long)]
    guided: bool,
    /// Deploy the binaries in target/lambda without building them
    #[arg(long)]
    no_build: bool,
    /// Certificate authority of the database (PEM), to be put into every package
    #[arg(long, value_name = "FILE")]
    database_ca: Option<PathBuf>,
}

/// Deploys, and says what is missing before anything is built.
pub async fn run(checkout: &Checkout, args: &Args) -> Result<()> {
    let place = Throwaway::make(checkout, "sam").await?;
    let done = deploy(checkout, args, &place.ledger).await;
    place.end(true);
    done
}

async fn deploy(checkout: &Checkout, args: &Args, ledger: &Ledger) -> Result<()> {
    let environment = Environment::read(checkout, &args.environment)?;
    let architecture = check_parameters(&environment, args)?;
    let env = PythonEnv::of(python::DEPLOY, checkout, ledger).await?;
    check_account(&env, &environment, args.guided).await?;
    if !args.no_build {
        build(checkout, architecture, ledger).await?;
    }
    package::check(checkout, architecture)?;
    package::set_database_ca(checkout, args.database_ca.as_deref())?;
    let mut command = sam::command(&env, checkout);
    command.args(["deploy", "--template-file", "template.yaml", "--config-env", &args.environment]);
    if args.guided {
        command.arg("--guided");
    }
    let status = run_in_terminal(command).await?;
    if !status.success() {
        bail!("sam deploy ended with {status}, see above");
    }
    report::line("deploy", "done; set NOFX_API_URL to the output ApiUrl: `nofx` signs what it sends there");
    Ok(())
}

/// A build takes minutes: that SAM would find no account to deploy to is told before. Asked by the library that SAM
/// itself asks, so that it knows the same profiles and places.
async fn check_account(env: &PythonEnv, environment: &Environment, guided: bool) -> Result<()> {
    const ASK: &str = "import boto3, sys; s = boto3.Session(profile_name=sys.argv[1] or None); \
                       print('region' if s.region_name else '', 'credentials' if s.get_credentials() else '')";
    let mut command = Command::new(env.program("python"));
    command.args(["-c", ASK, environment.option("profile").unwrap_or_default()]).kill_on_drop(true);
    let output = command.output().await.context("cannot look for an account of AWS")?;
    let (found, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("AWS's configuration cannot be used: {}", said.lines().last().unwrap_or_default());
    }
    if !found.contains("credentials") {
        return Err(hinted(
            "there are no credentials of AWS",
            "aws configure, or AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ));
    }
    if !guided && environment.option("region").is_none() && !found.contains("region") {
        return Err(hinted("no region of AWS is chosen", "set AWS_DEFAULT_REGION, or region in samconfig.toml"));
    }
    Ok(())
}

fn check_parameters(environment: &Environment, args: &Args) -> Result<Architecture> {
    if let Some(endpoint) = env::var("AWS_ENDPOINT_URL").ok().filter(|url| !url.is_empty()) {
        return Err(hinted(
            format!("AWS_ENDPOINT_URL points at {endpoint}: that is not AWS"),
            "unset it, or use make deploy-local",
        ));
    }
    let parameter = |name| environment.parameter(name);
    let required = ["DatabaseSecretArn", "WorkerDatabaseSecretArn"];
    if let Some(missing) = required.into_iter().find(|name| !args.guided && parameter(name).is_none()) {
        return Err(hinted(
            format!("the parameter {missing} of {} is missing", args.environment),
            "make a secret whose text is the database's URL; make deploy GUIDED=1 asks for its ARN and keeps it in \
             samconfig.toml",
        ));
    }
    if parameter("DatabaseCaFile").is_some() && args.database_ca.is_none() {
        return Err(hinted(
            format!("the parameter DatabaseCaFile is set, and no {DATABASE_CA} is given for the packages"),
            "make deploy CA=FILE puts it there",
        ));
    }
    parameter("Architecture").map_or(Ok(Architecture::Arm64), |name| Architecture::parse(&name))
}

async fn build(checkout: &Checkout, architecture: Architecture, ledger: &Ledger) -> Result<()> {
    let local = PythonEnv::ready(checkout, ledger).await?;
    let zig = PythonEnv::of(python::BUILD, checkout, ledger).await?;
    let mut command = Command::new(local.program("cargo-lambda"));
    command.args(["lambda", "build", "--release", "--locked", architecture.build_flag()]);
    for name in function::names() {
        command.args(["--bin", name]);
    }
    // cargo-lambda finds its cross compiler through the first Python of the path.
    let bin = zig.program("python").parent().map(Path::to_path_buf);
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(bin.into_iter().chain(env::split_paths(&path))).context("PATH is unusable")?;
    command.env("PATH", path).current_dir(checkout.root()).kill_on_drop(true);
    if !run_in_terminal(command).await?.success() {
        bail!("the functions do not compile, see above");
    }
    Ok(())
}

/// In our own process group: it may ask, and Ctrl-C reaches it.
async fn run_in_terminal(mut command: Command) -> Result<ExitStatus> {
    let program = command.as_std().get_program().to_owned();
    command.status().await.with_context(|| format!("cannot run {}", program.display()))
}
