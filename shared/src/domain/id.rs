//! Newtype ids, so that a step's id cannot be passed as a run's id.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_id!(
    /// One execution of a plan.
    RunId
);
uuid_id!(
    /// A node of a plan inside a run.
    StepId
);
uuid_id!(
    /// A gate before a step or before a run's end.
    GateId
);
uuid_id!(
    /// A stored output.
    ArtifactId
);

uuid_id!(
    /// An API token, or the session of a person.
    TokenId
);
uuid_id!(
    /// A one-time link to a gate.
    LinkId
);

/// The tenant that a row belongs to. Part of every query.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct TenantId(pub String);

impl TenantId {
    const MAX_BYTES: usize = 64;

    /// A tenant's id from outside: letters, digits, `_`, `-` and `.`, without a dot at the start, 1 to 64 of them.
    pub fn parse(text: &str) -> Option<Self> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        let is_id =
            (1..=Self::MAX_BYTES).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(is_allowed);
        is_id.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
