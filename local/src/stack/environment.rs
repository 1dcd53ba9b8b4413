//! The environment of the functions: the same variables as on AWS, with other values.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write;

use crate::aws::resources::{ACCESS_KEY_ID, BUCKET, LLM_SECRET, REGION, SECRET_ACCESS_KEY};
use crate::checkout::Checkout;

/// The tenant of `nofx dev`.
pub const TENANT: &str = "local";
/// Variables that the user may set for the functions, in the shell or in `.env`.
const PASSED_ON: [&str; 24] = [
    "ARTIFACTS_BUCKET",
    "ARTIFACTS_ENDPOINT_URL",
    "ARTIFACTS_REGION",
    "ARTIFACTS_ACCESS_KEY_ID",
    "ARTIFACTS_SECRET_ACCESS_KEY",
    "LLM_ORDER",
    "LLM_REQUEST_TIMEOUT_S",
    "LLM_MAX_OUTPUT_TOKENS",
    "LLM_TRIES",
    "LLM_STREAM",
    "LLM_IDLE_TIMEOUT_S",
    "OPENAI_API",
    "OPENAI_COMPATIBLE_BASE_URL",
    "OPENAI_COMPATIBLE_MODEL",
    "OPENAI_BASE_URL",
    "ANTHROPIC_BASE_URL",
    "GEMINI_BASE_URL",
    "OPENAI_MODEL",
    "ANTHROPIC_MODEL",
    "GEMINI_MODEL",
    "GATE_DEFAULT_BASE",
    "GATE_RUNNER_WORK_DIR",
    "GATE_NPM_USER_CONFIG",
    "LONG_GATES",
];

/// The prefix of the queues' names.
pub fn queue_prefix() -> String {
    env::var("SQS_PREFIX").unwrap_or_else(|_| "nofx-".to_owned())
}

/// The variables of every function.
pub fn functions(
    checkout: &Checkout,
    database_url: &str,
    aws_endpoint: &str,
    http_port: u16,
    dotenv: &BTreeMap<String, String>,
) -> BTreeMap<&'static str, String> {
    let root = checkout.root();
    let mut variables = BTreeMap::from([
        ("DATABASE_URL", database_url.to_owned()),
        ("AWS_ENDPOINT_URL", aws_endpoint.to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY.to_owned()),
        ("AWS_REGION", REGION.to_owned()),
        ("SQS_PREFIX", queue_prefix()),
        ("ARTIFACTS_BUCKET", BUCKET.to_owned()),
        ("NOFX_AUTH", "local".to_owned()),
        ("NOFX_TENANT", TENANT.to_owned()),
        ("NOFX_PUBLIC_URL", format!("http://127.0.0.1:{http_port}")),
        ("LLM_SECRET_ID", LLM_SECRET.to_owned()),
        ("LLM_ALLOW_TEMPLATE", "true".to_owned()),
        ("GATE_DEFAULT_WORKSPACE", root.join("examples/workspace").display().to_string()),
        ("GATE_WORK_DIR", checkout.state().join("gate").display().to_string()),
        ("RUST_LOG", env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned())),
    ]);
    for name in PASSED_ON {
        if let Some(value) = env::var(name).ok().or_else(|| dotenv.get(name).cloned()) {
            variables.insert(name, value);
        }
    }
    variables
}

/// The variables of `gate_runner`: none of the database, of AWS or of the providers.
pub fn gate_runner(functions: &BTreeMap<&'static str, String>) -> BTreeMap<&'static str, String> {
    let names = ["GATE_RUNNER_WORK_DIR", "GATE_NPM_USER_CONFIG", "RUST_LOG"];
    names.into_iter().filter_map(|name| Some((name, functions.get(name)?.clone()))).collect()
}

/// `export K='V'` lines for a shell.
pub fn export_lines(variables: &BTreeMap<&'static str, String>) -> String {
    let mut lines = String::new();
    for (name, value) in variables {
        let _ = writeln!(lines, "export {name}='{}'", value.replace('\'', r"'\''"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gate_runner_gets_no_credentials() {
        let all = BTreeMap::from(
            ["DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "RUST_LOG"].map(|name| (name, "x".to_owned())),
        );
        assert_eq!(gate_runner(&all).into_keys().collect::<Vec<_>>(), ["RUST_LOG"]);
    }

    #[test]
    fn values_are_quoted_for_the_shell() {
        let lines = export_lines(&BTreeMap::from([("A", "it's $x".to_owned())]));
        assert_eq!(lines, "export A='it'\\''s $x'\n");
    }
}
