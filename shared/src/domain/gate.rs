//! Decisions about gates.

use serde::{Deserialize, Serialize};

/// The gate at which a person decides whether a change may weaken its own checks. Only the handler of gates creates it, with
/// the difference that it is about.
pub const GATE_CHANGE: &str = "manual:gate-change";
/// How the types of gates start that evidence decides. Only the handler of gates creates them.
pub const ON_EVIDENCE: &str = "gate:";

/// How the types of gates start at which people approve a step before it starts. Only the system creates them.
pub const APPROVAL: &str = "approval:";

/// The gate at which a step waits for money. Only the system creates it, with the amount that it needs.
pub const BUDGET: &str = "budget";

/// Refuses types of gates that only the system creates: a person who decides about such a gate relies on what it shows.
pub fn check_type(gate_type: &str) -> Result<(), String> {
    let is = |reserved: &str| gate_type.trim().eq_ignore_ascii_case(reserved);
    let starts = |reserved: &str| {
        gate_type.trim().get(..reserved.len()).is_some_and(|start| start.eq_ignore_ascii_case(reserved))
    };
    if is(GATE_CHANGE) {
        let why = "only the system creates it, when a change weakens its own checks; choose another word";
        Err(format!("must not be {GATE_CHANGE}: {why}"))
    } else if is(BUDGET) {
        let why = "only the system creates it, when a budget is exhausted; choose another word, such as manual:budget";
        Err(format!("must not be {BUDGET}: {why}"))
    } else if starts(APPROVAL) {
        let why =
            "only the system creates it, before a step with an approval; choose another word, such as manual:release";
        Err(format!("must not start with {APPROVAL}: {why}"))
    } else if starts(ON_EVIDENCE) {
        let why = "only the system creates gates that evidence decides; choose another word, such as manual:release";
        Err(format!("must not start with {ON_EVIDENCE}: {why}"))
    } else {
        Ok(())
    }
}

/// A person's decision about a pending gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Approve,
    Reject,
    /// Passes the gate without evidence. The record says that it was waived.
    Waive,
}

impl Decision {
    /// What became of the gate: `approved`, `rejected` or `waived`.
    pub fn participle(self) -> &'static str {
        match self {
            Self::Approve => "approved",
            Self::Reject => "rejected",
            Self::Waive => "waived",
        }
    }

    /// Checks the reason of a decision. To reject or waive needs one. The error says what is wrong with it.
    pub fn check_reason(self, reason: Option<&str>) -> Result<(), String> {
        let is_given = self == Self::Approve || reason.is_some_and(|reason| !reason.trim().is_empty());
        if is_given { Ok(()) } else { Err(format!("must say why the gate is {}", self.participle())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_that_only_the_system_creates_are_refused() {
        for reserved in [
            "manual:gate-change",
            "Manual:Gate-Change",
            " manual:gate-change",
            "gate:unit",
            "GATE:x",
            "gate:",
            "Approval:echo",
            " Budget",
        ] {
            let why = check_type(reserved).unwrap_err();
            assert!(why.starts_with("must not") && why.contains("only the system creates"), "{why}");
        }
        for free in ["release", "manual:budget", "manual:gate-change-2", "gate", "security review", "ü", ""] {
            assert_eq!(check_type(free), Ok(()), "{free}");
        }
    }

    #[test]
    fn only_an_approval_needs_no_reason() {
        for reason in [None, Some(""), Some(" \n\t")] {
            assert_eq!(Decision::Approve.check_reason(reason), Ok(()));
            assert_eq!(Decision::Reject.check_reason(reason), Err("must say why the gate is rejected".to_owned()));
            assert_eq!(Decision::Waive.check_reason(reason), Err("must say why the gate is waived".to_owned()));
        }
        for decision in [Decision::Approve, Decision::Reject, Decision::Waive] {
            assert_eq!(decision.check_reason(Some("so")), Ok(()));
        }
    }
}
