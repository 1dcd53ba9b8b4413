//! What a policy says about artifacts, in words.

use maud::html;
use shared::domain::artifact_policy::ArtifactPolicy;

use super::format;
use super::policy::Row;

/// Words, field, value and meaning of each rule.
pub(super) fn rows(artifacts: &ArtifactPolicy) -> [Row; 3] {
    let days = |days: Option<u32>| html! { code { @match days { None => "none", Some(days) => (days) } } };
    let hot = match artifacts.hot_days {
        None => "artifacts can always be read at once".to_owned(),
        Some(days) => format!("after {days} days an artifact is archived; a restore makes it readable"),
    };
    let keep = match artifacts.keep_days {
        None => "artifacts are kept for ever".to_owned(),
        Some(days) => format!("after {days} days the bytes of an artifact are deleted; its record stays"),
    };
    let least = artifacts.archive_min_bytes;
    let small = format!("artifacts of less than {} are not archived", format::size(least));
    [
        ("Archived after days", "artifacts.hot_days", days(artifacts.hot_days), hot),
        ("Deleted after days", "artifacts.keep_days", days(artifacts.keep_days), keep),
        ("Smallest that is archived", "artifacts.archive_min_bytes", html! { code { (least) } }, small),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use shared::domain::artifact_policy::FIELDS;

    use super::*;

    #[test]
    fn every_field_of_artifacts_has_words() {
        let names: BTreeSet<String> = rows(&ArtifactPolicy::default()).iter().map(|row| row.1.to_owned()).collect();
        assert_eq!(names, FIELDS.iter().map(|names| format!("artifacts.{}", names[0])).collect());
    }
}
