//! What a policy demands of approvals, in words.

use maud::html;
use shared::domain::approval::{Allowed, ApprovalPolicy, Waivers};
use shared::domain::principal::Role;

use super::parts::many;
use super::policy::Row;

/// Words, field, value and meaning of each rule.
pub(super) fn rows(approvals: &ApprovalPolicy) -> [Row; 7] {
    let word = |text: &str| html! { code { (text) } };
    let seconds = |limit: Option<u32>, means: &str| match limit {
        None => (word("none"), "no limit".to_owned()),
        Some(seconds) => (word(&seconds.to_string()), format!("{means} {seconds} s")),
    };
    let allowed = |allowed: Allowed, who: &str| match allowed {
        Allowed::Excluded => (word("excluded"), format!("{who} may not decide")),
        Allowed::Allowed => (word("allowed"), format!("{who} may decide")),
    };
    let roles: Vec<&str> = approvals.roles.iter().flatten().map(|role| role.as_str()).collect();
    let only_admins = approvals.roles.as_ref().is_some_and(|roles| !roles.contains(&Role::Approver));
    let who = if only_admins { "only admins decide" } else { "approvers and admins decide" };
    let (waive, waives) = match approvals.waive {
        Waivers::Admins => ("admins", "an admin may waive a gate, with a reason"),
        Waivers::Nobody => ("nobody", "nobody may waive a gate"),
    };
    let people = format!("{} must approve a gate", many(u64::from(approvals.minimum), "person", "different people"));
    let own = allowed(approvals.by_self, "a person who started or retried a run, or uploaded or made its files");
    let owner = allowed(approvals.owners, "the owner of the token that started a run");
    let expiry = seconds(approvals.max_expires_after_s, "a gate expires after");
    let login = seconds(approvals.max_session_age_s, "a decision needs a session of at most");
    let names = if roles.is_empty() { word("none") } else { word(&roles.join(", ")) };
    [
        ("People who approve", "approvals.minimum", word(&approvals.minimum.to_string()), people),
        ("Roles that decide", "approvals.roles", names, who.to_owned()),
        ("Own work", "approvals.self", own.0, own.1),
        ("Work of own tokens", "approvals.owners", owner.0, owner.1),
        ("Longest wait", "approvals.max_expires_after_s", expiry.0, expiry.1),
        ("Waivers", "approvals.waive", word(waive), waives.to_owned()),
        ("Oldest session", "approvals.max_session_age_s", login.0, login.1),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_field_of_approvals_has_words() {
        let names: BTreeSet<&str> = rows(&ApprovalPolicy::default()).iter().map(|row| row.1).collect();
        let fields = shared::domain::approval::POLICY_FIELDS.iter().map(|names| format!("approvals.{}", names[0]));
        assert_eq!(names, fields.collect::<Vec<_>>().iter().map(String::as_str).collect());
    }
}
