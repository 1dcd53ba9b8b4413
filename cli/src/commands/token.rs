//! `nofx token`: API tokens of agents and services.

use std::ops::RangeInclusive;
use std::time::SystemTime;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use shared::domain::access::TOKEN_S;
use shared::domain::{Permission, TokenId};
use shared::http::encoded;
use shared::view::{Token, TokenCreated, TokenEnded, TokenPage};

use crate::client::api::Api;
use crate::commands::member::Role;
use crate::output::color::{DIM, command};
use crate::output::table::{Table, cell, styled};
use crate::output::{self, Format, time};

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Create a token, and print it. It cannot be shown again
    Create(CreateArgs),
    /// List the valid tokens, newest first
    #[command(alias = "ls")]
    List {
        /// Also list tokens that expired or were revoked
        #[arg(long)]
        all: bool,
        /// List the sessions of people instead
        #[arg(long)]
        sessions: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Revoke a token or a session. This cannot be undone
    #[command(aliases = ["delete", "rm"])]
    Revoke {
        /// Id of the token
        id: TokenId,
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Clone, Debug, Args)]
pub struct CreateArgs {
    /// Name of the token; records show KIND:NAME
    name: String,
    /// Kind of program. An agent can never decide gates, or change the policy, rules, members or tokens
    #[arg(long)]
    kind: Kind,
    /// Role of the token
    #[arg(long)]
    role: Role,
    /// Member who owns it, by subject or e-mail address: whoever uses it. By default you
    #[arg(long, value_name = "MEMBER")]
    owner: Option<String>,
    /// How long it is valid: a number with m, h, d or w, at most 366d
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = lifetime)]
    expires: u32,
    /// Limit it to this permission, such as runs.read; may be repeated
    #[arg(long = "scope", value_name = "PERMISSION", value_parser = permission)]
    scopes: Vec<Permission>,
    #[command(flatten)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Agent,
    Service,
}

/// `nofx token`.
pub async fn run(api: &Api, command: &Command) -> Result<()> {
    match command {
        Command::Create(args) => create(api, args).await,
        Command::List { all, sessions, format } => list(api, *all, *sessions, *format).await,
        Command::Revoke { id, format } => {
            let ended: TokenEnded = api.delete(&format!("/tokens/{id}"), &json!({})).await?;
            if format.json {
                return output::json(&ended);
            }
            let before = if ended.result == "unchanged" { " before" } else { "" };
            output::line(format_args!("{id}  was revoked{before}"))
        }
    }
}

async fn create(api: &Api, args: &CreateArgs) -> Result<()> {
    let kind = match args.kind {
        Kind::Agent => "agent",
        Kind::Service => "service",
    };
    let scopes = (!args.scopes.is_empty()).then_some(&args.scopes);
    let body = json!({
        "kind": kind, "name": args.name, "role": args.role.as_str(), "owner": args.owner, "scopes": scopes, "expires_in_s": args.expires,
    });
    let made: TokenCreated = api.post("/tokens", &body).await?;
    if args.format.json {
        return output::json(&made);
    }
    output::line(&made.token)?;
    output::note(format_args!(
        "{kind}:{} has this token until {}; it is not shown again. {} revokes it",
        args.name,
        time::date(&made.expires_at),
        command(format!("nofx token revoke {}", made.id))
    ));
    Ok(())
}

async fn list(api: &Api, all: bool, sessions: bool, format: Format) -> Result<()> {
    let path = format!("/tokens?sessions={}", encoded(&sessions.to_string()));
    let pages: Vec<TokenPage> = api.pages(&path).await?;
    let tokens: Vec<Token> = pages.into_iter().flat_map(|page| page.tokens).filter(|token| all || token.live).collect();
    if format.json {
        return output::json(&TokenPage { tokens, next: None });
    }
    if tokens.is_empty() {
        output::note(format_args!("there are no tokens; {} creates one", command("nofx token create NAME --kind ..")));
        return Ok(());
    }
    output::text(table(&tokens, SystemTime::now()))
}

