//! IAM authorization at API Gateway. SAM takes no parameter in `Auth`, so a deployment with it gets a copy of the template.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nofx_local::checkout::Checkout;

/// The setting, as a comment of the template.
const COMMENT: &str = "      # Auth: { DefaultAuthorizer: AWS_IAM, InvokeRole: NONE }\n";

/// The text of the template, with IAM authorization on every route.
pub fn with_iam(template: &str) -> Result<String> {
    let (before, after) = template.split_once(COMMENT).context("template.yaml has no line for IAM authorization")?;
    Ok(format!("{before}{}{after}", COMMENT.replacen("# ", "", 1)))
}

/// Writes a copy of the template with IAM authorization beside it, because its paths are relative.
pub fn write_copy(checkout: &Checkout) -> Result<PathBuf> {
    let root = checkout.root();
    let text = fs::read_to_string(root.join("template.yaml")).context("cannot read template.yaml")?;
    let copy = root.join("target/template-iam.yaml");
    // The code of the functions is below the folder of the template.
    let text = with_iam(&text)?.replace("CodeUri: target/lambda/", "CodeUri: lambda/");
    fs::write(&copy, text).with_context(|| format!("cannot write {}", copy.display()))?;
    Ok(copy)
}
