//! `nofx keys`: the public keys that verify attestations.

use anyhow::Result;
use shared::view::{KeyPurpose, SigningKeys};

use crate::client::api::Api;
use crate::client::keyring;
use crate::output::color::{DIM, GOOD};
use crate::output::table::{Table, cell, styled};
use crate::output::{self, Format, printable_lines};

#[derive(Clone, Copy, Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct Args {
    /// Print the keys as PEM, to keep them in a file
    #[arg(long, conflicts_with = "json")]
    pem: bool,
    /// With --pem: print the keys of decisions instead of those of evidence
    #[arg(long, requires = "pem")]
    decisions: bool,
    /// With --pem: print the keys of seals instead of those of evidence
    #[arg(long, requires = "pem", conflicts_with = "decisions")]
    seals: bool,
    /// With --pem: print the keys of every purpose, each after a line with its purpose: what nofx verify needs for a proof
    #[arg(long, requires = "pem", conflicts_with_all = ["decisions", "seals"])]
    all: bool,
    #[command(flatten)]
    format: Format,
}

/// Prints a line or a PEM block for each key, the one that signs now first.
pub async fn run(api: &Api, args: &Args) -> Result<()> {
    let SigningKeys { keys } = api.get("/keys").await?;
    if args.format.json {
        return output::json(&SigningKeys { keys });
    }
    if args.pem {
        if args.all {
            return printable_lines(&keyring::pem(&keys)).try_for_each(output::line);
        }
        let purpose = match (args.decisions, args.seals) {
            (true, _) => KeyPurpose::Decisions,
            (_, true) => KeyPurpose::Seals,
            _ => KeyPurpose::Evidence,
        };
        let keys = keys.iter().filter(|key| key.purpose == purpose);
        return keys.flat_map(|key| printable_lines(&key.pem)).try_for_each(output::line);
    }
    let mut table = Table::new(&["KEY", "ALGORITHM", "SIGNS", ""]).whole(&[0]);
    for key in keys {
        let state = if key.current { styled("signs now", GOOD) } else { styled("older", DIM) };
        let purpose = match key.purpose {
            KeyPurpose::Evidence => "evidence",
            KeyPurpose::Decisions => "decisions",
            KeyPurpose::Seals => "seals",
        };
        table.row(vec![cell(&key.keyid), cell(&key.algorithm), cell(purpose), state]);
    }
    output::text(table)
}
