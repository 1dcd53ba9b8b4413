//! The Docker variant of the local stack: LocalStack by compose, and Postgres, Auth and Storage by the Supabase CLI.
//! The functions find them through the usual variables for a database, an AWS endpoint and an S3 endpoint. No Docker
//! engine was available to test it, so it only runs commands; a CI job runs them on a Docker host.

use std::collections::BTreeMap;
use std::io;
use std::process::Stdio;

use anyhow::{Context, Result};
use serde::Deserialize;
use tokio::process::Command;

use crate::aws::resources;
use crate::checkout::Checkout;
use crate::process;
use crate::report::{self, hinted};

/// Address at which compose.yaml publishes LocalStack.
const AWS_ENDPOINT_URL: &str = "http://127.0.0.1:4566";
/// The bucket in supabase/config.toml.
const BUCKET: &str = "artifacts";

const NEEDED: &str =
    "nofx dev --docker needs Docker with compose, running, and the Supabase CLI; nofx dev needs neither";

const COMPOSE: [&str; 4] = ["docker", "compose", "--file", "localstack/compose.yaml"];
const UP: [&[&str]; 2] = [&["up", "--detach", "--wait"], &["supabase", "start"]];
const DOWN: [&[&str]; 2] = [&["down"], &["supabase", "stop"]];
const RESET: [&[&str]; 2] = [&["down", "--volumes"], &["supabase", "stop", "--no-backup"]];

/// The used fields of `supabase status --output json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
struct Status {
    db_url: String,
    storage_s3_url: String,
    s3_protocol_region: String,
    s3_protocol_access_key_id: String,
    s3_protocol_access_key_secret: String,
}

/// Starts the containers that are not running.
pub async fn up(checkout: &Checkout) -> Result<()> {
    run_both(checkout, UP).await
}

/// Stops the containers. The database is kept. LocalStack keeps nothing, and the sweeper sends lost wake-ups again.
pub async fn down(checkout: &Checkout) -> Result<()> {
    run_both(checkout, DOWN).await
}

/// Stops the containers and deletes the database.
pub async fn reset(checkout: &Checkout) -> Result<()> {
    run_both(checkout, RESET).await
}

/// Their addresses: `DATABASE_URL`, `AWS_ENDPOINT_URL` and `ARTIFACTS_*`.
pub async fn variables(checkout: &Checkout) -> Result<BTreeMap<&'static str, String>> {
    let mut command = command(checkout, &["supabase", "status", "--output", "json"]);
    let output = command.stderr(Stdio::inherit()).output().await.map_err(|error| missing("supabase", &error))?;
    if !output.status.success() {
        return Err(hinted("Supabase Local is not running", "start it with nofx dev --docker"));
    }
    from_status(&output.stdout)
}

fn from_status(json: &[u8]) -> Result<BTreeMap<&'static str, String>> {
    let status: Status = serde_json::from_slice(json).context("supabase status printed unexpected output")?;
    Ok(BTreeMap::from([
        // The server has no TLS.
        ("DATABASE_URL", format!("{}?sslmode=disable", status.db_url)),
        ("AWS_ENDPOINT_URL", AWS_ENDPOINT_URL.to_owned()),
        ("ARTIFACTS_BUCKET", BUCKET.to_owned()),
        ("ARTIFACTS_ENDPOINT_URL", status.storage_s3_url),
        ("ARTIFACTS_REGION", status.s3_protocol_region),
        ("ARTIFACTS_ACCESS_KEY_ID", status.s3_protocol_access_key_id),
        ("ARTIFACTS_SECRET_ACCESS_KEY", status.s3_protocol_access_key_secret),
    ]))
}

async fn run_both(checkout: &Checkout, [compose, supabase]: [&[&str]; 2]) -> Result<()> {
    for words in [&[&COMPOSE, compose].concat(), supabase] {
        report::line("docker", words.join(" "));
        let status = command(checkout, words).status().await.map_err(|error| missing(words[0], &error))?;
        if !status.success() {
            return Err(hinted(format!("{} failed with {status}", words.join(" ")), NEEDED));
        }
    }
    Ok(())
}

fn command(checkout: &Checkout, words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(checkout.root()).stdin(Stdio::null()).kill_on_drop(true);
    process::clear_inherited_env(&mut command);
    // compose.yaml passes it to LocalStack's hook.
    command.envs([resources::hook_variable()]);
    command
}

fn missing(program: &str, error: &io::Error) -> anyhow::Error {
    hinted(format!("cannot start {program}: {error}"), NEEDED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_supabase_becomes_our_variables() {
        let json = br#"{"API_URL": "http://127.0.0.1:54321",
            "DB_URL": "postgresql://postgres:postgres@127.0.0.1:54322/postgres",
            "STORAGE_S3_URL": "http://127.0.0.1:54321/storage/v1/s3", "S3_PROTOCOL_REGION": "local",
            "S3_PROTOCOL_ACCESS_KEY_ID": "id", "S3_PROTOCOL_ACCESS_KEY_SECRET": "secret"}"#;
        let variables = from_status(json).unwrap();
        assert_eq!(
            variables["DATABASE_URL"],
            "postgresql://postgres:postgres@127.0.0.1:54322/postgres?sslmode=disable"
        );
        assert_eq!(variables["ARTIFACTS_ENDPOINT_URL"], "http://127.0.0.1:54321/storage/v1/s3");
        assert_eq!(variables["ARTIFACTS_SECRET_ACCESS_KEY"], "secret");
        assert!(from_status(b"{}").is_err(), "a status without Storage is an error");
    }
}
