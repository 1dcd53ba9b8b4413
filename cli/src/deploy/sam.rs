//! The SAM CLI, and samconfig.toml.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nofx_local::checkout::Checkout;
use nofx_local::tools::python::PythonEnv;
use tokio::process::Command;

/// `sam` in the checkout, without telemetry.
pub fn command(env: &PythonEnv, checkout: &Checkout) -> Command {
    let mut command = Command::new(env.program("sam"));
    command
        .current_dir(checkout.root())
        .env("SAM_CLI_TELEMETRY", "0")
        // The folder of its own files, which by default is in the user's home.
        .env("__SAM_CLI_APP_DIR", checkout.local().join("sam"))
        .kill_on_drop(true);
    command
}

/// Path of samconfig.toml.
pub fn config(checkout: &Checkout) -> PathBuf {
    checkout.root().join("samconfig.toml")
}

/// The settings of one environment in samconfig.toml.
pub struct Environment {
    section: String,
}

impl Environment {
    pub fn read(checkout: &Checkout, name: &str) -> Result<Self> {
        let path = config(checkout);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self::of(&text, name))
    }

    fn of(text: &str, name: &str) -> Self {
        // The section of the command comes before that of all commands, because the first match wins.
        let section = |command| {
            let head = format!("[{name}.{command}.parameters]");
            let lines = text.lines().skip_while(move |line| line.trim() != head).skip(1);
            lines.take_while(|line| !line.starts_with('[')).filter(|line| !line.trim_start().starts_with('#'))
        };
        Self { section: section("deploy").chain(section("global")).collect::<Vec<_>>().join("\n") }
    }

    /// An option of `sam deploy`, such as `region`.
    pub fn option(&self, name: &str) -> Option<&str> {
        let mut options = self.section.lines().filter_map(|line| line.split_once('='));
        let (_, value) = options.find(|(key, _)| key.trim() == name)?;
        // A comment may follow a quoted value.
        let value = match value.trim().strip_prefix('"') {
            Some(quoted) => quoted.split('"').next().unwrap_or_default(),
            None => value.trim(),
        };
        Some(value).filter(|value| !value.is_empty())
    }

    /// A parameter of the template. An empty one counts as missing.
    pub fn parameter(&self, name: &str) -> Option<String> {
        find(&self.section, name)
    }
}

/// Finds `Name=value`, with or without quotes. SAM writes `parameter_overrides = "Name=\"value\" Other=\"x\""`, people
/// write `["Name=value", "Other=x"]`.
fn find(section: &str, name: &str) -> Option<String> {
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
    fn a_parameter_is_found_only_in_its_environment() {
        let text = r#"
[dev.global.parameters]
profile = "team" # ours
[dev.deploy.parameters]
region = "eu-west-1"
parameter_overrides = "Architecture=\"arm64\" DatabaseSecretArn=\"arn:a\""
[prod.deploy.parameters]
parameter_overrides = [
  # "DatabaseSecretArn=commented",
  "Architecture=x86_64", "Prefix=p-",
  "DatabaseSecretArn=", "Tenant=t"]
"#;
        let parameter = |environment, name| Environment::of(text, environment).parameter(name);
        assert_eq!(parameter("dev", "DatabaseSecretArn").as_deref(), Some("arn:a"));
        assert_eq!(parameter("dev", "SecretArn"), None);
        assert_eq!(parameter("prod", "DatabaseSecretArn"), None);
        assert_eq!(parameter("prod", "Architecture").as_deref(), Some("x86_64"));
        assert_eq!(parameter("prod", "Tenant").as_deref(), Some("t"));
        assert_eq!(parameter("staging", "Architecture"), None);
        assert_eq!(Environment::of(text, "dev").option("region"), Some("eu-west-1"));
        assert_eq!(Environment::of(text, "dev").option("profile"), Some("team"));
        assert_eq!(Environment::of(text, "prod").option("region"), None);
    }
}
