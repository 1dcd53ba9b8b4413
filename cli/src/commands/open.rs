//! `nofx open`: the console's page of a run or a gate.

use std::env;
use std::process::{Command, Stdio};

use anyhow::Result;
use serde::Serialize;
use shared::domain::GateId;
use shared::view::Gate;

use crate::client::api::Api;
use crate::client::error::{ApiError, Kind};
use crate::client::resolve;
use crate::output::{self, Format};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A run (its id, the beginning or end of its id, or `last`) or the id of a gate [default: the list of runs]
    what: Option<String>,
    /// Only print the address
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    format: Format,
}

/// The document of `--json`.
#[derive(Serialize)]
struct Opened {
    url: String,
    /// Whether a browser was started.
    opened: bool,
}

/// Prints the address, and opens it if there is a browser.
pub async fn run(api: &Api, args: &Args) -> Result<()> {
    let url = api.url(&path(api, args.what.as_deref()).await?);
    if args.format.json {
        let opened = !args.print && open(&url);
        return output::json(&Opened { url, opened });
    }
    output::line(&url)?;
    if !args.print && !open(&url) {
        output::note("no browser was found here; open the address above");
    }
    Ok(())
}

async fn path(api: &Api, what: Option<&str>) -> Result<String> {
    let Some(what) = what else { return Ok("/ui/runs".to_owned()) };
    if let Ok(gate) = what.parse::<GateId>() {
        match api.get::<Gate>(&format!("/gates/{gate}")).await {
            Ok(gate) => return Ok(format!("/ui/gates/{}", gate.id)),
            Err(error) if error.downcast_ref::<ApiError>().is_some_and(|error| error.kind == Kind::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(format!("/ui/runs/{}", resolve::run(api, what).await?))
}

/// Starts the browser. False if there is none.
fn open(url: &str) -> bool {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    let program = if cfg!(target_os = "macos") {
        "open".into()
    } else if let Some(browser) = set("BROWSER") {
        browser
    } else if set("DISPLAY").or_else(|| set("WAYLAND_DISPLAY")).is_some() {
        "xdg-open".into()
    } else {
        return false;
    };
    let started =
        Command::new(program).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    started.is_ok()
}
