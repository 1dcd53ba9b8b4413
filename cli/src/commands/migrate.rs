//! `nofx migrate`: applies pending migrations.

use std::path::PathBuf;

use anyhow::Result;
use nofx_local::checkout::Checkout;
use nofx_local::migrate;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Connection URL of the database: postgresql://USER:PASSWORD@HOST:PORT/NAME
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: String,
    /// Directory of the migrations [default: migrations/ of the checkout]
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
