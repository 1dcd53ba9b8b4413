//! Reads a table's rule. Without a readable one, nothing is allowed.

use serde_json::Value;
use shared::domain::rule::Rule;

use crate::error::WriteError;

/// Reads a stored rule.
pub(crate) fn read(stored: &Value) -> Result<Rule, WriteError> {
    Rule::parse(stored).map_err(|problems| {
        let problems: Vec<_> = problems.iter().map(|problem| format!("{} {}", problem.path, problem.message)).collect();
        let message = format!("the rule for this table cannot be read, so it allows nothing: {}", problems.join("; "));
        WriteError::denied("no_rule", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_invalid_stored_rule_allows_nothing() {
        let stored = json!({"allowed_ops": ["insert"], "max_rows": "1"});
        assert!(matches!(read(&stored), Err(WriteError::Denied(_))));
    }
}
