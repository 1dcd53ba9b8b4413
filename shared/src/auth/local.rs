//! The local mode: one person without a login, on a laptop. It refuses to start anywhere else.

use crate::config::{AuthConfig, is_loopback};
use crate::error::Error;

/// `Err` unless the process runs against an emulator on this machine.
pub fn check(config: &AuthConfig) -> Result<(), Error> {
    let refuse = |reason: String| Err(Error::invalid("NOFX_AUTH", format!("must not be local here: {reason}")));
    if let Some(variable) = config.platform.aws_variable {
        return refuse(format!("{variable} is set, so this is AWS; set it to on"));
    }
    let Some(endpoint) = &config.platform.aws_endpoint_url else {
        return refuse("AWS_ENDPOINT_URL is not set, so queues and storage are those of AWS; set it to on".to_owned());
    };
    let host = url::Url::parse(endpoint).ok().filter(is_loopback);
    if host.is_none() { refuse("AWS_ENDPOINT_URL is not on this machine; set it to on".to_owned()) } else { Ok(()) }
}

/// Whether a `Host` header names this machine. If a page of another site reaches this machine, the header has that site's name.
pub fn is_local_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => (name, port),
        _ => (host, ""),
    };
    port.len() <= 5 && (name.eq_ignore_ascii_case("localhost") || name == "127.0.0.1" || name == "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Platform;

    fn config(aws_variable: Option<&'static str>, endpoint: Option<&str>) -> AuthConfig {
        let platform = Platform { aws_variable, aws_endpoint_url: endpoint.map(str::to_owned) };
        AuthConfig { platform, ..AuthConfig::default() }
    }

    #[test]
    fn the_local_mode_starts_only_against_an_emulator_on_this_machine() {
        for endpoint in ["http://127.0.0.1:4566", "http://localhost:4566", "http://[::1]:4566"] {
            check(&config(None, Some(endpoint))).unwrap();
            let error = check(&config(Some("AWS_EXECUTION_ENV"), Some(endpoint))).unwrap_err();
            assert!(error.to_string().contains("AWS_EXECUTION_ENV"), "{error}");
        }
        for endpoint in [
            None,
            Some(""),
            Some("127.0.0.1:4566"),
            Some("http://10.0.0.1:4566"),
            Some("http://127.0.0.1.evil.test"),
            Some("http://localhost.evil.test"),
            Some("http://localhost@evil.test"),
            Some("https://sqs.us-east-1.amazonaws.com"),
            Some("file:///127.0.0.1"),
        ] {
            assert!(matches!(check(&config(None, endpoint)), Err(Error::Invalid(_))), "{endpoint:?}");
        }
    }

    #[test]
    fn only_names_of_this_machine_are_local_hosts() {
        for host in ["localhost", "LOCALHOST:3000", "127.0.0.1", "127.0.0.1:65535", "[::1]:3000", "[::1]"] {
            assert!(is_local_host(host), "{host}");
        }
        for host in [
            "",
            ":3000",
            "evil.test",
            "localhost.evil.test",
            "localhost:3000.evil.test",
            "localhost:",
            "localhost:x",
            "127.0.0.1.nip.io",
            "127.0.0.1:3000:80",
            "user@localhost",
            "::1",
            "localhost ",
            "0.0.0.0",
            "127.1",
            "2130706433",
        ] {
            assert!(!is_local_host(host), "{host}");
        }
    }
}
