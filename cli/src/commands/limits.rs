//! `nofx limits`: the limits of the tenant, and what it uses. `nofx admin limits` sets them.

use anyhow::{Result, ensure};
use nofx_local::database;
use nofx_local::migrate::tenant::set_limits;
use nofx_local::report::{hinted, printable};
use serde_json::{Map, Value, json};
use shared::domain::TenantId;
use shared::view::Limits;

use crate::client::api::Api;
use crate::output::color::DIM;
use crate::output::table::{Table, cell, styled};
use crate::output::{self, Format};

/// The names of limits, as the database knows them.
const NAMES: [&str; 4] = ["open_runs", "queued_steps", "stored_bytes", "requests_per_minute"];

#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    format: Format,
}

/// `nofx limits`.
pub async fn run(api: &Api, args: &Args) -> Result<()> {
    let limits: Limits = api.get("/limits").await?;
    if args.format.json {
        return output::json(&limits);
    }
    output::text(table(&limits))
}

fn table(limits: &Limits) -> Table {
    let mut table = Table::new(&["LIMIT", "USED", "AT MOST"]).whole(&[0, 1, 2]).right(1).right(2);
    for ((name, most), (_, used)) in limits.limits.named().into_iter().zip(limits.used.named()) {
        let most = most.map_or_else(|| styled("no limit", DIM), |most| cell(most.to_string()));
        table.row(vec![cell(name), cell(used.unwrap_or_default().to_string()), most]);
    }
    table
}

/// Changes of limits: a number, or none.
#[derive(Clone, Debug, clap::Args)]
pub struct Change {
    /// A limit as NAME=NUMBER, or NAME=none: open_runs, queued_steps, stored_bytes, requests_per_minute
    #[arg(value_name = "NAME=NUMBER", value_parser = change, required = true)]
    changes: Vec<(&'static str, Option<u64>)>,
}

fn change(text: &str) -> Result<(&'static str, Option<u64>), String> {
    let (name, most) = text.split_once('=').ok_or("must be NAME=NUMBER, such as open_runs=100")?;
    let known = NAMES.into_iter().find(|known| *known == name);
    let name = known.ok_or_else(|| format!("the limits are {}", NAMES.join(", ")))?;
    if most == "none" {
        return Ok((name, None));
    }
    let most: u64 = most.parse().map_err(|_| "a limit is a whole number, or none".to_owned())?;
    Ok((name, Some(most)))
}

/// Sets limits of a tenant with the login of the database's owner. Other limits do not change. Prints all limits.
pub async fn set(database_url: &str, tenant: &TenantId, change: &Change) -> Result<()> {
    let (mut set, mut unset) = (Map::new(), Vec::new());
    for (name, most) in &change.changes {
        match most {
            Some(most) => drop(set.insert((*name).to_owned(), json!(most))),
            None => unset.push(*name),
        }
    }
    let client = database::connect(database_url).await?;
    let limits = set_limits(&client, tenant, &Value::Object(set), &unset).await?.ok_or_else(|| {
        hinted(format!("there is no tenant {}", printable(&tenant.0)), "nofx admin bootstrap makes one")
    })?;
    ensure!(limits.is_object(), "the database answers {limits}");
    output::json(&limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_or_none() {
        assert_eq!(change("open_runs=5"), Ok(("open_runs", Some(5))));
        assert_eq!(change("stored_bytes=none"), Ok(("stored_bytes", None)));
        for bad in ["open_runs", "open_runs=", "open_runs=-1", "open_runs=1.5", "runs=1", "=1"] {
            assert!(change(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_limit_is_a_line_with_what_is_used() {
        let limits = json!({
            "limits": {"open_runs": 5}, "used": {"open_runs": 2, "queued_steps": 40, "stored_bytes": 0, "requests_per_minute": 0},
        });
        let limits: Limits = serde_json::from_value(limits).unwrap();
        let text = anstream::adapter::strip_str(&table(&limits).to_string()).to_string();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["open_runs", "2", "5"]);
        assert_eq!(lines[2], ["queued_steps", "40", "no", "limit"]);
    }
}
