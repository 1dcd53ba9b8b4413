//! The SAM CLI, and what samconfig.toml says.

use std::fs;

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::{checkout::Checkout, python::PythonEnv};

/// `sam` in the checkout, telling nobody about it.
pub fn command(env: &PythonEnv, checkout: &Checkout) -> Command {
    let mut command = Command::new(env.program("sam"));
    command
        .current_dir(checkout.root())
        .env("SAM_CLI_TELEMETRY", "0")
        // Where it keeps its own notes; by default in the user's home.
        .env("__SAM_CLI_APP_DIR", checkout.local().join("sam"))
        .kill_on_drop(true);
    command
}

/// A template parameter of an environment in samconfig.toml; an empty one counts as missing.
pub fn parameter(checkout: &Checkout, environment: &str, name: &str) -> Result<Option<String>> {
    let path = checkout.root().join("samconfig.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(find(&text, environment, name))
}

/// `Name=value`, with or without quotes, in the section of the environment. What SAM writes itself looks like
/// `parameter_overrides = "Name=\"value\" Other=\"x\""`, what people write like `["Name=value", "Other=x"]`.
fn find(text: &str, environment: &str, name: &str) -> Option<String> {
    let head = format!("[{environment}.deploy.parameters]");
    let section: Vec<&str> = text
        .lines()
        .skip_while(|line| line.trim() != head)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    let section = section.join("\n");
    let key = format!("{name}=");
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (at, _) = section.match_indices(&key).find(|(at, _)| !section[..*at].ends_with(is_word))?;
    let is_quote = |c: char| matches!(c, '\\' | '"' | '\'');
    let value = section[at + key.len()..].split([' ', '\n', ',']).next()?;
    let value = value.trim_matches(|c| is_quote(c) || c == ']');
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_found_in_its_own_environment_only() {
        let text = r#"
[dev.deploy.parameters]
parameter_overrides = "Architecture=\"arm64\" DatabaseSecretArn=\"arn:a\""
[prod.deploy.parameters]
parameter_overrides = [
  # "DatabaseSecretArn=commented",
  "Architecture=x86_64", "Prefix=p-",
  "DatabaseSecretArn=", "Tenant=t"]
"#;
        assert_eq!(find(text, "dev", "DatabaseSecretArn").as_deref(), Some("arn:a"));
        assert_eq!(find(text, "dev", "SecretArn"), None);
        assert_eq!(find(text, "prod", "Architecture").as_deref(), Some("x86_64"));
        assert_eq!(find(text, "prod", "Tenant").as_deref(), Some("t"));
        assert_eq!(find(text, "prod", "DatabaseSecretArn"), None);
        assert_eq!(find(text, "staging", "Architecture"), None);
    }
}
