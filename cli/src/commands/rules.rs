//! `nofx rules`: which tables plans may write, and how.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::slice;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use nofx_local::report::{hinted, printable};
use serde::Serialize;
use serde_json::{Value, json};
use shared::http::encoded;
use shared::view::{ForeignKey, Rule, RuleDeleted, RuleDetail, RulePage};

use crate::client::api::Api;
use crate::client::document::Document;
use crate::commands::actor::Actor;
use crate::output::color::command;
use crate::output::table::{Table, cell};
use crate::output::{self, Format};

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// List the rules
    #[command(alias = "ls")]
    List {
        #[command(flatten)]
        format: Format,
    },
    /// Show a table's rule, its triggers and foreign keys, and who changed the rule
    #[command(alias = "get")]
    Show {
        /// The table, as schema.table
        table: String,
        #[command(flatten)]
        format: Format,
    },
    /// Allow plans to write a table; replaces its rule, if there is one
    Set(SetArgs),
    /// Forbid plans to write a table
    #[command(aliases = ["remove", "rm"])]
    Delete {
        /// The table, as schema.table
        table: String,
        #[command(flatten)]
        actor: Actor,
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Clone, Debug, Args)]
pub struct SetArgs {
    /// The table, as schema.table
    table: String,
    /// File with the complete rule, as JSON or YAML, instead of the options below; - reads standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ops", "columns", "key", "max_rows", "role", "dependants", "allow"])]
    file: Option<PathBuf>,
    /// Operations that are allowed, separated by commas
    #[arg(long, value_delimiter = ',', required_unless_present = "file")]
    ops: Vec<Op>,
    /// Columns that plans may write, separated by commas
    #[arg(long, value_delimiter = ',')]
    columns: Vec<String>,
    /// Columns that select the rows of an update or a delete, separated by commas
    #[arg(long, value_delimiter = ',')]
    key: Vec<String>,
    /// Maximum number of rows of one write
    #[arg(long, value_name = "ROWS")]
    max_rows: Option<u32>,
    /// Database role that writes
    #[arg(long)]
    role: Option<String>,
    /// Another table that cascades and triggers may change, and its maximum number of rows; may be repeated
    #[arg(long = "dependant", value_name = "TABLE=ROWS", value_parser = dependant)]
    dependants: Vec<(String, u64)>,
    /// Kinds of relation that are allowed besides plain tables, separated by commas
    #[arg(long, value_delimiter = ',')]
    allow: Vec<Allowance>,
    /// Pin the current triggers; after a change of one of them, writes are refused
    #[arg(long)]
    pin_triggers: bool,
    #[command(flatten)]
    actor: Actor,
    #[command(flatten)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Op {
    Insert,
    Update,
    Delete,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Allowance {
    View,
    ForeignTable,
    Inheritance,
}

/// `nofx rules`.
pub async fn run(api: &Api, command: &Command) -> Result<()> {
    match command {
        Command::List { format } => list(api, *format).await,
        Command::Show { table, format } => {
            let rule: RuleDetail = api.get(&path(table)).await?;
            if format.json { output::json(&rule) } else { output::line(printable_json(&rule)?) }
        }
        Command::Set(args) => set(api, args).await,
        Command::Delete { table, actor, format } => {
            let deleted: RuleDeleted = api.delete(&path(table), &json!({"actor": actor.name()})).await?;
            if format.json {
                return output::json(&deleted);
            }
            output::line(format_args!("{}  the rule was deleted", printable(table)))
        }
    }
}

async fn list(api: &Api, format: Format) -> Result<()> {
    let pages: Vec<RulePage> = api.pages("/rules").await?;
    let rules: Vec<Rule> = pages.into_iter().flat_map(|page| page.rules).collect();
    if format.json {
        return output::json(&RulePage { rules, next: None });
    }
    if rules.is_empty() {
        output::note(format_args!(
            "plans may write no table; {} allows one",
            command("nofx rules set TABLE --ops OP,..")
        ));
        return Ok(());
    }
    output::text(table(&rules))
}

async fn set(api: &Api, args: &SetArgs) -> Result<()> {
    let document = args.file.as_deref().map(read).transpose()?;
    let mut rule = document.as_ref().map_or_else(|| of_options(args), |document| document.value.clone());
    if let Some(name) = args.actor.name() {
        rule["actor"] = json!(name);
    }
    let mut stored = put(api, args, document.as_ref(), &rule).await?;
    let triggers = json!(stored.target.as_ref().map(|target| &target.triggers));
    if args.pin_triggers && stored.rule.triggers.as_ref() != Some(&triggers) {
        rule["triggers"] = triggers;
        stored = put(api, args, document.as_ref(), &rule).await?;
    }
    if args.format.json {
        return output::json(&stored);
    }
    output::text(table(slice::from_ref(&stored.rule)))?;
    for note in notes(&stored) {
        output::note(printable(&note));
    }
    Ok(())
}

async fn put(api: &Api, args: &SetArgs, document: Option<&Document>, rule: &Value) -> Result<RuleDetail> {
    let stored = api.put(&path(&args.table), rule).await;
    stored.map_err(|error| match document {
        Some(document) => document.located("", error),
        None => error,
    })
}

fn read(file: &Path) -> Result<Document> {
    let document = Document::read(file)?;
    if document.value.is_object() {
        return Ok(document);
    }
    Err(hinted(
        format!("{} contains no rule", document.name),
        r#"a rule looks like {"allowed_ops": ["insert"], "columns": ["name"]}"#,
    ))
}

fn of_options(args: &SetArgs) -> Value {
    let words = |values: Vec<clap::builder::PossibleValue>| -> Vec<String> {
        values.iter().map(|value| value.get_name().replace('-', "_")).collect()
    };
    let mut rule = json!({
        "allowed_ops": words(args.ops.iter().filter_map(ValueEnum::to_possible_value).collect()),
        "columns": args.columns,
        "key": args.key,
        "dependants": args.dependants.iter().cloned().collect::<BTreeMap<_, _>>(),
        "allow": words(args.allow.iter().filter_map(ValueEnum::to_possible_value).collect()),
    });
    if let Some(max_rows) = args.max_rows {
        rule["max_rows"] = json!(max_rows);
    }
    if let Some(role) = &args.role {
        rule["role"] = json!(role);
    }
    rule
}

/// Notes about what prevents writes.
fn notes(stored: &RuleDetail) -> Vec<String> {
    let Some(target) = &stored.target else {
        return vec!["there is no such table yet".to_owned()];
    };
    let mut notes = Vec::new();
    for (name, digest) in &target.triggers {
        let pinned = stored.rule.triggers.as_ref().and_then(|triggers| triggers[name].as_str());
        if pinned != Some(digest) {
            notes.push(format!("the trigger {name} is not pinned; writes are refused until it is (--pin-triggers)"));
        }
    }
    let cascades = |key: &&ForeignKey| [key.on_delete, key.on_update].iter().any(|on| matches!(on, 'c' | 'n' | 'd'));
    for ForeignKey { child, .. } in target.foreign_keys.iter().filter(cascades) {
        if stored.rule.dependants.as_ref().is_none_or(|dependants| dependants.get(child).is_none()) {
            notes.push(format!("changes may cascade to {child}: such a write needs --dependant {child}=ROWS"));
        }
    }
    notes
}

fn table(rules: &[Rule]) -> Table {
    let list = |names: &Option<Value>| {
        let names = names.as_ref().and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        names.collect::<Vec<_>>().join(",")
    };
    let mut table = Table::new(&["TABLE", "ALLOWS", "COLUMNS", "KEY", "MAX ROWS", "ROLE"]).whole(&[0, 4]).right(4);
    for rule in rules {
        table.row(vec![
            cell(&rule.table),
            cell(rule.allowed_ops.iter().map(|op| op.name()).collect::<Vec<_>>().join(",")),
            cell(list(&rule.columns)),
            cell(list(&rule.key)),
            cell(rule.max_rows.to_string()),
            cell(rule.role.as_str().unwrap_or_default()),
        ]);
    }
    table
}

/// Indented JSON without control characters.
fn printable_json(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(text.lines().map(printable).collect::<Vec<_>>().join("\n"))
}

fn dependant(text: &str) -> Result<(String, u64), String> {
    let (table, rows) = text.split_once('=').ok_or("must look like public.orders=100")?;
    let rows = rows.parse().map_err(|_| "the rows must be a whole number".to_owned())?;
    Ok((table.to_owned(), rows))
}

fn path(table: &str) -> String {
    format!("/rules/{}", encoded(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_name_what_prevents_writes() {
        let stored = json!({
            "id": "0190a0a0-0000-7000-8000-000000000001", "table": "public.notes", "allowed_ops": ["insert"],
            "max_rows": 1, "role": "nofx_writer", "triggers": {}, "dependants": {}, "changes": [],
            "created_at": "2026-11-23T10:00:00+00:00", "updated_at": "2026-11-23T10:00:00+00:00",
            "target": {
                "oid": 1, "table": "public.notes", "kind": "r", "counts": true, "members": ["public.notes"],
                "inherited": false, "closed": [], "definer_views": [], "deferrable": [],
                "triggers": {"public.notes.audit": "a"},
                "foreign_keys": [{"parent": "public.notes", "child": "public.child", "on_delete": "c", "on_update": "a",
                                  "parent_columns": ["id"], "child_columns": ["note_id"]}],
            },
        });
        let stored = serde_json::from_str(&stored.to_string()).unwrap();
        let notes = notes(&stored).join("\n");
        assert!(notes.contains("public.notes.audit is not pinned"), "{notes}");
        assert!(notes.contains("--dependant public.child=ROWS"), "{notes}");
    }

    #[test]
    fn a_dependant_has_a_table_and_a_number() {
        assert_eq!(dependant("public.orders=100"), Ok(("public.orders".to_owned(), 100)));
        assert!(dependant("public.orders").is_err());
        assert!(dependant("public.orders=many").is_err());
    }
}
