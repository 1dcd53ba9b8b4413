//! Who must approve: what a plan asks for, what a tenant's policy requires, and the resulting rule. The database takes the
//! stricter of both (`migrations/functions/approval_rule.sql`), when the gate is created and again when somebody decides.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fields::{self, Fields, Most, Names, Null};
use super::hidden::Lines;
use super::principal::Role;
use super::problem::Problem;
use super::reference::references;

/// An approval that a plan asks for, before each start of a step.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Approval {
    /// Different people who must approve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required: Option<u32>,
    /// Roles that may decide. A role includes those below it, so the least one counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<Role>>,
    /// Members who may decide: their subjects or e-mail addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub people: Option<Vec<String>>,
    /// False: people do not decide about their own work, even if the policy allows it.
    #[serde(rename = "self", skip_serializing_if = "Option::is_none")]
    pub by_self: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_after_s: Option<u32>,
    /// Seconds from the creation of the gate until an event reminds of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remind_after_s: Option<u32>,
    /// The text for the people who decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a policy requires of every gate that people decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ApprovalPolicy {
    /// Different people who must approve a gate.
    pub minimum: u32,
    /// Roles that may decide. Null for approvers and admins.
    #[cfg_attr(feature = "openapi", schemars(with = "Option<Vec<String>>"))]
    pub roles: Option<Vec<Role>>,
    /// Whether people who started a run may decide its gates.
    #[serde(rename = "self")]
    pub by_self: Allowed,
    /// Whether a person may decide the gates of runs that their own API tokens started.
    pub owners: Allowed,
    /// The longest time that a gate waits, in seconds.
    pub max_expires_after_s: Option<u32>,
    pub waive: Waivers,
    /// The maximum age of a session that decides, in seconds.
    pub max_session_age_s: Option<u32>,
}

/// Whether people may decide about their own work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Allowed {
    #[default]
    Excluded,
    Allowed,
}

/// Who may waive a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Waivers {
    #[default]
    Admins,
    Nobody,
}

/// The rule of a gate: the stricter of its plan and the policy, field by field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ApprovalRule {
    /// Different people who must approve.
    pub required: u32,
    /// The least role that may decide.
    #[cfg_attr(feature = "openapi", schemars(with = "Vec<String>"))]
    pub roles: Vec<Role>,
    /// Subjects or e-mail addresses of the members who may decide. Null for everybody with the role.
    pub people: Option<Vec<String>>,
    /// Whether people may decide about their own work.
    #[serde(rename = "self")]
    pub by_self: bool,
    pub owners: Allowed,
    pub waive: Waivers,
    pub max_session_age_s: Option<u32>,
}

/// Limits of the fields, for the reader and the schema.
pub const REQUIRED: RangeInclusive<u64> = 1..=20;
/// Up to a year.
pub const SECONDS: RangeInclusive<u64> = 1..=31_536_000;
pub const MAX_PEOPLE: usize = 50;
pub const MAX_PERSON_CHARS: usize = 320;
pub const MAX_REASON_CHARS: usize = 2_000;
/// Roles that may decide at all.
pub const ROLES: [Role; 2] = [Role::Approver, Role::Admin];

/// Fields of `approval` of a step.
pub(super) const FIELDS: &[Names] =
    &[&["required"], &["roles"], &["people"], &["self"], &["expires_after_s"], &["remind_after_s"], &["reason"]];
/// Fields of `inputs.approval` of a `manual` step. Its expiry and its reason are other inputs.
pub(super) const ASK_FIELDS: &[Names] = &[&["required"], &["roles"], &["people"], &["self"], &["remind_after_s"]];
/// Fields of `approvals` of a policy.
pub const POLICY_FIELDS: &[Names] =
    &[&["minimum"], &["roles"], &["self"], &["owners"], &["max_expires_after_s"], &["waive"], &["max_session_age_s"]];

impl Default for ApprovalPolicy {
    fn default() -> Self {
        Self {
            minimum: 1,
            roles: None,
            by_self: Allowed::default(),
            owners: Allowed::default(),
            max_expires_after_s: None,
            waive: Waivers::default(),
            max_session_age_s: None,
        }
    }
}

/// Reads the field `approval` of a step.
pub(super) fn read(fields: &mut Fields<'_, '_>) -> Option<Approval> {
    fields.object("approval", FIELDS, approval)
}

