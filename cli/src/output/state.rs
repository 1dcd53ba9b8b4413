//! States of runs, steps and gates: a symbol, a word and a colour for each.

use anstyle::Style;
use shared::domain::{GateStatus, RunStatus, StepStatus};

use super::color::{BAD, DIM, GOOD, LIVE, WAIT, paint};

/// How a state looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub symbol: char,
    pub word: &'static str,
    pub style: Style,
}

impl Look {
    const fn new(symbol: char, word: &'static str, style: Style) -> Self {
        Self { symbol, word, style }
    }

    /// `✓ succeeded`.
    pub fn text(self) -> String {
        format!("{} {}", self.symbol, self.word)
    }

    /// The same in its colour.
    pub fn painted(self) -> String {
        paint(self.style, self.text())
    }

    /// The symbol in its colour.
    pub fn mark(self) -> String {
        paint(self.style, self.symbol)
    }
}

pub fn run(status: RunStatus) -> Look {
    match status {
        RunStatus::Queued => Look::new('○', "queued", DIM),
        RunStatus::Running => Look::new('●', "running", LIVE),
        RunStatus::Blocked => Look::new('◆', "blocked", WAIT),
        RunStatus::Paused => Look::new('‖', "paused", WAIT),
        RunStatus::Succeeded => Look::new('✓', "succeeded", GOOD),
        RunStatus::Failed => Look::new('✗', "failed", BAD),
        RunStatus::Cancelled => Look::new('–', "cancelled", DIM),
    }
}

pub fn step(status: StepStatus) -> Look {
    match status {
        StepStatus::Pending => Look::new('○', "pending", DIM),
        StepStatus::Ready => Look::new('○', "ready", LIVE),
        StepStatus::Running => Look::new('●', "running", LIVE),
        StepStatus::Blocked => Look::new('◆', "blocked", WAIT),
        StepStatus::Succeeded => Look::new('✓', "succeeded", GOOD),
        StepStatus::Failed => Look::new('✗', "failed", BAD),
        StepStatus::Skipped => Look::new('–', "skipped", DIM),
        StepStatus::Cancelled => Look::new('–', "cancelled", DIM),
    }
}

pub fn gate(status: GateStatus) -> Look {
    match status {
        GateStatus::Pending => Look::new('◆', "pending", WAIT),
        GateStatus::Passed => Look::new('✓', "passed", GOOD),
        GateStatus::Failed => Look::new('✗', "failed", BAD),
        GateStatus::Waived => Look::new('✓', "waived", WAIT),
        GateStatus::Expired => Look::new('✗', "expired", BAD),
        GateStatus::Cancelled => Look::new('–', "cancelled", DIM),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_the_state_of_the_api() {
        for status in RunStatus::ALL {
            assert_eq!(run(status).word, status.to_string());
        }
        for status in [StepStatus::Pending, StepStatus::Ready, StepStatus::Blocked, StepStatus::Skipped] {
            assert_eq!(step(status).word, status.to_string());
        }
        for status in [GateStatus::Pending, GateStatus::Waived, GateStatus::Expired, GateStatus::Cancelled] {
            assert_eq!(gate(status).word, status.to_string());
        }
    }
}
