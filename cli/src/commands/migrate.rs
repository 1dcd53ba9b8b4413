//! `nofx migrate`: applies the migrations that are pending.

use std::path::PathBuf;

use anyhow::Result;
use nofx_local::checkout::Checkout;
use nofx_local::migrate;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: String,
    /// The directory of the migrations; by default the checkout's
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub async fn run(args: &Args) -> Result<()> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => Checkout::find()?.migrations(),
    };
    migrate::run(&args.database_url, &dir).await
}