/// Reads `inputs.approval` of a `manual` step. `timeout_s` is how long its gate waits.
pub(super) fn read_ask(fields: &mut Fields<'_, '_>, inputs: &Value, timeout_s: Option<u32>) -> Option<Approval> {
    let asked = inputs.get("approval")?;
    let path = format!("{}.approval", fields.path("inputs"));
    let (refs, malformed) = references(asked, &path);
    if !refs.is_empty() || !malformed.is_empty() {
        fields.problems([Problem::new(path, "must not refer to outputs: the plan itself says who approves")]);
        return None;
    }
    let read = fields::read(asked, &path, ASK_FIELDS, Null::Wrong, |fields| {
        let read = approval(fields);
        check_reminder(fields, read.remind_after_s, timeout_s, "timeout_s of the step");
        Some(read)
    });
    read.map_err(|problems| fields.problems(problems)).ok()
}

fn approval(fields: &mut Fields<'_, '_>) -> Approval {
    let (required, roles, people) = (fields.whole("required", REQUIRED), roles(fields), people(fields));
    if let (Some(people), Some(required)) = (&people, required)
        && (people.len() as u64) < u64::from(required)
    {
        fields.problem("people", format!("names {} people, but {required} must approve", people.len()));
    }
    let expires_after_s = fields.whole("expires_after_s", SECONDS);
    let remind_after_s = fields.whole("remind_after_s", SECONDS);
    check_reminder(fields, remind_after_s, expires_after_s, "expires_after_s");
    Approval {
        required,
        roles,
        people,
        by_self: fields.read("self", |value| value.as_bool().ok_or_else(|| "must be true or false".to_owned())),
        expires_after_s,
        remind_after_s,
        reason: fields.readable("reason", Most::Chars(MAX_REASON_CHARS), Lines::Many).map(str::to_owned),
    }
}

fn check_reminder(fields: &mut Fields<'_, '_>, remind: Option<u32>, expires: Option<u32>, than: &str) {
    if let (Some(remind), Some(expires)) = (remind, expires)
        && remind >= expires
    {
        fields.problem("remind_after_s", format!("must be less than {than}, {expires}"));
    }
}

fn roles(fields: &mut Fields<'_, '_>) -> Option<Vec<Role>> {
    fields.value("roles")?;
    let roles = fields.list("roles", ROLES.len(), |value| {
        let role = value.as_str().and_then(Role::parse).filter(|role| ROLES.contains(role));
        role.ok_or_else(|| "must be approver or admin: nobody else decides gates".to_owned())
    });
    refuse_empty(fields, "roles");
    Some(roles)
}

fn people(fields: &mut Fields<'_, '_>) -> Option<Vec<String>> {
    fields.value("people")?;
    let mut seen = BTreeSet::new();
    let people = fields.list("people", MAX_PEOPLE, |value| {
        let person = fields::filled(value, Most::Chars(MAX_PERSON_CHARS));
        let person = person.and_then(|person| fields::readable(person, Lines::One))?;
        if seen.insert(person.to_lowercase()) { Ok(person.to_owned()) } else { Err("is named twice".to_owned()) }
    });
    refuse_empty(fields, "people");
    Some(people)
}

fn refuse_empty(fields: &mut Fields<'_, '_>, name: &str) {
    if fields.value(name).and_then(Value::as_array).is_some_and(Vec::is_empty) {
        fields.problem(name, "must not be empty: nobody could decide");
    }
}

/// Reads `approvals` of a policy.
pub(super) fn policy(fields: &mut Fields<'_, '_>) -> ApprovalPolicy {
    ApprovalPolicy {
        minimum: fields.whole("minimum", REQUIRED).unwrap_or(1),
        roles: roles(fields),
        by_self: word(fields, "self", "excluded or allowed"),
        owners: word(fields, "owners", "excluded or allowed"),
        max_expires_after_s: fields.whole("max_expires_after_s", SECONDS),
        waive: word(fields, "waive", "admins or nobody"),
        max_session_age_s: fields.whole("max_session_age_s", SECONDS),
    }
}

