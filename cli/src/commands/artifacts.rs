//! `nofx artifacts`: what a run stored.

use anyhow::Result;
use shared::view::{ArtifactPage, ArtifactSummary, Step};

use crate::client::api::Api;
use crate::client::resolve;
use crate::output::color::DIM;
use crate::output::table::{Table, cell, styled};
use crate::output::{self, Format};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The run: its id, the beginning or end of its id, or `last`
    run: String,
    /// Only those of this step
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
    #[command(flatten)]
    format: Format,
}

pub async fn run(api: &Api, args: &Args) -> Result<()> {
    let run = resolve::run(api, &args.run).await?;
    let pages: Vec<ArtifactPage> = api.pages(&format!("/runs/{run}/artifacts")).await?;
    let mut artifacts: Vec<ArtifactSummary> = pages.into_iter().flat_map(|page| page.artifacts).collect();
    if let Some(name) = &args.step {
        let step: Step = resolve::step(api, run, name).await?;
        artifacts.retain(|artifact| artifact.step_id == Some(step.id));
    }
    if args.format.json {
        return output::json(&ArtifactPage { artifacts, next: None });
    }
    if artifacts.is_empty() {
        output::note(format_args!("the run {run} stored nothing"));
        return Ok(());
    }
    output::text(table(&artifacts))
}

/// A row for each artifact.
pub fn table(artifacts: &[ArtifactSummary]) -> Table {
    let mut table = Table::new(&["ARTIFACT", "NAME", "TYPE", "SIZE", "SHA256"]).whole(&[0, 3]).right(3);
    for artifact in artifacts {
        table.row(vec![
            cell(artifact.id.to_string()),
            cell(&artifact.name),
            cell(&artifact.kind),
            cell(size(artifact.size_bytes)),
            styled(&artifact.hash, DIM),
        ]);
    }
    table
}

/// `12 B`, `3.4 kB`, `5.6 MB`.
pub fn size(bytes: u64) -> String {
    let scaled = |unit: u64| format!("{}.{}", bytes / unit, bytes % unit * 10 / unit);
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{} kB", scaled(1_000)),
        1_000_000..1_000_000_000 => format!("{} MB", scaled(1_000_000)),
        _ => format!("{} GB", scaled(1_000_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal() {
        for (bytes, expected) in
            [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (1_999_999, "1.9 MB"), (5 << 30, "5.3 GB")]
        {
            assert_eq!(size(bytes), expected);
        }
    }
}
