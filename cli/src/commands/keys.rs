//! `nofx keys`: the public keys that verify attestations.

use anyhow::Result;
use nofx_local::report::printable;
use shared::view::SigningKeys;

use crate::client::api::Api;

#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Print the keys as PEM, to keep them in a file
    #[arg(long)]
    pem: bool,
}

/// Prints a line or a PEM block for each key, the one that signs now first.
pub async fn run(api: &Api, args: &Args) -> Result<()> {
    let SigningKeys { keys } = api.get("/keys").await?;
    for key in keys {
        if args.pem {
            for line in key.pem.lines() {
                println!("{}", printable(line));
            }
        } else {
            let state = if key.current { "signs now" } else { "older" };
            println!("{}  {}  {state}", printable(&key.keyid), printable(&key.algorithm));
        }
    }
    Ok(())
}
