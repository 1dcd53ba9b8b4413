//! The addresses of the test stack. `make test` starts a stack and sets these variables.

use std::env;
use std::fmt::Write as _;

/// Superuser URL of the database `postgres` on a throwaway server.
pub fn database_url() -> String {
    variable("NOFX_TEST_DATABASE_URL")
}

/// Endpoint of the emulator of SQS, S3 and Secrets Manager.
pub fn aws_endpoint_url() -> String {
    variable("NOFX_TEST_AWS_ENDPOINT_URL")
}

/// Endpoint of LocalStack.
pub fn localstack_endpoint_url() -> String {
    variable("NOFX_TEST_LOCALSTACK_ENDPOINT_URL")
}

/// Endpoint of an S3 server that verifies signatures.
pub fn s3_endpoint_url() -> String {
    variable("NOFX_TEST_S3_ENDPOINT_URL")
}

/// The access key id of that server, and its secret.
pub fn s3_keys() -> (String, String) {
    (variable("NOFX_TEST_S3_ACCESS_KEY_ID"), variable("NOFX_TEST_S3_SECRET_ACCESS_KEY"))
}

/// Replaces the database in a connection URL.
pub fn with_database(url: &str, database: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let (scheme, rest) = base.split_once("://").expect("a connection URL has a scheme");
    let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{authority}/{database}{query}")
}

/// Adds a role and, if given, a tenant's claims to a connection URL, as if each connection started with `set role` and
/// `set request.jwt.claims`.
pub fn with_role(url: &str, role: &str, claims: Option<&str>) -> String {
    let mut options = format!("-c role={role}");
    if let Some(claims) = claims {
        options.push_str(" -c request.jwt.claims=");
        options.push_str(&claims.replace('\\', "\\\\").replace(' ', "\\ "));
    }
    let separator = if url.contains('?') { '&' } else { '?' };
    let mut url = format!("{url}{separator}options=");
    for byte in options.bytes() {
        let _ = write!(url, "%{byte:02X}");
    }
    url
}

/// Fails if the stack is missing: a suite that skips itself would always pass.
fn variable(name: &str) -> String {
    match env::var(name) {
        Ok(value) if !value.is_empty() => value,
        _ => panic!("{name} is not set: these tests need a stack; run them with `make test`"),
    }
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn only_the_database_of_a_url_is_replaced() {
        let url = "postgresql://owner:word@127.0.0.1:5432/postgres?sslmode=disable";
        assert_eq!(with_database(url, "t_1"), "postgresql://owner:word@127.0.0.1:5432/t_1?sslmode=disable");
        let socket = "postgresql://owner@/postgres?host=%2Frun%2Fpg";
        assert_eq!(with_database(socket, "t_1"), "postgresql://owner@/t_1?host=%2Frun%2Fpg");
    }
}
