//! Pieces of a sentence.

use std::borrow::Cow;
use std::fmt;

use super::event::TimelineEvent;
use super::words;
use crate::domain::{ArtifactId, GateId};

/// A piece of a sentence. A page renders names as links, a terminal as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<'a> {
    Text(Cow<'a, str>),
    /// Who did it.
    Actor(&'a str),
    Step {
        name: &'a str,
        ordinal: Option<i64>,
    },
    Gate {
        gate_type: &'a str,
        id: Option<GateId>,
    },
    Artifact {
        name: &'a str,
        id: Option<ArtifactId>,
    },
    /// A table, a model or a field.
    Code(Cow<'a, str>),
    /// Milliseconds.
    Duration(i64),
}

impl fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Code(text) => f.write_str(text),
            Self::Actor(name) | Self::Step { name, .. } | Self::Artifact { name, .. } => f.write_str(name),
            Self::Gate { gate_type, .. } => f.write_str(gate_type),
            Self::Duration(ms) => f.write_str(&words::duration(*ms)),
        }
    }
}

/// The parts as plain text.
pub fn plain(parts: &[Part<'_>]) -> String {
    parts.iter().map(ToString::to_string).collect()
}

// Constructors.

pub(super) fn text<'a>(text: impl Into<Cow<'a, str>>) -> Part<'a> {
    Part::Text(text.into())
}

pub(super) fn code(text: &str) -> Part<'_> {
    Part::Code(Cow::Borrowed(text))
}

/// Who did it. Older events do not say it.
pub(super) fn actor(event: &TimelineEvent) -> Part<'_> {
    event.payload.actor.as_deref().map_or(text("Somebody"), Part::Actor)
}

pub(super) fn step(event: &TimelineEvent) -> Part<'_> {
    event.step.as_ref().map_or(text("A step"), |step| Part::Step { name: &step.name, ordinal: step.ordinal })
}

pub(super) fn gate(event: &TimelineEvent) -> Part<'_> {
    let id = event.payload.gate_id;
    event.payload.gate_type.as_deref().map_or(text("a gate"), |gate_type| Part::Gate { gate_type, id })
}

pub(super) fn artifact(event: &TimelineEvent) -> Part<'_> {
    let id = event.payload.artifact_id;
    event.payload.name.as_deref().map_or(text("an artifact"), |name| Part::Artifact { name, id })
}