fn word<T: for<'de> Deserialize<'de> + Default>(fields: &mut Fields<'_, '_>, name: &str, known: &str) -> T {
    let read = |value: &Value| value.is_string().then(|| T::deserialize(value).ok()).flatten();
    fields.read(name, |value| read(value).ok_or_else(|| format!("must be {known}"))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::Policy;
    use crate::domain::plan::{Limits, parse};

    fn problems(step: &Value) -> Vec<String> {
        let plan = json!({"goal": "g", "steps": [step]});
        let found = parse(&plan, &Limits::default()).err().unwrap_or_default();
        found.into_iter().map(|problem| problem.path.replace("plan.steps[0].", "")).collect()
    }

    #[test]
    fn a_step_says_who_approves_it() {
        let asked = json!({"required": 2, "roles": ["admin"], "people": ["ann@acme.test", "ben"], "self": false,
            "expires_after_s": 86_400, "remind_after_s": 3_600, "reason": "Deploys to production"});
        let plan = json!({"goal": "g", "steps": [
            {"name": "a", "tool": "echo", "approval": asked}, {"name": "b", "tool": "echo", "approval": {}}, {"name": "c", "tool": "echo"},
        ]});
        let steps = parse(&plan, &Limits::default()).unwrap().steps;
        assert_eq!(serde_json::to_value(&steps[0].approval).unwrap(), asked);
        assert_eq!((steps[1].approval.clone(), steps[2].approval.clone()), (Some(Approval::default()), None));
    }

    #[test]
    fn every_wrong_field_is_reported_with_its_path() {
        for (approval, path) in [
            (json!(null), "approval"),
            (json!({"required": 0}), "approval.required"),
            (json!({"required": 21}), "approval.required"),
            (json!({"roles": []}), "approval.roles"),
            (json!({"roles": ["viewer"]}), "approval.roles[0]"),
            (json!({"roles": "approver"}), "approval.roles"),
            (json!({"people": []}), "approval.people"),
            (json!({"people": [" "]}), "approval.people[0]"),
            (json!({"people": ["ann", "Ann"]}), "approval.people[1]"),
            (json!({"people": ["ann"], "required": 2}), "approval.people"),
            (json!({"self": "no"}), "approval.self"),
            (json!({"expires_after_s": 60, "remind_after_s": 60}), "approval.remind_after_s"),
            (json!({"reason": " "}), "approval.reason"),
            (json!({"quorum": 1}), "approval.quorum"),
        ] {
            assert_eq!(problems(&json!({"name": "a", "tool": "echo", "approval": approval})), [path], "{approval}");
        }
    }

    #[test]
    fn a_step_that_only_asks_has_its_rule_in_its_inputs() {
        let manual = |approval: Value| json!({"name": "a", "tool": "manual:go", "timeout_s": 60, "inputs": {"approval": approval}});
        assert!(problems(&manual(json!({"required": 2, "remind_after_s": 59}))).is_empty());
        for (approval, path) in [
            (json!(7), "inputs.approval"),
            (json!(null), "inputs.approval"),
            (json!({"remind_after_s": 60}), "inputs.approval.remind_after_s"),
            (json!({"expires_after_s": 60}), "inputs.approval.expires_after_s"),
            (json!({"reason": "r"}), "inputs.approval.reason"),
            (json!({"people": ["${{ steps.x.outputs.who }}"]}), "inputs.approval"),
        ] {
            assert!(problems(&manual(approval.clone())).contains(&path.to_owned()), "{approval}");
        }
        assert_eq!(problems(&json!({"name": "a", "tool": "manual:go", "approval": {}})), ["approval"]);
    }

    #[test]
    fn a_policy_says_what_every_gate_demands() {
        let document = json!({"approvals": {"minimum": 2, "roles": ["admin"], "self": "allowed", "owners": "allowed",
            "max_expires_after_s": 3_600, "waive": "nobody", "max_session_age_s": 900}});
        let policy = Policy::parse(&document, "").unwrap();
        assert_eq!(serde_json::to_value(&policy.approvals).unwrap(), document["approvals"]);
        assert_eq!(Policy::parse(&json!({"approvals": null}), "").unwrap().approvals, ApprovalPolicy::default());
        for (approvals, path) in [
            (json!({"minimum": 0}), "minimum"),
            (json!({"roles": ["operator"]}), "roles[0]"),
            (json!({"self": true}), "self"),
            (json!({"owners": "yes"}), "owners"),
            (json!({"waive": "all"}), "waive"),
            (json!({"people": ["ann"]}), "people"),
        ] {
            let found = Policy::parse(&json!({ "approvals": approvals }), "document").unwrap_err();
            let paths: Vec<_> = found.iter().map(|problem| problem.path.as_str()).collect();
            assert_eq!(paths, [format!("document.approvals.{path}")], "{approvals}");
        }
    }
}
