//! `nofx policy`: what the tenant's gates demand, whatever a plan says.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use nofx_local::report::hinted;
use serde_json::json;
use shared::view::{Policy, PolicyPage, PolicyVersion};

use crate::client::api::Api;
use crate::client::document::Document;
use crate::commands::actor::Actor;
use crate::output::color::{DIM, command};
use crate::output::table::{Table, cell, styled};
use crate::output::{self, Format, time};

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Print the policy as it was set, in JSON
    #[command(alias = "show")]
    Get {
        /// Print every field, with its default if the policy does not set it
        #[arg(long, conflicts_with = "json")]
        effective: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Replace the policy by its next version
    Set(SetArgs),
    /// List the versions of the policy, newest first
    History {
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Clone, Debug, Args)]
pub struct SetArgs {
    /// File with the complete policy, as JSON or YAML; - reads standard input
    file: PathBuf,
    /// Only replace this version of the policy (0: set the first one)
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u32>,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    actor: Actor,
    #[command(flatten)]
    format: Format,
}

/// `nofx policy`.
pub async fn run(api: &Api, command: &Command) -> Result<()> {
    match command {
        Command::Get { effective, format } => get(api, *effective, *format).await,
        Command::Set(args) => set(api, args).await,
        Command::History { format } => history(api, *format).await,
    }
}

async fn get(api: &Api, effective: bool, format: Format) -> Result<()> {
    let policy: Policy = api.get("/policy").await?;
    if format.json {
        return output::json(&policy);
    }
    let shown = match policy.effective {
        Some(fields) if effective => json!(fields),
        None if effective => bail!("this release cannot read version {} of the policy; set it again", policy.version),
        _ => json!(policy.document),
    };
    output::json(&shown)?;
    output::note(format_args!("version {}", policy.version));
    Ok(())
}

async fn set(api: &Api, args: &SetArgs) -> Result<()> {
    let document = read(&args.file)?;
    let body = json!({ "document": document.value, "actor": args.actor.name(), "reason": args.reason });
    let tag = match args.if_version {
        None => None,
        Some(version) => {
            let (policy, tag) = api.get_with_tag::<Policy>("/policy").await?;
            if policy.version != version {
                let hint = "read it with `nofx policy get`, and decide again";
                return Err(hinted(format!("the policy is at version {}, not {version}", policy.version), hint));
            }
            tag
        }
    };
    let stored = api.put_if("/policy", &body, tag.as_ref()).await;
    let stored: Policy = stored.map_err(|error| document.located("document", error))?;
    if args.format.json {
        return output::json(&stored);
    }
    output::line(format_args!("version {}", stored.version))
}

async fn history(api: &Api, format: Format) -> Result<()> {
    let pages: Vec<PolicyPage> = api.pages("/policy/history").await?;
    let versions: Vec<PolicyVersion> = pages.into_iter().flat_map(|page| page.versions).collect();
    if format.json {
        return output::json(&PolicyPage { versions, next: None });
    }
    if versions.is_empty() {
        output::note(format_args!("no policy was set; {} sets the first one", command("nofx policy set FILE")));
        return Ok(());
    }
    output::text(table(&versions, SystemTime::now()))
}

fn table(versions: &[PolicyVersion], now: SystemTime) -> Table {
    let mut table = Table::new(&["VERSION", "SET", "BY", "REASON", "POLICY"]).whole(&[0, 1]).right(0);
    for PolicyVersion { version, document, changed_by, reason, created_at } in versions {
        table.row(vec![
            cell(version.to_string()),
            styled(time::ago(created_at, now), DIM),
            cell(changed_by),
            cell(reason.as_deref().unwrap_or_default()),
            cell(json!(document).to_string()),
        ]);
    }
    table
}

fn read(file: &Path) -> Result<Document> {
    let document = Document::read(file)?;
    if document.value.is_object() {
        return Ok(document);
    }
    let hint = r#"a policy looks like {"gates": {"on_weakening": "fail"}}"#;
    Err(hinted(format!("{} contains no policy", document.name), hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_one_line_without_control_characters() {
        let version = json!({
            "version": 7, "document": {"gates": {"network": "never"}}, "changed_by": "ann\u{1b}[31m",
            "reason": "one\ntwo", "created_at": "2026-11-23T10:00:00+00:00",
        });
        let now = time::parse("2026-11-25T10:00:00Z").unwrap();
        let text = table(&[serde_json::from_value(version).unwrap()], now).to_string();
        let text = anstream::adapter::strip_str(&text).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[1].starts_with("      7  2 d ago  ann\\u{1b}[31m  one\\u{a}two"), "{text}");
        assert!(lines[1].ends_with(r#"{"gates":{"network":"never"}}"#), "{text}");
    }
}
