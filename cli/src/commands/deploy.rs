//! `nofx deploy`: makes release builds and runs `sam deploy` to AWS.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Context, Result, bail};
use nofx_local::checkout::Checkout;
use nofx_local::function;
use nofx_local::process::PidFile;
use nofx_local::report::{self, hinted};
use nofx_local::throwaway::Throwaway;
use nofx_local::tools::python::{self, PythonEnv};
use tokio::process::Command;

use crate::client::git;
use crate::deploy::iam;
use crate::deploy::package::{self, Architecture, DATABASE_CA};
use crate::deploy::sam::{self, Environment};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Environment in samconfig.toml
    #[arg(default_value = "dev")]
    environment: String,
    /// Ask for every parameter, and save the answers in samconfig.toml
    #[arg(long)]
    guided: bool,
    /// Deploy the binaries in target/lambda without building them
    #[arg(long)]
    no_build: bool,
    /// Also require IAM authorization at API Gateway
    #[arg(long)]
    iam: bool,
    /// CA certificate of the database (PEM) to put into every package
    #[arg(long, value_name = "FILE")]
    database_ca: Option<PathBuf>,
}

/// Checks the settings, builds and deploys.
pub async fn run(checkout: &Checkout, args: &Args) -> Result<()> {
    let place = Throwaway::make(checkout, "sam").await?;
    let done = deploy(checkout, args, &place.pid_file).await;
    place.end(true);
    done
}

async fn deploy(checkout: &Checkout, args: &Args, pid_file: &PidFile) -> Result<()> {
    let environment = Environment::read(checkout, &args.environment)?;
    let architecture = check_parameters(&environment, args)?;
    let env = PythonEnv::of(python::DEPLOY, checkout, pid_file).await?;
    check_account(&env, &environment, args.guided).await?;
    if !args.no_build {
        build(checkout, architecture, pid_file).await?;
    }
    package::check(checkout, architecture)?;
    package::set_database_ca(checkout, args.database_ca.as_deref())?;
    let mut command = sam::command(&env, checkout);
    let template = if args.iam { iam::write_copy(checkout)? } else { checkout.root().join("template.yaml") };
    command.arg("deploy").arg("--template-file").arg(&template);
    command.arg("--config-file").arg(sam::config(checkout)).args(["--config-env", &args.environment]);
    if args.guided {
        command.arg("--guided");
    }
    let status = run_in_terminal(command).await?;
    if !status.success() {
        bail!("sam deploy ended with {status}, see above");
    }
    report::line(
        "deploy",
        "done; make the first admin with nofx admin bootstrap, and set NOFX_API_URL to the output ApiUrl",
    );
    Ok(())
}

/// Checks before the build that SAM will find credentials and a region, because a build takes minutes. Uses the same
/// library as SAM, so that it finds the same profiles.
async fn check_account(env: &PythonEnv, environment: &Environment, guided: bool) -> Result<()> {
    const SCRIPT: &str = "import boto3, sys; s = boto3.Session(profile_name=sys.argv[1] or None); \
                       print('region' if s.region_name else '', 'credentials' if s.get_credentials() else '')";
    let mut command = Command::new(env.program("python"));
    command.args(["-c", SCRIPT, environment.option("profile").unwrap_or_default()]).kill_on_drop(true);
    let output = command.output().await.context("cannot look for AWS credentials")?;
    let (found, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("the AWS configuration cannot be used: {}", errors.lines().last().unwrap_or_default());
    }
    if !found.contains("credentials") {
        return Err(hinted(
            "there are no AWS credentials",
            "run aws configure, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ));
    }
    if !guided && environment.option("region").is_none() && !found.contains("region") {
        return Err(hinted("no AWS region is set", "set AWS_DEFAULT_REGION, or region in samconfig.toml"));
    }
    Ok(())
}

fn check_parameters(environment: &Environment, args: &Args) -> Result<Architecture> {
    if let Some(endpoint) = env::var("AWS_ENDPOINT_URL").ok().filter(|url| !url.is_empty()) {
        return Err(hinted(
            format!("AWS_ENDPOINT_URL is {endpoint}, which is not AWS"),
            "unset it, or use make deploy-local",
        ));
    }
    let parameter = |name| environment.parameter(name);
    let required = ["DatabaseSecretArn", "WorkerDatabaseSecretArn"];
    if let Some(missing) = required.into_iter().find(|name| !args.guided && parameter(name).is_none()) {
        return Err(hinted(
            format!("the parameter {missing} of {} is missing", args.environment),
            "create a secret whose text is the database's URL; make deploy GUIDED=1 asks for its ARN and saves it in \
             samconfig.toml",
        ));
    }
    if parameter("DatabaseCaFile").is_some() && args.database_ca.is_none() {
        return Err(hinted(
            format!("the parameter DatabaseCaFile is set, but no {DATABASE_CA} is given for the packages"),
            "make deploy CA=FILE puts it into them",
        ));
    }
    parameter("Architecture").map_or(Ok(Architecture::Arm64), |name| Architecture::parse(&name))
}

async fn build(checkout: &Checkout, architecture: Architecture, pid_file: &PidFile) -> Result<()> {
    let local = PythonEnv::ready(checkout, pid_file).await?;
    let zig = PythonEnv::of(python::BUILD, checkout, pid_file).await?;
    let mut command = Command::new(local.program("cargo-lambda"));
    command.args(["lambda", "build", "--release", "--locked", architecture.build_flag()]);
    for name in function::names() {
        command.args(["--bin", name]);
    }
    // cargo-lambda finds its cross compiler through the first Python in PATH.
    let bin = zig.program("python").parent().map(Path::to_path_buf);
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(bin.into_iter().chain(env::split_paths(&path))).context("PATH cannot be extended")?;
    command
        .env("PATH", path)
        .env("NOFX_REVISION", revision(checkout.root()))
        .current_dir(checkout.root())
        .kill_on_drop(true);
    if !run_in_terminal(command).await?.success() {
        bail!("the functions do not compile, see above");
    }
    Ok(())
}

/// The commit that is built, for the version of the functions in provenance. Empty without Git.
fn revision(root: &Path) -> String {
    let commit = git::line(root, &["rev-parse", "--short=12", "HEAD"]).unwrap_or_default();
    let is_changed =
        git::line(root, &["status", "--porcelain", "--untracked-files=no"]).is_some_and(|line| !line.is_empty());
    if is_changed && !commit.is_empty() { format!("{commit}-changed") } else { commit }
}

/// Runs in our own process group, so that the command can read the terminal and Ctrl-C reaches it.
async fn run_in_terminal(mut command: Command) -> Result<ExitStatus> {
    let program = command.as_std().get_program().to_owned();
    command.status().await.with_context(|| format!("cannot run {}", program.display()))
}
