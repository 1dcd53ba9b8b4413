//! `nofx policy`: what the tenant's gates demand, whatever a plan says.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use nofx_local::report::{hinted, printable};
use serde_json::{Value, json};
use shared::view::{Policy, PolicyPage, PolicyVersion};

use crate::client::api::Api;
use crate::client::document;
use crate::commands::actor::Actor;

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Print the policy as it was set, in JSON
    Get {
        /// Print every field, with its default if the policy does not set it
        #[arg(long)]
        effective: bool,
    },
    /// Replace the policy by its next version
    Set(SetArgs),
    /// List the versions of the policy, newest first
    History,
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
}

/// `nofx policy`.
pub async fn run(api: &Api, command: &Command) -> Result<()> {
    match command {
        Command::Get { effective } => get(api, *effective).await,
        Command::Set(args) => set(api, args).await,
        Command::History => history(api).await,
    }
}

async fn get(api: &Api, effective: bool) -> Result<()> {
    let policy: Policy = api.get("/policy").await?;
    let shown = match policy.effective {
        Some(fields) if effective => json!(fields),
        None if effective => bail!("this release cannot read version {} of the policy; set it again", policy.version),
        _ => json!(policy.document),
    };
    println!("{}", serde_json::to_string_pretty(&shown)?);
    eprintln!("version {}", policy.version);
    Ok(())
}

async fn set(api: &Api, args: &SetArgs) -> Result<()> {
    let body = json!({ "document": read(&args.file)?, "actor": args.actor.name(), "reason": args.reason });
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
    let stored: Policy = api.put_if("/policy", &body, tag.as_ref()).await?;
    println!("version {}", stored.version);
    Ok(())
}

async fn history(api: &Api) -> Result<()> {
    let pages: Vec<PolicyPage> = api.pages("/policy/history").await?;
    for version in pages.iter().flat_map(|page| &page.versions) {
        println!("{}", line(version));
    }
    Ok(())
}

fn line(version: &PolicyVersion) -> String {
    let PolicyVersion { version, document, changed_by, reason, created_at } = version;
    let reason = reason.as_ref().map(|reason| format!("  ({reason})")).unwrap_or_default();
    printable(&format!("{version}  {created_at}  {changed_by}{reason}  {}", json!(document)))
}

fn read(file: &Path) -> Result<Value> {
    let policy = document::read(file)?;
    if policy.is_object() {
        return Ok(policy);
    }
    let hint = r#"a policy looks like {"gates": {"on_weakening": "fail"}}"#;
    Err(hinted(format!("{} contains no policy", document::name(file)), hint))
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
        let line = line(&serde_json::from_value(version).unwrap());
        assert!(line.starts_with("7  2026-11-23T10:00:00+00:00  ann"), "{line}");
        assert!(line.ends_with(r#"{"gates":{"network":"never"}}"#), "{line}");
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}
