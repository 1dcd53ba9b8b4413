//! `nofx logout`: ends the session, and deletes the stored token.

use std::env;

use anyhow::Result;
use nofx_local::report::printable;
use serde_json::json;
use shared::view::TokenEnded;

use crate::client::api::Api;
use crate::client::credentials::{self, Credentials};
use crate::client::error::{ApiError, Kind};
use crate::client::profile::Environment;
use crate::output;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {}

/// `nofx logout`. An API token is only deleted here and not revoked, because other programs may use it.
pub async fn run(profile: Option<&str>, _: &Args) -> Result<()> {
    let target = Environment::read()?.target(profile)?;
    let file = credentials::path()?;
    let mut credentials = Credentials::read(&file)?;
    let place = printable(&target.api_url);
    let Some(token) = credentials.token_for(&target.api_url)? else {
        output::note(format_args!("nobody is logged in at {place}"));
        return Ok(());
    };
    // Delete it first, so that it is gone whatever the API answers.
    let is_session = credentials.text_for(&target.api_url).is_some_and(|text| text.starts_with("nofx_person_"));
    credentials.remove(&target.api_url);
    credentials.save(&file)?;
    if env::var_os("NOFX_TOKEN").is_some() {
        output::note("NOFX_TOKEN is still set");
    }
    if !is_session {
        return output::line(format_args!("deleted the stored token for {place}; nofx token revoke revokes it"));
    }
    let api = Api::of(&target).await.with_token(Some(token));
    match api.delete::<TokenEnded>("/sessions/current", &json!({})).await {
        Ok(_) => output::line(format_args!("logged out at {place}")),
        // It had ended before.
        Err(error) if error.downcast_ref::<ApiError>().is_some_and(|error| error.kind == Kind::NotLoggedIn) => {
            output::line(format_args!("logged out at {place}"))
        }
        Err(error) => Err(error.context("the stored session was deleted, but it may still be valid at the API")),
    }
}
