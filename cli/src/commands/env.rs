//! `nofx env`: the variables of the functions, for a shell.

use std::collections::BTreeMap;
use std::env;

use anyhow::Result;
use nofx_local::checkout::Checkout;
use nofx_local::port::Ports;
use nofx_local::postgres::Cluster;
use nofx_local::report::hinted;
use nofx_local::stack::signing_key::{SigningKey, Signs};
use nofx_local::stack::{docker, environment};

use crate::output::{self, Format};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Print the variables of a stack that `nofx dev --docker` started
    #[arg(long)]
    docker: bool,
    #[command(flatten)]
    format: Format,
}

/// Prints the variables as `export` lines, or as an object.
pub async fn run(checkout: &Checkout, args: &Args) -> Result<()> {
    let containers = if args.docker { docker::variables(checkout).await? } else { BTreeMap::new() };
    let set = |name| containers.get(name).cloned().or_else(|| env::var(name).ok()).filter(|url| !url.is_empty());
    let ports = Ports::load(checkout.state().join("ports.json"));
    let never = || hinted("the local stack was never started", "run nofx dev first");
    let http_port = ports.get("http").ok_or_else(never)?;
    let database_url = match set("DATABASE_URL") {
        Some(url) => url,
        None => Cluster::open(checkout.state().join("postgres"), ports.get("postgres").ok_or_else(never)?)?.url(),
    };
    let aws_endpoint = match set("AWS_ENDPOINT_URL") {
        Some(url) => url,
        None => format!("http://127.0.0.1:{}", ports.get("emulator").ok_or_else(never)?),
    };
    let mut variables = environment::functions(checkout, &database_url, &aws_endpoint, http_port, &checkout.dotenv()?);
    variables.extend(containers);
    // `nofx worker gate` signs evidence with the key of this stack.
    variables.extend(SigningKey::ready(&checkout.state(), Signs::Evidence)?.variable_of("gate"));
    if args.format.json {
        return output::json(&variables);
    }
    output::text(environment::export_lines(&variables))
}
