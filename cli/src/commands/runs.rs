//! `nofx runs`: the newest runs.

use anyhow::Result;
use nofx_local::report::printable;
use serde::Deserialize;

use crate::client::api::{Api, Run};

#[derive(Deserialize)]
struct RunPage {
    runs: Vec<Run>,
}

/// Prints a line for each.
pub async fn run(api: &Api) -> Result<()> {
    let page: RunPage = api.get("/runs").await?;
    for run in page.runs {
        let (created, goal) = (run.created_at.unwrap_or_default(), run.goal.unwrap_or_default());
        let (id, status) = (printable(&run.id), printable(&run.status));
        println!("{id}  {status:<9}  {}  {}", printable(&created), printable(&goal));
    }
    Ok(())
}
