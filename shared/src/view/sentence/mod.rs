//! Events as sentences: what happened in a run, for people. The console renders the parts as links, the command line as
//! plain text. Events of one transition and step are one entry: the most telling event leads, the others follow in small
//! print.

mod event;
mod group;
mod kind;
mod lead;
mod part;
pub mod words;

pub use event::{EventStep, Fallback, Message, Payload, TimelineEvent};
pub use group::entries;
pub use kind::EventKind;
pub use part::{Part, plain};

use std::fmt;

use crate::domain::Timestamp;

/// An entry of a timeline.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// Sequence number of the event that leads.
    pub seq: i64,
    pub timestamp: &'a Timestamp,
    pub symbol: Symbol,
    pub tone: Tone,
    /// A sentence without a full stop.
    pub sentence: Vec<Part<'a>>,
    /// Why it failed. It follows the sentence after a colon, and may have several lines.
    pub error: Option<&'a str>,
    /// What else the same transition did, in small print.
    pub also: Vec<Vec<Part<'a>>>,
    /// What a person or a gate said about it.
    pub quote: Option<&'a str>,
}

/// The symbol of an entry. Its name is that of the console's icon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symbol {
    Run,
    Arrow,
    Decide,
    Ready,
    Pending,
    Paused,
    Skipped,
    Cancelled,
    Waived,
    Lost,
    Again,
    Good,
    Bad,
    Doc,
    Model,
    Table,
}

/// The colour of an entry. The sentence says the same in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Bad,
    Warn,
    Busy,
    Quiet,
}

impl Symbol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Arrow => "arrow",
            Self::Decide => "decide",
            Self::Ready => "ready",
            Self::Pending => "pending",
            Self::Paused => "paused",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
            Self::Waived => "waived",
            Self::Lost => "lost",
            Self::Again => "again",
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Doc => "doc",
            Self::Model => "model",
            Self::Table => "table",
        }
    }
}

impl Tone {
    /// The class of the console. Empty for the usual colour of text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Warn => "warn",
            Self::Busy => "busy",
            Self::Quiet => "quiet",
        }
    }
}

/// The sentence and its error as one line of plain text.
impl fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sentence.iter().try_for_each(|part| part.fmt(f))?;
        match self.error.and_then(|error| error.lines().next()) {
            Some(line) => write!(f, ": {line}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "sentence_tests.rs"]
mod tests;
