//! `nofx lineage`: which artifacts of a run were made from which.

use std::collections::HashMap;

use anyhow::Result;
use clap::ValueEnum;
use nofx_local::report::printable;
use shared::domain::ArtifactId;
use shared::view::Lineage;

use crate::client::api::Api;
use crate::client::resolve;
use crate::output;
use crate::output::table::{Table, cell};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Drawing {
    /// A line for each artifact, with what it was made from
    #[default]
    Text,
    /// For Markdown on GitHub and GitLab
    Mermaid,
    /// For Graphviz: nofx lineage RUN --format dot | dot -Tsvg
    Dot,
    Json,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The run: its id, the beginning or end of its id, or `last`
    run: String,
    #[arg(long, value_enum, default_value_t)]
    format: Drawing,
}

/// Prints the lineage.
pub async fn run(api: &Api, args: &Args) -> Result<()> {
    let run = resolve::run(api, &args.run).await?;
    let lineage: Lineage = api.get(&format!("/runs/{run}/lineage")).await?;
    match args.format {
        Drawing::Json => return output::json(&lineage),
        Drawing::Dot => output::text(lineage.to_dot())?,
        Drawing::Mermaid => output::text(lineage.to_mermaid())?,
        Drawing::Text => table(&lineage)?,
    }
    if lineage.truncated {
        output::note("there is more than is shown");
    }
    Ok(())
}

fn table(lineage: &Lineage) -> Result<()> {
    if lineage.nodes.is_empty() {
        output::note("the run made no artifacts");
        return Ok(());
    }
    let names: HashMap<ArtifactId, &str> = lineage.nodes.iter().map(|node| (node.id, node.name.as_str())).collect();
    let mut table = Table::new(&["ARTIFACT", "STEP", "SHA256", "MADE FROM", "STORAGE"]);
    for node in &lineage.nodes {
        let parents = lineage.edges.iter().filter(|edge| edge.to == node.id);
        let parents: Vec<String> =
            parents.filter_map(|edge| names.get(&edge.from)).map(|name| printable(name)).collect();
        let hash = node.hash.get(..12).unwrap_or(&node.hash);
        table.row(vec![
            cell(&node.name),
            cell(node.made_by()),
            cell(hash),
            cell(parents.join(", ")),
            cell(node.storage_words().unwrap_or_default()),
        ]);
    }
    output::text(table)
}
