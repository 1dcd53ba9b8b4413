//! `nofx migration`: writes the next migration.

use anyhow::Result;
use nofx_local::checkout::Checkout;
use nofx_local::migrate::{self, release};
use nofx_local::report;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Name of the migration, such as add_step_labels
    name: String,
}

pub fn run(args: &Args) -> Result<()> {
    let path = release::write(&Checkout::find()?.migrations(), &args.name)?;
    report::line("migration", format_args!("wrote {}", migrate::shown(&path)));
    Ok(())
}
