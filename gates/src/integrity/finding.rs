//! What a comparison found.

use serde::Serialize;

use super::difference::Difference;

/// The findings of a comparison, all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Integrity {
    /// Sorted by path, line and kind.
    pub findings: Vec<Weakening>,
}

/// One way in which a change weakens its checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Weakening {
    pub kind: WeakeningKind,
    pub path: String,
    /// In the change, or in the base for something deleted. `None`: the whole file.
    pub line: Option<u32>,
    /// For a person: one or two short sentences.
    pub message: String,
    pub difference: Option<Difference>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WeakeningKind {
    /// A gate is gone or checks less.
    DefinitionChanged,
    /// Another file that can change a verdict differs by meaning.
    ProtectedChanged,
    TestDeleted,
    TestSkipped,
    /// Only this test runs, so the others do not.
    TestFocused,
    /// The test passes when its code fails.
    TestInverted,
    /// The test is still there and asserts nothing.
    AssertionsRemoved,
    /// A framework's function is replaced by one of the change.
    CheckReplaced,
    IgnoreCommentAdded,
    /// Characters that people do not see, or take for others.
    HiddenCharacters,
    /// The file cannot be compared.
    Unreadable,
}

impl WeakeningKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::DefinitionChanged => "definition_changed",
            Self::ProtectedChanged => "protected_changed",
            Self::TestDeleted => "test_deleted",
            Self::TestSkipped => "test_skipped",
            Self::TestFocused => "test_focused",
            Self::TestInverted => "test_inverted",
            Self::AssertionsRemoved => "assertions_removed",
            Self::CheckReplaced => "check_replaced",
            Self::IgnoreCommentAdded => "ignore_comment_added",
            Self::HiddenCharacters => "hidden_characters",
            Self::Unreadable => "unreadable",
        }
    }
}

impl Weakening {
    pub fn new(kind: WeakeningKind, path: &str, line: Option<u32>, message: impl Into<String>) -> Self {
        Self { kind, path: path.to_owned(), line, message: message.into(), difference: None }
    }

    #[must_use]
    pub fn with(mut self, difference: Difference) -> Self {
        self.difference = Some(difference);
        self
    }
}

impl Integrity {
    pub fn new(mut findings: Vec<Weakening>) -> Self {
        findings.sort_by(|one, other| {
            (&one.path, one.line, one.kind, &one.message).cmp(&(&other.path, other.line, other.kind, &other.message))
        });
        findings.dedup();
        Self { findings }
    }
}
