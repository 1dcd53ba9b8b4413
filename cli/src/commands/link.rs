//! `nofx link`: one-time links to gates, for mail and chat.

use anyhow::{Context, Result};
use nofx_local::report::printable;
use reqwest::Url;
use serde_json::json;
use shared::flow::link_gate::LINK_S;
use shared::view::GateLink;

use crate::client::api::Api;
use crate::client::resolve;
use crate::commands::token::seconds;
use crate::output::{self, Format, time};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The gate: its id, or the beginning or end of the id of a gate that waits
    gate: String,
    /// Who may use it: the e-mail address or the id of a member who may approve the gate
    #[arg(long = "for", value_name = "PERSON")]
    person: String,
    /// How long it is valid: a number with m, h, d or w, at most 30d
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = lifetime)]
    expires: u32,
    #[command(flatten)]
    format: Format,
}

/// Prints the address. It cannot be read again.
pub async fn run(api: &Api, args: &Args) -> Result<()> {
    let gate = resolve::gate(api, &args.gate).await?;
    let body = json!({ "for": args.person, "expires_in_s": args.expires });
    let mut link: GateLink = api.post(&format!("/gates/{gate}/links"), &body).await?;
    link.url = address(&api.url("/"), &link.url)?;
    if args.format.json {
        return output::json(&link);
    }
    output::line(&link.url)?;
    output::note(format_args!(
        "{} can decide with it once, until {}; it is not shown again",
        printable(&link.name),
        time::date(&link.expires_at)
    ));
    Ok(())
}

/// The address of a link. An API without a public URL gives its path.
fn address(api: &str, url: &str) -> Result<String> {
    let address = Url::parse(api).and_then(|api| api.join(url)).context("the address of the link")?;
    Ok(address.into())
}

fn lifetime(text: &str) -> Result<u32, String> {
    seconds(text, LINK_S, "1d, from 1m to 30d")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_of_the_api_s_host() {
        let of = |url| address("https://nofx.test/v1/", url).unwrap();
        assert_eq!(of("/v1/ui/links/x"), "https://nofx.test/v1/ui/links/x");
        assert_eq!(of("https://public.test/ui/links/x"), "https://public.test/ui/links/x");
    }

    #[test]
    fn a_link_lasts_a_month_at_most() {
        assert_eq!(lifetime("30d"), Ok(2_592_000));
        for wrong in ["31d", "0d", "5w", "1"] {
            assert!(lifetime(wrong).is_err(), "{wrong}");
        }
    }
}
