//! Why a gate ends without passing.

use super::request::{Question, RunnerLost};
use crate::finding::{ExamineError, InfraError, Reason};

pub enum Stop {
    Failed(Reason),
    Ask(Question),
    Infra(InfraError),
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Failed(reason)
    }
}

impl From<InfraError> for Stop {
    fn from(error: InfraError) -> Self {
        Self::Infra(error)
    }
}

impl From<ExamineError> for Stop {
    fn from(error: ExamineError) -> Self {
        match error {
            ExamineError::GateFailed(reason) => Self::Failed(reason),
            ExamineError::Infra(error) => Self::Infra(error),
        }
    }
}

impl From<RunnerLost> for Stop {
    fn from(lost: RunnerLost) -> Self {
        Self::Infra(lost.into())
    }
}
