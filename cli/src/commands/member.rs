//! `nofx member`: the people of the tenant.

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use nofx_local::report::printable;
use serde_json::json;
use shared::http::encoded;
use shared::view::{Member, MemberPage, MemberRemoved};

use crate::client::api::Api;
use crate::output::color::DIM;
use crate::output::table::{Table, cell, styled};
use crate::output::{self, Format, count, time};

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// List the members
    #[command(alias = "ls")]
    List {
        #[command(flatten)]
        format: Format,
    },
    /// Add a member, or change one
    #[command(alias = "add")]
    Set(SetArgs),
    /// Remove a member, end their sessions, and revoke the tokens that they own
    #[command(aliases = ["delete", "rm"])]
    Remove {
        /// Their id at the issuer: the sub of their login
        #[arg(value_name = "SUB")]
        subject: String,
        /// Member who takes over their tokens, which are then not revoked
        #[arg(long, value_name = "SUB")]
        tokens_to: Option<String>,
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Clone, Debug, Args)]
pub struct SetArgs {
    /// Their id at the issuer: the sub of their login
    #[arg(value_name = "SUB")]
    subject: String,
    /// Their role
    #[arg(long)]
    role: Role,
    /// Name that others see [default: the e-mail address, else SUB]
    #[arg(long)]
    name: Option<String>,
    /// E-mail address
    #[arg(long)]
    email: Option<String>,
    #[command(flatten)]
    format: Format,
}

/// A role in the tenant.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Role {
    /// Reads runs, artifacts, rules, the policy and usage
    Viewer,
    /// Also starts and controls runs
    Operator,
    /// Also decides gates
    Approver,
    /// Also changes policy, rules, members and tokens
    Admin,
}

impl Role {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::Admin => "admin",
        }
    }
}

/// `nofx member`.
pub async fn run(api: &Api, command: &Command) -> Result<()> {
    match command {
        Command::List { format } => list(api, *format).await,
        Command::Set(args) => {
            let body = json!({"role": args.role.as_str(), "name": args.name, "email": args.email});
            let member: Member = api.put(&path(&args.subject), &body).await?;
            if args.format.json {
                return output::json(&member);
            }
            output::line(format_args!("{}  {}  {}", printable(&member.subject), printable(&member.name), member.role))
        }
        Command::Remove { subject, tokens_to, format } => {
            let removed: MemberRemoved = api.delete(&path(subject), &json!({"tokens_to": tokens_to})).await?;
            if format.json {
                return output::json(&removed);
            }
            output::line(sentence(subject, &removed))
        }
    }
}

fn path(subject: &str) -> String {
    format!("/members/{}", encoded(subject))
}

fn sentence(subject: &str, removed: &MemberRemoved) -> String {
    let number = |number: u32, one: &str| count(usize::try_from(number).unwrap_or(usize::MAX), one);
    let mut text = format!("{}  was removed", printable(subject));
    for (many, one, what) in [
        (removed.sessions, "session", "ended"),
        (removed.tokens, "token", "revoked"),
        (removed.tokens_moved, "token", "moved"),
    ] {
        if many > 0 {
            text = format!("{text}, {} {what}", number(many, one));
        }
    }
    text
}

async fn list(api: &Api, format: Format) -> Result<()> {
    let pages: Vec<MemberPage> = api.pages("/members").await?;
    let members: Vec<Member> = pages.into_iter().flat_map(|page| page.members).collect();
    if format.json {
        return output::json(&MemberPage { members, next: None });
    }
    let mut table = Table::new(&["SUB", "NAME", "ROLE", "E-MAIL", "SINCE", "BY"]).whole(&[2]);
    for member in &members {
        table.row(vec![
            cell(&member.subject),
            cell(&member.name),
            cell(member.role.as_str()),
            cell(member.email.as_deref().unwrap_or_default()),
            styled(time::date(&member.created_at), DIM),
            cell(&member.created_by),
        ]);
    }
    output::text(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_says_what_ended() {
        let removed = |sessions, tokens, tokens_moved| MemberRemoved { sessions, tokens, tokens_moved };
        assert_eq!(sentence("ann", &removed(0, 0, 0)), "ann  was removed");
        assert_eq!(sentence("ann", &removed(2, 1, 0)), "ann  was removed, 2 sessions ended, 1 token revoked");
        assert_eq!(sentence("ann", &removed(0, 0, 3)), "ann  was removed, 3 tokens moved");
    }
}
