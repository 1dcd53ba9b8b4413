//! `nofx artifact`: where the bytes of an artifact are, restores, and deletions.

use std::fmt::Write;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use nofx_local::report::printable;
use serde_json::{Value, json};
use shared::domain::ArtifactId;
use shared::domain::artifact_storage::StorageState;
use shared::view::{Artifact, ArtifactStorage, StorageChange};

use crate::client::api::Api;
use crate::commands::actor::Actor;
use crate::commands::artifacts::size;
use crate::output::color::command;
use crate::output::{self, Format};

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show what is recorded about an artifact, and where its bytes are
    Show {
        /// The artifact's id, as nofx artifacts lists it
        id: ArtifactId,
        #[command(flatten)]
        format: Format,
    },
    /// Ask for a copy of an archived artifact that can be read for some days
    Restore(RestoreArgs),
    /// Delete the bytes of an artifact; what is recorded about it stays
    #[command(alias = "rm")]
    Delete(DeleteArgs),
}

#[derive(Clone, Debug, Args)]
pub struct RestoreArgs {
    /// The artifact's id
    id: ArtifactId,
    /// How long it can be read, in days (1 to 365)
    #[arg(long)]
    days: u32,
    /// How fast: the faster, the more it costs
    #[arg(long, value_enum, default_value_t)]
    tier: Tier,
    #[command(flatten)]
    actor: Actor,
    #[command(flatten)]
    format: Format,
}

#[derive(Clone, Debug, Args)]
pub struct DeleteArgs {
    /// The artifact's id
    id: ArtifactId,
    /// Why, for the record
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    actor: Actor,
    #[command(flatten)]
    format: Format,
}

/// How fast a restore is.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Tier {
    /// In 1 to 5 minutes
    Expedited,
    /// In 3 to 5 hours
    #[default]
    Standard,
    /// In 5 to 12 hours
    Bulk,
}

impl Tier {
    /// The word of the API.
    fn as_str(self) -> &'static str {
        match self {
            Self::Expedited => "expedited",
            Self::Standard => "standard",
            Self::Bulk => "bulk",
        }
    }
}

/// `nofx artifact`.
pub async fn run(api: &Api, command: &Command) -> Result<()> {
    match command {
        Command::Show { id, format } => {
            let artifact: Artifact = api.get(&format!("/artifacts/{id}")).await?;
            if format.json { output::json(&artifact) } else { output::text(described(&artifact)) }
        }
        Command::Restore(args) => {
            let body = with_actor(json!({"days": args.days, "tier": args.tier.as_str()}), &args.actor);
            let change: StorageChange = api.post(&format!("/artifacts/{}/restore", args.id), &body).await?;
            changed(&change, args.format)
        }
        Command::Delete(args) => {
            let body = with_actor(json!({"reason": args.reason}), &args.actor);
            let change: StorageChange = api.delete(&format!("/artifacts/{}", args.id), &body).await?;
            changed(&change, args.format)
        }
    }
}

fn with_actor(mut body: Value, actor: &Actor) -> Value {
    if let Some(name) = actor.name() {
        body["actor"] = name.into();
    }
    body
}

fn changed(change: &StorageChange, format: Format) -> Result<()> {
    if format.json {
        return output::json(change);
    }
    let next = match change.storage.state {
        StorageState::Restoring | StorageState::Deleting => format!("nofx artifact show {}", change.id),
        StorageState::Hot | StorageState::Archiving | StorageState::Restored => format!("nofx get {}", change.id),
        StorageState::Archived | StorageState::Deleted => String::new(),
    };
    let mut text = format!("{}  {}\n", change.id, sentence(&change.storage));
    if !next.is_empty() {
        let _ = writeln!(text, "  next: {}", command(next));
    }
    output::text(text)
}

fn described(artifact: &Artifact) -> String {
    let mut text = String::new();
    for (name, value) in [
        ("name", printable(&artifact.name)),
        ("type", format!("{}, {}", printable(&artifact.kind), printable(&artifact.media_type))),
        ("size", size(artifact.size_bytes)),
        ("sha256", artifact.hash.clone()),
        ("storage", sentence(&artifact.storage)),
    ] {
        let _ = writeln!(text, "{name:<8} {value}");
    }
    text
}

/// Where the bytes are, in words.
pub fn sentence(storage: &ArtifactStorage) -> String {
    let day = storage.since.0.get(..10).unwrap_or_default();
    let by = storage.actor.as_deref().map(|actor| format!(" by {}", printable(actor))).unwrap_or_default();
    let why = storage.reason.as_deref().map(|reason| format!(": {}", printable(reason))).unwrap_or_default();
    let mut text = match storage.state {
        StorageState::Hot => "hot: it can be read at once".to_owned(),
        StorageState::Archiving => format!("archiving since {day}{why}; it can be read until the storage moves it"),
        StorageState::Archived => format!("archived since {day}; a restore makes it readable"),
        StorageState::Restoring => match &storage.restore {
            Some(restore) => format!(
                "restoring{by}, asked at {}; it can be read by {} for {} days",
                restore.requested_at.0, restore.expected_by.0, restore.days
            ),
            None => "restoring".to_owned(),
        },
        StorageState::Restored => {
            let until = storage.restored_until.as_ref().map(|until| until.0.as_str()).unwrap_or_default();
            format!("restored{by}; it can be read until {until}")
        }
        StorageState::Deleting => format!("deleted{by} on {day}{why}; its bytes go within minutes"),
        StorageState::Deleted => format!("deleted{by} on {day}{why}"),
    };
    if let Some(problem) = &storage.problem {
        let _ = write!(text, " ({})", printable(problem));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_sentence() {
        let storage = |state: &str, restore: Value| -> ArtifactStorage {
            let until = "2026-12-24T00:00:00+00:00";
            serde_json::from_value(json!({
                "state": state, "since": "2026-12-01T10:00:00+00:00", "restored_until": until, "restore": restore,
                "actor": "ann", "reason": "a secret\u{1b}", "problem": null,
            }))
            .unwrap()
        };
        let restore = json!({"days": 7, "tier": "bulk", "requested_at": "2026-12-01T10:00:00+00:00",
            "expected_by": "2026-12-01T22:00:00+00:00"});
        for (state, words) in [
            ("hot", "hot: it can be read at once"),
            ("archived", "archived since 2026-12-01; a restore makes it readable"),
            ("restored", "restored by ann; it can be read until 2026-12-24T00:00:00+00:00"),
        ] {
            assert_eq!(sentence(&storage(state, Value::Null)), words);
        }
        let restoring = sentence(&storage("restoring", restore));
        assert!(restoring.ends_with("it can be read by 2026-12-01T22:00:00+00:00 for 7 days"), "{restoring}");
        let deleted = sentence(&storage("deleted", Value::Null));
        assert!(deleted.starts_with("deleted by ann on 2026-12-01: a secret") && !deleted.contains('\u{1b}'));
        let lost = ArtifactStorage { problem: Some("it is missing".into()), ..storage("archiving", Value::Null) };
        assert!(sentence(&lost).ends_with(" (it is missing)"));
    }
}
