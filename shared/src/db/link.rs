//! One-time links to gates.

use serde::{Deserialize, Serialize};

use super::session::Session;
use crate::domain::principal::TokenHash;
use crate::domain::{GateId, LinkId, Timestamp};
use crate::error::Error;
use crate::view::{Gate, WhyNot};

/// A link to make.
#[derive(Debug, Serialize)]
pub struct NewLink<'a> {
    pub id: LinkId,
    pub gate_id: GateId,
    /// The subject of a member, or an e-mail address.
    #[serde(rename = "for")]
    pub person: &'a str,
    /// In hex. The database never gets the secret.
    pub secret_sha256: String,
    pub expires_in_s: u32,
}

/// Result of making a link.
#[derive(Debug, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum LinkMade {
    Created {
        /// The name of the member.
        #[serde(rename = "for")]
        name: String,
        subject: String,
        digest: String,
        expires_at: Timestamp,
    },
    NotFound,
    /// The gate was decided, or has expired.
    Conflict {
        gate: Box<Gate>,
    },
    /// No member is named so, or several are.
    Nobody {
        several: bool,
    },
    /// The member may not approve the gate.
    Excluded {
        why: WhyNot,
    },
    /// The gate has no digest.
    Unbound,
    /// The gate has as many open links as it may have.
    TooMany {
        most: u32,
    },
}

/// What somebody who has a link proves with it.
#[derive(Debug, Clone, Serialize)]
pub struct LinkProof {
    pub id: LinkId,
    /// In hex.
    secret_sha256: String,
}

impl LinkProof {
    pub fn new(id: LinkId, hash: TokenHash) -> Self {
        Self { id, secret_sha256: hash.to_hex() }
    }
}

/// Why a link cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkFault {
    /// There is no such link to this gate.
    Unknown,
    /// It is for somebody else.
    Other,
    Used,
    Expired,
    /// The gate asks about something else than when the link was made.
    Changed,
}

/// What somebody who opens a link may know.
#[derive(Debug, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum LinkOpened {
    NotFound,
    /// It is for somebody else.
    Other,
    /// Its person can use it, or the gate does not wait any more.
    Open(LinkState),
    Used(LinkState),
    Expired(LinkState),
    Changed(LinkState),
}

/// A link, for its person.
#[derive(Debug, Deserialize)]
pub struct LinkState {
    pub gate_id: GateId,
    /// The name of its person.
    #[serde(rename = "for")]
    pub name: String,
    pub expires_at: Timestamp,
    pub used_at: Option<Timestamp>,
    /// What has changed since it was made, as paths of digests.
    pub changed: Vec<String>,
}

/// Makes a link.
pub async fn link_create(session: &Session, new: &NewLink<'_>) -> Result<LinkMade, Error> {
    session.transition("select nofx.link_create($1)", new).await
}

/// Looks a link up, for somebody who wants to see its gate, or who `decides` with it. Changes nothing.
pub async fn link_open(session: &Session, link: &LinkProof, decides: bool) -> Result<LinkOpened, Error> {
    #[derive(Debug, Serialize)]
    struct Call<'a> {
        link: &'a LinkProof,
        decides: bool,
    }
    session.transition("select nofx.link_open($1)", &Call { link, decides }).await
}
