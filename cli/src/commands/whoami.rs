//! `nofx whoami`: who the API says the caller is, and what the caller may do.

use std::time::SystemTime;

use anyhow::Result;
use nofx_local::report::printable;
use shared::domain::Kind;
use shared::view::Whoami;

use crate::client::api::Api;
use crate::output::{self, Format, time};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    format: Format,
}

/// `nofx whoami`.
pub async fn run(api: &Api, args: &Args) -> Result<()> {
    let who: Whoami = api.get("/whoami").await?;
    if args.format.json {
        return output::json(&who);
    }
    output::line(sentence(&who, SystemTime::now()))?;
    let permissions: Vec<&str> = who.permissions.iter().map(|permission| permission.as_str()).collect();
    output::line(format_args!("may: {}", permissions.join(", ")))
}

/// Who the caller is, on one line.
pub fn sentence(who: &Whoami, now: SystemTime) -> String {
    let (name, tenant) = (printable(&who.name), printable(&who.tenant.0));
    let mut text = format!("{name}, {} of the tenant {tenant}", who.role);
    if who.kind != Kind::Person {
        text = format!("{text}, owned by {}", printable(&who.owner));
    }
    match who.expires_at.as_ref().and_then(time::time).and_then(|at| at.duration_since(now).ok()) {
        Some(left) => format!("{text} (expires in {})", time::span(left)),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_line_says_who_somebody_is_and_for_how_long() {
        let who = |kind: &str, name: &str, expires_at: Option<&str>| -> Whoami {
            let who = json!({
                "tenant": "acme", "subject": "s", "name": name, "kind": kind, "role": "operator", "token_id": null, "owner": "ann",
                "solo": false, "expires_at": expires_at, "permissions": ["runs.read"],
            });
            serde_json::from_value(who).unwrap()
        };
        let now = time::parse("2026-11-29T10:00:00Z").unwrap();
        assert_eq!(sentence(&who("person", "Ann\u{1b}[1m", None), now), "Ann\\u{1b}[1m, operator of the tenant acme");
        assert_eq!(
            sentence(&who("agent", "agent:ci", Some("2026-12-01T12:00:00Z")), now),
            "agent:ci, operator of the tenant acme, owned by ann (expires in 2 d 2 h)"
        );
    }
}
