//! The part `artifacts` of a policy: how long artifacts stay where they can be read at once, and how long they are kept.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::fields::{Fields, Names};

/// What a policy says about artifacts. `migrations/functions/artifact_storage.sql` reads the same fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ArtifactPolicy {
    /// Days after which an artifact is archived. Null: never.
    pub hot_days: Option<u32>,
    /// Days after which its bytes are deleted. Null: never.
    pub keep_days: Option<u32>,
    /// Smaller artifacts are not archived, in bytes.
    pub archive_min_bytes: u64,
}

/// Fields of `artifacts`.
pub const FIELDS: &[Names] = &[&["hot_days"], &["keep_days"], &["archive_min_bytes"]];
/// Limits of days: up to 100 years.
pub const DAYS: RangeInclusive<u64> = 1..=36_500;
/// Limits of `archive_min_bytes`. The storage class has a minimum of its own: an empty object is never moved.
pub const MIN_BYTES: RangeInclusive<u64> = 1..=1 << 40;
/// The default of `archive_min_bytes`. S3 adds 40 KB to each archived object and charges for the move, so that smaller
/// objects cost more in the archive than they save in years.
pub const DEFAULT_MIN_BYTES: u64 = 128 << 10;

impl Default for ArtifactPolicy {
    fn default() -> Self {
        Self { hot_days: None, keep_days: None, archive_min_bytes: DEFAULT_MIN_BYTES }
    }
}

/// Reads the part `artifacts` of a policy.
pub(super) fn artifacts(fields: &mut Fields<'_, '_>) -> ArtifactPolicy {
    let hot_days = fields.whole("hot_days", DAYS);
    let keep_days = fields.whole("keep_days", DAYS);
    if let (Some(hot), Some(keep)) = (hot_days, keep_days)
        && keep <= hot
    {
        fields.problem("keep_days", format!("must be more than hot_days ({hot}), or artifacts are never archived"));
    }
    let min_bytes = fields.whole("archive_min_bytes", MIN_BYTES);
    ArtifactPolicy { hot_days, keep_days, archive_min_bytes: min_bytes.unwrap_or(DEFAULT_MIN_BYTES) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::policy::Policy;
    use super::*;

    fn read(artifacts: &Value) -> Result<ArtifactPolicy, Vec<String>> {
        let read = Policy::parse(&json!({ "artifacts": artifacts }), "document");
        read.map(|policy| policy.artifacts).map_err(|problems| problems.into_iter().map(|found| found.path).collect())
    }

    #[test]
    fn every_field_is_optional() {
        let default = ArtifactPolicy { hot_days: None, keep_days: None, archive_min_bytes: 131_072 };
        for empty in [json!(null), json!({}), json!({"hot_days": null, "keep_days": null, "archive_min_bytes": null})] {
            assert_eq!(read(&empty), Ok(default), "{empty}");
        }
        let whole = json!({"hot_days": 30, "keep_days": 3_650, "archive_min_bytes": 1});
        let expected = ArtifactPolicy { hot_days: Some(30), keep_days: Some(3_650), archive_min_bytes: 1 };
        assert_eq!(read(&whole), Ok(expected));
        assert_eq!(read(&json!({"keep_days": 36_500})).unwrap().keep_days, Some(36_500));
    }

    #[test]
    fn every_wrong_field_is_reported_with_its_path() {
        for (artifacts, path) in [
            (json!({"hot_days": 0}), "hot_days"),
            (json!({"hot_days": 1.5}), "hot_days"),
            (json!({"hot_days": "30"}), "hot_days"),
            (json!({"hot_days": 36_501}), "hot_days"),
            (json!({"keep_days": -1}), "keep_days"),
            (json!({"hot_days": 30, "keep_days": 30}), "keep_days"),
            (json!({"hot_days": 31, "keep_days": 30}), "keep_days"),
            (json!({"archive_min_bytes": 0}), "archive_min_bytes"),
            (json!({"cold_days": 1}), "cold_days"),
        ] {
            assert_eq!(read(&artifacts), Err(vec![format!("document.artifacts.{path}")]), "{artifacts}");
        }
        assert_eq!(read(&json!([])), Err(vec!["document.artifacts".to_owned()]));
    }
}
