//! Maps paths to functions: reads `[workspace.metadata.lambda.watch.router]` of the workspace. `cargo lambda watch`
//! reads the same table, and a test compares it with the functions' routes.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use matchit::Router;
use serde_json::Value;
use tokio::process::Command;

use crate::checkout::Checkout;
use crate::process;

/// The console's first address, and how all others start.
const CONSOLE: &str = "/ui";
const BELOW_CONSOLE: &str = "/ui/";

#[derive(Clone, Debug, Default)]
pub struct Routes {
    router: Router<String>,
    functions: BTreeSet<String>,
}

impl Routes {
    /// Reads the table of the checkout.
    pub async fn load(checkout: &Checkout) -> Result<Self> {
        let mut command = Command::new("cargo");
        command.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(checkout.root());
        process::clear_inherited_env(&mut command);
        let output = command.kill_on_drop(true).output().await.context("cannot run cargo metadata")?;
        if !output.status.success() {
            bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
        Self::from_table(&metadata["metadata"]["lambda"]["watch"]["router"])
            .context("[workspace.metadata.lambda.watch.router] in Cargo.toml")
    }

    /// The routes of a table from path to function.
    pub fn from_table(table: &Value) -> Result<Self> {
        let mut routes = Self::default();
        for (path, function) in table.as_object().context("there is no table of routes")? {
            let function = function.as_str().with_context(|| format!("{path:?} must name one function"))?;
            routes.router.insert(path, function.to_owned()).with_context(|| format!("{path:?} is not a route"))?;
            routes.functions.insert(function.to_owned());
        }
        Ok(routes)
    }

    /// The function that answers `path`. An unknown address below `/ui/` is the console's, so that people get a page.
    pub fn function(&self, path: &str) -> Option<&str> {
        let of = |path: &str| self.router.at(path).ok().map(|found| found.value.as_str());
        of(path).or_else(|| of(CONSOLE).filter(|_| path.starts_with(BELOW_CONSOLE)))
    }

    /// All functions of the table.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.functions.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::function::HTTP_FUNCTIONS;

    #[test]
    fn a_path_has_its_function_and_an_unknown_one_has_none() {
        let routes =
            Routes::from_table(&json!({ "/runs": "api", "/runs/{id}": "api", "/gates/{id}": "approvals" })).unwrap();
        assert_eq!(routes.function("/runs"), Some("api"));
        assert_eq!(routes.function("/runs/a%2Fb"), Some("api"));
        assert_eq!(routes.function("/gates/1"), Some("approvals"));
        for unknown in ["", "/", "/runs/", "/runs/1/2", "/lambda-url/api/health", "/.rt/api", "*"] {
            assert_eq!(routes.function(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn an_unknown_address_of_the_console_is_its_own() {
        let table = json!({ "/runs": "api", "/ui": "console", "/ui/runs/{id}": "console" });
        let routes = Routes::from_table(&table).unwrap();
        for path in ["/ui", "/ui/", "/ui/nope", "/ui/runs/1/", "/ui/runs/1/2/3"] {
            assert_eq!(routes.function(path), Some("console"), "{path}");
        }
        for unknown in ["/uix", "/runs/ui/", "/"] {
            assert_eq!(routes.function(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_malformed_table_is_refused() {
        for table in
            [json!(null), json!({ "/a": ["api"] }), json!({ "/{a}/x": "api", "/{b}/x": "api" }), json!({ "/{": "a" })]
        {
            assert!(Routes::from_table(&table).is_err(), "{table}");
        }
    }

    #[tokio::test]
    async fn the_checkouts_table_names_every_http_function() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let routes = Routes::load(&Checkout::at(root)).await.unwrap();
        assert_eq!(routes.functions().collect::<Vec<_>>(), HTTP_FUNCTIONS);
    }
}
