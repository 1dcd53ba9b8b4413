//! `nofx runs`: lists the newest runs.

use anyhow::Result;
use nofx_local::report::printable;
use shared::view::RunPage;

use crate::client::api::Api;

/// Prints a line for each run.
pub async fn run(api: &Api) -> Result<()> {
    let page: RunPage = api.get("/runs").await?;
    for run in page.runs {
        println!("{}  {:<9}  {}  {}", run.id, run.status, printable(&run.created_at.0), printable(&run.goal));
    }
    Ok(())
}