fn table(tokens: &[Token], now: SystemTime) -> Table {
    let mut table = Table::new(&["ID", "NAME", "ROLE", "OWNER", "LAST USED", "STATE"]).whole(&[0]);
    for token in tokens {
        let used = token.last_used_at.as_ref().map_or_else(|| "never".to_owned(), |at| time::ago(at, now));
        let role = token.role.map(shared::domain::Role::as_str).unwrap_or_default();
        let role = if token.scopes.is_some() { format!("{role}, scoped") } else { role.to_owned() };
        table.row(vec![
            cell(token.id.to_string()),
            cell(&token.name),
            cell(role),
            cell(&token.owner),
            styled(used, DIM),
            cell(state(token, now)),
        ]);
    }
    table
}

fn state(token: &Token, now: SystemTime) -> String {
    if let Some(at) = &token.revoked_at {
        let by = token.revoked_by.as_deref().unwrap_or_default();
        return format!("revoked {} by {by}", time::ago(at, now));
    }
    match time::time(&token.expires_at).and_then(|at| at.duration_since(now).ok()) {
        Some(left) => format!("expires in {}", time::span(left)),
        None => format!("expired {}", time::ago(&token.expires_at, now)),
    }
}

fn lifetime(text: &str) -> Result<u32, String> {
    seconds(text, TOKEN_S, "90d, from 1m to 366d")
}

/// Seconds of `90d`, `12h`, `30m` or `2w`. `such_as` has an example and the bounds.
pub(super) fn seconds(text: &str, most: RangeInclusive<u64>, such_as: &str) -> Result<u32, String> {
    let wrong = || format!("must be a number with m, h, d or w, such as {such_as}");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(wrong()),
    };
    let total = number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds));
    total.filter(|total| most.contains(total)).and_then(|total| total.try_into().ok()).ok_or_else(wrong)
}

fn permission(text: &str) -> Result<Permission, String> {
    let found = Permission::parse(text).filter(|found| *found != Permission::Public);
    found.ok_or_else(|| "is not a permission; nofx whoami lists yours".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_a_number_with_a_unit() {
        for (text, expected) in
            [("1m", 60), ("12h", 43_200), ("90d", 7_776_000), ("2w", 1_209_600), ("366d", 31_622_400)]
        {
            assert_eq!(lifetime(text), Ok(expected));
        }
        for wrong in ["", "d", "90", "0d", "367d", "-1d", "1y", "1.5h", "9999999999999999999d", "9ä"] {
            assert!(lifetime(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_says_whether_it_counts() {
        let token = |revoked: Option<&str>, expires: &str| -> Token {
            let token = json!({
                "id": "018f0000-0000-7000-8000-000000000001", "kind": "agent", "name": "agent:a", "subject": "agent:a", "owner": "ann",
                "role": "viewer", "scopes": ["runs.read"], "created_at": "2026-11-20T10:00:00Z", "expires_at": expires,
                "revoked_at": revoked, "revoked_by": revoked.map(|_| "ben"), "last_used_at": null, "last_used_ip": null, "live": false,
            });
            serde_json::from_value(token).unwrap()
        };
        let now = time::parse("2026-11-29T10:00:00Z").unwrap();
        let state = |token: Token| state(&token, now);
        assert_eq!(state(token(None, "2026-12-01T10:00:00Z")), "expires in 2 d");
        assert_eq!(state(token(None, "2026-11-28T10:00:00Z")), "expired 1 d ago");
        assert_eq!(state(token(Some("2026-11-29T09:00:00Z"), "2026-12-01T10:00:00Z")), "revoked 1 h ago by ben");
        let text = table(&[token(None, "2026-12-01T10:00:00Z")], now).to_string();
        let text = anstream::adapter::strip_str(&text).to_string();
        assert!(text.contains("agent:a  viewer, scoped  ann    never      expires in 2 d"), "{text}");
    }
}
