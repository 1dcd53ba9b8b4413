//! Decisions about gates.

use serde::{Deserialize, Serialize};

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
    /// Checks the reason of a decision. To reject or waive needs one. The error says what is wrong with it.
    pub fn check_reason(self, reason: Option<&str>) -> Result<(), String> {
        let participle = match self {
            Self::Approve => return Ok(()),
            Self::Reject => "rejected",
            Self::Waive => "waived",
        };
        let is_given = reason.is_some_and(|reason| !reason.trim().is_empty());
        if is_given { Ok(()) } else { Err(format!("must say why the gate is {participle}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
